"""Shape arithmetic: every size of a convolution or a pooling as one frozen value; no arrays."""
