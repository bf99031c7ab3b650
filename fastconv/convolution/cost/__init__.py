"""The cost model: work counted from plans (`counts`) times measured rates (`rates`) is seconds (`model`), which a
factor by the sizes of the case corrects (`correction`).
"""
