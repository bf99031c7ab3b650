"""Random geometries with one to three axes, against the oracle and against scipy.signal."""

import numpy as np
import oracle
import pytest
from cases import geometries, kernels_for
from hypothesis import assume, given, strategies as st

import fastconv
from fastconv.convolution.plan import Case


@given(geometries(), st.sampled_from(fastconv.algorithms()), st.integers(0, 2**32 - 1))
def test_forward_and_backward(geometry, algorithm, seed):
    x_shape, w_shape, options = geometry
    try:
        axes = fastconv.conv_geometry(x_shape, w_shape, **options).axes
    except ValueError:
        assume(False)
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(shape) for shape in (x_shape, w_shape, w_shape[:1]))
    table, out_spatial = oracle.windows(
        x_shape[2:],
        w_shape[2:],
        [a.stride for a in axes],
        [(a.lo, a.hi) for a in axes],
        [a.dilation for a in axes],
        options["pad_mode"],
    )
    entry = fastconv.convolution.choose.REGISTRY[algorithm]
    reason = entry.unsupported(Case.of("forward", fastconv.conv_geometry(x.shape, w.shape, **options), x.dtype))
    if reason is not None:
        with pytest.raises(ValueError, match=f"algorithm '{algorithm}' cannot do this forward"):
            fastconv.conv_forward(x, w, b, algorithm=algorithm, **options)
        return
    w = kernels_for(algorithm, w)
    out, cache = fastconv.conv_forward(x, w, b, algorithm=algorithm, **options)
    expected = oracle.conv(x, w, b, table, out_spatial, options["groups"], options["flip"])
    np.testing.assert_allclose(out, expected, atol=1e-11)
    dout = rng.standard_normal(out.shape)
    wanted = oracle.conv_gradients(x, w, dout, table, options["groups"], options["flip"])
    for actual, gradient in zip(fastconv.conv_backward(dout, cache), wanted, strict=True):
        np.testing.assert_allclose(actual, gradient, atol=1e-10)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_flipped_full_convolution_is_scipys(spatial, kernel, seed):
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal(spatial), rng.standard_normal(kernel[: len(spatial)])
    out = fastconv.conv(x[None, None], w[None, None], pad="full", flip=True)[0, 0]
    np.testing.assert_allclose(out, signal.convolve(x, w, method="direct"), atol=1e-11)


@given(geometries(), st.integers(0, 2**32 - 1))
def test_lowering_is_exactly_adjoint(geometry, seed):
    """Every sum of small integers is exact, so both inner products are equal to the bit."""
    x_shape, w_shape, options = geometry
    options = {k: v for k, v in options.items() if k not in ("groups", "flip")}
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 9, x_shape).astype(np.float64)
    try:
        cols = fastconv.im2col(x, w_shape[2:], **options)
    except ValueError:
        assume(False)
    values = rng.integers(-8, 9, cols.shape).astype(np.float64)
    image = fastconv.col2im(values, x_shape, w_shape[2:], **options)
    assert np.vdot(cols, values) == np.vdot(x, image)
