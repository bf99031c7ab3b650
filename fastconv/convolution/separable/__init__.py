"""Convolution with kernels that are outer products: one axis after the other."""
