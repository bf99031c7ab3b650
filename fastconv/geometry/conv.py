"""Shape arithmetic of convolution. This module checks the options, and computes all sizes, pads and strides once.

A `ConvGeometry` has one `Axis` for each spatial axis, with the input, kernel and output sizes, the pads, the stride and
the dilation. Layers, algorithms and kernels all take their sizes from the `ConvGeometry`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import channels_hint, count, count_axes, missing_axes_hint, of_shapes
from fastconv.checks.options import (
    as_bool,
    as_int,
    as_shape,
    is_plain,
    is_sampled,
    merge_options,
    per_axis,
    split_sampling,
)
from fastconv.geometry.axis import (
    AXIS_NAMES,
    UNIT_AXIS,
    Axis,
    CheckedFields,
    PerAxis,
    check_axes,
    check_rank,
    check_shape,
    connections,
    data_shape,
    floor_out,
    output_ranges,
    windows,
)
from fastconv.geometry.pads import (
    PAD_MODES,
    PAD_NAMES,
    Pad,
    PadMode,
    check_pad_mode,
    check_padded,
    pad_mode_fault,
    pad_mode_name,
    resolve_pad,
)
from fastconv.geometry.remainder import explain_remainder
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

if TYPE_CHECKING:
    from fractions import Fraction

Stride: TypeAlias = "PerAxis | Fraction | Sequence[int | Fraction]"


class GeometryOptions(TypedDict, total=False):
    """The options that determine the shape of a convolution."""

    stride: Stride
    pad: Pad
    dilation: PerAxis
    groups: int
    pad_mode: PadMode
    flip: bool
    strict: bool


GEOMETRY_DEFAULTS: dict[str, Any] = {
    "stride": 1,
    "pad": 0,
    "dilation": 1,
    "groups": 1,
    "pad_mode": "zeros",
    "flip": False,
    "strict": False,
}
#: The defaults of the options of `conv`, including `upsample`.
CONV_DEFAULTS: dict[str, Any] = {**GEOMETRY_DEFAULTS, "upsample": 1}


@dataclass(frozen=True)
class ConvGeometry(CheckedFields):
    """All sizes of one convolution, as an immutable value. The function `conv_geometry` returns such a value.

    Attributes
    ----------
    x_shape, w_shape, out_shape : tuple of int
        ``(N, C, *spatial)``, ``(F, C // groups, *kernel)``, ``(N, F, *out_spatial)``.
    axes : tuple of Axis
        One per spatial axis, each ``(size, k, stride, lo, hi, dilation, out)``.
    groups, pad_mode, flip
        The options as given.
    pads : tuple of (int, int)
        The numbers of cells added before and after each spatial axis.
    taps, positions : int
        The numbers of cells of the kernel, and of output positions of one image.
    pointwise : bool
        Whether the kernel is 1x1 with stride 1 and no padding, so that the
        im2col matrix is the image itself.
    n_params : int
        The number of weights, plus one bias per filter.
    flops : int
        The number of floating-point operations of the forward pass, two for
        each multiply-add. Multiply-adds on padding count.
    toeplitz_nnz : int
        The number of entries of the sparse Toeplitz matrix of one image, if no
        weight is zero.
    """

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    groups: int = 1
    pad_mode: str = "zeros"
    flip: bool = False

    def _fault(self) -> str | None:
        x_shape, w_shape, groups = self.x_shape, self.w_shape, self.groups
        fault = check_axes(x_shape, self.axes) or check_shape("w_shape", w_shape, 1)
        if fault is not None:
            return fault
        if type(groups) is not int or groups < 1:
            return f"groups is {groups!r}"
        if len(w_shape) != len(x_shape) or x_shape[1] != groups * w_shape[1] or w_shape[0] % groups:
            return f"x_shape is {x_shape}, w_shape {w_shape}, groups {groups}"
        for i, (axis, k) in enumerate(zip(self.axes, w_shape[2:], strict=True)):
            if axis.k != k or axis.out != windows(axis):
                return f"axes[{i}] is {axis}, of a kernel {w_shape[2:]}"
        if type(self.flip) is not bool or self.pad_mode not in PAD_MODES:
            return f"flip is {self.flip!r}, pad_mode {self.pad_mode!r}"
        out_shape = self._derived()["out_shape"]
        if math.prod(out_shape) > sys.maxsize:
            return f"the output {out_shape} has more elements than can be addressed"
        return pad_mode_fault(self.pad_mode, self.axes)

    @property
    def rank(self) -> int:
        """The number of spatial axes: 1, 2 or 3."""
        return len(self.axes)

    _DERIVED = ("_hash", "out_shape", "taps", "positions", "pointwise")

    def _derived(self) -> dict[str, Any]:
        outs = [axis.out for axis in self.axes]
        return {
            "out_shape": (self.x_shape[0], self.w_shape[0], *outs),
            "taps": math.prod(self.w_shape[2:]),
            "positions": math.prod(outs),
            "pointwise": all(axis.k == 1 and axis.lo == axis.hi == 0 and axis.out == axis.size for axis in self.axes),
        }

    @property
    def out_spatial(self) -> tuple[int, ...]:
        """The output size per spatial axis."""
        return self.out_shape[2:]

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel size along each spatial axis."""
        return self.w_shape[2:]

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """The numbers of cells added before and after each spatial axis, ``(lo, hi)``."""
        return tuple((axis.lo, axis.hi) for axis in self.axes)

    @property
    def n_params(self) -> int:
        """The number of weights, plus one bias per filter."""
        return math.prod(self.w_shape) + self.w_shape[0]

    @property
    def flops(self) -> int:
        """The number of floating-point operations of the forward pass, two for each multiply-add."""
        return 2 * math.prod(self.out_shape) * math.prod(self.w_shape[1:])

    @property
    def cols_shape(self) -> tuple[int, int, int]:
        """The shape of the result of `im2col`, ``(N, C * taps, L)``."""
        return (self.x_shape[0], self.x_shape[1] * self.taps, self.positions)

    def im2col_bytes(self, dtype: Any = np.float32) -> int:
        """Return the size, in bytes, of the result of `im2col` for the whole batch in `dtype`."""
        return math.prod(self.cols_shape) * _arrays.float_dtype("dtype", dtype).itemsize

    @property
    def toeplitz_nnz(self) -> int:
        """The number of nonzeros of the sparse Toeplitz matrix for one image, if no weight is zero. The matrix has the
        shape (F * L, C * prod(spatial)), where L is the number of output positions.
        """
        pairs = math.prod(connections(axis, self.pad_mode) for axis in self.axes)
        return self.w_shape[0] * self.w_shape[1] * pairs

    @property
    def output_ranges(self) -> np.ndarray:
        """The outputs for which each tap reads the image: see `geometry.axis.output_ranges`."""
        return output_ranges(self.axes)

    @property
    def padded(self) -> ConvGeometry:
        """The geometry of the same convolution for an image to which the padding has already been added."""
        return plans.find(_padded, self)

    def for_batch(self, n: int) -> ConvGeometry:
        """Return the geometry of the same convolution for `n` images."""
        return self if n == self.x_shape[0] else plans.find(_of_batch, self, n)

    @property
    def batch_as_axis(self) -> ConvGeometry:
        """The geometry of this convolution, with all images of the batch stacked into one volume along a new depth
        axis. `rank` must be at most 2.
        """
        return plans.find(_batch_as_axis, self)

    def __str__(self) -> str:
        columns = ("axis", "input", "kernel", "stride", "pad", "dilation", "output")
        rows = [
            (name, a.size, a.k, a.stride, f"({a.lo}, {a.hi})", a.dilation, a.out)
            for name, a in zip(AXIS_NAMES[-self.rank :], self.axes, strict=True)
        ]
        table = [columns, *(tuple(map(str, row)) for row in rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
        lines = ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        kind = "true convolution (kernel flipped)" if self.flip else "cross-correlation"
        return "\n".join(
            [
                f"{self.rank}-D {kind}: x {self.x_shape} * w {self.w_shape} -> out {self.out_shape}",
                *lines,
                f"  groups {self.groups}, padding {self.pad_mode!r}, parameters {self.n_params:,} (bias counted)",
                f"  flops {self.flops:,}; im2col {self.im2col_bytes():,} bytes in float32",
                f"  Toeplitz matrix of one image: {self.w_shape[0] * self.positions:,} x "
                f"{math.prod(self.x_shape[1:]):,}, {self.toeplitz_nnz:,} entries",
            ]
        )


def _padded(geometry: ConvGeometry) -> ConvGeometry:
    return geometry.derive(
        x_shape=(*geometry.x_shape[:2], *(axis.padded for axis in geometry.axes)),
        axes=tuple(replace(axis, size=axis.padded, lo=0, hi=0) for axis in geometry.axes),
        pad_mode="zeros",
    )


def _batch_as_axis(geometry: ConvGeometry) -> ConvGeometry:
    (n, channels, *spatial), units = geometry.x_shape, (1,) * (2 - geometry.rank)
    return geometry.derive(
        x_shape=(1, channels, n, *units, *spatial),
        w_shape=(*geometry.w_shape[:2], 1, *units, *geometry.kernel),
        axes=(Axis(n, 1, 1, 0, 0, 1, n), *(UNIT_AXIS for _ in units), *geometry.axes),
    )


def _of_batch(geometry: ConvGeometry, n: int) -> ConvGeometry:
    return geometry.derive(x_shape=(n, *geometry.x_shape[1:]))


def conv_geometry(x_shape: Sequence[int], w_shape: Sequence[int], **options: Any) -> ConvGeometry:
    """Compute all sizes of a convolution.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C, *spatial)``, one to three spatial axes.
    w_shape : tuple of int
        ``(F, C // groups, *kernel)``.
    **options
        ``stride``, ``upsample``, ``pad``, ``dilation``, ``groups``,
        ``pad_mode``, ``flip`` and ``strict``, as `conv` takes them.

    Returns
    -------
    ConvGeometry
        With ``upsample``, or a ``stride`` of ``Fraction(a, b)``, this is the
        geometry of the upsampled image with an integer stride: `x_shape` is the
        shape of the upsampled image, and `flops` includes products with its
        zeros, although `conv` does not compute them.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, an output size would be below 1,
        or ``strict`` is set and a stride leaves a remainder.
    TypeError
        For an unknown option or one of the wrong type.

    Examples
    --------
    >>> from fastconv import conv_geometry
    >>> g = conv_geometry((1, 3, 32, 32), (10, 3, 5, 5), pad=2)
    >>> g.out_shape, g.n_params
    ((1, 10, 32, 32), 760)
    >>> conv_geometry((1, 1, 7, 7), (1, 1, 3, 3), stride=3, strict=True)
    Traceback (most recent call last):
        ...
    ValueError: spatial axis 0: stride 3 leaves a remainder of 1: input 7 + pads 0 + 0 - kernel 3 = 4 is not
    a multiple of 3; nearest legal strides: 2, 4; nearest legal pads at stride 3: 1, (0, 2)
    """
    settings = merge_options("conv_geometry", CONV_DEFAULTS, options)
    x_shape, w_shape = data_shape("x_shape", x_shape), as_shape("w_shape", w_shape)
    try:
        return resolve_upsampled(x_shape, w_shape, **settings)[0]
    except ValueError as error:
        if len(x_shape) == len(w_shape):
            raise of_shapes(error, channels_hint, x_shape, w_shape, settings["groups"]) from None
        raise of_shapes(error, missing_axes_hint, x_shape, w_shape) from None


def resolve_upsampled(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], *, stride: Any, upsample: Any, **settings: Any
) -> tuple[ConvGeometry, tuple[int, ...]]:
    """Return the geometry for the upsampled image, and a tuple with the upsampling factor of each axis. The tuple is
    empty if the image is not upsampled.
    """
    if not is_sampled(stride, upsample):
        return resolve_conv(x_shape, w_shape, stride=stride, **settings), ()
    strides, factors = split_sampling(stride, upsample, len(data_shape("x", x_shape)) - 2)
    sizes = (n * factor for n, factor in zip(x_shape[2:], factors, strict=True))
    upsampled = as_shape("the upsampled x", (*x_shape[:2], *sizes))
    geometry = resolve_conv(upsampled, w_shape, stride=strides, **settings)
    return geometry, () if max(factors) == 1 else factors


def resolve_conv(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    stride: Any,
    pad: Any,
    dilation: Any,
    groups: Any,
    pad_mode: Any,
    flip: Any,
    strict: Any,
) -> ConvGeometry:
    """Return the geometry of a convolution without upsampling. The shapes must be tuples of ints."""
    settings = (stride, pad, dilation, groups, pad_mode, flip, strict)
    # The plan cache needs hashable options. Most options have plain types, which are hashable.
    if is_plain(settings):
        return plans.find_typed(_normalise_conv, x_shape, w_shape, *settings)
    return _normalise_conv(x_shape, w_shape, *settings)


def _normalise_conv(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Any,
    pad: Any,
    dilation: Any,
    groups: Any,
    pad_mode: Any,
    flip: Any,
    strict: Any,
) -> ConvGeometry:
    check_rank("x", x_shape)
    rank = len(x_shape) - 2
    if len(w_shape) != len(x_shape):
        raise ValueError(
            f"w has {count_axes(len(w_shape))}, {w_shape}, but x has {len(x_shape)}, {x_shape}; "
            f"w must be (F, C // groups, *kernel) with as many spatial axes as x{missing_axes_hint(x_shape, w_shape)}"
        )
    return plans.find(
        _resolve_conv,
        x_shape,
        w_shape,
        per_axis("stride", stride, rank, 1),
        pad if isinstance(pad, str) else resolve_pad(pad, x_shape[2:], w_shape[2:], (), (), PAD_NAMES),
        per_axis("dilation", dilation, rank, 1),
        as_int("groups", groups, 1),
        pad_mode_name(pad_mode),
        as_bool("flip", flip),
        as_bool("strict", strict),
    )


def _resolve_conv(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: tuple[int, ...],
    pad: str | tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
    pad_mode: str,
    flip: bool,
    strict: bool,
) -> ConvGeometry:
    channels, filters, kernel, sizes = x_shape[1], w_shape[0], w_shape[2:], x_shape[2:]
    if channels < 1 or filters < 1:
        raise ValueError(f"x {x_shape} and w {w_shape} must have at least one channel and one filter")
    if min(kernel) < 1:
        raise ValueError(f"w has an empty kernel {kernel}; every kernel size must be at least 1")
    if channels % groups or filters % groups:
        raise ValueError(
            f"groups is {groups}, which must divide both the {channels} channels of x and the {filters} filters of w; "
            f"legal are the divisors of {math.gcd(channels, filters)}"
        )
    if w_shape[1] != channels // groups:
        raise ValueError(
            f"x {x_shape} has {count(channels, 'channel')}, so with groups={groups} w must be "
            f"(F, {channels // groups}, *kernel), got w {w_shape} with {w_shape[1]}"
            + channels_hint(x_shape, w_shape, groups)
        )
    pads = resolve_pad(pad, sizes, kernel, stride, dilation, PAD_NAMES)
    check_padded(sizes, pads, x_shape[:2])
    axes = []
    for i, (size, k, s, (lo, hi), d) in enumerate(zip(sizes, kernel, stride, pads, dilation, strict=True)):
        out = floor_out(i, size, k, s, (lo, hi), d)
        axis = Axis(size, k, s, lo, hi, d, out)
        if strict and pad not in ("same", "same_lower") and (axis.padded - axis.extent) % s:
            raise ValueError(explain_remainder(i, axis))
        axes.append(axis)
    check_pad_mode(pad_mode, tuple(axes))
    out_shape = (x_shape[0], w_shape[0], *(axis.out for axis in axes))
    if math.prod(out_shape) > sys.maxsize:
        raise ValueError(
            f"x {x_shape} and w {w_shape} give the output {out_shape}, which has more elements than can be addressed"
        )
    return ConvGeometry(x_shape, w_shape, tuple(axes), groups, pad_mode, flip)


def conv_output_shape(x_shape: Sequence[int], w_shape: Sequence[int], **options: Any) -> tuple[int, ...]:
    """Return the shape of the result of `conv`, ``(N, F, *out_spatial)``.

    For input size n, kernel size k and pads ``(lo, hi)``, the output size of an axis is
    ``floor((n * upsample + lo + hi - dilation * (k - 1) - 1) / stride) + 1``. A stride of ``Fraction(a, b)`` means
    ``upsample=b`` with ``stride=a``.

    Parameters
    ----------
    x_shape, w_shape : tuple of int
        ``(N, C, *spatial)`` and ``(F, C // groups, *kernel)``.
    **options
        As `conv_geometry`.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError, TypeError
        As `conv_geometry`.

    Examples
    --------
    >>> from fastconv import conv_output_shape
    >>> conv_output_shape((1, 1, 7, 7), (1, 1, 3, 3), stride=2)
    (1, 1, 3, 3)
    >>> from fractions import Fraction
    >>> conv_output_shape((1, 1, 7, 7), (1, 1, 3, 3), stride=Fraction(2, 3), pad='same')
    (1, 1, 11, 11)
    >>> conv_output_shape((1, 1, 7, 7), (1, 1, 3, 3), upsample=2, stride=4)
    (1, 1, 3, 3)
    """
    # Check the options here, so that errors name this function and not `conv_geometry`.
    settings = merge_options("conv_output_shape", CONV_DEFAULTS, options)
    return conv_geometry(x_shape, w_shape, **settings).out_shape
