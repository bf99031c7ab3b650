"""im2col, col2im, and padding by copies of cells."""
