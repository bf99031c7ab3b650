"""Direct convolution of one channel at a time."""
