"""Convolution as a product with its sparse Toeplitz matrix, and the CSR arrays of this matrix."""
