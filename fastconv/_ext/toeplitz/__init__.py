"""The sparse matrix of a convolution."""
