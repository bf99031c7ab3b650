"""Checks of options and shapes. One function checks each kind of option, so that all layers raise the same errors."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from fastconv.checks.messages import TupleCache, count, kind_of, option_hint, shown

if TYPE_CHECKING:
    from fractions import Fraction

#: Types of option values that can be part of a dict key. Equal values of one of these types mean the same option.
_PLAIN = frozenset((int, str, bool, type(None)))
_INT = frozenset((int,))
_LARGEST = sys.float_info.max


def is_plain(settings: tuple[Any, ...]) -> bool:
    """Return whether all option values can be parts of a dict key. A list cannot, because it is not hashable. The float
    2.0 cannot, because it is an illegal option, but equals the legal option 2.
    """
    if _PLAIN.issuperset(map(type, settings)):
        return True
    for value in settings:
        kind = type(value)
        if kind not in _PLAIN and not (kind is tuple and _INT.issuperset(map(type, value))):
            return False
    return True


def as_cache(cache: Any, source: str, kind: type | None = None, length: int = 0) -> Any:
    """Return `cache` if the forward function `source` can have made it, and raise an error otherwise. The cache must be
    of type `kind`. If `kind` is None, the cache must be a tuple of `length` elements.
    """
    if isinstance(cache, kind) if kind else isinstance(cache, tuple) and len(cache) == length:
        return cache
    got = f"a tuple of {len(cache)}" if type(cache) in (tuple, TupleCache) else kind_of(cache)
    if type(cache) is tuple and len(cache) == 2 and isinstance(cache[1], kind or tuple):
        got += f"; unpack what {source} returned: out, cache = {source}(...)"
    raise TypeError(f"cache must come from {source}{f' and be a tuple of {length}' if length else ''}, got {got}")


def merge_options(
    caller: str,
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    param: Any = None,
    param_name: str = "param",
    also: tuple[str, ...] = (),
    legal: str = "",
) -> dict[str, Any]:
    """Return `defaults` updated by the options in the dict `param` and in the keywords `given`. Raise an error for an
    unknown option, or for one that is both in `param` and in `given`.

    `also` and `legal` are for error messages. `also` has the names of further legal options. If the function `caller`
    takes no keywords, `legal` says what `param` must be.
    """
    if param is None:
        merged = {**defaults, **given}
        if len(merged) == len(defaults):
            return merged
        param = {}
    elif type(param) is not dict and not isinstance(param, Mapping):
        raise TypeError(
            f"{param_name} must be {legal or 'a dict of options or None'}, got {type(param).__name__}"
            + ("" if legal else f"; {caller}() takes options as keywords, too")
        )
    for name in (*param, *given):
        if name not in defaults:
            known = (*defaults, *also)
            hint = option_hint(name, param.get(name, given.get(name)), known)
            raise TypeError(f"{caller}() got an unknown option {name!r}; known are {', '.join(known)}{hint}")
    both = [name for name in given if name in param]
    if both:
        raise TypeError(f"{caller}() got {both[0]!r} both in {param_name} and as a keyword; give it once")
    return {**defaults, **param, **given}


def refuse_keywords(caller: str, param_name: str, given: Mapping[str, Any], **also: Any) -> None:
    """Raise an error for the options `given`, which were passed as keywords but belong in the dict `param_name`. The
    message shows the correct dict, with the options in `given` and `also`.
    """
    meant = {**given, **{name: value for name, value in also.items() if name not in given}}
    raise TypeError(
        f"{caller}() got an unknown option {next(iter(given))!r}; pass options as a dict: "
        f"give {{{', '.join(f'{name!r}: {shown(value)}' for name, value in meant.items())}}} as {param_name}"
    )


def as_int(name: str, value: Any, minimum: int, maximum: int | None = None, also: str = "") -> int:
    """Return `value` as an int. Raise an error for other types, such as floats, bools and None, and for ints outside of
    `minimum` to `maximum`.

    `also` names a second legal type in the error message, such as " or a Fraction".
    """
    if type(value) is not int:
        try:
            if isinstance(value, (bool, np.bool_)):
                raise TypeError
            value = operator.index(value)
        except TypeError:
            raise TypeError(f"{name} must be {_int_range(minimum, maximum)}{also}, got {shown(value)}") from None
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name} must be {_int_range(minimum, maximum)}{also}, got {value}")
    return value


def as_groups(name: str, value: Any, x_shape: tuple[int, ...]) -> int:
    """Return `value` as an int, the number of groups. Raise an error unless it divides the number of channels of x."""
    groups = as_int(name, value, 1)
    if x_shape[1] % groups:
        raise ValueError(f"{name} is {groups}, which does not divide the {x_shape[1]} channels of x {x_shape}")
    return groups


def _int_range(minimum: int, maximum: int | None) -> str:
    return f"an int >= {minimum}" + ("" if maximum is None else f" and <= {maximum}")


def as_number(name: str, value: Any, minimum: float = -math.inf, maximum: float = math.inf) -> float:
    """Return `value` as a float. Raise an error for other types, such as bools and None, and for numbers that are not
    finite or outside of `minimum` to `maximum`.
    """
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if number and isinstance(value, np.generic):
        value = value.item()
    # Compare with the largest float, because a larger int cannot be converted to a float.
    if number and max(minimum, -_LARGEST) <= value <= min(maximum, _LARGEST):
        return float(value)
    ends = [f"{sign} {end:g}" for sign, end in ((">=", minimum), ("<=", maximum)) if math.isfinite(end)]
    raise (ValueError if number else TypeError)(
        f"{name} must be a finite number{' ' if ends else ''}{' and '.join(ends)}, got {value!r}"
    )


def as_bool(name: str, value: Any) -> bool:
    """Return `value` as a bool. Raise an error if it is no bool of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def as_listed(value: Any) -> Any:
    """Return an array of one or more axes as a list, and any other `value` unchanged."""
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim else value


def _one_each(name: str, value: Any, rank: int) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of an option for each spatial axis, such as ``("stride[0]", 2)``. A single value
    applies to all axes, and a sequence has one value per axis.
    """
    value = as_listed(value)
    if not isinstance(value, (list, tuple)):
        yield from [(name, value)] * rank
        return
    if len(value) != rank:
        raise ValueError(
            f"{name} has {count(len(value), 'value')}, {value!r}, for {count(rank, 'spatial axis', 'spatial axes')}; "
            f"give an int or {rank} of them"
        )
    yield from ((f"{name}[{i}]", v) for i, v in enumerate(value))


def for_one_axis(value: Any) -> Any:
    """Return the element of a sequence of length 1, and any other `value` unchanged."""
    value = as_listed(value)
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def per_axis(name: str, value: Any, rank: int, minimum: int) -> tuple[int, ...]:
    """Return an option as one int per spatial axis, each at least `minimum`. `value` is one int or a sequence."""
    if type(value) is int:
        return (as_int(name, value, minimum),) * rank
    return tuple(as_int(part, v, minimum) for part, v in _one_each(name, value, rank))


def _is_fraction(value: Any) -> TypeGuard[Fraction]:
    """Return whether `value` is a Fraction, without importing `fractions`. If no code has imported this module yet, no
    Fraction exists.
    """
    fractions = sys.modules.get("fractions")
    return fractions is not None and isinstance(value, fractions.Fraction)


def _as_ratio(name: str, value: Any) -> tuple[int, int]:
    """Return the numerator and the denominator of `value`. Raise an error unless it is an int or a Fraction above 0."""
    if not _is_fraction(value):
        return as_int(name, value, 1, also=" or a fractions.Fraction above 0"), 1
    if value <= 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return value.numerator, value.denominator


def has_fraction(stride: Any) -> bool:
    """Return whether `stride` is a Fraction or a sequence with a Fraction in it. Raise an error for values that are
    neither ints nor Fractions.
    """
    if type(stride) is int and stride > 0:
        return False
    stride = as_listed(stride)
    several = isinstance(stride, (list, tuple))
    values = stride if several else (stride,)
    for i, value in enumerate(values):
        _as_ratio(f"stride[{i}]" if several else "stride", value)
    return any(map(_is_fraction, values))


def split_fractions(name: str, value: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the numerators and the denominators of an option, one of each per spatial axis. `value` is an int, a
    Fraction, or a sequence with an int or a Fraction for each axis.
    """
    tops, bottoms = zip(*(_as_ratio(part, v) for part, v in _one_each(name, value, rank)), strict=True)
    return tops, bottoms


def is_sampled(stride: Any, upsample: Any) -> bool:
    """Return whether the image may need upsampling: `stride` has a Fraction, or `upsample` is not the int 1."""
    return has_fraction(stride) or type(upsample) is not int or upsample != 1


def split_sampling(stride: Any, upsample: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the integer strides and the upsampling factors, one of each per spatial axis. The stride 2/3 means
    stride 2 after upsampling by 3.
    """
    strides, factors = split_fractions("stride", stride, rank)
    given = per_axis("upsample", upsample, rank, 1)
    if max(given) == 1:
        return strides, factors
    if has_fraction(stride):
        raise ValueError(
            f"stride is {stride!r} and upsample is {upsample!r}; give one or the other, because a Fraction a/b is "
            "upsample=b with stride=a"
        )
    return strides, given


def as_shape(name: str, value: Any, minimum: int = 0) -> tuple[int, ...]:
    """Return `value` as a shape, a tuple of ints that are at least `minimum`. Raise an error otherwise."""
    if not isinstance(value, (list, tuple)):
        hint = f"; pass {name.removesuffix('_shape')}.shape" if isinstance(value, np.ndarray) else ""
        raise TypeError(f"{name} must be a tuple of ints, got {type(value).__name__}{hint}")
    shape = tuple(as_int(f"{name}[{i}]", v, minimum) for i, v in enumerate(value))
    if math.prod(shape) > sys.maxsize or any(size > sys.maxsize for size in shape):
        raise ValueError(f"{name} {shape} has more elements than can be addressed")
    return shape


def is_training(mode: Any, param_name: str) -> bool:
    """Return True for the mode ``'train'`` and False for ``'test'``. Raise an error for any other mode."""
    if isinstance(mode, str) and mode in ("train", "test"):
        return mode == "train"
    raise ValueError(f"mode in {param_name} is {mode!r}; legal are 'train' and 'test'")
