"""Graphs against PyTorch's autograd, if PyTorch is installed."""

import numpy as np
import pytest

from fastconv import (
    affine_forward,
    avg_pool_forward,
    conv_forward,
    global_avg_pool_forward,
    max_pool_forward,
    relu_forward,
    softmax_loss,
)
from fastconv.graph import Tape

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
F = torch.nn.functional
DTYPES = {"f32": (np.float32, 2e-4), "f64": (np.float64, 1e-11)}


@pytest.fixture(params=DTYPES)
def twins(request, rng):
    """Makes parameters for both libraries, and compares the gradients at the end."""
    return Twins(rng, *DTYPES[request.param])


class Twins:
    def __init__(self, rng, dtype, tolerance):
        self.rng, self.dtype, self.tolerance = rng, dtype, tolerance
        self.tape, self.leaves = Tape(), {}

    def leaf(self, name, *shape):
        value = (self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(self.dtype)
        self.leaves[name] = torch.tensor(value, requires_grad=True)
        return self.tape.param(value, name), self.leaves[name]

    def compare(self, node, tensor):
        np.testing.assert_allclose(node.value, tensor.detach().numpy(), atol=self.tolerance, rtol=self.tolerance)
        dout = self.rng.standard_normal(node.shape).astype(self.dtype) if node.shape else None
        grads = self.tape.backward(node, dout)
        tensor.backward(None if dout is None else torch.tensor(dout))
        assert set(grads) == set(self.leaves)
        for name, leaf in self.leaves.items():
            wanted = leaf.grad.numpy()
            assert grads[name].dtype == self.dtype and grads[name].shape == wanted.shape
            np.testing.assert_allclose(grads[name], wanted, atol=self.tolerance * max(1, np.abs(wanted).max()))


def norm_forward(x, gamma, beta):
    """Batch norm of images as a homework would write it; fastconv does not know this pair."""
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    scale = 1 / np.sqrt(var + 1e-5)
    unit = (x - mean) * scale
    return gamma[:, None, None] * unit + beta[:, None, None], (unit, scale, gamma)


def norm_backward(dout, cache):
    unit, scale, gamma = cache
    dgamma, dbeta = (dout * unit).sum((0, 2, 3)), dout.sum((0, 2, 3))
    count = dout.size / dout.shape[1]
    dx = dout * count - dbeta[:, None, None] - unit * dgamma[:, None, None]
    return gamma[:, None, None] * scale / count * dx, dgamma, dbeta


@pytest.mark.parametrize("stride", [1, 2])
def test_a_residual_block(twins, stride):
    """Two convolutions with norms, and a skip connection with a projection if the stride is 2."""
    filters = 4 * stride
    x, tx = twins.leaf("x", 3, 4, 8, 8)
    w1, tw1 = twins.leaf("w1", filters, 4, 3, 3)
    g1, tg1 = twins.leaf("g1", filters)
    b1, tb1 = twins.leaf("b1", filters)
    w2, tw2 = twins.leaf("w2", filters, filters, 3, 3)
    b2, tb2 = twins.leaf("b2", filters)
    tape = twins.tape
    h = tape(conv_forward, x, w1, None, {"stride": stride, "pad": 1})
    h = tape(relu_forward, tape(norm_forward, h, g1, b1))
    h = tape(conv_forward, h, w2, b2, {"stride": 1, "pad": 1})
    th = F.relu(F.batch_norm(F.conv2d(tx, tw1, None, stride, 1), None, None, tg1, tb1, training=True))
    th = F.conv2d(th, tw2, tb2, 1, 1)
    skip, tskip = x, tx
    if stride > 1:
        w3, tw3 = twins.leaf("w3", filters, 4, 1, 1)
        skip, tskip = tape(conv_forward, x, w3, None, {"stride": stride}), F.conv2d(tx, tw3, None, stride)
    twins.compare(tape(relu_forward, h + skip), F.relu(th + tskip))


def test_an_inception_module(twins):
    """The module of GoogLeNet: 1x1, 3x3, 5x5 and pooling, each with a 1x1 convolution, joined along channels."""
    x, tx = twins.leaf("x", 2, 6, 7, 7)
    tape, ends, tends = twins.tape, [], []

    def branch(name, h, th, *sizes):
        for i, (filters, channels, k) in enumerate(sizes):
            w, tw = twins.leaf(f"{name}_w{i}", filters, channels, k, k)
            b, tb = twins.leaf(f"{name}_b{i}", filters)
            h = tape(relu_forward, tape(conv_forward, h, w, b, {"pad": k // 2}))
            th = F.relu(F.conv2d(th, tw, tb, padding=k // 2))
        ends.append(h)
        tends.append(th)

    branch("one", x, tx, (3, 6, 1))
    branch("three", x, tx, (4, 6, 1), (5, 4, 3))
    branch("five", x, tx, (2, 6, 1), (3, 2, 5))
    pooled = tape(max_pool_forward, x, kernel_size=3, stride=1, pad=1)
    branch("pool", pooled, F.max_pool2d(tx, 3, 1, 1), (2, 6, 1))
    twins.compare(tape.concat(ends, axis=1), torch.cat(tends, 1))


def test_a_net_with_an_auxiliary_loss(twins):
    x, tx = twins.leaf("x", 4, 2, 9, 9)
    w1, tw1 = twins.leaf("w1", 6, 2, 3, 3)
    w2, tw2 = twins.leaf("w2", 6, 6, 3, 3)
    w3, tw3 = twins.leaf("w3", 12, 5)
    aux, taux = twins.leaf("aux", 6 * 16, 5)
    labels = np.array([0, 4, 2, 2])
    tape = twins.tape
    a = tape(max_pool_forward, tape(conv_forward, x, w1, None, {"pad": 1}), kernel_size=3, stride=2)
    b = tape(conv_forward, tape(relu_forward, a), w2, None, {"pad": "same"}) + a
    c = tape(avg_pool_forward, tape.concat([b, a]), kernel_size=2)
    main = tape(affine_forward, tape(global_avg_pool_forward, c), w3, None)
    side = tape(affine_forward, tape.flatten(a), aux, None)
    loss = tape(softmax_loss, main, labels) + 0.3 * tape(softmax_loss, side, labels)
    ta = F.max_pool2d(F.conv2d(tx, tw1, padding=1), 3, 2)
    tb = F.conv2d(F.relu(ta), tw2, padding=1) + ta
    tc = F.avg_pool2d(torch.cat([tb, ta], 1), 2)
    target = torch.tensor(labels)
    tloss = F.cross_entropy(tc.mean((2, 3)) @ tw3, target) + 0.3 * F.cross_entropy(ta.flatten(1) @ taux, target)
    twins.compare(loss, tloss)
