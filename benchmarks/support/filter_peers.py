"""The contenders of `bench_filters.py`, and notes on those that are left out because they would run too long."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

import fastconv
from support.filter_cases import BorderCase, FilterCase, SeparableCase, SignalCase
from support.harness import Call, Contenders
from support.peers import optional

#: Estimated seconds per product of the peers that sum products. A peer that would take longer than `LONGEST` is left
#: out.
PER_PRODUCT = {"ndimage": 3e-9, "PyTorch": 1.5e-9}
LONGEST = 0.6
#: PyTorch lowers float64 images to a matrix. Cases with a larger matrix than this are left out.
MOST_BYTES = 1 << 30

Named = dict[str, Call | None]


def _normal(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def affordable(peers: Named, products: dict[str, int], lowered: int = 0) -> tuple[Named, list[str]]:
    """The peers without those that would take too long or too much memory, and a note on each that is left out."""
    found, notes = dict(peers), []
    for name, count in products.items():
        seconds = PER_PRODUCT[name] * count
        if found.get(name) is None:
            continue
        if seconds > LONGEST:
            found[name] = None
            notes.append(f"{name}, which would take some {seconds:.3g} s for {count:.3g} products")
        elif name == "PyTorch" and lowered > MOST_BYTES:
            found[name] = None
            notes.append(f"{name}, which would lower the image to {lowered:.3g} bytes")
    return found, notes


def _with_workers(call: Call, threads: int) -> Call:
    """The call with SciPy's transforms in `threads` threads."""

    def run() -> Any:
        with scipy.fft.set_workers(threads):
            return call()

    return run


def _torch_conv(x: np.ndarray, w: np.ndarray, groups: int = 1) -> Call | None:
    """PyTorch's 'same' convolution without autograd; its result equals fastconv's."""
    torch = optional("torch")
    if torch is None:
        return None
    convolve = getattr(torch.nn.functional, f"conv{x.ndim - 2}d")
    pads = [k // 2 for k in w.shape[2:]]
    return torch.no_grad()(partial(convolve, torch.from_numpy(x), torch.from_numpy(w), padding=pads, groups=groups))


def _first(call: Call | None) -> Call | None:
    """A call that returns the first channel of the first image of `call`'s result."""
    return None if call is None else lambda: call()[0, 0]


def filters(case: FilterCase, threads: int) -> tuple[Contenders, list[str]]:
    """Contenders that correlate one image with one kernel."""
    x = _normal((case.size,) * 2, case.dtype)
    w = _normal((case.kernel,) * 2, case.dtype, 1)
    image, weights = x[None, None], w[None, None]
    turned = np.ascontiguousarray(w[::-1, ::-1])
    cv2 = optional("cv2")
    peers: Named = {
        "cv2.filter2D": cv2 and partial(cv2.filter2D, x, -1, w, borderType=cv2.BORDER_CONSTANT),
        "fftconvolve": _with_workers(partial(scipy.signal.fftconvolve, x, turned, "same"), threads),
        "oaconvolve": _with_workers(partial(scipy.signal.oaconvolve, x, turned, "same"), threads),
        "ndimage": partial(scipy.ndimage.correlate, x, w, mode="constant"),
        "PyTorch": _first(_torch_conv(image, weights)),
    }
    products = case.size**2 * case.kernel**2
    lowered = products * x.itemsize if case.dtype == "float64" else 0
    peers, notes = affordable(peers, {"ndimage": products, "PyTorch": products}, lowered)
    return {"fastconv": _first(partial(fastconv.conv, image, weights, pad="same")), **peers}, notes


def signals(case: SignalCase, threads: int) -> tuple[Contenders, list[str]]:
    """Contenders for a signal, a filter bank or a volume; for SciPy, the channels of a bank are summed here."""
    x, w = _normal(case.shape, case.dtype), _normal(case.weights, case.dtype, 1) / math.prod(case.weights[1:]) ** 0.5
    w = w.astype(case.dtype)
    axes = tuple(range(2, x.ndim))
    turned = np.ascontiguousarray(np.flip(w, axes))
    # SciPy puts the odd cell of an even kernel first.
    ours = partial(fastconv.conv, x, w, pad="same_lower")

    def scipys(convolve: Callable[..., np.ndarray]) -> np.ndarray:
        if w.shape[:2] == (1, 1):
            return convolve(x[0, 0], turned[0, 0], "same")[None, None]
        # SciPy's 'same' would cut the result to the size of the single image.
        starts = [(k - 1) // 2 for k in w.shape[2:]]
        cells = tuple(slice(lo, lo + n) for lo, n in zip(starts, x.shape[2:], strict=True))
        return convolve(x, turned, axes=axes)[(..., *cells)].sum(axis=1)[None]

    torch = optional("torch")
    torchs = None
    if torch is not None:
        convolve = getattr(torch.nn.functional, f"conv{len(axes)}d")
        pads = [(k - 1 - (k - 1) // 2, (k - 1) // 2) for k in case.weights[2:]]
        # An even kernel needs unequal pads, which the argument of PyTorch cannot express.
        even = any(lo != hi for lo, hi in pads)
        source, weights = torch.from_numpy(x), torch.from_numpy(w)
        if even:
            wide = [n for pair in reversed(pads) for n in pair]
            torchs = torch.no_grad()(lambda: convolve(torch.nn.functional.pad(source, wide), weights))
        else:
            torchs = torch.no_grad()(partial(convolve, source, weights, padding=[lo for lo, _ in pads]))
    peers: Named = {
        "fftconvolve": _with_workers(partial(scipys, scipy.signal.fftconvolve), threads),
        "oaconvolve": _with_workers(partial(scipys, scipy.signal.oaconvolve), threads),
        "PyTorch": torchs,
    }
    products = math.prod(case.weights) * math.prod(case.shape[2:])
    lowered = math.prod(case.weights[1:]) * math.prod(case.shape[2:]) * x.itemsize if case.dtype == "float64" else 0
    # PyTorch computes filter banks a hundred times faster per product than single filters.
    weighed = products // 100 if case.weights[0] > 1 else products
    peers, notes = affordable(peers, {"PyTorch": weighed}, lowered)
    return {"fastconv": ours, **peers}, notes


def _line(kind: str, kernel: int) -> tuple[np.ndarray, np.ndarray]:
    """The column and the row whose outer product is the kernel, in float64."""
    if kind == "box":
        return (np.full(kernel, 1 / kernel),) * 2
    if kind == "Gaussian":
        offsets = np.arange(kernel) - kernel // 2
        bell = np.exp(-0.5 * (offsets / sigma(kernel)) ** 2)
        return (bell / bell.sum(),) * 2
    smooth = np.ones(1)
    for _ in range(kernel - 1):
        smooth = np.convolve(smooth, (0.5, 0.5))
    shorter = np.ones(1)
    for _ in range(kernel - 3):
        shorter = np.convolve(shorter, (0.5, 0.5))
    return smooth, np.convolve(shorter, (-0.5, 0, 0.5))


def sigma(kernel: int) -> float:
    """OpenCV's sigma for a Gaussian of `kernel` cells."""
    return 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8


def separable(case: SeparableCase, threads: int) -> tuple[Contenders, list[str]]:
    """Contenders for a kernel of rank one on each channel; OpenCV's images have channels as the last axis."""
    column, row = (line.astype(case.dtype) for line in _line(case.kind, case.kernel))
    w = np.broadcast_to(np.outer(column, row), (case.channels, 1, case.kernel, case.kernel)).copy()
    x = _normal((1, case.channels, case.size, case.size), case.dtype)
    peers: Named = {}
    cv2 = optional("cv2")
    if cv2 is not None:
        picture = np.ascontiguousarray(x[0].transpose(1, 2, 0)) if case.channels > 1 else x[0, 0]
        border, size = {"borderType": cv2.BORDER_CONSTANT}, (case.kernel, case.kernel)
        named = {"cv2.sepFilter2D": partial(cv2.sepFilter2D, picture, -1, row, column, **border)}
        if case.kind == "Gaussian":
            s = sigma(case.kernel)
            named["cv2.GaussianBlur"] = partial(cv2.GaussianBlur, picture, size, s, sigmaY=s, **border)
        if case.kind == "box":
            named["cv2.boxFilter"] = partial(cv2.boxFilter, picture, -1, size, **border)
        peers |= {name: _channels_first(call) for name, call in named.items()}
    products = {}
    if case.kind == "Gaussian":
        peers["ndimage"] = partial(
            scipy.ndimage.gaussian_filter,
            x[0],
            sigma(case.kernel),
            mode="constant",
            radius=case.kernel // 2,
            axes=(1, 2),
        )
        products["ndimage"] = 2 * case.kernel * x.size
    peers, notes = affordable(peers, products)
    ours = partial(fastconv.conv, x, w, pad="same", groups=case.channels)
    return {"fastconv": lambda: ours()[0], **peers}, notes


def _channels_first(call: Call) -> Call:
    """A call that returns OpenCV's result (H, W) or (H, W, C) as a view (C, H, W)."""

    def run() -> np.ndarray:
        found = call()
        return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)

    return run


def borders(case: BorderCase, threads: int) -> tuple[Contenders, list[str]]:
    """Contenders with a border: fastconv's 'fft' and 'auto' against NumPy's product of whole spectra."""
    x, w = _normal(case.spatial, case.dtype), _normal(case.kernel, case.dtype, 1)
    w /= np.sqrt(w.size)
    image, weights = x[None, None], w[None, None]
    dout = _normal(case.spatial, case.dtype, 2)
    options, found = {"pad": "same", "pad_mode": case.pad_mode}, {}
    for name in ("fft", "auto"):
        if case.op == "forward":
            call = partial(fastconv.conv, image, weights, **options, algorithm=name)
        else:
            _, kept = fastconv.conv_forward(image, weights, None, **options, algorithm=name)
            adjoint = case.op == "adjoint"
            backward = partial(fastconv.conv_backward, dout[None, None], kept, need_dx=adjoint, need_dw=not adjoint)
            call = partial(_item, backward, 0 if adjoint else 1)
        found[f"fastconv {name}"] = _first(call)
    pads = [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in case.kernel]
    product = circular_product if case.pad_mode == "circular" else mirrored_product
    given = {"forward": (x, w), "adjoint": (dout, w), "weights": (x, dout)}[case.op]
    return {**found, "NumPy FFT": partial(product, *given, pads, case.op, _NUMPY_MODES[case.pad_mode])}, []


_NUMPY_MODES = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def _item(call: Call, i: int) -> Any:
    return call()[i]


def circular_product(a: np.ndarray, b: np.ndarray, pads: list[tuple[int, int]], op: str, mode: str) -> np.ndarray:
    """The cyclic correlation of an image with a kernel of at most its size, or its adjoint, by three transforms."""
    axes, shape = tuple(range(a.ndim)), a.shape
    spectrum, other = np.fft.rfftn(a, axes=axes), np.fft.rfftn(b, shape, axes=axes)
    spectrum *= other if op == "adjoint" else np.conj(other, out=other)
    cells = np.fft.irfftn(spectrum, shape, axes=axes)
    cells = np.roll(cells, [-lo if op == "adjoint" else lo for lo, _ in pads], axes)
    return cells[tuple(slice(lo + hi + 1) for lo, hi in pads)] if op == "weights" else cells


def mirrored_product(a: np.ndarray, b: np.ndarray, pads: list[tuple[int, int]], op: str, mode: str) -> np.ndarray:
    """The correlation of an image that np.pad mirrors or replicates, or its adjoint, which folds the borders back."""
    axes, sizes = tuple(range(a.ndim)), a.shape
    shape = tuple(n + lo + hi for n, (lo, hi) in zip(sizes, pads, strict=True))
    source = a if op == "adjoint" else np.pad(a, pads, mode)
    spectrum, other = np.fft.rfftn(source, shape, axes=axes), np.fft.rfftn(b, shape, axes=axes)
    spectrum *= other if op == "adjoint" else np.conj(other, out=other)
    found = np.fft.irfftn(spectrum, shape, axes=axes)
    if op != "adjoint":
        return found[
            tuple(slice(lo + hi + 1 if op == "weights" else n) for n, (lo, hi) in zip(sizes, pads, strict=True))
        ]
    for axis, (lo, hi) in enumerate(pads):
        cells, n = np.moveaxis(found, axis, 0), sizes[axis]
        end = n + lo
        if mode == "edge":
            cells[lo] += cells[:lo].sum(axis=0)
            cells[end - 1] += cells[end:].sum(axis=0)
        else:
            cells[lo + 1 : 2 * lo + 1] += cells[:lo][::-1]
            cells[end - 1 - hi : end - 1] += cells[end:][::-1]
        found = np.moveaxis(cells[lo:end], 0, axis)
    return found
