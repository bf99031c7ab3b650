"""Implicit GEMM: a product of weights and image in which no matrix of columns exists."""
