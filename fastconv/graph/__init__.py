"""A tape for networks of any shape: it records forward/backward pairs as they run, and then runs backward.

This package knows no particular layer. A pair is two functions: ``forward(*args) -> (out, cache)``, and
``backward(dout, cache)``, which returns the gradients of the first arguments. The functions of fastconv are such pairs,
and so are the solutions of a homework and functions that you write.
"""

from fastconv.graph.node import Gradients, Node
from fastconv.graph.tape import Tape

__all__ = ["Gradients", "Node", "Tape"]
