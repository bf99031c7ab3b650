"""Pooling: the maximum, the mean, a norm or any other function of each window."""
