"""The cost model: work counted from plans (`counts`) times measured rates (`rates`) is seconds (`model`)."""
