"""One spatial axis of a convolution or pooling: its sizes, and the tables that kernels read.

A cell is one element of one channel of an image. A tap is one element of a kernel.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np

from fastconv.checks.messages import count, count_axes
from fastconv.checks.options import as_shape
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

PerAxis: TypeAlias = int | Sequence[int]
AXIS_NAMES = ("D", "H", "W")


class AxisRow(NamedTuple):
    """The sizes of one axis in the form in which the compiled kernels read them: see `Axis.row`."""

    size: int
    k: int
    stride: int
    lo: int
    dilation: int
    out: int


@dataclass(frozen=True)
class Axis:
    """The sizes of one spatial axis. `k` is the kernel size, `lo` and `hi` are the pads before and after the image, and
    `out` is the output size.
    """

    size: int
    k: int
    stride: int
    lo: int
    hi: int
    dilation: int
    out: int

    @property
    def extent(self) -> int:
        """The number of cells from the first to the last tap. For example, kernel 3 with dilation 2 spans 5 cells."""
        return self.dilation * (self.k - 1) + 1

    @property
    def padded(self) -> int:
        """The input size plus both pads."""
        return self.size + self.lo + self.hi

    def row(self) -> AxisRow:
        """Return the sizes that kernels read.

        If there is only one output, the stride has no effect, and is replaced by 1. If there is only one tap, the
        dilation has no effect, and is replaced by 1. Otherwise, huge values could make indices in the kernels overflow.
        Taps beyond the padded input do not count in k. Only the last window of a pooling with `ceil_mode` may have such
        taps.
        """
        k = min(self.k, (self.padded - 1) // self.dilation + 1)
        stride, dilation = self.stride if self.out > 1 else 1, self.dilation if k > 1 else 1
        return AxisRow(self.size, k, stride, self.lo, dilation, self.out)

    def outputs_before(self, tap: int, bound: int) -> int:
        """Return the number of outputs for which tap number `tap` reads a cell with an index below `bound`."""
        reach = bound + self.lo - tap * self.dilation
        return min((reach - 1) // self.stride + 1, self.out) if reach > 0 else 0


#: An axis of size 1. Kernels need three spatial axes, and this axis takes the place of missing axes.
UNIT_AXIS = Axis(1, 1, 1, 0, 0, 1, 1)


class CheckedFields(ABC):
    """The base class of frozen dataclasses of sizes. The constructor raises an error if the fields are inconsistent.

    The constructor checks the fields because kernels do not check them. `dataclasses.replace`, copies and pickles call
    the constructor, too. The constructor also computes the attributes of `_derived`, because every call reads them.
    """

    def __post_init__(self) -> None:
        try:
            fault = self._fault()
        except (TypeError, AttributeError) as error:  # A field has a wrong type, so a comparison or `len` fails.
            if type(error) not in (TypeError, AttributeError):  # a subclass comes from a signal handler
                raise
            fault = "a field is of the wrong type"
        if fault is not None:
            raise ValueError(f"the fields of this {type(self).__name__} do not fit each other: {fault}")
        self._complete()

    @abstractmethod
    def _fault(self) -> str | None:
        """Return the reason why the fields are inconsistent, or None if they are consistent."""

    #: The names of the attributes that `_complete` sets.
    _DERIVED: ClassVar[tuple[str, ...]] = ("_hash",)

    def _derived(self) -> dict[str, Any]:
        """Compute further attributes from the fields. Return a dict from their names to their values."""
        return {}

    def _complete(self) -> None:
        """Set the attributes of `_derived`. Also store the hash, because every lookup of a plan needs the hash."""
        names = type(self).__dataclass_fields__  # type: ignore[attr-defined]
        vars(self).update(_hash=hash(tuple([getattr(self, name) for name in names])), **self._derived())

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore an object from an old pickle, which has a dict of the fields. Check the fields."""
        type(self).__init__(self, **{field.name: state.get(field.name) for field in fields(self)})  # type: ignore

    def derive(self, **changes: Any) -> Self:
        """Return a copy with changed fields, without checks. The caller must ensure that the fields are consistent."""
        found = object.__new__(type(self))
        for field in fields(self):  # type: ignore[arg-type]
            vars(found)[field.name] = changes.get(field.name, getattr(self, field.name))
        found._complete()
        return found

    def __getattr__(self, name: str) -> Any:
        """Raise an error for a missing attribute. Fields and derived attributes are missing only if an object was made
        without its constructor.
        """
        if name in type(self).__dataclass_fields__ or name in self._DERIVED:  # type: ignore[attr-defined]
            raise ValueError(f"this {type(self).__name__} has no {name}: it was not made by its constructor")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def check_shape(name: str, shape: Any, least: int = 0) -> str | None:
    """Return an error text if `shape` is not a legal shape with one to three spatial axes, and None otherwise."""
    if type(shape) is not tuple or not 3 <= len(shape) <= 5 or any(type(n) is not int for n in shape):
        return f"{name} is {shape!r}, which is no tuple of 3 to 5 ints"
    if min(shape) < least or max(shape) > sys.maxsize or math.prod(shape) > sys.maxsize:
        return f"{name} is {shape}, whose sizes must be at least {least} and whose elements can be addressed"
    return None


def check_axes(x_shape: Any, axes: Any) -> str | None:
    """Return an error text if `axes` are not the spatial axes of images of shape `x_shape`, and None otherwise."""
    fault = check_shape("x_shape", x_shape)
    if fault is not None:
        return fault
    if type(axes) is not tuple or any(type(axis) is not Axis for axis in axes) or len(axes) != len(x_shape) - 2:
        return f"axes must be a tuple of {len(x_shape) - 2} Axis"
    for i, (axis, size) in enumerate(zip(axes, x_shape[2:], strict=True)):
        numbers = (axis.size, axis.k, axis.stride, axis.lo, axis.hi, axis.dilation, axis.out)
        least = (0, 1, 1, 0, 0, 1, 1)
        if any(type(n) is not int for n in numbers) or any(map(int.__lt__, numbers, least)):
            return f"axes[{i}] is {axis}, whose size and pads are at least 0, and all else at least 1"
        if axis.size != size:
            return f"axes[{i}] has size {axis.size}, but x_shape is {x_shape}"
    padded = tuple(axis.padded for axis in axes)
    if math.prod(padded) * max(math.prod(x_shape[:2]), 1) > sys.maxsize or max(padded) > sys.maxsize:
        return f"x_shape {x_shape} with its pads {tuple((a.lo, a.hi) for a in axes)} has too many elements"
    return None


def windows(axis: Axis) -> int:
    """Return the number of windows that fit into the axis with its padding."""
    span = axis.padded - axis.extent
    return span // axis.stride + 1 if span >= 0 else 0


def three_rows(axes: tuple[Axis, ...]) -> list[AxisRow]:
    """Return `Axis.row` of three axes, because kernels have three. Missing axes have size 1."""
    return [axis.row() for axis in (*(UNIT_AXIS,) * (3 - len(axes)), *axes)]


def output_ranges(axes: tuple[Axis, ...]) -> np.ndarray:
    """Return an array with two rows and a column for each tap of each of three axes.

    The column of a tap has the first output for which the tap reads the image and not the padding, and the last such
    output plus 1.
    """
    return plans.find_sized(_nbytes, _output_ranges, axes)


def _nbytes(ranges: np.ndarray) -> int:
    return ranges.nbytes


def _output_ranges(axes: tuple[Axis, ...]) -> np.ndarray:
    reach = []
    for size, k, stride, lo, dilation, out in three_rows(axes):
        start = np.arange(k, dtype=np.intp) * dilation - lo
        reach.append([np.clip((bound - start - 1) // stride + 1, 0, out) for bound in (0, size)])
    table = np.ascontiguousarray(np.hstack(reach))
    table.flags.writeable = False
    return table


def connections(axis: Axis, pad_mode: str) -> int:
    """Return the number of pairs (output, cell) along one axis for which the output reads the cell.

    If the padding copies cells of the image, several taps of an output may read the same cell. The output and the cell
    then count as one pair.
    """
    if pad_mode == "zeros":
        first, last = _output_ranges((axis,))[:, 2:]  # Columns 0 and 1 belong to the two inserted axes of size 1.
        return int(np.sum(np.maximum(last - first, 0)))
    # Only windows that overlap the padding can read a cell twice. These windows belong to the outputs before `begin`,
    # and to the outputs from `end` on.
    begin = min(axis.outputs_before(0, 0), axis.out)
    end = max(axis.outputs_before(axis.k - 1, axis.size), begin)
    taps = np.arange(axis.k) * axis.dilation - axis.lo
    border = (*range(begin), *range(end, axis.out))
    merged = sum(len(np.unique(source_cells(taps + o * axis.stride, axis.size, pad_mode))) for o in border)
    return axis.k * (end - begin) + merged


def source_cells(at: np.ndarray, size: int, pad_mode: str) -> np.ndarray:
    """Return, for each position in `at`, the index of the image cell that has the value of this position. The index is
    -1 if the position is padded with a zero.

    The positions 0 to size - 1 are the cells of the image. All other positions are in the padding.
    """
    if pad_mode == "zeros":
        return np.where((at >= 0) & (at < size), at, -1)
    if pad_mode == "replicate":
        return np.clip(at, 0, size - 1)
    if pad_mode == "circular":
        return at % size
    return size - 1 - np.abs(size - 1 - np.abs(at))


def check_rank(name: str, shape: tuple[int, ...]) -> None:
    """Raise an error for a shape that is not ``(N, C, *spatial)`` with one to three spatial axes."""
    if not 3 <= len(shape) <= 5:
        hint = "; give a single image as x[None, None]" if name == "x" and len(shape) == 2 else ""
        raise ValueError(
            f"{name} has {count_axes(len(shape))}, {shape}; legal are 3 to 5: (N, C, W), (N, C, H, W) or "
            f"(N, C, D, H, W){hint}"
        )


def data_shape(name: str, value: Any) -> tuple[int, ...]:
    """Return `value` as a shape ``(N, C, *spatial)`` with one to three spatial axes."""
    shape = as_shape(name, value)
    check_rank(name, shape)
    return shape


def floor_out(i: int, size: int, k: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """Return the output size along spatial axis `i`, rounded down. Raise an error if it is below 1."""
    span = size + sum(pads) - (dilation * (k - 1) + 1)
    if span < 0:
        raise ValueError(
            f"spatial axis {i}: the kernel covers {span_text(k, dilation)} but the padded input has only "
            f"{size + sum(pads)} ({size} with pads {pads}); use a smaller kernel or dilation, or a larger pad"
        )
    return span // stride + 1


def span_text(k: int, dilation: int) -> str:
    """Return the text for the number of cells that a kernel covers, such as ``3 cells`` or ``5 cells (k=3,
    dilation=2)``.
    """
    return f"{count(dilation * (k - 1) + 1, 'cell')}" + (f" (k={k}, dilation={dilation})" if dilation > 1 else "")
