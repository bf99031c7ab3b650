"""A tape, which records forward/backward pairs as they run, and then computes the gradients.

A forward/backward pair is two functions. The first is ``forward(*args) -> (out, cache)``. The second is
``backward(dout, cache)``, and returns the gradients of the first arguments. The layers of fastconv are such pairs. You
can write such a pair yourself, so the tape works with any layer.
"""

from fastconv.graph.node import Gradients, Node
from fastconv.graph.tape import Tape

__all__ = ["Gradients", "Node", "Tape"]
