"""A tape for nets that are no chain: forward/backward pairs are recorded as they run, and gradients taken back.

Nothing here knows a layer. A pair is two functions, ``forward(*args) -> (out,
cache)`` and ``backward(dout, cache) -> gradients of the first arguments``;
fastconv's are such, those of a homework are, and any of your own.
"""

from fastconv.graph._node import Gradients, Node
from fastconv.graph._tape import Tape

__all__ = ["Gradients", "Node", "Tape"]
