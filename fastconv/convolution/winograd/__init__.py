"""Winograd's minimal filtering F(m, r), which is also known as Toom-Cook convolution."""
