"""Convolution by its sparse matrix, and the arrays of that matrix."""
