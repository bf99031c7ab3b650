"""Pooling: maxima, means, norms and any function of windows."""
