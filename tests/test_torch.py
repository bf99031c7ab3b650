"""PyTorch as a second oracle, where it is installed."""

import sys

import numpy as np
import pytest

import fastconv

torch = pytest.importorskip("torch")
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
    expected = layer(leaf)
    w, b = (p.detach().numpy() for p in (layer.weight, layer.bias))
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups, "pad_mode": mode}
    geometry = fastconv.conv_geometry(x.shape, w.shape, **options)
    reason = sys.modules["fastconv.algorithms"].REGISTRY[algorithm].unsupported("forward", geometry, x.dtype)
    if reason is not None:
        pytest.skip(f"{algorithm}: {reason}")
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
