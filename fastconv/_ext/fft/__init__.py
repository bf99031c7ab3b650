"""Convolution by fast Fourier transforms of tiles."""
