"""Checks of options and shapes. Each kind of option has one function, so that all callers raise the same messages."""

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

#: The types whose values can be cache keys, because equal values of one of these types mean the same option.
_PLAIN = frozenset((int, str, bool, type(None)))
_INT = frozenset((int,))
_LARGEST = sys.float_info.max


def is_plain(settings: tuple[Any, ...]) -> bool:
    """Return whether all values can be cache keys. A list cannot, because it is not hashable; 2.0 cannot, because it
    would find the entry of 2.
    """
    if _PLAIN.issuperset(map(type, settings)):
        return True
    for value in settings:
        kind = type(value)
        if kind not in _PLAIN and not (kind is tuple and _INT.issuperset(map(type, value))):
            return False
    return True


def as_cache(cache: Any, source: str, kind: type | None = None, length: int = 0) -> Any:
    """Return `cache` if it is of type `kind` or, if `kind` is None, a tuple of `length` elements. Anything else is an
    error, because the cache belongs to another layer.
    """
    if isinstance(cache, kind) if kind else isinstance(cache, tuple) and len(cache) == length:
        return cache
    got = f"a tuple of {len(cache)}" if type(cache) in (tuple, TupleCache) else kind_of(cache)
    if type(cache) is tuple and len(cache) == 2 and isinstance(cache[1], kind or tuple):
        got += f"; unpack what {source} returned: out, cache = {source}(...)"
    raise TypeError(f"cache must come from {source}{f', a tuple of {length}' if length else ''}, got {got}")


def merge_options(
    caller: str,
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    param: Any = None,
    param_name: str = "param",
    also: tuple[str, ...] = (),
    legal: str = "",
) -> dict[str, Any]:
    """Return `defaults` updated by the dict `param` and the keywords `given`. Unknown keys and keys given twice are
    errors.

    `legal` is the text that says what `param` must be, for callers that take no keywords.
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
    """Raise an error for keywords that belong in the dict `param_name`. The message shows it with `also` added."""
    meant = {**given, **{name: value for name, value in also.items() if name not in given}}
    raise TypeError(
        f"{caller}() got an unknown option {next(iter(given))!r}; its options are a dict: "
        f"give {{{', '.join(f'{name!r}: {shown(value)}' for name, value in meant.items())}}} as {param_name}"
    )


def as_int(name: str, value: Any, minimum: int, maximum: int | None = None, also: str = "") -> int:
    """Return `value` as an int from `minimum` to `maximum`. Floats, bools and None are errors.

    `also` is a text for the message that says what else is legal.
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
    """Return `value` as a number of groups, which must divide the number of channels of x."""
    groups = as_int(name, value, 1)
    if x_shape[1] % groups:
        raise ValueError(f"{name} is {groups}, which does not divide the {x_shape[1]} channels of x {x_shape}")
    return groups


def _int_range(minimum: int, maximum: int | None) -> str:
    return f"an int >= {minimum}" + ("" if maximum is None else f" and <= {maximum}")


def as_number(name: str, value: Any, minimum: float = -math.inf, maximum: float = math.inf) -> float:
    """Return `value` as a finite float from `minimum` to `maximum`; bools and None are errors."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if number and isinstance(value, np.generic):
        value = value.item()
    # Compare with the largest float first, because an int may be larger than any float.
    if number and max(minimum, -_LARGEST) <= value <= min(maximum, _LARGEST):
        return float(value)
    ends = [f"{sign} {end:g}" for sign, end in ((">=", minimum), ("<=", maximum)) if math.isfinite(end)]
    raise (ValueError if number else TypeError)(
        f"{name} must be a finite number{' ' if ends else ''}{' and '.join(ends)}, got {value!r}"
    )


def as_bool(name: str, value: Any) -> bool:
    """Return `value` if it is a bool; anything else is an error."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def as_listed(value: Any) -> Any:
    """Return the elements of an array with axes as a list, and any other `value` unchanged."""
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim else value


def _one_each(name: str, value: Any, rank: int) -> Iterator[tuple[str, Any]]:
    """Yield a name and a value for each spatial axis. A single value applies to all; a sequence has one per axis."""
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
    """Return the value for the only axis. It is `value` itself or, in a sequence of length 1, its element."""
    value = as_listed(value)
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def per_axis(name: str, value: Any, rank: int, minimum: int) -> tuple[int, ...]:
    """Return `value` as one int per spatial axis."""
    if type(value) is int:
        return (as_int(name, value, minimum),) * rank
    return tuple(as_int(part, v, minimum) for part, v in _one_each(name, value, rank))


def _is_fraction(value: Any) -> TypeGuard[Fraction]:
    """Return whether `value` is a Fraction. It cannot be one if the module `fractions` was never imported."""
    fractions = sys.modules.get("fractions")
    return fractions is not None and isinstance(value, fractions.Fraction)


def _as_ratio(name: str, value: Any) -> tuple[int, int]:
    """Return numerator and denominator of a stride, which must be an int or a Fraction above 0."""
    if not _is_fraction(value):
        return as_int(name, value, 1, also=" or a fractions.Fraction above 0"), 1
    if value <= 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return value.numerator, value.denominator


def has_fraction(stride: Any) -> bool:
    """Return whether `stride` is a Fraction or a sequence with a Fraction; types other than int and Fraction are
    errors.
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
    """Return the numerators and the denominators of `value`, one int or Fraction above 0 per spatial axis."""
    tops, bottoms = zip(*(_as_ratio(part, v) for part, v in _one_each(name, value, rank)), strict=True)
    return tops, bottoms


def is_sampled(stride: Any, upsample: Any) -> bool:
    """Return whether the image may need upsampling, because `stride` has a Fraction or `upsample` is not the int 1."""
    return has_fraction(stride) or type(upsample) is not int or upsample != 1


def split_sampling(stride: Any, upsample: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return integer strides and upsampling factors, one of each per spatial axis, for the options `stride` and
    `upsample`.
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
    """Return `value` as a tuple of ints, each at least `minimum`."""
    if not isinstance(value, (list, tuple)):
        hint = f"; pass {name.removesuffix('_shape')}.shape" if isinstance(value, np.ndarray) else ""
        raise TypeError(f"{name} must be a tuple of ints, got {type(value).__name__}{hint}")
    shape = tuple(as_int(f"{name}[{i}]", v, minimum) for i, v in enumerate(value))
    if math.prod(shape) > sys.maxsize or any(size > sys.maxsize for size in shape):
        raise ValueError(f"{name} {shape} has more elements than can be addressed")
    return shape


def is_training(mode: Any, param_name: str) -> bool:
    """Return whether `mode` is ``'train'`` and not ``'test'``; any other value is an error."""
    if isinstance(mode, str) and mode in ("train", "test"):
        return mode == "train"
    raise ValueError(f"mode in {param_name} is {mode!r}; legal are 'train' and 'test'")
