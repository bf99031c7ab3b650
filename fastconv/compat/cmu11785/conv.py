"""The convolutions of 11-785's Conv1d.py, Conv2d.py and ConvTranspose.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import layers
from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import channels_last_hint, count
from fastconv.checks.options import as_int, per_axis
from fastconv.compat.cmu11785.resampling import Downsample1d, Downsample2d, signals
from fastconv.compat.shared import common, cropped, ran_forward, zero_padded
from fastconv.layers.convolution.conv import prepare_cache

_INITIAL = {1: "(out_channels, in_channels, kernel_size)", 2: "(out_channels, in_channels, kernel_size, kernel_size)"}


class _Stride1:
    """The base class of the layers with stride 1. It holds the weights, the bias and their gradients."""

    _rank = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        weight_init_fn: Callable | None = None,
        bias_init_fn: Callable | None = None,
    ) -> None:
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = kernel_size
        kernel = per_axis("kernel_size", kernel_size, self._rank, 1)
        shape = as_int("out_channels", out_channels, 1), as_int("in_channels", in_channels, 1), *kernel
        self.W: Any
        self.b: Any
        if weight_init_fn is None:
            # Draw from NumPy's global generator, as the course does.
            self.W = np.random.normal(0, 1.0, shape)  # noqa: NPY002
        else:
            self.W = _initial("weight_init_fn", weight_init_fn, shape)
        dtype = _arrays.result_dtype(self.W)
        self.b = np.zeros(shape[0], dtype)
        if bias_init_fn is not None:
            self.b = _initial("bias_init_fn", bias_init_fn, shape[:1])
        self.dLdW, self.dLdb = np.zeros(shape, dtype), np.zeros(shape[0], _arrays.result_dtype(self.b))
        self.A: Any = None

    def _operands(self, A: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Check the shapes of A, W and b, and return these arrays in their common dtype, float32 or float64."""
        A, W, b = signals("A", A, self._rank), _arrays.as_array("W", self.W), _arrays.as_array("b", self.b)
        if W.ndim != self._rank + 2 or not all(W.shape):
            raise ValueError(f"W must be {_INITIAL[self._rank]}, got shape {W.shape}")
        if A.shape[1] != W.shape[1]:
            hint = channels_last_hint("A", A.shape, W.shape[1])
            raise ValueError(
                f"A {A.shape} has {count(A.shape[1], 'channel')}, but W {W.shape} takes {W.shape[1]}{hint}"
            )
        if b.shape != W.shape[:1]:
            raise ValueError(
                f"b has shape {b.shape}, but W {W.shape} has {count(len(W), 'filter')}; b must be ({len(W)},)"
            )
        A, W, b = common(A, W, b)
        return A, W, b

    def _forward(self, A: Any, strides: tuple[int, ...]) -> np.ndarray:
        return layers.conv(*self._operands(A), stride=strides)

    def _backward(self, dLdZ: Any, strides: tuple[int, ...]) -> np.ndarray:
        layer = prepare_cache("conv_backward", *self._operands(self.A), None, {"stride": strides})
        dLdZ = _arrays.cast_gradient("dLdZ", dLdZ, layer.geometry.out_shape, layer.x.dtype)
        dLdA, dLdW, dLdb = layers.conv_backward(dLdZ, layer)
        assert dLdA is not None and dLdW is not None and dLdb is not None
        self.dLdW, self.dLdb = dLdW, dLdb
        return dLdA

    def forward(self, A: Any) -> np.ndarray:
        """Cross-correlate `A` (batch_size, in_channels, *input_size) with `W`, and add `b`."""
        Z = self._forward(A, (1,) * self._rank)
        self.A = A
        return Z

    def backward(self, dLdZ: Any) -> np.ndarray:
        """Return the gradient with respect to `A`, and set `dLdW` and `dLdb`.

        `dLdZ` is the gradient with respect to the output. It is cast to the dtype of the output.
        """
        ran_forward(self, self.A)
        return self._backward(dLdZ, (1,) * self._rank)


def _initial(name: str, function: Callable, shape: tuple[int, ...]) -> np.ndarray:
    if not callable(function):
        raise TypeError(f"{name} must be a function or None, got {type(function).__name__}")
    values = _arrays.as_array(f"the result of {name}", function(*shape))
    if values.shape != shape:
        raise ValueError(f"{name}{shape} must return an array of shape {shape}, got shape {values.shape}")
    return values


def _inner(name: str, doc: str) -> Any:
    """Return a property that reads and writes an attribute of the inner layer, which has stride 1."""
    return property(
        lambda self: getattr(self._layer, name), lambda self, value: setattr(self._layer, name, value), doc=doc
    )


class Composed:
    """The base class of layers that contain a layer with stride 1. This inner layer holds the weights and the bias."""

    _rank = 1

    @property
    def _layer(self) -> _Stride1:
        return getattr(self, f"conv{self._rank}d_stride1")

    W = _inner("W", "Weights of the inner layer.")
    b = _inner("b", "Bias of the inner layer.")
    dLdW = _inner("dLdW", "Gradient of the weights of the inner layer.")
    dLdb = _inner("dLdb", "Gradient of the bias of the inner layer.")


class _Strided(Composed):
    def __init__(self, stride: int, padding: int) -> None:
        self.stride, self.pad = stride, padding
        self._options()

    @property
    def _downsample(self) -> Downsample1d | Downsample2d:
        return getattr(self, f"downsample{self._rank}d")

    def _options(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return per_axis("stride", self.stride, self._rank, 1), per_axis("padding", self.pad, self._rank, 0)

    def forward(self, A: Any) -> np.ndarray:
        """Cross-correlate `A` (batch_size, in_channels, *input_size) with `W`, and add `b`."""
        strides, pads = self._options()
        A = signals("A", A, self._rank)
        # In the course, the attribute A of the inner layer is the padded input.
        padded = zero_padded(A, pads, 2, _arrays.result_dtype(A))
        Z = self._layer._forward(padded, strides)
        self._layer.A = padded
        kernel = _arrays.as_array("W", self._layer.W).shape[2:]
        unit = (n - k + 1 for n, k in zip(padded.shape[2:], kernel, strict=True))
        self._downsample._seen((*Z.shape[:2], *unit))
        return Z

    def backward(self, dLdZ: Any) -> np.ndarray:
        """Return the gradient with respect to `A`, and set `dLdW` and `dLdb`.

        `dLdZ` is the gradient with respect to the output. It is cast to the dtype of the output.
        """
        ran_forward(self, self._layer.A)
        strides, pads = self._options()
        return np.ascontiguousarray(cropped(self._layer._backward(dLdZ, strides), pads, 2))


class Conv1d_stride1(_Stride1):
    """Cross-correlation along one axis with a stride of 1.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
    weight_init_fn : function, optional
        ``weight_init_fn(out_channels, in_channels, kernel_size)`` returns W;
        without it W is drawn by ``np.random.normal``.
    bias_init_fn : function, optional
        ``bias_init_fn(out_channels)`` returns b; without it b is zeros.

    Attributes
    ----------
    W : ndarray, (out_channels, in_channels, kernel_size)
    b : ndarray, (out_channels,)
        They may be reassigned or changed in place.
    dLdW, dLdb : ndarray
        Gradients: zeros at first; every `backward` sets new arrays.
    A : array_like
        The input of the last `forward`.

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.conv import Conv1d_stride1
    >>> layer = Conv1d_stride1(1, 1, 2, lambda *shape: np.array([[[1.0, 10.0]]]))
    >>> layer.forward(np.array([[[1, 2, 3]]]))
    array([[[21., 32.]]])
    >>> layer.backward(np.ones((1, 1, 2)))
    array([[[ 1., 11., 10.]]])
    >>> layer.dLdW, layer.dLdb
    (array([[[3., 5.]]]), array([2.]))
    """


class Conv1d(_Strided):
    """Cross-correlation along one axis with a stride.

    The result is that of `Conv1d_stride1` followed by `Downsample1d`. The outputs
    that `Downsample1d` would discard are not computed.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
    stride : int
        If a stride does not fit, cells that are left over at the end are not read.
    padding : int
        Number of zeros at both ends.
    weight_init_fn, bias_init_fn : function, optional
        See `Conv1d_stride1`.

    Attributes
    ----------
    conv1d_stride1 : Conv1d_stride1
        It has ``W``, ``b``, ``dLdW``, ``dLdb``, and the padded input as ``A``.
    W, b, dLdW, dLdb
        The attributes of `conv1d_stride1`.
    downsample1d : Downsample1d
    stride, pad : int

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.conv import Conv1d
    >>> layer = Conv1d(1, 1, 2, stride=2, weight_init_fn=lambda *shape: np.array([[[1.0, 10.0]]]))
    >>> layer.forward(np.array([[[1, 2, 3, 4, 5]]]))
    array([[[21., 43.]]])
    >>> layer.backward(np.ones((1, 1, 2)))
    array([[[ 1., 10.,  1., 10.,  0.]]])
    >>> layer.conv1d_stride1.dLdW
    array([[[4., 6.]]])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        weight_init_fn: Callable | None = None,
        bias_init_fn: Callable | None = None,
    ) -> None:
        super().__init__(stride, padding)
        self.conv1d_stride1 = Conv1d_stride1(in_channels, out_channels, kernel_size, weight_init_fn, bias_init_fn)
        self.downsample1d = Downsample1d(stride)


class Conv2d_stride1(_Stride1):
    """Cross-correlation along two axes with a stride of 1.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
        `kernel_size` may be two ints, for filters that are not square.
    weight_init_fn : function, optional
        ``weight_init_fn(out_channels, in_channels, kernel_size, kernel_size)`` returns W;
        without it W is drawn by ``np.random.normal``.
    bias_init_fn : function, optional
        ``bias_init_fn(out_channels)`` returns b; without it b is zeros.

    Attributes
    ----------
    W : ndarray, (out_channels, in_channels, kernel_size, kernel_size)
    b : ndarray, (out_channels,)
        They may be reassigned or changed in place.
    dLdW, dLdb : ndarray
        Gradients: zeros at first; every `backward` sets new arrays.
    A : array_like
        The input of the last `forward`.

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.conv import Conv2d_stride1
    >>> layer = Conv2d_stride1(1, 1, 2, lambda *shape: np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    >>> layer.forward(np.array([[[[1, 2, 3], [4, 5, 6]]]]))
    array([[[[37., 47.]]]])
    >>> layer.backward(np.ones((1, 1, 1, 2)))[0, 0]
    array([[1., 3., 2.],
           [3., 7., 4.]])
    >>> layer.dLdW[0, 0], layer.dLdb
    (array([[ 3.,  5.],
           [ 9., 11.]]), array([2.]))
    """

    _rank = 2


class Conv2d(_Strided):
    """Cross-correlation along two axes with a stride.

    The result is that of `Conv2d_stride1` followed by `Downsample2d`. The outputs
    that `Downsample2d` would discard are not computed.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
        `kernel_size` may be two ints, for filters that are not square.
    stride : int
        One int or two; cells that are left over at the end are not read.
    padding : int
        Number of zeros on all four sides; or two ints, one per axis.
    weight_init_fn, bias_init_fn : function, optional
        See `Conv2d_stride1`.

    Attributes
    ----------
    conv2d_stride1 : Conv2d_stride1
        It has ``W``, ``b``, ``dLdW``, ``dLdb``, and the padded input as ``A``.
    W, b, dLdW, dLdb
        The attributes of `conv2d_stride1`.
    downsample2d : Downsample2d
    stride, pad : int

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.conv import Conv2d
    >>> layer = Conv2d(1, 1, 3, stride=2, padding=1, weight_init_fn=lambda *shape: np.ones(shape))
    >>> layer.forward(np.ones((1, 1, 4, 4)))[0, 0]
    array([[4., 6.],
           [6., 9.]])
    >>> layer.backward(np.ones((1, 1, 2, 2)))[0, 0]
    array([[1., 2., 1., 1.],
           [2., 4., 2., 2.],
           [1., 2., 1., 1.],
           [1., 2., 1., 1.]])
    >>> layer.conv2d_stride1.dLdb
    array([4.])
    """

    _rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        weight_init_fn: Callable | None = None,
        bias_init_fn: Callable | None = None,
    ) -> None:
        super().__init__(stride, padding)
        self.conv2d_stride1 = Conv2d_stride1(in_channels, out_channels, kernel_size, weight_init_fn, bias_init_fn)
        self.downsample2d = Downsample2d(stride)
