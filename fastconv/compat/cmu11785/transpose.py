"""The transposed convolutions of 11-785's ConvTranspose.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import layers
from fastconv.checks import arrays as _arrays
from fastconv.checks.options import per_axis
from fastconv.compat.cmu11785.conv import Composed, Conv1d_stride1, Conv2d_stride1
from fastconv.compat.cmu11785.resampling import Upsample1d, Upsample2d, spread
from fastconv.compat.shared import ran_forward
from fastconv.geometry.conv import conv_output_shape
from fastconv.layers.convolution.conv_transpose import prepare_cache as prepare_transpose


class _Transposed(Composed):
    """The base class of layers that upsample and cross-correlate in one step, without products with inserted zeros.

    A cross-correlation with an upsampled signal equals a transposed convolution with the signal itself. The transposed
    convolution needs flipped kernels, and weights whose first two axes are swapped.
    """

    def __init__(self, upsampling_factor: int) -> None:
        self.upsampling_factor = upsampling_factor
        self._factors()
        self._kept: np.ndarray | None = None

    @property
    def _upsample(self) -> Upsample1d | Upsample2d:
        return getattr(self, f"upsample{self._rank}d")

    def _factors(self) -> tuple[int, ...]:
        return per_axis("upsampling_factor", self.upsampling_factor, self._rank, 1)

    def _turned(self, W: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(W, tuple(range(2, W.ndim))).swapaxes(0, 1))

    def _options(self, W: np.ndarray) -> dict[str, Any]:
        return {"stride": self._factors(), "pad": tuple(k - 1 for k in W.shape[2:])}

    def _out_shape(self, A: np.ndarray, W: np.ndarray) -> tuple[int, ...]:
        upsampled = (spread(n, factor) for n, factor in zip(A.shape[2:], self._factors(), strict=True))
        return conv_output_shape((*A.shape[:2], *upsampled), W.shape)

    def forward(self, A: Any) -> np.ndarray:
        """Upsample `A` (batch_size, in_channels, *input_size), cross-correlate it with `W`, and add `b`."""
        A, W, b = self._layer._operands(A)
        self._out_shape(A, W)  # This call raises an error if the kernel is too large.
        Z = layers.conv_transpose(A, self._turned(W), b, **self._options(W))
        # Copy A, because A may change before `backward`. The course's layer stores the upsampled A, also a copy.
        self._kept = np.array(A, order="C")
        self._upsample._seen(A.shape)
        return Z

    def backward(self, dLdZ: Any) -> np.ndarray:
        """Return the gradient with respect to `A`, and set `dLdW` and `dLdb`.

        `dLdZ` is the gradient with respect to the output. It is cast to the dtype of the output.
        """
        A, W, b = self._layer._operands(ran_forward(self, self._kept))
        dLdZ = _arrays.cast_gradient("dLdZ", dLdZ, self._out_shape(A, W), A.dtype)
        cache = prepare_transpose("conv_transpose_backward", A, self._turned(W), b, None, self._options(W))
        dLdA, dw, dLdb = layers.conv_transpose_backward(dLdZ, cache)
        assert dLdA is not None and dw is not None and dLdb is not None
        self.dLdW, self.dLdb = self._turned(dw), dLdb
        return dLdA


class ConvTranspose1d(_Transposed):
    """Upsampling along one axis, then cross-correlation.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
    upsampling_factor : int
        k; n samples become ``k * (n - 1) + 1`` before they are correlated.
    weight_init_fn, bias_init_fn : function, optional
        See `Conv1d_stride1`.

    Attributes
    ----------
    conv1d_stride1 : Conv1d_stride1
        It has ``W`` (out_channels, in_channels, kernel_size), ``b``, ``dLdW``, ``dLdb``.
    W, b, dLdW, dLdb
        The attributes of `conv1d_stride1`.
    upsample1d : Upsample1d
    upsampling_factor : int

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.transpose import ConvTranspose1d
    >>> layer = ConvTranspose1d(1, 1, 2, 2, lambda *shape: np.array([[[1.0, 10.0]]]))
    >>> layer.forward(np.array([[[1, 2, 3]]]))
    array([[[ 1., 20.,  2., 30.]]])
    >>> layer.backward(np.ones((1, 1, 4)))
    array([[[ 1., 11., 10.]]])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        upsampling_factor: int,
        weight_init_fn: Callable | None = None,
        bias_init_fn: Callable | None = None,
    ) -> None:
        super().__init__(upsampling_factor)
        self.upsample1d = Upsample1d(upsampling_factor)
        self.conv1d_stride1 = Conv1d_stride1(in_channels, out_channels, kernel_size, weight_init_fn, bias_init_fn)


class ConvTranspose2d(_Transposed):
    """Upsampling along two axes, then cross-correlation.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
        `kernel_size` may be two ints, for filters that are not square.
    upsampling_factor : int
        k, or one per axis; n rows become ``k * (n - 1) + 1`` before they are
        correlated.
    weight_init_fn, bias_init_fn : function, optional
        See `Conv2d_stride1`.

    Attributes
    ----------
    conv2d_stride1 : Conv2d_stride1
        It has ``W`` (out_channels, in_channels, kernel_size, kernel_size), ``b``,
        ``dLdW``, ``dLdb``.
    W, b, dLdW, dLdb
        The attributes of `conv2d_stride1`.
    upsample2d : Upsample2d
    upsampling_factor : int

    Raises
    ------
    ValueError
        If shapes and sizes do not fit each other, or `backward` is called first.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cmu11785.transpose import ConvTranspose2d
    >>> layer = ConvTranspose2d(1, 1, 2, 2, lambda *shape: np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    >>> layer.forward(np.array([[[[1, 2], [3, 4]]]]))[0, 0]
    array([[ 1.,  4.],
           [ 9., 16.]])
    """

    _rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        upsampling_factor: int,
        weight_init_fn: Callable | None = None,
        bias_init_fn: Callable | None = None,
    ) -> None:
        super().__init__(upsampling_factor)
        self.upsample2d = Upsample2d(upsampling_factor)
        self.conv2d_stride1 = Conv2d_stride1(in_channels, out_channels, kernel_size, weight_init_fn, bias_init_fn)
