"""Implicit GEMM: the matrix product of im2col, without a matrix of columns in memory."""
