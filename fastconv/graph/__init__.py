"""A tape, which records forward/backward pairs as they run, and then computes the gradients.

A forward/backward pair is two functions. ``forward(*args)`` returns ``(out, cache)``. ``backward(dout, cache)`` returns
the gradients with respect to the first arguments of ``forward``. The layers of fastconv are pairs. You can also pass
your own pairs to a tape.
"""

from fastconv.graph.node import Gradients, Node
from fastconv.graph.tape import Tape

__all__ = ["Gradients", "Node", "Tape"]
