"""The algorithm `toeplitz`: a convolution as a product with its sparse matrix, computed by SciPy.

It shows the definition, and checks the other algorithms. `'auto'` never takes it, because a product has to read an
entry of the matrix for each multiplication.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.convolution.base import Algorithm
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.toeplitz import csr as _csr
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import memory as _memory

#: The largest number of bytes of the matrix.
_MOST_BYTES = 1 << 30
#: The number of products that the gradient of the weights computes at a time.
_PRODUCTS = 1 << 20
_F64 = np.dtype(np.float64)


def _zero_padded(geometry: ConvGeometry) -> ConvGeometry:
    """Return the geometry of the convolution that the matrix computes.

    If the padding is not zeros, the image is padded first, and the matrix computes a convolution without padding.
    """
    return geometry if geometry.pad_mode == "zeros" else geometry.padded


def _shape(geometry: ConvGeometry) -> tuple[int, int]:
    """Return the shape of the matrix of one image: outputs and input cells."""
    return math.prod(geometry.out_shape[1:]), math.prod(geometry.x_shape[1:])


class Toeplitz(Algorithm):
    """Products with the sparse Toeplitz matrix of the convolution.

    Let A be the matrix of the convolution of one image, as `toeplitz_matrix` returns it. Each column of X is an image,
    and each column of Y is the output of this image.

    - forward: ``Y = A @ X``.
    - backward_data: ``dX = A.T @ dY``.
    - backward_weights: the gradient of a weight is the sum of ``dY[row] * X[column]`` over the entries of A that hold
      this weight.

    SciPy multiplies in float64. The matrix has no entries for zero weights, so zero weights are skipped even if the
    image has a NaN or infinity at their taps. For all other weights, NaN and infinities propagate as in the sum of
    products.

    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, section 4.1.
    """

    name = "toeplitz"

    def unsupported(self, case: Case) -> str | None:
        """Refuse layers whose matrix takes more than 1 GiB."""
        geometry = _zero_padded(case.geometry)
        shape, nnz = _shape(geometry), geometry.toeplitz_nnz
        size = _csr.nbytes(shape, nnz, _F64)
        if size <= _MOST_BYTES:
            return None
        return f"the Toeplitz matrix {shape[0]} x {shape[1]} takes {size} bytes, more than {_MOST_BYTES}"

    def plan(self, case: Case) -> Plan:
        """Return the plan for a case."""
        return MatrixGradient(case) if case.op == "backward_weights" else MatrixProduct(case)


class _MatrixPlan(Plan):
    """A plan that makes the matrix of one image on each run."""

    algorithm = "toeplitz"
    exploits_sparsity = True
    #: No rates are measured, so the cost of the plan is infinite.
    work: Mapping[str, float] = {"call": 1.0}

    @property
    def workspace_bytes(self) -> int:
        """The bytes of the matrix, of the tables that describe it, and of the images and results in float64."""
        geometry = _zero_padded(self.case.geometry)
        shape, images = _shape(geometry), geometry.x_shape[0]
        matrix = 2 * _csr.nbytes(shape, geometry.toeplitz_nnz, _F64)
        return matrix + 8 * (3 * images * sum(shape) + 2 * math.prod(geometry.w_shape) + 2 * _PRODUCTS)

    def _check_free(self) -> None:
        _memory.check_free(self.workspace_bytes, "algorithm 'toeplitz'", _memory.BOUNDED)


def _matrix(w: np.ndarray, geometry: ConvGeometry, threads: int) -> Any:
    """Return the matrix of one image in float64, as an array of SciPy."""
    from scipy.sparse import csr_array

    # The copy of the weights cannot change between the counting and the writing of the entries.
    made = _csr.build(w.astype(np.float64).ravel(), _csr.of_outputs(geometry, False), threads)
    return csr_array((made.data, made.indices, made.indptr), shape=made.shape)


class MatrixProduct(_MatrixPlan):
    """Multiplies the matrix by images or, for dx, its transpose by dout."""

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the result.

        If a weight is not finite, the image is padded first, because the products of this weight with zeros of the
        padding are NaN.
        """
        self._check_free()
        geometry = _zero_padded(self.case.geometry)
        if self.case.op == "forward" and any(map(any, geometry.pads)) and not np.isfinite(second).all():
            first = np.pad(first, ((0, 0), (0, 0), *geometry.pads))
            geometry = geometry.padded
        matrix = _matrix(second, geometry, self.case.threads)
        if self.case.op == "backward_data":
            matrix = matrix.T
        columns = first.reshape(len(first), -1).T.astype(np.float64)
        products = matrix @ columns  # [outputs x cells] @ [cells x images], or its transpose
        if third is not None:
            products += np.repeat(third, len(products) // len(third))[:, np.newaxis]
        result[...] = products.T.reshape(result.shape)


class MatrixGradient(_MatrixPlan):
    """Computes the gradient of the weights."""

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the gradient. The entries of a matrix of numbers say which weight is at which row and column."""
        self._check_free()
        geometry, count = _zero_padded(self.case.geometry), math.prod(self.case.geometry.w_shape)
        entries = _matrix(np.arange(1.0, count + 1), geometry, self.case.threads).tocoo()
        x, dout = (a.reshape(len(a), -1).T.astype(np.float64) for a in (first, second))
        dw, step = np.zeros(count), max(1, _PRODUCTS // max(len(first), 1))
        for begin in range(0, entries.nnz, step):
            part = slice(begin, begin + step)
            values = np.einsum("en,en->e", dout[entries.row[part]], x[entries.col[part]])
            dw += np.bincount(entries.data[part].astype(np.intp) - 1, values, count)
        result[...] = dw.reshape(result.shape)
