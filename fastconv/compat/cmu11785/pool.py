"""The pooling of 11-785's pool.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import layers
from fastconv.checks import arrays as _arrays
from fastconv.checks.options import per_axis
from fastconv.compat.cmu11785.resampling import Downsample2d, signals
from fastconv.compat.shared import ran_forward


class _Pool:
    """A pooling layer. It calls functions of `fastconv.layers`, and stores the cache for `backward`."""

    _forward: Callable
    _backward: Callable

    def __init__(self, kernel: int) -> None:
        self.kernel = kernel
        per_axis("kernel", kernel, 2, 1)
        self._cache: Any = None

    def _pool(self, A: np.ndarray, strides: tuple[int, ...]) -> np.ndarray:
        Z, self._cache = type(self)._forward(A, kernel_size=per_axis("kernel", self.kernel, 2, 1), stride=strides)
        return Z

    def forward(self, A: Any) -> np.ndarray:
        """Pool `A` (batch_size, in_channels, input_height, input_width)."""
        return self._pool(signals("A", A, 2), (1, 1))

    def backward(self, dLdZ: Any) -> np.ndarray:
        """Return the gradient with respect to `A`. `dLdZ` is cast to the dtype of the output."""
        cache = ran_forward(self, self._cache)
        dLdZ = _arrays.cast_gradient("dLdZ", dLdZ, cache.geometry.out_shape, cache.dtype)
        return type(self)._backward(dLdZ, cache)


class _StridedPool(_Pool):
    """A pooling layer with a stride. The course builds it from two layers. Both are attributes here, too, but `forward`
    does not run them.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__(kernel)
        self.stride = stride
        self._strides()
        self.downsample2d = Downsample2d(stride)

    def _strides(self) -> tuple[int, ...]:
        return per_axis("stride", self.stride, 2, 1)

    def forward(self, A: Any) -> np.ndarray:
        """Pool `A` (batch_size, in_channels, input_height, input_width)."""
        A = signals("A", A, 2)
        Z = self._pool(A, self._strides())
        axes = self._cache.geometry.axes
        self.downsample2d._seen((*A.shape[:2], *(axis.size - axis.k + 1 for axis in axes)))
        return Z


class MaxPool2d_stride1(_Pool):
    """Max pooling with stride 1. If several cells are the maximum, the first one gets the gradient.

    Parameters
    ----------
    kernel : int
        Size of the window; two ints if it is not square.

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.pool import MaxPool2d_stride1
    >>> layer = MaxPool2d_stride1(2)
    >>> layer.forward(np.array([[[[1, 4, 4], [2, 3, 0]]]]))
    array([[[[4., 4.]]]])
    >>> layer.backward(np.array([[[[1, 10]]]]))[0, 0]
    array([[ 0., 11.,  0.],
           [ 0.,  0.,  0.]])
    """

    _forward, _backward = layers.max_pool_forward, layers.max_pool_backward


class MeanPool2d_stride1(_Pool):
    """Mean pooling with stride 1.

    Parameters
    ----------
    kernel : int
        Size of the window; two ints if it is not square.

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.pool import MeanPool2d_stride1
    >>> layer = MeanPool2d_stride1(2)
    >>> layer.forward(np.array([[[[1, 4, 4], [2, 1, 3]]]]))
    array([[[[2., 3.]]]])
    >>> layer.backward(np.array([[[[4, 8]]]]))[0, 0]
    array([[1., 3., 2.],
           [1., 3., 2.]])
    """

    _forward, _backward = layers.avg_pool_forward, layers.avg_pool_backward


class MaxPool2d(_StridedPool):
    """Max pooling with a stride: `MaxPool2d_stride1` followed by `Downsample2d`, in one step.

    Parameters
    ----------
    kernel : int
        Size of the window; two ints if it is not square.
    stride : int
        One int or two; cells that are left over at the end are not read.

    Attributes
    ----------
    maxpool2d_stride1, downsample2d
        The two layers that the course combines.

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.pool import MaxPool2d
    >>> layer = MaxPool2d(2, 2)
    >>> layer.forward(np.arange(16).reshape(1, 1, 4, 4))[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    >>> layer.backward(np.ones((1, 1, 2, 2)))[0, 0, :2]
    array([[0., 0., 0., 0.],
           [0., 1., 0., 1.]])
    """

    _forward, _backward = layers.max_pool_forward, layers.max_pool_backward

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__(kernel, stride)
        self.maxpool2d_stride1 = MaxPool2d_stride1(kernel)


class MeanPool2d(_StridedPool):
    """Mean pooling with a stride: `MeanPool2d_stride1` followed by `Downsample2d`, in one step.

    Parameters
    ----------
    kernel : int
        Size of the window; two ints if it is not square.
    stride : int
        One int or two; cells that are left over at the end are not read.

    Attributes
    ----------
    meanpool2d_stride1, downsample2d
        The two layers that the course combines.

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.pool import MeanPool2d
    >>> layer = MeanPool2d(2, 2)
    >>> layer.forward(np.arange(16).reshape(1, 1, 4, 4))[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """

    _forward, _backward = layers.avg_pool_forward, layers.avg_pool_backward

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__(kernel, stride)
        self.meanpool2d_stride1 = MeanPool2d_stride1(kernel)
