"""Convolution with pruned weights: weights that are zero cost no multiply-add."""
