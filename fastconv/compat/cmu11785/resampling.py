"""The upsampling and downsampling layers of 11-785's resampling.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.options import per_axis
from fastconv.compat.shared import images, ran_forward
from fastconv.runtime import memory as _memory

LAYOUTS = {1: "(batch_size, in_channels, input_size)", 2: "(batch_size, in_channels, input_height, input_width)"}


def signals(name: str, A: Any, rank: int) -> np.ndarray:
    """Return `A` as an array. Raise an error if it does not have `rank` spatial axes, or if one of them is empty."""
    A = images(name, A, LAYOUTS[rank])
    if not all(A.shape[2:]):
        raise ValueError(f"{name} must be {LAYOUTS[rank]} with no spatial size of 0, got shape {A.shape}")
    return A


def spread(size: int, factor: int) -> int:
    """Return the length of a signal of `size` samples after ``factor - 1`` zeros are inserted between neighbours."""
    return factor * (size - 1) + 1


def every(factors: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the index that selects every n-th cell along each spatial axis, where n is ``factors[i]`` for axis i."""
    return (slice(None), slice(None), *(slice(None, None, factor) for factor in factors))


class _Resampling:
    """The base class of upsampling and downsampling. It stores the shape of the input for `backward`."""

    _rank = 1
    #: The name of the attribute that holds the factor by which the layer upsamples or downsamples.
    _name: str

    def __init__(self, factor: int) -> None:
        setattr(self, self._name, factor)
        self._factors()
        self._shape: tuple[int, ...] | None = None

    def _factors(self) -> tuple[int, ...]:
        return per_axis(self._name, getattr(self, self._name), self._rank, 1)

    def _insert(self, values: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        _memory.check_bytes("the upsampled signal", shape, dtype)
        out = np.zeros(shape, dtype)
        out[every(self._factors())] = values
        return out

    def _pick(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return np.array(values[every(self._factors())], dtype, order="C")

    def _seen(self, shape: tuple[int, ...]) -> None:
        """Store the shape of the input for `backward`.

        Layers that contain this layer, such as `Conv2d`, do not call `forward`. They call this method instead.
        """
        self._shape = shape


class _Upsample(_Resampling):
    _name = "upsampling_factor"

    def __init__(self, upsampling_factor: int) -> None:
        super().__init__(upsampling_factor)

    def _long(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:2], *(spread(n, k) for n, k in zip(shape[2:], self._factors(), strict=True)))

    def forward(self, A: Any) -> np.ndarray:
        """Return `A` with ``upsampling_factor - 1`` zeros between neighbours, and no zeros at the ends."""
        A = signals("A", A, self._rank)
        out = self._insert(A, self._long(A.shape), _arrays.result_dtype(A))
        self._seen(A.shape)
        return out

    def backward(self, dLdZ: Any) -> np.ndarray:
        """Return the gradient with respect to `A`: the elements of `dLdZ` at the positions of the cells of `A`."""
        shape = self._long(ran_forward(self, self._shape))
        dLdZ = _arrays.as_array("dLdZ", dLdZ)
        return self._pick(_arrays.cast_gradient("dLdZ", dLdZ, shape, dLdZ.dtype), _arrays.result_dtype(dLdZ))


class _Downsample(_Resampling):
    _name = "downsampling_factor"

    def __init__(self, downsampling_factor: int) -> None:
        super().__init__(downsampling_factor)

    def forward(self, A: Any) -> np.ndarray:
        """Return every ``downsampling_factor``-th cell of `A`, beginning with the first."""
        A = signals("A", A, self._rank)
        out = self._pick(A, _arrays.result_dtype(A))
        self._seen(A.shape)
        return out

    def backward(self, dLdZ: Any) -> np.ndarray:
        """Return the gradient with respect to `A`. It is zero at the cells that `forward` dropped."""
        shape = ran_forward(self, self._shape)
        dLdZ = _arrays.as_array("dLdZ", dLdZ)
        short = (*shape[:2], *((n - 1) // k + 1 for n, k in zip(shape[2:], self._factors(), strict=True)))
        dLdZ = _arrays.cast_gradient("dLdZ", dLdZ, short, _arrays.result_dtype(dLdZ))
        return self._insert(dLdZ, shape, dLdZ.dtype)


class Upsample1d(_Upsample):
    """Insert zeros between neighbours: n samples become ``k * (n - 1) + 1``.

    Parameters
    ----------
    upsampling_factor : int
        k, at least 1.

    Raises
    ------
    ValueError
        If the shape of `A` or `dLdZ` is wrong, or `backward` is called before `forward`.
    TypeError
        For complex or object input, or a factor that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.resampling import Upsample1d
    >>> layer = Upsample1d(2)
    >>> layer.forward(np.array([[[1, 2, 3]]]))
    array([[[1., 0., 2., 0., 3.]]])
    >>> layer.backward(np.array([[[1, 2, 3, 4, 5]]]))
    array([[[1., 3., 5.]]])
    """


class Downsample1d(_Downsample):
    """Take every k-th sample.

    Parameters
    ----------
    downsampling_factor : int
        k, at least 1.

    Raises
    ------
    ValueError
        If the shape of `A` or `dLdZ` is wrong, or `backward` is called before `forward`.
    TypeError
        For complex or object input, or a factor that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.resampling import Downsample1d
    >>> layer = Downsample1d(2)
    >>> layer.forward(np.array([[[1, 2, 3, 4]]]))
    array([[[1., 3.]]])
    >>> layer.backward(np.array([[[5, 6]]]))
    array([[[5., 0., 6., 0.]]])
    """


class Upsample2d(_Upsample):
    """Insert zeros between neighbours along both axes: n rows become ``k * (n - 1) + 1``.

    Parameters
    ----------
    upsampling_factor : int
        k, at least 1; or one per axis.

    Raises
    ------
    ValueError
        If the shape of `A` or `dLdZ` is wrong, or `backward` is called before `forward`.
    TypeError
        For complex or object input, or a factor that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.resampling import Upsample2d
    >>> Upsample2d(2).forward(np.array([[[[1, 2], [3, 4]]]]))[0, 0]
    array([[1., 0., 2.],
           [0., 0., 0.],
           [3., 0., 4.]])
    """

    _rank = 2


class Downsample2d(_Downsample):
    """Take every k-th row and column.

    Parameters
    ----------
    downsampling_factor : int
        k, at least 1; or one per axis.

    Raises
    ------
    ValueError
        If the shape of `A` or `dLdZ` is wrong, or `backward` is called before `forward`.
    TypeError
        For complex or object input, or a factor that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.resampling import Downsample2d
    >>> layer = Downsample2d(2)
    >>> layer.forward(np.array([[[[1, 2], [3, 4]]]]))
    array([[[[1.]]]])
    >>> layer.backward(np.array([[[[7]]]]))[0, 0]
    array([[7., 0.],
           [0., 0.]])
    """

    _rank = 2
