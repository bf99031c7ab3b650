"""`Tape`, which records a forward pass and computes its gradients."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import kind_of
from fastconv.checks.options import as_bool, as_number
from fastconv.graph import pairs as _pairs
from fastconv.graph.backward import (
    GradientSums,
    backward_step,
    find_backward,
    finish,
    name_of,
    reached,
    refuse_unused,
)
from fastconv.graph.node import Gradients, Node, needs_of
from fastconv.graph.recorder import Recorder


class Tape(Recorder):
    """Records calls of forward functions, and computes gradients by running the backward functions.

    A tape serves one forward and one backward pass. A value may be an argument
    of several calls, because the tape sums its gradients. So any acyclic graph
    works. The backward pass visits the calls in reverse order, and frees each
    cache after use. A call that depends on no parameter keeps no cache. There
    is no global state, so tapes do not affect each other.

    Examples
    --------
    A residual block:

    >>> import numpy as np
    >>> from fastconv import conv_forward, relu_forward, affine_forward, softmax_loss
    >>> from fastconv.graph import Tape
    >>> rng = np.random.default_rng(0)
    >>> params = {'w1': rng.standard_normal((3, 3, 3, 3)), 'w2': rng.standard_normal((3 * 8 * 8, 10))}
    >>> images, labels = rng.standard_normal((4, 3, 8, 8)), np.array([0, 3, 9, 3])
    >>> tape = Tape()
    >>> p = tape.params(params)
    >>> x = tape.input(images)
    >>> h = tape(conv_forward, x, p['w1'], None, {'stride': 1, 'pad': 1})
    >>> h = tape(relu_forward, h + x)
    >>> loss = tape(softmax_loss, tape(affine_forward, h, p['w2'], None), labels)
    >>> grads = tape.backward(loss)
    >>> grads['w1'].shape, grads['w2'].shape
    ((3, 3, 3, 3), (192, 10))
    """

    def __repr__(self) -> str:
        return f"Tape({'backward has run' if self._spent else f'{len(self)} calls recorded'})"

    def input(self, value: Any, name: str | None = None, *, requires_grad: bool = False) -> Node:
        """Put data on the tape.

        Parameters
        ----------
        value : array_like
            Not copied.
        name : str, optional
            The name of the node and of its gradient; unique on the tape.
        requires_grad : bool, default False
            Whether `backward` computes the gradient by this node, as for a
            saliency map. If False, the first layer does not compute its ``dx``.

        Returns
        -------
        Node

        Raises
        ------
        ValueError
            If the name is taken.
        TypeError
            For complex or object values.
        RuntimeError
            If `backward` has run on this tape.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> Tape().input(np.zeros((4, 3, 8, 8)))
        Node(shape (4, 3, 8, 8))
        """
        return self._leaf(value, name, as_bool("requires_grad", requires_grad))

    def param(self, value: Any, name: str | None = None) -> Node:
        """Put a parameter on the tape: a value whose gradient `backward` computes.

        Parameters
        ----------
        value : array_like
            The array is not copied, so change it only after `backward`.
        name : str, optional
            The name of the node and of its gradient; unique on the tape.

        Returns
        -------
        Node

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `input`.

        Examples
        --------
        >>> from fastconv.graph import Tape
        >>> Tape().param([[1.0, 2.0]], 'w')
        Node('w', shape (1, 2), requires_grad)
        """
        return self._leaf(value, name, True)

    def params(self, values: Mapping[str, Any]) -> dict[str, Node]:
        """Put all parameters of a dict on the tape, under their names.

        Parameters
        ----------
        values : dict of str to array_like

        Returns
        -------
        dict of str to Node

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `param`.

        Examples
        --------
        >>> from fastconv.graph import Tape
        >>> Tape().params({'w': [1.0], 'b': [0.0]})['b']
        Node('b', shape (1,), requires_grad)
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a dict of names and arrays, got {type(values).__name__}")
        return {name: self.param(value, name) for name, value in values.items()}

    def __call__(self, forward: Any, *args: Any, backward: Callable[..., Any] | None = None, **options: Any) -> Any:
        """Run a layer and record it.

        Parameters
        ----------
        forward : callable, or tuple of two
            ``forward(*args, **options) -> (out, cache)``, or the pair
            ``(forward, backward)``. Several outputs are ``(out1, out2, cache)``.
            A function that returns ``(loss, gradient)`` counts as a loss if
            ``loss`` is a word of its name, as in ``softmax_loss``; for other
            names call the method `loss`.
        *args
            Arguments of `forward`. Anything that is not a node counts as constant.
        backward : callable, optional
            ``backward(dout, cache)``, one `dout` for each output. It returns the
            gradients of the first arguments: one array, or a tuple in the order
            of the arguments, with None for an argument without gradient. The
            default is the function of the same module (for a method: the
            method of the same object) that has ``backward`` in place of
            ``forward`` in its name, as `conv_backward` for `conv_forward`. If
            it has a parameter such as ``need_dx``, the tape passes whether the
            gradient of ``x`` is needed.
        **options
            Keyword arguments of `forward`; nodes are not allowed here.

        Returns
        -------
        Node, or tuple of Node
            One for each output.

        Raises
        ------
        TypeError
            If no backward is found, or `forward` returns no cache.
        ValueError
            For a node of another tape.
        RuntimeError
            If `backward` has run on this tape.

        Examples
        --------
        A forward and a backward function of your own:

        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> def square(x):
        ...     return x * x, x
        >>> def square_gradient(dout, x):
        ...     return 2 * x * dout
        >>> tape = Tape()
        >>> x = tape.param(np.array([1.0, 3.0]))
        >>> y = tape(square, x, backward=square_gradient)
        >>> tape.backward(y, np.ones(2))[x]
        array([2., 6.])
        """
        if isinstance(forward, tuple) and len(forward) == 2:
            if backward is not None:
                raise TypeError("backward is given both in the pair (forward, backward) and as a keyword; give it once")
            forward, backward = forward
        name = name_of(forward)
        if not callable(forward) or not (backward is None or callable(backward)):
            raise TypeError(f"forward and backward must be functions, got {forward!r} and {backward!r}")
        if backward is None:
            backward = find_backward(forward)
        if backward is None:
            if "loss" in name.split("_"):
                return self.loss(forward, *args, **options)
            raise TypeError(
                f"{name} has no backward function in its module; pass one as backward=, or pass a pair (forward, "
                "backward); if the function is a loss and returns (loss, gradient), call tape.loss"
            )
        result = forward(*self._values(name, args, options), **options)
        if not isinstance(result, tuple) or len(result) < 2:
            got = f"a tuple of {len(result)}" if isinstance(result, tuple) else kind_of(result)
            raise TypeError(f"{name} must return (out, cache) on a tape, got {got}")
        for out in result[:-1]:
            if not isinstance(out, (np.ndarray, numbers.Number)):
                raise TypeError(
                    f"{name} must return (out, cache) on a tape, where out is an array or a number, got an out that is "
                    f"{kind_of(out)}"
                )
        nodes = self._record(name, backward, args, result[:-1], result[-1], needs_of(forward, backward, args))
        return nodes if len(nodes) > 1 else nodes[0]

    def loss(self, function: Callable[..., Any], *args: Any, **options: Any) -> Node:
        """Run a loss function and record it. A loss function returns the loss and its gradient.

        Parameters
        ----------
        function : callable
            ``function(*args, **options) -> (loss, dx)``: a number, and the
            gradient of the first argument or a tuple of the gradients of the
            first arguments. `softmax_loss` is an example.
        *args, **options
            Arguments of `function`, as in a call of the tape.

        Returns
        -------
        Node
            A node of shape ``()``. Losses may be added and scaled.

        Raises
        ------
        TypeError
            If `function` returns anything else.
        ValueError, RuntimeError
            As for a call of the tape.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> def decay(w, strength):
        ...     return 0.5 * strength * (w * w).sum(), strength * w
        >>> tape = Tape()
        >>> w = tape.param(np.array([3.0, 4.0]), 'w')
        >>> loss = tape.loss(decay, w, 0.1)
        >>> float(loss), tape.backward(loss)['w']
        (1.25, array([0.3, 0.4]))
        """
        name = name_of(function)
        if not callable(function):
            raise TypeError(f"function must be a function that returns (loss, gradient), got {function!r}")
        result = function(*self._values(name, args, options), **options)
        if not isinstance(result, tuple) or len(result) != 2 or np.ndim(result[0]) != 0:
            got = f"a tuple of {len(result)}" if isinstance(result, tuple) else kind_of(result)
            raise TypeError(f"{name} must return (loss, gradient), where loss is a number, got {got}")
        return self._record(name, _pairs.loss_backward, args, result[:1], result[1], {})[0]

    def add(self, *nodes: Any) -> Node:
        """Add values of equal shape, as at the end of a skip connection. ``a + b`` does the same.

        Parameters
        ----------
        *nodes : Node or array_like
            Values of equal shape; they are not broadcast.

        Returns
        -------
        Node

        Raises
        ------
        ValueError
            If there are no values, or their shapes differ.

        References
        ----------
        K. He et al., "Deep residual learning for image recognition",
        arXiv:1512.03385.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> tape.add(tape.input(np.ones(2)), tape.input(np.arange(2.0))).value
        array([1., 2.])
        """
        return self(_pairs.ADD, *nodes)

    def concat(self, nodes: Sequence[Any], axis: int = 1) -> Node:
        """Concatenate values along an axis, such as the outputs of the branches of an inception module.

        Parameters
        ----------
        nodes : sequence of Node or array_like
            Values whose shapes are equal except along `axis`.
        axis : int, default 1
            The axis along which to concatenate; channels by default.

        Returns
        -------
        Node

        Raises
        ------
        ValueError
            If there are no values, or their shapes do not fit.
        TypeError
            If `nodes` is a single node.

        References
        ----------
        C. Szegedy et al., "Going deeper with convolutions", arXiv:1409.4842.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> tape.concat([tape.input(np.ones((1, 2, 5, 5))), tape.input(np.ones((1, 3, 5, 5)))]).shape
        (1, 5, 5, 5)
        """
        if not isinstance(nodes, (list, tuple)):
            raise TypeError(f"nodes must be a list of nodes, got {type(nodes).__name__}")
        return self(_pairs.CONCAT, *nodes, axis=axis)

    def flatten(self, node: Any) -> Node:
        """Flatten every axis but the first: ``(N, C, *spatial)`` becomes ``(N, D)``.

        Parameters
        ----------
        node : Node
            A node with at least one axis.

        Returns
        -------
        Node
            Its value is a view of the value of `node` if possible, else a copy.

        Raises
        ------
        ValueError
            For a node without axes.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> tape.flatten(tape.input(np.ones((2, 3, 4, 4)))).shape
        (2, 48)
        """
        return self(_pairs.FLATTEN, node)

    def scale(self, node: Any, factor: float) -> Node:
        """Multiply a value by a number, such as the weight of an auxiliary loss. ``factor * node`` does the same.

        Parameters
        ----------
        node : Node
        factor : float

        Returns
        -------
        Node

        Raises
        ------
        TypeError
            If `factor` is not a number.
        ValueError
            If it is not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> tape.scale(tape.input(np.ones(2)), 0.5).value
        array([0.5, 0.5])
        """
        return self(_pairs.SCALE, node, as_number("factor", factor))

    def backward(
        self,
        node: Node,
        dout: Any = None,
        *,
        keep: Node | Iterable[Node] = (),
        unused: Literal["error", "zero"] = "error",
    ) -> Gradients:
        """Compute the gradients of `node` with respect to every parameter. A tape allows only one call of `backward`.

        Parameters
        ----------
        node : Node
            The loss, or any other node.
        dout : array_like, optional
            The gradient with respect to `node`, of the shape of `node`. It may be
            left out if `node` is a loss, a node of shape ``()``. Then it is 1.
        keep : Node or iterable of Node, optional
            Intermediate nodes whose gradients are returned, too. The gradient
            of any other intermediate node is freed after its last use.
        unused : {'error', 'zero'}, default 'error'
            What to do if no gradient reaches a parameter or a node of `keep`:
            raise an error with its name, or return a gradient of zeros. No
            gradient reaches it if `node` does not depend on it, if a call got
            an array or ``.value`` in place of a node, or if a backward function
            returned None for it.

        Returns
        -------
        Gradients
            A mapping of names to arrays. A node also works as a key.

        Raises
        ------
        RuntimeError
            If `backward` has run on this tape before, because it freed the caches.
        ValueError
            If there are no parameters, no gradient reaches one of them and `unused`
            is 'error', the shape of `dout` or of a backward function's gradient is
            wrong, or `dout` is missing and `node` is no loss.
        TypeError
            If `node` is not a node, or a backward function returned too few gradients,
            or None instead of a tuple.

        References
        ----------
        S. Linnainmaa, "Taylor expansion of the accumulated rounding error",
        BIT 16, 1976: reverse accumulation.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import relu_forward
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> x = tape.input(np.array([-1.0, 2.0]), 'x', requires_grad=True)
        >>> y = tape(relu_forward, x) + x
        >>> tape.backward(y, [1, 1])['x']
        array([1., 2.])
        >>> tape.backward(y, [1, 1])
        Traceback (most recent call last):
            ...
        RuntimeError: backward has run on this tape already and freed its caches; record the forward pass on a new Tape
        """
        self._check_open()
        if not isinstance(keep, (Node, Iterable)):
            raise TypeError(f"keep must be a Node or an iterable of nodes, got {type(keep).__name__}")
        others = [self._own(other, "keep") for other in ((keep,) if isinstance(keep, Node) else keep)]
        if not isinstance(unused, str) or unused not in ("error", "zero"):
            kind = ValueError if isinstance(unused, str) else TypeError
            raise kind(f"unused must be 'error' or 'zero', got {unused!r}")
        node = self._own(node, "node")
        wanted = self._wanted(node, others)
        if unused == "error":
            refuse_unused(node, wanted, reached(node._index, reversed(self._records)), self._why_unused)
        if dout is None:
            if node.shape != ():
                raise ValueError(f"{node} is not a loss, so pass its gradient, of shape {node.shape}, as dout")
            dout = 1.0
        dtype = _arrays.result_dtype(np.asarray(node.value))
        given = _arrays.cast_gradient("dout", dout, node.shape, dtype)
        kept = {other._index: other.value for other in others}
        sums = GradientSums(kept)
        sums.add(node._index, given, own=False)
        records, self._records = self._records, []
        leaves, self._leaves, self._spent = self._leaves, [], True
        while records:
            backward_step(records.pop(), sums)
        if unused == "error":
            refuse_unused(node, wanted, sums.arrays, sums.why_none)
        names = {name: index for name, index in self._names.items() if index is not None}
        return Gradients(self, names, finish(leaves, kept, sums))
