"""What an installed wheel has to do, on its own: run as a script from outside the source tree."""

from pathlib import Path

import numpy as np

import fastconv
from fastconv.compat import cs231n

assert "site-packages" in Path(fastconv.__file__).parts, fastconv.__file__

rng = np.random.default_rng(0)
x, w, b = rng.standard_normal((2, 4, 9, 8)), rng.standard_normal((6, 2, 3, 3)), rng.standard_normal(6)
options = {"stride": 2, "pad": [(1, 2), (0, 1)], "groups": 2, "pad_mode": "reflect"}
results = []
for layer in (options, {"pad": 1, "groups": 2}):
    results.clear()
    for algorithm in fastconv.algorithms():
        if algorithm == "separable":  # needs kernels of one channel: see below
            continue
        out, cache = fastconv.conv_forward(x, w, b, layer, algorithm=algorithm)
        results.append([out, *fastconv.conv_backward(out, cache)])
    for result in results:
        for first, other in zip(results[0], result, strict=True):
            np.testing.assert_allclose(first, other, atol=1e-10)

box = np.ones((4, 1, 3, 3))
for border in ("zeros", "reflect", "circular"):
    blurred = [
        fastconv.conv(x, box, pad=1, groups=4, pad_mode=border, algorithm=algorithm)
        for algorithm in ("reference", "separable", "fft", "auto")
    ]
    for other in blurred[1:]:
        np.testing.assert_allclose(blurred[0], other, atol=1e-10)

matrix = fastconv.toeplitz_matrix(w, x.shape[1:], pad=1, groups=2)
operator = fastconv.toeplitz_operator(w, x.shape[1:], pad=1, groups=2)
np.testing.assert_allclose(matrix @ x[0].ravel(), fastconv.conv(x[:1], w, pad=1, groups=2).ravel(), atol=1e-10)
np.testing.assert_allclose(matrix.T @ out[0].ravel(), operator.rmatvec(out[0].ravel()), atol=1e-10)

cols = fastconv.im2col(x, 3, pad=1)
assert np.isclose(np.vdot(cols, cols), np.vdot(x, fastconv.col2im(cols, x.shape, 3, pad=1)))
out, cache = fastconv.max_pool_forward(x.astype(np.float32), kernel_size=2)
assert out.dtype == np.float32 and fastconv.max_pool_backward(out, cache).shape == x.shape
out, cache = cs231n.conv_forward_fast(x, w[:, :1].repeat(4, axis=1), b, {"stride": 1, "pad": 1})
assert cs231n.conv_backward_fast(out, cache)[0].shape == x.shape
try:
    fastconv.conv(x, w, stride=0)
except ValueError as error:
    assert str(error).startswith("stride must be an int >= 1 or a fractions.Fraction above 0, got 0")
else:
    raise AssertionError("stride 0 was taken")
print("fastconv", fastconv.__version__, "works: NumPy", np.__version__)
