"""Construction of the matrix of a convolution and products with it: fastconv against SciPy and PyPI packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from scipy import signal

import fastconv
from support import matrices
from support.harness import Contenders, Options, Oracle, measure
from support.layers import LIST, Layer
from support.memory import extra, why_not
from support.peers import optional
from support.report import Column, Ratio, Report, Row, judged, short

Show = Callable[..., None]

#: Columns of the dense factor in a product with the matrix.
COLUMNS = 64
#: Seconds of a turn.
TURN = 0.03
#: Peak memory is measured for matrices of at least this many bytes; in smaller cases threads and code dominate it.
LEAST_BYTES = 16 << 20
#: Target for the peak memory divided by the memory of the finished matrix.
PEAK_TARGET = 1.1
#: Construction copies values and computes none. Products are sums in float32, in the worst case by transforms.
PRODUCT_TOLERANCE = 1e-5

CAPTIONS = {
    "layers": (
        "Toeplitz matrices of layers: made, and times 64 columns",
        "Time of the peer / time of fastconv: above 1 fastconv is faster. build is toeplitz_matrix in float32. "
        "'COO to CSR' computes values, rows and columns by NumPy on whole arrays, and then calls SciPy's tocsr; "
        "'tocsr alone' is the second step. kron is the sum over taps of scipy.sparse.kron of the weights with "
        "shifts along the axes, added in pairs. copy is a copy of the finished arrays into new memory, and "
        "'copy, warm' into memory that was used before. All matrices are equal to the bit. product is A @ X of "
        "a finished matrix with 64 columns, by SciPy; fastconv convolves the 64 images without the matrix. Both are "
        "compared with a convolution in float64.",
    ),
    "images": (
        "Convolution matrices of single images: made, and applied without being made",
        "As above, for convolution_matrix(h, shape, 'full'), the matrix that the package sparse-convolution "
        "makes. A @ x and A.T @ y, mode 'same', are products of toeplitz_operator, which makes no matrix. "
        "PyLops has an operator of the same kind, and SciPy multiplies with fastconv's finished matrix. Results "
        "are compared with scipy.signal in float64.",
    ),
}

_BUILDS = (
    Ratio("build", "COO to CSR", mean=20.0),
    Ratio("build", "kron"),
    Ratio("build", "copy", mean=0.333),
)
_PYLOPS = ("PyLops, fft", "PyLops, direct", "SciPy, matrix")

#: Shapes of layers, from the lists of nets and others, so that every option occurs.
_LAYERS = (
    *(layer for layer in LIST if layer.case in ("LeNet 28 1-6 k5", "LeNet 14 6-16 k5", "CS231n 32 3-32 k7")),
    Layer("GoogLeNet", 28, 16, 32, 5, pad=2),
    Layer("MobileNet", 112, 32, 32, 3, pad=1, groups=32),
    Layer("strided", 56, 32, 32, 3, stride=2, pad=1),
    Layer("dilated", 28, 32, 32, 3, pad=2, dilation=2),
    Layer("volume", (8, 14, 14), 16, 16, (3, 3, 3), pad=(1, 1, 1)),
)
#: Single images, padded so that the result is the full convolution.
_IMAGES = tuple(
    Layer("image", size, 1, 1, k, pad=k - 1)
    for size, k in ((64, 3), (64, 11), (128, 3), (128, 5), ((96, 160), 7), (256, 3), (256, 5), (512, 3))
)


def ratios_of(part: str) -> tuple[Ratio, ...]:
    """The ratios of a part."""
    if part == "layers":
        alone = Ratio("build", "tocsr alone")
        warm = Ratio("build", "copy, warm", bound=True)
        return *_BUILDS[:1], alone, *_BUILDS[1:], warm, Ratio("product", "SciPy", mean=2.0)
    package = Ratio("build", "sparse-convolution", mean=100.0)
    builds = *_BUILDS[:2], package, _BUILDS[2]
    return *builds, *(Ratio(panel, peer) for panel in ("A @ x", "A.T @ y") for peer in _PYLOPS)


def layer_cases(quick: bool) -> tuple[Layer, ...]:
    """Layers whose matrix is made."""
    return _LAYERS[1:8:3] if quick else _LAYERS


def image_cases(quick: bool) -> tuple[Layer, ...]:
    """Images whose matrix is made."""
    return _IMAGES[::3] if quick else _IMAGES


def layer_rows(layer: Layer, options: Options, show: Show) -> Iterator[Row]:
    """Rows for a layer: construction, its memory, and the product with many columns."""
    w = layer.arrays(1)[1]
    finished = matrices.ours(layer, w)
    # Copy into the memory of another copy, not of the finished matrix, so that the target is in no contender's caches.
    target = finished.copy()
    contenders: Contenders = {
        "fastconv": partial(matrices.ours, layer, w),
        "COO to CSR": partial(matrices.by_coo, layer, w),
        "tocsr alone": partial(matrices.from_triplets, layer, matrices.triplets(layer, w)),
        "kron": partial(matrices.by_kron, layer, w),
        "copy": partial(matrices.copied, finished),
        "copy, warm": partial(matrices.copied_into, finished, target),
    }
    timings = measure(f"build: {layer.case}", contenders, 0.0, options, show, turn=TURN)
    size = matrices.nbytes(finished)
    details: dict[str, Any] = {"layer": layer._asdict(), "nnz": finished.nnz, "matrix_bytes": size, "peak": {}}
    if why_not() is None and size >= LEAST_BYTES:
        for name in ("fastconv", "COO to CSR"):
            answer = extra(name, layer, "matrix", 1, options.threads)
            details["peak"][name] = None if answer.nbytes is None else (answer.nbytes + size) / size
            show()
    yield Row("build", layer.case, 1, details, timings)

    x = np.random.default_rng(2).standard_normal((COLUMNS, *layer.x_shape(1)[1:]), dtype=np.float32)
    doubles = (array.astype(np.float64) for array in (x, w))
    right = fastconv.conv(*doubles, **layer.options, algorithm="im2col").reshape(COLUMNS, -1).T
    columns = np.ascontiguousarray(x.reshape(COLUMNS, -1).T)
    contenders = {
        "fastconv": lambda: fastconv.conv(x, w, **layer.options).reshape(COLUMNS, -1).T,
        "SciPy": partial(finished.__matmul__, columns),
    }
    oracle = Oracle(right, np.dtype(np.float32))
    timings = measure(f"product: {layer.case}", contenders, PRODUCT_TOLERANCE, options, show, oracle, TURN)
    yield Row("product", layer.case, 1, {"columns": COLUMNS}, timings)


def image_rows(layer: Layer, options: Options, show: Show) -> Iterator[Row]:
    """Rows for an image: construction, and the product by an operator that needs no matrix."""
    h = layer.arrays(1)[1][0, 0]
    # A convolution flips the kernel, so `Layer`, which correlates, gets the flipped kernel.
    turned = np.ascontiguousarray(h[::-1, ::-1])[np.newaxis, np.newaxis]
    package = optional("sparse_convolution") is not None
    contenders: Contenders = {
        "fastconv": partial(matrices.full, layer, h),
        "COO to CSR": partial(matrices.by_coo, layer, turned),
        "kron": partial(matrices.by_kron, layer, turned),
        "sparse-convolution": partial(matrices.by_sparse_convolution, layer, h[np.newaxis, np.newaxis])
        if package
        else None,
        "copy": partial(matrices.copied, matrices.full(layer, h)),
    }
    timings = measure(f"build: {layer.case}", contenders, 0.0, options, show, turn=TURN)
    yield Row("build", layer.case, 1, {"layer": layer._asdict()}, timings)

    shape = layer.axes(layer.size)
    image = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
    operator = fastconv.toeplitz_operator(turned, (1, *shape), pad="same")
    matrix = fastconv.convolution_matrix(h, shape, "same")
    functions = {"A @ x": signal.convolve2d, "A.T @ y": signal.correlate2d}
    for panel, function in functions.items():
        right = function(image.astype(np.float64), h.astype(np.float64), "same").ravel()
        vector, adjoint = image.ravel(), panel == "A.T @ y"
        contenders = {
            "fastconv": partial(operator.rmatvec if adjoint else operator.matvec, vector),
            **matrices.pylops_calls(layer, h, vector, adjoint),
            "SciPy, matrix": partial((matrix.T if adjoint else matrix).__matmul__, vector),
        }
        oracle = Oracle(right, np.dtype(np.float32))
        timings = measure(f"{panel}: {layer.case}", contenders, PRODUCT_TOLERANCE, options, show, oracle, TURN)
        yield Row(panel, layer.case, 1, {"layer": layer._asdict()}, timings)


def columns(report: Report, panel: str) -> list[Column]:
    """Columns of a panel's table besides the ratios: the size of the matrices, and the peak of their construction."""
    if not any("peak" in row.details for row in report.rows if row.panel == panel):
        return []
    found = [
        Column("entries", lambda row: f"{row.details['nnz']:,}"),
        Column("MiB", lambda row: f"{row.details['matrix_bytes'] / 2**20:.1f}"),
    ]
    names = ("fastconv", "COO to CSR")
    return found + [Column(f"peak / matrix\n{name}", partial(_peak_of, name)) for name in names]


def _peak_of(name: str, row: Row) -> str:
    return short(row.details["peak"].get(name))


def memory_verdicts(reports: list[Report]) -> Iterator[tuple[str, dict[str, Any], bool, str]]:
    """The largest peak memory of construction divided by the matrix's own; SciPy's has no target."""
    for name, target in (("fastconv", PEAK_TARGET), ("COO to CSR", None)):
        found = [
            (row.details["peak"][name], row.case)
            for report in reports
            for row in report.rows
            if row.details.get("peak", {}).get(name) is not None
        ]
        if found:
            most, where = max(found)
            yield f"peak memory of making it / the matrix, at most: {name}", judged(most, target, True), True, where
