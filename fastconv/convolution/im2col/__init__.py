"""Convolution by lowering an image to a matrix of columns, followed by a matrix product."""
