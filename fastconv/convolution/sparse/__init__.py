"""Convolution with pruned weights: zero weights take no multiply-adds."""
