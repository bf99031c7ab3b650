"""Copies of blocks of images, panels of weights, and copies that transpose axes."""
