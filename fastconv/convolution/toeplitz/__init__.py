"""Convolution as a product with its sparse Toeplitz matrix, and the arrays of this matrix."""
