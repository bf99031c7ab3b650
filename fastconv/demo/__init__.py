"""The demo behind ``python -m fastconv``: a small convolutional net learns real handwritten digits."""
