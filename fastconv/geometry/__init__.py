"""Shape arithmetic: all sizes of a convolution or a pooling, as frozen values without arrays."""
