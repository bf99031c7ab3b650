"""Families of random convolutions. The rates of `'auto'` are fitted on them, and judged on other seeds.

A case is a geometry, an op, a dtype, a number of threads and a pattern of
weights. The same seed draws the same cases, in turn from every family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

import fastconv
from fastconv.convolution.plan import OPS, Op

#: Multiply-adds of a case: the least, the most for few channels, which cost least each, and the most for all others.
#: The fastest algorithm then takes at most about 0.3 s.
LEAST, MOST_OF_FEW, MOST = 1e3, 3e10, 4e9
#: Most bytes of image, weights and output together, in float32.
MOST_BYTES = 96 << 20
#: Most weights of a case. The limit excludes unrealistic ones, such as 3-D filters of 1,024 channels and 25^3 taps.
MOST_WEIGHTS = 1 << 24


@dataclass(frozen=True)
class Case:
    """One call: everything that decides which algorithm is the fastest."""

    family: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    pad_mode: str
    #: The pattern of the weights: '', 'rank one', or the places that are not zero: 'random', 'diagonal', 'ring',
    #: 'corners'.
    pattern: str
    #: The share of weights that are not zero, if the pattern is 'random'.
    share: float
    op: Op
    dtype: str
    threads: int

    @property
    def options(self) -> dict[str, Any]:
        """The options for `fastconv.conv`."""
        return {
            "stride": self.stride,
            "pad": self.pad,
            "dilation": self.dilation,
            "groups": self.groups,
            "pad_mode": self.pad_mode,
        }

    @cached_property
    def geometry(self) -> fastconv.ConvGeometry:
        """The geometry of the call."""
        return fastconv.conv_geometry(self.x_shape, self.w_shape, **self.options)

    @property
    def zeros(self) -> bool:
        """Whether most weights are zero."""
        return self.pattern not in ("", "rank one")

    def weights(self) -> np.ndarray:
        """The weights; every call returns the same values."""
        rng = np.random.default_rng(1)
        if self.pattern == "rank one":
            w = np.ones((*self.w_shape[:2], *(1,) * len(self.w_shape[2:])))
            for i, k in enumerate(self.w_shape[2:]):
                w = w * rng.standard_normal((*self.w_shape[:2], *(k if i == j else 1 for j in range(self.rank))))
        else:
            w = rng.standard_normal(self.w_shape)
            if self.zeros:
                w = np.where(_kept(self.pattern, self.w_shape, self.share, rng), w, 0)
        w /= math.sqrt(max(np.count_nonzero(w) / len(w), 1))
        return np.ascontiguousarray(w, self.dtype)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, w and dout."""
        rng = np.random.default_rng(0)
        x, dout = (
            rng.standard_normal(shape, dtype=np.dtype(self.dtype)) for shape in (self.x_shape, self.geometry.out_shape)
        )
        return x, self.weights(), dout

    @property
    def rank(self) -> int:
        """Spatial axes."""
        return len(self.x_shape) - 2

    def __str__(self) -> str:
        text = f"{self.x_shape} * {self.w_shape}".replace(" ", "").replace("*", " * ")
        extras = {
            "s": (self.stride, (1,) * self.rank),
            "p": (tuple(lo for lo, _ in self.pad), (0,) * self.rank),
            "d": (self.dilation, (1,) * self.rank),
            "g": (self.groups, 1),
        }
        text += "".join(f" {mark}{_short(value)}" for mark, (value, usual) in extras.items() if value != usual)
        if self.pad_mode != "zeros":
            text += f" {self.pad_mode}"
        if self.pattern:
            text += f" {self.pattern}" + (f" {self.share:.2f}" if self.pattern == "random" else "")
        return text

    def as_json(self) -> dict[str, Any]:
        """The case as plain data, which `from_json` reads."""
        return asdict(self)


def from_json(data: dict[str, Any]) -> Case:
    """The case that `as_json` described."""
    fields = {name: tuple(map(_tuple, v)) if isinstance(v, (list, tuple)) else v for name, v in data.items()}
    return Case(**fields)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) and len(set(value)) > 1 else str(np.ravel(value)[0])


def _kept(pattern: str, shape: tuple[int, ...], share: float, rng: np.random.Generator) -> np.ndarray:
    """A mask of the weights that are not zero."""
    if pattern == "random":
        return rng.random(shape) < share
    at = np.meshgrid(*(np.linspace(-1, 1, k) if k > 1 else np.zeros(1) for k in shape[2:]), indexing="ij")
    steps = [2 / max(k - 1, 1) for k in shape[2:]]
    if pattern == "diagonal":
        kept = np.ones(shape[2:], bool)
        for other, step in zip(at[1:], steps[1:], strict=True):
            kept &= np.abs(at[0] - other) <= max(step, steps[0]) / 2 + 1e-9
        if len(shape) == 3:  # echoes: taps at equal distances, with zeros between them
            kept = np.arange(shape[2]) % max(2, shape[2] // 8) == 0
    elif pattern == "ring":
        radius = np.sqrt(sum(axis**2 for axis in at))
        kept = np.abs(radius - 1 + max(steps) / 2) <= max(steps) / 2
    else:  # corners
        kept = np.ones(shape[2:], bool)
        for axis in at:
            kept &= np.abs(axis) == np.abs(axis).max()
    return np.broadcast_to(kept, shape)


class Draw:
    """The random draws that families use."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def whole(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, uniform in its logarithm."""
        return int(min(math.exp(self.rng.uniform(math.log(low), math.log(high + 1))), high))

    def one(self, *values: Any) -> Any:
        """One of the values."""
        return values[int(self.rng.integers(len(values)))]

    def chance(self, part: float) -> bool:
        """True with probability `part`."""
        return bool(self.rng.random() < part)

    def odd(self, low: int, high: int) -> int:
        """An integer that is mostly odd, like the sizes of kernels."""
        k = self.whole(low, high)
        return min(k | 1, high) if self.chance(0.8) else k

    def alike(self, rank: int, low: int, high: int, part: float = 0.6, odd: bool = False) -> tuple[int, ...]:
        """Sizes along axes, equal with probability `part`."""
        draw = self.odd if odd else self.whole
        return (draw(low, high),) * rank if self.chance(part) else tuple(draw(low, high) for _ in range(rank))

    def channels(self, low: int, high: int) -> int:
        """A number of channels: often a power of two or a neighbour of one, as in networks."""
        n = self.whole(low, high)
        return min(max(1 << round(math.log2(n)), low), high) if self.chance(0.6) else n

    def pad(self, kernel: tuple[int, ...], dilation: Sequence[int] | None = None) -> tuple[tuple[int, int], ...]:
        """No padding, or the padding that keeps the image's size."""
        dilation = dilation or (1,) * len(kernel)
        if self.chance(0.3):
            return ((0, 0),) * len(kernel)
        spans = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        return tuple((span // 2, span - span // 2) for span in spans)


#: Part of a case: shapes, and the options that differ from their defaults.
Parts = dict[str, Any]


def _filter(draw: Draw, size: tuple[int, ...], kernel: tuple[int, ...], channels: int) -> Parts:
    """Every channel filtered by itself, as a batch of one-channel images or as groups."""
    if channels > 1 and draw.chance(0.7):
        return {
            "x_shape": (1, channels, *size),
            "w_shape": (channels, 1, *kernel),
            "groups": channels,
            "pad": draw.pad(kernel),
        }
    return {"x_shape": (channels, 1, *size), "w_shape": (1, 1, *kernel), "pad": draw.pad(kernel)}


def _images(draw: Draw) -> Parts:
    size, kernel = draw.alike(2, 64, 2048), draw.alike(2, 3, 129, 0.8, odd=True)
    return _filter(draw, size, kernel, draw.one(1, 1, 3))


def _signals(draw: Draw) -> Parts:
    size, kernel = (draw.whole(1000, 1_000_000),), (draw.whole(3, 4000),)
    return _filter(draw, size, kernel, draw.one(1, 1, 1, 2, draw.whole(2, 16)))


def _banks(draw: Draw) -> Parts:
    """Filter banks: few channels, many filters, mostly with a stride."""
    kernel = (draw.whole(8, 1024),)
    stride = (1 if draw.chance(0.3) else draw.whole(2, max(kernel[0] // 2, 2)),)
    channels = draw.one(1, 1, 2, draw.channels(1, 64))
    x_shape = (draw.one(1, 1, draw.whole(1, 16)), channels, draw.whole(1000, 200_000))
    pad = draw.pad(kernel)
    return {"x_shape": x_shape, "w_shape": (draw.whole(4, 256), channels, *kernel), "stride": stride, "pad": pad}


def _volumes(draw: Draw) -> Parts:
    size, kernel = draw.alike(3, 12, 160), draw.alike(3, 2, 25, 0.8, odd=True)
    if draw.chance(0.6):
        return _filter(draw, size, kernel, draw.one(1, 1, 1, 2, 4))
    channels, filters = draw.channels(1, 32), draw.channels(1, 32)
    return {
        "x_shape": (draw.one(1, 1, 2, 4), channels, *size),
        "w_shape": (filters, channels, *kernel),
        "pad": draw.pad(kernel),
    }


def _wide(draw: Draw) -> Parts:
    """Wide kernels on some channels."""
    rank = draw.one(1, 2, 2, 2)
    channels, filters = draw.channels(2, 128), draw.channels(2, 128)
    kernel = draw.alike(rank, 64, 2048) if rank == 1 else draw.alike(rank, 7, 65, 0.7, odd=True)
    size = draw.alike(rank, 1000, 50_000) if rank == 1 else draw.alike(rank, 16, 384)
    stride = (2 if draw.chance(0.15) else 1,) * rank
    return {
        "x_shape": (draw.one(1, 1, draw.whole(1, 32)), channels, *size),
        "w_shape": (filters, channels, *kernel),
        "pad": draw.pad(kernel),
        "stride": stride,
    }


def _patches(draw: Draw) -> Parts:
    rank = draw.one(1, 2, 2, 2, 3)
    kernel = (draw.whole(2, 32 if rank < 3 else 8),) * rank
    size = tuple(k * draw.whole(2, 64 if rank < 3 else 12) for k in kernel)
    channels = draw.one(1, 3, draw.channels(1, 128))
    return {
        "x_shape": (draw.whole(1, 32), channels, *size),
        "w_shape": (draw.channels(4, 768), channels, *kernel),
        "stride": kernel,
    }


def _tiny(draw: Draw) -> Parts:
    """Tiny images in large batches."""
    rank = draw.one(1, 2, 2, 2, 3)
    kernel = draw.alike(rank, 1, 5, 0.8)
    size = tuple(k + draw.whole(1, 14) - 1 for k in kernel)
    channels = draw.channels(1, 128)
    return {
        "x_shape": (draw.whole(32, 4096), channels, *size),
        "w_shape": (draw.channels(1, 128), channels, *kernel),
        "pad": draw.pad(kernel),
        "stride": (draw.one(1, 1, 2),) * rank,
    }


def _few(draw: Draw) -> Parts:
    """Few filters on many channels, or many filters on few."""
    few, many = draw.whole(1, 4), draw.channels(8, 512)
    channels, filters = (many, few) if draw.chance(0.6) else (few, many)
    kernel = draw.alike(2, 1, 9, 0.9, odd=True)
    return {
        "x_shape": (draw.one(1, 1, draw.whole(1, 32)), channels, *draw.alike(2, 8, 512)),
        "w_shape": (filters, channels, *kernel),
        "pad": draw.pad(kernel),
        "stride": (draw.one(1, 1, 1, 2),) * 2,
    }


def _grouped(draw: Draw) -> Parts:
    rank = draw.one(1, 2, 2, 2)
    groups, channels, filters = draw.channels(2, 64), draw.whole(2, 64), draw.whole(2, 64)
    kernel = draw.alike(rank, 1, 7, 0.9, odd=True)
    return {
        "x_shape": (draw.one(1, draw.whole(1, 32)), groups * channels, *draw.alike(rank, 7, 128)),
        "w_shape": (groups * filters, channels, *kernel),
        "groups": groups,
        "pad": draw.pad(kernel),
        "stride": (draw.one(1, 1, 2),) * rank,
    }


def _depthwise(draw: Draw) -> Parts:
    rank = draw.one(1, 2, 2, 2, 3)
    groups, each = draw.channels(4, 1024), draw.one(1, 1, 1, 2, 4)
    kernel = draw.alike(rank, 3, {1: 65, 2: 15, 3: 5}[rank], 0.9, odd=True)
    dilation = (draw.one(1, 1, 1, 2, 4),) * rank
    stride = (draw.one(1, 1, 2) if dilation[0] == 1 else 1,) * rank
    size = draw.alike(rank, {1: 64, 2: 7, 3: 6}[rank], {1: 8192, 2: 224, 3: 48}[rank], 0.7)
    size = tuple(max(n, (k - 1) * d + 1) for n, k, d in zip(size, kernel, dilation, strict=True))
    return {
        "x_shape": (draw.one(1, draw.whole(1, 32)), groups, *size),
        "w_shape": (groups * each, 1, *kernel),
        "groups": groups,
        "stride": stride,
        "dilation": dilation,
        "pad": draw.pad(kernel, dilation),
    }


def _layers(draw: Draw) -> Parts:
    """Ordinary layers of networks."""
    rank = draw.one(1, 2, 2, 2, 2, 2, 3)
    channels, filters = draw.channels(3, 1024), draw.channels(8, 1024)
    if draw.chance(0.15):
        channels = draw.one(1, 3)
    kernel = draw.one((1,) * rank, (3,) * rank, (3,) * rank, draw.alike(rank, 2, 7, 0.7, odd=True))
    dilation = (draw.one(1, 1, 1, 1, 1, 2, 3),) * rank
    stride = (draw.one(1, 1, 2) if dilation[0] == 1 else 1,) * rank
    return {
        "x_shape": (
            draw.one(1, 1, draw.whole(1, 64)),
            channels,
            *draw.alike(rank, {1: 16, 2: 4, 3: 4}[rank], {1: 16384, 2: 256, 3: 32}[rank], 0.8),
        ),
        "w_shape": (filters, channels, *kernel),
        "stride": stride,
        "dilation": dilation,
        "pad": draw.pad(kernel, dilation),
    }


def _zeros(draw: Draw) -> Parts:
    """Filters and layers whose kernels are mostly zeros."""
    parts = draw.one(_images, _images, _signals, _volumes, _wide, _layers)(draw)
    pattern = draw.one("random", "random", "diagonal", "ring", "corners")
    taps = parts["w_shape"][2:]
    if max(taps) < 5:
        pattern = "random"
    share = math.exp(draw.rng.uniform(math.log(0.01), math.log(0.3))) if pattern == "random" else 1.0
    if share * math.prod(parts["w_shape"][1:]) < 2:  # at least one weight has to stay
        share = 0.3
    return {**parts, "pattern": pattern, "share": round(share, 3)}


def _borders(draw: Draw) -> Parts:
    """Circular and mirrored borders."""
    parts = draw.one(_images, _images, _signals, _volumes, _wide, _layers)(draw)
    mode = draw.one("circular", "circular", "reflect", "replicate")
    pads, dilation = [], parts.get("dilation", (1,) * len(parts["w_shape"][2:]))
    for n, k, d in zip(parts["x_shape"][2:], parts["w_shape"][2:], dilation, strict=True):
        span = (k - 1) * d
        pads.append((min(span // 2, n - 1), min(span - span // 2, n - 1)))
    return {**parts, "pad_mode": mode, "pad": tuple(pads)}


def _rank_one(draw: Draw) -> Parts:
    """Kernels that are outer products, such as blurs."""
    parts = draw.one(_images, _images, _images, _volumes, _depthwise)(draw)
    if parts["w_shape"][1] > 1:
        parts |= _filter(draw, parts["x_shape"][2:], parts["w_shape"][2:], draw.one(1, 3))
    if draw.chance(0.2) and max(parts["w_shape"][2:]) > 1:
        parts = _borders_of(draw, parts)
    return {**parts, "pattern": "rank one"}


def _borders_of(draw: Draw, parts: Parts) -> Parts:
    if parts.get("dilation", (1,))[0] > 1:
        return parts
    spans = [(min((k - 1) // 2, n - 1), min(k // 2, n - 1)) for n, k in _axes(parts)]
    return {**parts, "pad_mode": draw.one("circular", "reflect", "replicate"), "pad": tuple(spans)}


def _axes(parts: Parts) -> list[tuple[int, int]]:
    return list(zip(parts["x_shape"][2:], parts["w_shape"][2:], strict=True))


FAMILIES: dict[str, Callable[[Draw], Parts]] = {
    "images": _images,
    "signals": _signals,
    "filter banks": _banks,
    "zeros": _zeros,
    "borders": _borders,
    "volumes": _volumes,
    "wide kernels": _wide,
    "patches": _patches,
    "tiny images": _tiny,
    "few filters": _few,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "layers": _layers,
    "rank one": _rank_one,
}


def _legal(parts: Parts, work: float) -> bool:
    """Whether the shapes fit each other and the case is within the bounds; `work` scales the bound of multiply-adds."""
    x_shape, w_shape, rank = parts["x_shape"], parts["w_shape"], len(parts["x_shape"]) - 2
    if math.prod(w_shape) > MOST_WEIGHTS:
        return False
    outs = []
    for i in range(rank):
        stride, dilation = (parts.get(name, (1,) * rank)[i] for name in ("stride", "dilation"))
        room = x_shape[2 + i] + sum(parts["pad"][i]) - (w_shape[2 + i] - 1) * dilation - 1
        if room < 0:
            return False
        outs.append(room // stride + 1)
    out = x_shape[0] * w_shape[0] * math.prod(outs)
    products = out * math.prod(w_shape[1:])
    few = w_shape[1] <= 4 and w_shape[0] <= 8 * parts.get("groups", 1)
    most = (MOST_OF_FEW if few else MOST) * work
    nbytes = 4 * (math.prod(x_shape) + math.prod(w_shape) + out)
    return LEAST <= products <= most and nbytes <= MOST_BYTES * work


def draw_case(
    rng: np.random.Generator, family: str, threads: Sequence[int], dtypes: Sequence[str] = ("float32", "float64")
) -> Case:
    """A random case of a family, with any op and one of the dtypes and thread counts."""
    draw = Draw(rng)
    op, dtype, count = draw.one(*OPS), draw.one(*dtypes), draw.one(*threads)
    # One thread takes twice the time, and so does float64.
    work = (1.0 if count > 1 else 0.5) * (1.0 if dtype == "float32" else 0.5)
    while True:
        parts = FAMILIES[family](draw)
        rank = len(parts["x_shape"]) - 2
        plain = {
            "stride": (1,) * rank,
            "pad": ((0, 0),) * rank,
            "dilation": (1,) * rank,
            "groups": 1,
            "pad_mode": "zeros",
            "pattern": "",
            "share": 1.0,
        }
        whole = plain | parts
        if _legal(whole, work):
            return Case(family=family, op=op, dtype=dtype, threads=count, **whole)


def draw_cases(
    seed: int,
    families: Sequence[str] = tuple(FAMILIES),
    threads: Sequence[int] = (1, 2),
    dtypes: Sequence[str] = ("float32", "float64"),
) -> Iterator[Case]:
    """Cases without end, one from every family in turn; a case depends on the seed, its family and its round."""
    count = 0
    while True:
        for family in families:
            index = list(FAMILIES).index(family)
            yield draw_case(np.random.default_rng((seed, index, count)), family, threads, dtypes)
        count += 1
