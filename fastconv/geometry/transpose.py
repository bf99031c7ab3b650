"""Shape arithmetic of transposed convolution. A transposed convolution is computed as the gradient of a convolution."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, TypedDict

from fastconv.checks.messages import count, count_axes, missing_axes_hint, transposed_channels_hint
from fastconv.checks.options import as_int, is_plain, per_axis
from fastconv.geometry.axis import CheckedFields, PerAxis, check_rank, check_shape
from fastconv.geometry.conv import ConvGeometry, resolve_conv
from fastconv.geometry.pads import PAD_NAMES, Pad, resolve_pad
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass


class TransposeOptions(TypedDict, total=False):
    """The options that determine the shape of a transposed convolution."""

    stride: PerAxis
    pad: Pad
    output_pad: PerAxis
    dilation: PerAxis
    groups: int


TRANSPOSE_DEFAULTS: dict[str, Any] = {"stride": 1, "pad": 0, "output_pad": 0, "dilation": 1, "groups": 1}


@dataclass(frozen=True)
class TransposeGeometry(CheckedFields):
    """All sizes of a transposed convolution.

    Attributes
    ----------
    x_shape, w_shape, out_shape : tuple of int
        ``(N, C, *spatial)``, ``(C, F // groups, *kernel)``, ``(N, F, *out_spatial)``.
    conv : ConvGeometry
        The convolution whose gradient is the transposed convolution. It maps
        images of `out_shape` to images of `x_shape`. If an `output_pad` adds
        cells that no tap reads, the images of `out_shape` are without these
        cells.
    """

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    conv: ConvGeometry

    def _fault(self) -> str | None:
        fault = check_shape("x_shape", self.x_shape) or check_shape("out_shape", self.out_shape)
        if fault is not None:
            return fault
        if type(self.conv) is not ConvGeometry or self.conv.pad_mode != "zeros" or self.conv.flip:
            return "conv must be a ConvGeometry of padding with zeros that flips nothing"
        if (self.conv.w_shape, self.conv.out_shape) != (self.w_shape, self.x_shape):
            return f"x_shape is {self.x_shape}, w_shape {self.w_shape}, but conv gives {self.conv.out_shape}"
        beyond = [out - size for out, size in zip(self.out_shape, self.conv.x_shape, strict=True)]
        most = (1, 1, *(max(axis.stride, axis.dilation) for axis in self.conv.axes))
        if not all(0 <= extra < limit for extra, limit in zip(beyond, most, strict=True)):
            return f"out_shape is {self.out_shape}, but conv is of images {self.conv.x_shape}"
        return None

    @property
    def core(self) -> tuple[slice, ...] | None:
        """The part of the output that the gradient of `conv` computes, as slices. None means the whole output. An
        `output_pad` may add cells outside this part. These cells are equal to the bias.
        """
        if self.conv.x_shape == self.out_shape:
            return None
        return tuple(map(slice, self.conv.x_shape))


def resolve_transpose(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    stride: Any,
    pad: Any,
    output_pad: Any,
    dilation: Any,
    groups: Any,
) -> TransposeGeometry:
    """Check the options of a transposed convolution, and return its geometry."""
    settings = (stride, pad, output_pad, dilation, groups)
    # The plan cache needs hashable options. Most options have plain types, which are hashable.
    if is_plain(settings):
        return plans.find_typed(_resolve, x_shape, w_shape, *settings)
    return _resolve(x_shape, w_shape, *settings)


def _resolve(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Any,
    pad: Any,
    output_pad: Any,
    dilation: Any,
    groups: Any,
) -> TransposeGeometry:
    check_rank("x", x_shape)
    rank = len(x_shape) - 2
    if len(w_shape) != len(x_shape):
        raise ValueError(
            f"w has {count_axes(len(w_shape))}, {w_shape}, but x has {len(x_shape)}, {x_shape}; "
            f"w must be (C, F // groups, *kernel) with as many spatial axes as x{missing_axes_hint(x_shape, w_shape)}"
        )
    channels, groups = x_shape[1], as_int("groups", groups, 1)
    if channels < 1 or w_shape[1] < 1:
        raise ValueError(f"x {x_shape} and w {w_shape} must have at least one channel and one filter")
    if w_shape[0] != channels:
        raise ValueError(
            f"x {x_shape} has {count(channels, 'channel')}, "
            f"so w must be ({channels}, F // groups, *kernel), got w {w_shape}"
            + transposed_channels_hint(x_shape, w_shape)
        )
    if channels % groups:
        divisors = f"legal are the divisors of {channels}"
        raise ValueError(f"groups is {groups}, which must divide the {channels} channels of x; {divisors}")
    if min(w_shape[2:]) < 1:
        raise ValueError(f"w has an empty kernel {w_shape[2:]}; every kernel size must be at least 1")
    if min(x_shape[2:]) < 1:
        raise ValueError(f"x {x_shape} has an empty spatial axis; every size must be at least 1")
    strides, dilations = per_axis("stride", stride, rank, 1), per_axis("dilation", dilation, rank, 1)
    more = per_axis("output_pad", output_pad, rank, 0)
    for i, (extra, s, d) in enumerate(zip(more, strides, dilations, strict=True)):
        if extra >= max(s, d):
            raise ValueError(
                f"spatial axis {i}: output_pad {extra} must be smaller than the larger of stride {s} and dilation {d}; "
                f"legal are 0 to {max(s, d) - 1}"
            )
    lead = x_shape[0], w_shape[1] * groups
    sizes, pads, spatial = _sizes(x_shape, w_shape[2:], strides, pad, more, dilations)
    if math.prod(lead) * math.prod(spatial) > sys.maxsize or max(spatial) > sys.maxsize:
        raise ValueError(
            f"x {x_shape} and w {w_shape} give the output {(*lead, *spatial)}, which has more elements than can be "
            "addressed"
        )
    conv = resolve_conv(
        (*lead, *sizes),
        w_shape,
        stride=strides,
        pad=pads,
        dilation=dilations,
        groups=groups,
        pad_mode="zeros",
        flip=False,
        strict=False,
    )
    return TransposeGeometry(x_shape, w_shape, (*lead, *spatial), conv)


def _sizes(
    x_shape: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pad: Any,
    more: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[list[int], Sequence[tuple[int, int]], list[int]]:
    """Return three values. The first two are the spatial sizes and the pads of the convolution whose gradient is
    computed. The third has the spatial sizes of the output.
    """
    inner = x_shape[2:]
    if isinstance(pad, str) and pad in ("same", "same_lower"):
        if any(more):
            raise ValueError(
                f"output_pad is {more}, but must be 0 with pad={pad!r}, because the output size is then the size of x "
                "times the stride"
            )
        whole = [n * s for n, s in zip(inner, strides, strict=True)]
        return whole, resolve_pad(pad, tuple(whole), kernel, strides, dilations, PAD_NAMES), whole
    sizes, pads, spatial = [], [], []
    given = resolve_pad(pad, inner, kernel, strides, dilations, PAD_NAMES)
    for i, (n, k, s, (lo, hi), extra, d) in enumerate(zip(inner, kernel, strides, given, more, dilations, strict=True)):
        full = (n - 1) * s + d * (k - 1) + 1
        out = full - lo - hi + extra
        if out < 1:
            raise ValueError(
                f"spatial axis {i}: pad ({lo}, {hi}) would crop the whole output: {count(n, 'input')} at stride {s}, "
                f"kernel {k} and dilation {d} give {count(full, 'cell')}, so lo + hi must be less than {full}"
            )
        # The transposed convolution is the gradient of a convolution, so its output has the size of the input of this
        # convolution. An `output_pad` below the stride enlarges this input, but the output of the convolution keeps its
        # size. A larger `output_pad` first restores the cells that `pad` crops at the end. It then adds cells outside
        # the input of the convolution, to which no product contributes.
        size = out
        if extra >= s:
            size = max(out - max(extra - hi, 0), 0)
            lo, hi = min(lo, full), max(hi - extra, 0)
        sizes.append(size)
        pads.append((lo, hi))
        spatial.append(out)
    return sizes, pads, spatial
