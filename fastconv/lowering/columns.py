"""im2col and its adjoint col2im. im2col makes the matrix whose product with the weights is the convolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv._ext.lowering import im2col as _ext
from fastconv.checks import arrays as _arrays
from fastconv.checks.options import as_shape, merge_options, per_axis
from fastconv.geometry.axis import Axis, PerAxis, check_rank, output_ranges, three_rows
from fastconv.geometry.conv import ConvGeometry, resolve_conv
from fastconv.geometry.pads import Pad, PadMode
from fastconv.lowering import padding as _padding
from fastconv.runtime import memory as _memory, threads as _threads
from fastconv.runtime.plan_cache import plans

#: The name of the result of `im2col` in error messages.
_COLUMNS = "the lowered matrix"
#: The number of bytes of a block of image rows in `scatter`. A thread works on one block at a time, which stays in the
#: L1 cache.
_BLOCK_BYTES = 1 << 14


def lower(x: np.ndarray, cols: np.ndarray, geometry: ConvGeometry, threads: int) -> None:
    """Compute the im2col matrices of x (N, C, *spatial) with zero padding, and write them to `cols` (N, C * taps, L). L
    is the number of output positions. Both arrays must have the same float dtype.

    The elements of both arrays must be contiguous along the last axis. For a pointwise convolution (kernel of size 1,
    stride 1, no padding), x must be C-contiguous.
    """
    if not x.size:
        cols.fill(0)  # The images are empty, so all windows contain only padding.
    elif geometry.pointwise:
        np.copyto(cols, x.reshape(cols.shape))
    elif cols.size:
        _threads.share(
            _plan(geometry).im2col,
            (_arrays.DTYPES[cols.dtype], _arrays.lift(x, 2), cols),
            items=cols.shape[0] * cols.shape[1],
            work=cols.nbytes,
            threads=threads,
        )


def scatter(cols: np.ndarray, x: np.ndarray, geometry: ConvGeometry, threads: int) -> None:
    """Compute the adjoint of `lower`: add the columns in `cols` (N, C * taps, L) to the windows of images, and write
    the images to `x` (N, C, *spatial). L is the number of output positions.
    """
    if not cols.size:
        x.fill(0)
    elif x.size:
        lifted = _arrays.lift(x, 2)
        block = max(1, min(_BLOCK_BYTES // (lifted.shape[4] * x.itemsize), lifted.shape[3]))
        _threads.share(
            _plan(geometry).col2im,
            (_arrays.DTYPES[x.dtype], cols, lifted, block),
            items=math.prod(lifted.shape[:3]) * -(-lifted.shape[3] // block),
            work=cols.nbytes,
            threads=threads,
        )


def _plan(geometry: ConvGeometry) -> _ext.LoweringPlan:
    return plans.find_sized(_nbytes, _make_plan, geometry.axes)


def _nbytes(plan: _ext.LoweringPlan) -> int:
    return plan.nbytes


def _make_plan(axes: tuple[Axis, ...]) -> _ext.LoweringPlan:
    return _ext.LoweringPlan(axes=three_rows(axes), output_ranges=output_ranges(axes))


def _geometry(
    caller: str,
    x_shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    pad: Any,
    dilation: Any,
    pad_mode: Any,
    unknown: dict[str, Any],
) -> ConvGeometry:
    if unknown:
        known = ("stride", "pad", "dilation", "pad_mode", "out", "threads", "kernel_size")
        merge_options(caller, dict.fromkeys(known), unknown)
    if kernel_size is None:
        raise TypeError(f"{caller}() needs kernel_size, an int or one int per spatial axis")
    name = "x" if caller == "im2col" else "x_shape"
    check_rank(name, x_shape)
    if x_shape[1] < 1:
        raise ValueError(f"{name} {x_shape} has no channels; at least one is needed")
    kernel = per_axis("kernel_size", kernel_size, len(x_shape) - 2, 1)
    return resolve_conv(
        x_shape,
        (1, x_shape[1], *kernel),
        stride=stride,
        pad=pad,
        dilation=dilation,
        groups=1,
        pad_mode=pad_mode,
        flip=False,
        strict=False,
    )


def _check_columns(geometry: ConvGeometry, dtype: np.dtype) -> None:
    """Raise an error if the result of `im2col` takes more bytes than are free. Called before any array is allocated."""
    try:
        instead = "conv(..., algorithm='im2col') makes its columns a block at a time"
        _memory.check_array(_COLUMNS, geometry.cols_shape, dtype, instead)
    except ValueError as error:
        raise _too_large(error, geometry) from None


def _empty_columns(geometry: ConvGeometry, dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array for the result of `im2col`."""
    try:
        return _arrays.empty_result(geometry.cols_shape, dtype, _COLUMNS)
    except ValueError as error:
        raise _too_large(error, geometry) from None


def _too_large(error: ValueError, geometry: ConvGeometry) -> ValueError:
    """Return `error` with the arguments of the call in its message. If a signal handler raised `error`, return it
    unchanged.
    """
    if type(error) not in (ValueError, _memory.TooLargeError):
        return error
    return type(error)(f"x {geometry.x_shape} with kernel_size {geometry.kernel} is too large: {error}")


def im2col(
    x: Any,
    kernel_size: PerAxis | None = None,
    *,
    stride: PerAxis = 1,
    pad: Pad = 0,
    dilation: PerAxis = 1,
    pad_mode: PadMode = "zeros",
    out: np.ndarray | None = None,
    threads: int | None = None,
    **unknown: Any,
) -> np.ndarray:
    """Return one matrix per image. Its columns are the windows of the image, one for each output position.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    kernel_size : int or sequence of int
        One per spatial axis, or one for all.
    stride, dilation : int or sequence of int, default 1
        As `conv`, but a stride is no Fraction.
    pad : int, sequence, or {'valid', 'same', 'same_lower', 'full'}, default 0
        See `conv`. The 'same' of `scipy.signal` is 'same_lower'.
    pad_mode : {'zeros', 'reflect', 'replicate', 'circular'}
        As `conv`.
    out : ndarray, (N, C * taps, L), optional
        Where to put the result: see docs/conventions.md.
    threads : int, optional

    Returns
    -------
    ndarray, (N, C * taps, L)
        Rows are in the order c, (kd,) kh, kw, the last fastest. Columns are output
        positions, the last axis fastest. The dtype is float32 or float64.

    Raises
    ------
    ValueError
        If sizes do not fit; `out` is then untouched.
    MemoryError
        If the result takes more memory than is free. It is a ValueError as well.
    TypeError
        As docs/conventions.md says.

    See Also
    --------
    col2im : the exact adjoint.

    References
    ----------
    K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural
    networks for document processing", 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import im2col
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> im2col(x, 2)[0]
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """

    def resolve(x: np.ndarray) -> tuple[tuple[ConvGeometry, np.ndarray | None, int], int]:
        geometry = _geometry("im2col", x.shape, kernel_size, stride, pad, dilation, pad_mode, unknown)
        workers = _threads.resolve(threads)
        dtype = _arrays.result_dtype(x)
        if out is None:
            _check_columns(geometry, dtype)
            return (geometry, None, workers), workers
        return (geometry, _arrays.resolve_out(out, geometry.cols_shape, dtype, _COLUMNS, x=x), workers), workers

    (geometry, given, workers), (x,), _ = _arrays.prepare_inputs(resolve, convert=_arrays.prepare_rows, x=x)
    cols = _empty_columns(geometry, x.dtype) if given is None else given
    if geometry.pad_mode == "zeros":
        lower(x, cols, geometry, workers)
    else:
        lower(_padding.extend(x, geometry, workers), cols, geometry.padded, workers)
    return cols if out is None else out


def col2im(
    cols: Any,
    x_shape: tuple[int, ...],
    kernel_size: PerAxis | None = None,
    *,
    stride: PerAxis = 1,
    pad: Pad = 0,
    dilation: PerAxis = 1,
    pad_mode: PadMode = "zeros",
    out: np.ndarray | None = None,
    threads: int | None = None,
    **unknown: Any,
) -> np.ndarray:
    """Add the columns of im2col matrices to the windows of images. This is the exact adjoint of `im2col`.

    Parameters
    ----------
    cols : array_like, (N, C * taps, L)
        Matrices as `im2col` returns them.
    x_shape : tuple of int
        ``(N, C, *spatial)``, the shape of the images.
    kernel_size, stride, pad, dilation, pad_mode, threads
        As `im2col`.
    out : ndarray, `x_shape`, optional
        Where to put the result: see docs/conventions.md.

    Returns
    -------
    ndarray, `x_shape`
        Each cell is the sum of the entries of `cols` that were read from it.

    Raises
    ------
    ValueError
        If sizes do not fit; `out` is then untouched.
    TypeError
        As docs/conventions.md says.

    Examples
    --------
    How often each cell of a 3x3 image is read by 2x2 windows:

    >>> import numpy as np
    >>> from fastconv import col2im
    >>> col2im(np.ones((1, 4, 4)), (1, 1, 3, 3), 2)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """

    def resolve(cols: np.ndarray) -> tuple[tuple[ConvGeometry, np.ndarray | None, int], int]:
        shape = as_shape("x_shape", x_shape)
        geometry = _geometry("col2im", shape, kernel_size, stride, pad, dilation, pad_mode, unknown)
        if cols.shape != geometry.cols_shape:
            raise ValueError(
                f"cols has shape {cols.shape}, but lowering x_shape {shape} with kernel_size {geometry.kernel} gives "
                f"(N, C * taps, L) = {geometry.cols_shape}"
            )
        workers = _threads.resolve(threads)
        if out is None:
            return (geometry, None, workers), workers
        return (
            (geometry, _arrays.resolve_out(out, shape, _arrays.result_dtype(cols), "the image", cols=cols), workers),
            workers,
        )

    (geometry, given, workers), (cols,), _ = _arrays.prepare_inputs(resolve, convert=_arrays.prepare_rows, cols=cols)
    x = _arrays.empty_result(geometry.x_shape, cols.dtype, "the image") if given is None else given
    if geometry.pad_mode == "zeros":
        scatter(cols, x, geometry, workers)
    else:
        dpadded = np.empty(geometry.padded.x_shape, x.dtype)
        scatter(cols, dpadded, geometry.padded, workers)
        _padding.fold(dpadded, geometry, x, workers)
    return x if out is None else out
