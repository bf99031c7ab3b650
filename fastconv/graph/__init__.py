"""A tape for nets that are no chain: it records forward/backward pairs as they run, and then runs backward.

Nothing here knows a layer. A pair is two functions, ``forward(*args) -> (out,
cache)`` and ``backward(dout, cache) -> gradients of the first arguments``;
the functions of fastconv are such pairs, and so are those of a homework, and your own.
"""

from fastconv.graph.node import Gradients, Node
from fastconv.graph.tape import Tape

__all__ = ["Gradients", "Node", "Tape"]
