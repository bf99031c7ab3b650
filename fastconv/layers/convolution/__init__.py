"""Convolution and transposed convolution as layers, and resampling."""
