"""Convolution by the nonzero weights only, and the density of weights."""
