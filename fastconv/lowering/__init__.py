"""im2col and col2im (`columns`), and mirrored, replicated and circular padding of arrays (`padding`)."""
