"""Ways to make the matrix of a convolution and to multiply with it, by fastconv and by others."""

from __future__ import annotations

import importlib.metadata
import math
from functools import partial, reduce
from typing import Any

import numpy as np
from scipy import sparse

import fastconv
from support.layers import Layer
from support.peers import Call, optional

#: Optional peers: the name on PyPI, and the name to import.
OPTIONAL = {"sparse-convolution": "sparse_convolution", "pylops": "pylops"}


def optional_versions() -> dict[str, str | None]:
    """The versions of the optional peers."""
    return {name: importlib.metadata.version(name) if optional(module) else None for name, module in OPTIONAL.items()}


def nbytes(matrix: Any) -> int:
    """The bytes of a finished CSR matrix."""
    return matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes


def csr_bytes(layer: Layer, nnz: int) -> int:
    """The bytes that a CSR matrix in float32 with `nnz` entries would have."""
    return nnz * 8 + (layer.filters * math.prod(layer.out) + 1) * 4


def ours(layer: Layer, w: np.ndarray) -> Any:
    """The matrix by `fastconv.toeplitz_matrix`."""
    return fastconv.toeplitz_matrix(w, layer.x_shape(1)[1:], **layer.options)


def meetings(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The indices (tap, position, cell) of all products of one channel: the tap reads the cell at this position."""
    taps = positions = cells = np.zeros(1, np.int32)
    options = layer.options
    sizes = zip(
        layer.axes(layer.size),
        layer.axes(layer.kernel),
        layer.out,
        *(options[name] for name in ("stride", "pad", "dilation")),
        strict=True,
    )
    for size, k, out, stride, pad, dilation in sizes:
        # Axis by axis, so that only the indices that are needed are computed.
        tap, position = np.indices((k, out), np.int32).reshape(2, -1)
        cell = position * stride + tap * dilation - pad
        inside = (cell >= 0) & (cell < size)
        taps = np.add.outer(taps * k, tap[inside]).ravel()
        positions = np.add.outer(positions * out, position[inside]).ravel()
        cells = np.add.outer(cells * size, cell[inside]).ravel()
    return taps, positions, cells


def triplets(layer: Layer, w: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Values, rows and columns of all entries, by NumPy arithmetic on whole arrays, ordered by filter."""
    taps, positions, cells = meetings(layer)
    filters, channels = w.shape[:2]
    spatial = math.prod(layer.axes(layer.size))
    f, c = np.arange(filters, dtype=np.int32), np.arange(channels, dtype=np.int32)
    group = f // (filters // layer.groups)
    channel = group[:, None] * channels + c
    shape = filters, channels, len(taps)
    rows = np.broadcast_to((f[:, None] * math.prod(layer.out) + positions)[:, None], shape)
    columns = channel[:, :, None] * spatial + cells
    values = w.reshape(filters, channels, -1)[:, :, taps]
    return values.ravel(), (rows.ravel(), columns.ravel())


def from_triplets(layer: Layer, entries: tuple) -> Any:
    """The matrix from triplets, by SciPy's conversion of COO to CSR."""
    shape = layer.filters * math.prod(layer.out), math.prod(layer.x_shape(1))
    return sparse.coo_array(entries, shape=shape).tocsr()


def by_coo(layer: Layer, w: np.ndarray) -> Any:
    """The matrix from new triplets, by SciPy's conversion of COO to CSR."""
    return from_triplets(layer, triplets(layer, w))


def by_kron(layer: Layer, w: np.ndarray) -> Any:
    """The sum over taps of kron(filters x channels, a shift along each axis), added in pairs."""
    options = layer.options
    sizes = zip(
        layer.axes(layer.size),
        layer.axes(layer.kernel),
        layer.out,
        *(options[name] for name in ("stride", "pad", "dilation")),
        strict=True,
    )
    shifts = []
    for size, k, out, stride, pad, dilation in sizes:
        positions = np.arange(out)
        found = []
        for tap in range(k):
            cells = positions * stride + tap * dilation - pad
            inside = (cells >= 0) & (cells < size)
            ones = np.ones(inside.sum(), w.dtype)
            found.append(sparse.csr_array((ones, (positions[inside], cells[inside])), shape=(out, size)))
        shifts.append(found)
    terms = []
    for tap in np.ndindex(w.shape[2:]):
        weights = w[(slice(None), slice(None), *tap)]
        blocks = np.split(weights, layer.groups)
        mixing = sparse.csr_array(weights) if layer.groups == 1 else sparse.block_diag(blocks, "csr")
        parts = [mixing, *(found[i] for found, i in zip(shifts, tap, strict=True))]
        terms.append(reduce(partial(sparse.kron, format="csr"), parts))
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + (terms[-1:] if len(terms) % 2 else [])
    return terms[0]


def by_sparse_convolution(layer: Layer, w: np.ndarray) -> Any:
    """The matrix by the PyPI package sparse-convolution: one channel, one filter, two axes, full convolution."""
    package = optional("sparse_convolution")
    h = np.ascontiguousarray(w[0, 0])
    return package.Toeplitz_convolution2d(
        layer.axes(layer.size), h, mode="full", method="precomputed", backend="numpy"
    )._dt


def full(layer: Layer, h: np.ndarray) -> Any:
    """The matrix by `fastconv.convolution_matrix`."""
    return fastconv.convolution_matrix(h, layer.axes(layer.size), "full")


def copied(matrix: Any) -> Any:
    """A copy of the matrix in new memory."""
    arrays = matrix.data.copy(), matrix.indices.copy(), matrix.indptr.copy()
    return sparse.csr_array(arrays, shape=matrix.shape)


def copied_into(matrix: Any, target: Any) -> Any:
    """A copy of the matrix into the memory of `target`."""
    for name in ("data", "indices", "indptr"):
        np.copyto(getattr(target, name), getattr(matrix, name))
    return target


def product_of_images(matrix: Any, x: np.ndarray, out_shape: tuple[int, ...]) -> np.ndarray:
    """The product of a finished matrix with images, by SciPy."""
    columns = np.ascontiguousarray(x.reshape(len(x), -1).T)
    found = (matrix @ columns[:, 0])[:, None] if len(x) == 1 else matrix @ columns
    return np.ascontiguousarray(found.T).reshape(out_shape)


def pylops_operator(layer: Layer, h: np.ndarray, method: str) -> Any:
    """PyLops's operator for an image and a centred kernel of odd sizes."""
    package = optional("pylops")
    return package.signalprocessing.Convolve2D(
        layer.axes(layer.size), h, offset=tuple(k // 2 for k in h.shape), method=method, dtype=h.dtype
    )


def pylops_calls(layer: Layer, h: np.ndarray, v: np.ndarray, adjoint: bool) -> dict[str, Call | None]:
    """The product of PyLops's operator with a vector by each method; None if PyLops is not installed."""
    methods = {"PyLops, fft": "fft", "PyLops, direct": "direct"}
    if optional("pylops") is None:
        return dict.fromkeys(methods)
    found = {name: pylops_operator(layer, h, method) for name, method in methods.items()}
    return {name: partial(a.rmatvec if adjoint else a.matvec, v) for name, a in found.items()}
