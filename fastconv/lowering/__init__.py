"""im2col and col2im (`columns`), and pad modes as operations on arrays (`padding`)."""
