"""Shape arithmetic: all sizes of a convolution or a pooling, as immutable values without arrays."""
