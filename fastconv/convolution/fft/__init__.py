"""Convolution by fast Fourier transforms of tiles of an image."""
