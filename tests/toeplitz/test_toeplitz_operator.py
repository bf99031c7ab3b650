"""The matrix-free operator of a convolution: it equals the matrix, in SciPy's solvers, too."""

import numpy as np
import pytest
from cases import CASES, DTYPES
from scipy.sparse.linalg import LinearOperator, cg, lsmr, lsqr, svds

from fastconv import toeplitz_matrix, toeplitz_operator


@DTYPES
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operator_is_the_matrix(case, dtype, rng):
    _, w, _ = case.arrays(dtype)
    A, B = toeplitz_matrix(w, case.x[1:], **case.options), toeplitz_operator(w, case.x[1:], **case.options)
    assert isinstance(B, LinearOperator) and A.shape == B.shape and A.dtype == B.dtype
    tolerance = {np.float32: 1e-4, np.float64: 1e-12}[dtype]
    for count in (None, 0, 1, 3):
        tail = () if count is None else (count,)
        x, y = (rng.standard_normal((n, *tail)).astype(dtype) for n in (A.shape[1], A.shape[0]))
        for found, wanted in (
            (B.matvec(x) if count is None else B.matmat(x), A @ x),
            (B.rmatvec(y) if count is None else B.rmatmat(y), A.T @ y),
            (B.T @ y, A.T @ y),
            (B.H @ y, A.T @ y),
        ):
            assert found.dtype == dtype and found.shape == wanted.shape
            scale = max(1, np.abs(wanted).max(initial=0))
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operator_is_adjoint_to_itself_exactly(case, rng):
    """Integers add up without rounding, so <A x, y> == <x, A^T y> for every algorithm."""
    w = rng.integers(-4, 5, case.w).astype(float)
    A = toeplitz_operator(w, case.x[1:], algorithm="implicit", **case.options)
    x, y = (rng.integers(-9, 10, n).astype(float) for n in A.shape[::-1])
    assert np.vdot(A @ x, y) == np.vdot(x, A.rmatvec(y))
    X, Y = rng.integers(-9, 10, (A.shape[1], 2)).astype(float), rng.integers(-9, 10, (A.shape[0], 2)).astype(float)
    assert np.vdot(A @ X, Y) == np.vdot(X, A.rmatmat(Y))


def test_operator_in_scipys_solvers(rng):
    w = rng.standard_normal((4, 1, 3, 3))
    A, B = toeplitz_matrix(w, (1, 8, 9), pad=1), toeplitz_operator(w, (1, 8, 9), pad=1)
    x = rng.standard_normal(A.shape[1])
    b = A @ x
    for solve in (lsqr, lsmr):
        of_operator, of_matrix = (solve(C, b, atol=1e-13, btol=1e-13)[0] for C in (B, A))
        np.testing.assert_allclose(of_operator, x, atol=1e-8)
        np.testing.assert_allclose(of_operator, of_matrix, atol=1e-9)
    found, info = cg(B.T @ B, B.rmatvec(b), rtol=1e-12)
    assert info == 0
    np.testing.assert_allclose(found, x, atol=1e-7)
    np.testing.assert_allclose(
        np.sort(svds(B, k=3, rng=np.random.default_rng(0), return_singular_vectors=False)),
        np.linalg.svd(A.toarray(), compute_uv=False)[2::-1],
    )


def test_operator_on_other_numbers(rng):
    w = rng.standard_normal((2, 3, 3)).astype(np.float32)
    A, B = toeplitz_matrix(w, (3, 7)).astype(np.float64), toeplitz_operator(w, (3, 7))
    x = rng.standard_normal(21)
    assert (B @ x).dtype == np.float64 and (B @ np.arange(21)).dtype == np.float64
    np.testing.assert_allclose(B @ x, A @ x, atol=1e-12)
    z = (x + 1j * x[::-1]).astype(np.complex64)
    assert (B @ z).dtype == np.complex64 and (B @ z.astype(complex)).dtype == complex
    np.testing.assert_allclose(B @ z, A @ z, atol=1e-5)
    y = np.arange(10) + 2j
    np.testing.assert_allclose(B.H @ y, A.T @ y, atol=1e-5)
    before = w.copy()
    B @ x
    assert np.array_equal(w, before)
    with pytest.raises(TypeError, match="x has dtype object"):
        B @ np.array([None] * 21)
