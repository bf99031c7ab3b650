"""Convolution by kernels that are outer products, axis by axis."""
