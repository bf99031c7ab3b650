"""Receptive fields: published values, and the support of the gradient of kernels of ones."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from fastconv import ReceptiveField, avg_pool_backward, avg_pool_forward, conv_backward, conv_forward, receptive_field

VGG16 = [layer for convs in (2, 2, 3, 3, 3) for layer in ([(3, 1, 1)] * convs + [(2, 2, 0)])]
ALEXNET = [(11, 4, 0), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 0)]


@pytest.mark.parametrize("f", range(1, 8))
@pytest.mark.parametrize("p", range(1, 6))
def test_conv_then_pool_of_stride_1(f, p):
    """The field is P + F - 1, as in textbook exercises."""
    assert receptive_field([(f, 1, 0), (p, 1, 0)]) == (p + f - 1, 1, (p + f - 1) / 2)


def test_stacks_of_3x3():
    """Simonyan & Zisserman: two 3x3 layers see as much as one 5x5, three as much as one 7x7.

    Padding keeps the centre.
    """
    for n, k in ((1, 3), (2, 5), (3, 7)):
        assert receptive_field([(3, 1, 0)] * n) == receptive_field([(k, 1, 0)]) == (k, 1, k / 2)
        assert receptive_field([(3, 1, 1)] * n) == (k, 1, 0.5)


def test_dilation():
    """The field is 2**(i + 2) - 1, as in Yu & Koltun, "Multi-scale context aggregation by dilated convolutions"."""
    for i in range(5):
        assert receptive_field([(3, 1, 0, 2**j) for j in range(i + 1)]).size == 2 ** (i + 2) - 1


@pytest.mark.parametrize(
    ("layers", "size", "jump", "effective_pad"),
    [
        (ALEXNET, 195, 32, 64),
        (VGG16, 212, 32, 90),
    ],
    ids=["alexnet_v2", "vgg_16"],
)
def test_published(layers, size, jump, effective_pad):
    """Values of Araujo, Norris & Sim, 2019; their effective padding is how far the first field precedes the image."""
    field = receptive_field(layers)
    assert (field.size, field.jump) == (size, jump)
    assert field.size / 2 - field.start == effective_pad
    assert field.cells(0) == (-effective_pad, size - effective_pad)
    assert field.cells(3) == (3 * jump - effective_pad, 3 * jump + size - effective_pad)


def test_alexnet_layer_by_layer():
    sizes = [11, 19, 51, 67, 99, 131, 163, 195]
    starts = [5.5, 9.5, 9.5, 17.5, 17.5, 17.5, 17.5, 33.5]
    for i, (size, start) in enumerate(zip(sizes, starts, strict=True), 1):
        field = receptive_field(ALEXNET[:i])
        assert (field.size, field.start) == (size, start)


layer = st.tuples(
    st.integers(1, 4), st.integers(1, 3), st.tuples(st.integers(0, 2), st.integers(0, 2)), st.integers(1, 3)
)


@given(layers=st.lists(layer, min_size=1, max_size=4), pools=st.integers(0, 15), unit=st.integers(0, 5))
def test_against_the_support_of_the_gradient(layers, pools, unit):
    """An output sees the cells where its gradient by the input is not zero, if all kernels are ones."""
    # The image is wide enough for a unit that sees no padding at its end.
    h, caches = np.ones((1, 1, 160)), []
    for i, (k, stride, pad, dilation) in enumerate(layers):
        options = {"stride": stride, "pad": [pad], "dilation": dilation}
        # Pooling is left out if a window could lie in the padding only.
        pooling = pools >> i & 1 and max(pad) < dilation * (k - 1) + 1
        assume(h.shape[2] > dilation * (k - 1))
        if pooling:
            h, cache = avg_pool_forward(h, kernel_size=k, **options)
        else:
            h, cache = conv_forward(h, np.ones((1, 1, k)), None, options)
        caches.append((avg_pool_backward if pooling else conv_backward, cache))
    assume(unit < h.shape[2])
    grad = np.zeros(h.shape)
    grad[0, 0, unit] = 1
    for backward, cache in reversed(caches):
        grad = backward(grad, cache)
        grad = grad[0] if isinstance(grad, tuple) else grad
    seen = np.flatnonzero(grad[0, 0])
    field = receptive_field(layers)
    first, end = field.cells(unit)
    assert end - first == field.size
    # A field that reaches into the padding of an intermediate layer ends there.
    inside = unpadded_field(layers, unit, 160)
    if inside is None:
        assert not len(seen) or (first <= seen[0] and seen[-1] < end)
    else:
        assert (seen[0], seen[-1] + 1) == (first, end) == inside


def unpadded_field(layers, unit, size):
    """The cells that a unit sees, computed layer by layer; None if some of them are padding."""
    sizes = [size]
    for k, stride, (lo, hi), dilation in layers:
        sizes.append((sizes[-1] + lo + hi - dilation * (k - 1) - 1) // stride + 1)
    first = last = unit
    for (k, stride, (lo, _), dilation), before in zip(reversed(layers), reversed(sizes[:-1]), strict=True):
        first, last = first * stride - lo, last * stride - lo + dilation * (k - 1)
        if first < 0 or last >= before:
            return None
    return first, last + 1


def test_the_input_itself():
    assert receptive_field([]) == ReceptiveField(1, 1, 0.5) and receptive_field([]).cells(7) == (7, 8)
    assert receptive_field([(3, np.int64(2), (1, 0))]) == (3, 2, 0.5)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (
            [(3, 1)],
            ValueError,
            "layers[0] has 2 entries, (3, 1); legal is (k, stride, pad) or (k, stride, pad, dilation)",
        ),
        ([(3, 1, 0), 5], TypeError, "layers[1] is 5; legal is"),
        (5, TypeError, "layers must be a sequence of (k, stride, pad), got int"),
        ([(0, 1, 0)], ValueError, "layers[0] k must be an int >= 1, got 0"),
        ([(3, 0, 0)], ValueError, "layers[0] stride must be an int >= 1, got 0"),
        ([(3, 1, -1)], ValueError, "layers[0] pad must be an int >= 0, got -1"),
        ([(3, 1, 0, 0)], ValueError, "layers[0] dilation must be an int >= 1, got 0"),
        ([(3, 1.0, 0)], TypeError, "layers[0] stride must be an int >= 1, got 1.0"),
        ([(3, 1, "same")], TypeError, "layers[0] pad must be an int >= 0, got 'same'"),
        ([(3, 1, (1, 2, 3))], ValueError, "layers[0] has pad (1, 2, 3); legal are an int or one (lo, hi) pair"),
        ([(3, 1, (1, None))], TypeError, "layers[0] pad[1] must be an int >= 0, got None"),
        ([((3, 3), 1, 0)], TypeError, "layers[0] k must be an int >= 1, got (3, 3)"),
    ],
)
def test_refusals(layers, error, message):
    with pytest.raises(error, match=re.escape(message)):
        receptive_field(layers)
