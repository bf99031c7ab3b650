"""PyTorch as a second oracle, if it is installed."""

import numpy as np
import pytest
from cases import kernels_for

import fastconv
from fastconv.convolution.plan import Case

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
F = torch.nn.functional
DTYPES = {"f32": (np.float32, 2e-5), "f64": (np.float64, 1e-11)}


def grad_of(out, dout, *leaves):
    return [g.numpy() for g in torch.autograd.grad(out, leaves, torch.tensor(dout))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("algorithm", fastconv.algorithms())
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "pad", "dilation", "groups", "mode"),
    [
        (1, 0, 1, 1, "zeros"),
        (2, 1, 1, 2, "zeros"),
        (1, 2, 2, 1, "zeros"),
        (3, 2, 1, 4, "zeros"),
        (1, 2, 1, 1, "reflect"),
        (2, 3, 1, 2, "replicate"),
        (1, 4, 2, 1, "circular"),
    ],
)
def test_conv(rank, stride, pad, dilation, groups, mode, algorithm, dtype, rng):
    dtype, tolerance = DTYPES[dtype]
    size = (9, 8, 7)[:rank]
    layer = getattr(torch.nn, f"Conv{rank}d")(
        4,
        8,
        (3, 2, 3)[:rank],
        stride,
        pad,
        dilation,
        groups,
        padding_mode=mode,
        dtype=getattr(torch, np.dtype(dtype).name),
    )
    x = rng.standard_normal((2, 4, *size)).astype(dtype)
    leaf = torch.tensor(x, requires_grad=True)
    w, b = (p.detach().numpy() for p in (layer.weight, layer.bias))
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups, "pad_mode": mode}
    geometry = fastconv.conv_geometry(x.shape, w.shape, **options)
    reason = fastconv.convolution.choose.REGISTRY[algorithm].unsupported(Case.of("forward", geometry, x.dtype))
    if reason is not None:
        pytest.skip(f"{algorithm}: {reason}")
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernels_for(algorithm, w)))
    expected = layer(leaf)
    out, cache = fastconv.conv_forward(x, w, b, algorithm=algorithm, **options)
    np.testing.assert_allclose(out, expected.detach().numpy(), atol=tolerance * 10)
    dout = rng.standard_normal(out.shape).astype(dtype)
    for actual, wanted in zip(
        fastconv.conv_backward(dout, cache), grad_of(expected, dout, leaf, layer.weight, layer.bias), strict=True
    ):
        np.testing.assert_allclose(actual, wanted, atol=tolerance * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("k", "stride", "pad", "dilation"), [(3, 1, 1, 1), ((2, 5), (2, 1), (0, 3), 1), (3, 2, 2, 2), (1, 1, 0, 1)]
)
def test_unfold_and_fold(k, stride, pad, dilation, dtype, rng):
    dtype, tolerance = DTYPES[dtype]
    x = rng.standard_normal((2, 3, 11, 10)).astype(dtype)
    cols = fastconv.im2col(x, k, stride=stride, pad=pad, dilation=dilation)
    assert np.array_equal(cols, F.unfold(torch.tensor(x), k, dilation, pad, stride).numpy())
    values = rng.standard_normal(cols.shape).astype(dtype)
    np.testing.assert_allclose(
        fastconv.col2im(values, x.shape, k, stride=stride, pad=pad, dilation=dilation),
        F.fold(torch.tensor(values), x.shape[2:], k, dilation, pad, stride).numpy(),
        atol=tolerance * 10,
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("k", "stride", "pad", "dilation", "ceil_mode"),
    [
        (2, 2, 0, 1, False),
        (3, 2, 1, 1, True),
        (3, 1, 1, 2, False),
        (3, 3, 1, 1, True),
        (2, 3, 1, 1, True),
        (2, 3, 0, 3, True),
    ],
)
def test_pool(rank, k, stride, pad, dilation, ceil_mode, rng):
    x = rng.standard_normal((2, 3, *(9, 8, 10)[:rank]))
    x[0, 0].flat[3] = np.nan
    leaf = torch.tensor(x, requires_grad=True)
    expected, indices = getattr(F, f"max_pool{rank}d")(leaf, k, stride, pad, dilation, ceil_mode, return_indices=True)
    out, cache = fastconv.max_pool_forward(
        x, kernel_size=k, stride=stride, pad=pad, dilation=dilation, ceil_mode=ceil_mode
    )
    assert np.array_equal(out, expected.detach().numpy(), equal_nan=True)
    assert np.array_equal(fastconv.max_pool_indices(cache), indices.numpy())
    dout = rng.standard_normal(out.shape)
    np.testing.assert_allclose(fastconv.max_pool_backward(dout, cache), grad_of(expected, dout, leaf)[0], atol=1e-12)
    if dilation > 1:
        return
    x = np.nan_to_num(x)
    for include in (True, False):
        leaf = torch.tensor(x, requires_grad=True)
        expected = getattr(F, f"avg_pool{rank}d")(leaf, k, stride, pad, ceil_mode, include)
        out, cache = fastconv.avg_pool_forward(
            x, kernel_size=k, stride=stride, pad=pad, ceil_mode=ceil_mode, count_include_pad=include
        )
        np.testing.assert_allclose(out, expected.detach().numpy(), atol=1e-12)
        np.testing.assert_allclose(
            fastconv.avg_pool_backward(dout, cache), grad_of(expected, dout, leaf)[0], atol=1e-12
        )


def test_unpool(rng):
    x = torch.tensor(rng.standard_normal((2, 3, 8, 6)))
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    expected = F.max_unpool2d(pooled, indices, 2)
    assert np.array_equal(fastconv.max_unpool(pooled.numpy(), indices.numpy(), x.shape), expected.numpy())


def test_softmax_loss(rng):
    x, y = rng.standard_normal((5, 7)), rng.integers(0, 7, 5)
    leaf = torch.tensor(x, requires_grad=True)
    expected = F.cross_entropy(leaf, torch.tensor(y))
    expected.backward()
    loss, dx = fastconv.softmax_loss(x, y)
    assert np.isclose(loss, expected.item())
    np.testing.assert_allclose(dx, leaf.grad.numpy(), atol=1e-12)


def norm_case(shape, dtype, rng):
    """x, gamma, beta and dout, and the first three as leaves of PyTorch's graph."""
    arrays = [(rng.standard_normal(s) * 2 + 1).astype(dtype) for s in (shape, shape[1:2], shape[1:2], shape)]
    return arrays, [torch.tensor(a, requires_grad=True) for a in arrays[:3]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 6, 9), (3, 6, 7, 5), (2, 6, 3, 4, 2)], ids=str)
@pytest.mark.parametrize("mode", ["train", "test"])
def test_batch_norm(mode, shape, dtype, rng):
    dtype, tolerance = DTYPES[dtype]
    (x, gamma, beta, dout), leaves = norm_case(shape, dtype, rng)
    mean, variance = rng.random((2, 6)).astype(dtype)
    running = torch.tensor(mean), torch.tensor(variance)
    expected = F.batch_norm(leaves[0], *running, *leaves[1:], mode == "train", 0.1, 1e-5)
    bn_param = {"mode": mode, "running_mean": mean, "running_var": variance}
    out, cache = fastconv.spatial_batchnorm_forward(x, gamma, beta, bn_param)
    np.testing.assert_allclose(out, expected.detach().numpy(), atol=tolerance * 10)
    np.testing.assert_allclose(bn_param["running_mean"], running[0], atol=tolerance)
    if mode == "test":  # The running variance is unbiased in PyTorch, but not in the course.
        np.testing.assert_allclose(bn_param["running_var"], running[1], atol=tolerance)
    for actual, wanted in zip(
        fastconv.spatial_batchnorm_backward(dout, cache), grad_of(expected, dout, *leaves), strict=True
    ):
        np.testing.assert_allclose(actual, wanted, atol=tolerance * 50)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 6, 9), (3, 6, 7, 5), (2, 6, 3, 4, 2), (3, 6, 1)], ids=str)
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_group_norm(groups, shape, dtype, rng):
    dtype, tolerance = DTYPES[dtype]
    if shape[2:] == (1,) and groups == 6:
        pytest.skip("a group of one value")
    (x, gamma, beta, dout), leaves = norm_case(shape, dtype, rng)
    expected = F.group_norm(leaves[0], groups, *leaves[1:])
    out, cache = fastconv.spatial_groupnorm_forward(x, gamma, beta, groups)
    np.testing.assert_allclose(out, expected.detach().numpy(), atol=tolerance * 10)
    for actual, wanted in zip(
        fastconv.spatial_groupnorm_backward(dout, cache), grad_of(expected, dout, *leaves), strict=True
    ):
        np.testing.assert_allclose(actual, wanted, atol=tolerance * 50)


def test_layer_norm(rng):
    (x, gamma, beta, dout), leaves = norm_case((5, 70), np.float64, rng)
    expected = F.layer_norm(leaves[0], (70,), *leaves[1:])
    out, cache = fastconv.layernorm_forward(x, gamma, beta)
    np.testing.assert_allclose(out, expected.detach().numpy(), atol=1e-12)
    for actual, wanted in zip(fastconv.layernorm_backward(dout, cache), grad_of(expected, dout, *leaves), strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3, 5, 31])
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_lrn(beta, size, dtype, rng):
    dtype, tolerance = DTYPES[dtype]
    x, dout = rng.standard_normal((2, 2, 12, 6, 7)).astype(dtype)
    leaf = torch.tensor(x, requires_grad=True)
    expected = F.local_response_norm(leaf, size, 0.3, beta, 2.0)
    out, cache = fastconv.lrn_forward(x, {"size": size, "alpha": 0.3, "beta": beta, "k": 2.0})
    np.testing.assert_allclose(out, expected.detach().numpy(), atol=tolerance)
    np.testing.assert_allclose(fastconv.lrn_backward(dout, cache), grad_of(expected, dout, leaf)[0], atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["leaky_relu", "sigmoid", "tanh"])
def test_activations(name, dtype, rng):
    dtype, tolerance = DTYPES[dtype]
    x, dout = (rng.standard_normal((2, 4, 333)) * 4).astype(dtype)
    leaf = torch.tensor(x, requires_grad=True)
    expected = F.leaky_relu(leaf) if name == "leaky_relu" else getattr(torch, name)(leaf)
    out, cache = getattr(fastconv, f"{name}_forward")(x)
    np.testing.assert_allclose(out, expected.detach().numpy(), atol=tolerance)
    dx = getattr(fastconv, f"{name}_backward")(dout, cache)
    np.testing.assert_allclose(dx, grad_of(expected, dout, leaf)[0], atol=tolerance)


def test_rounding_errors_of_norms_are_no_larger(rng):
    """Errors in float32 against float64, for layers of common nets."""
    for shape in ((8, 16, 28, 28), (2, 8, 112, 112)):
        (x, gamma, beta, dout), _ = norm_case(shape, np.float32, rng)
        x += 10

        def ours(x, gamma, beta, dout):
            out, cache = fastconv.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
            return out, *fastconv.spatial_batchnorm_backward(dout, cache)

        def theirs(x, gamma, beta, dout):
            leaves = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
            out = F.batch_norm(leaves[0], None, None, *leaves[1:], training=True)
            return out.detach().numpy(), *grad_of(out, dout, *leaves)

        exact = ours(*(a.astype(np.float64) for a in (x, gamma, beta, dout)))
        for name, own, peer, best in zip(
            ("out", "dx", "dgamma", "dbeta"),
            ours(x, gamma, beta, dout),
            theirs(x, gamma, beta, dout),
            exact,
            strict=True,
        ):
            errors = [np.sqrt(np.mean((a - best) ** 2)) for a in (own, peer)]
            assert errors[0] <= 1.05 * errors[1], (name, shape, errors)
