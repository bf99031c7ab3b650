"""Convolution with kernels that are outer products, computed along one axis after the other."""
