"""Pairs on the tape: which backward function is found, its arguments, and the memory of gradients."""

import copy
import functools

import numpy as np
import pytest

import fastconv
from fastconv import affine_forward, conv_forward, max_pool_forward, relu_forward
from fastconv.compat import cs231n
from fastconv.graph import Tape


class Layer:
    """A layer in the style of a homework; the module has no pair for `forward`, and a wrong one for `other_forward`."""

    factor = 3

    def forward(self, x):
        return self.factor * x, None

    def backward(self, dout, _):
        return self.factor * dout

    other_forward, other_backward = forward, backward

    def lone_forward(self, x):
        return x, None

    @classmethod
    def class_forward(cls, x):
        return cls.factor * x, None

    @classmethod
    def class_backward(cls, dout, _):
        return cls.factor * dout


def backward(dout, _):
    return 99 * dout


other_backward = lone_backward = class_backward = backward


def wrapped(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


@pytest.mark.parametrize("name", ["forward", "class_forward"])
@pytest.mark.parametrize("wrap", [lambda function: function, wrapped], ids=["bare", "wrapped"])
def test_a_method_has_its_backward_in_its_object(name, wrap):
    tape = Tape()
    x = tape.param(np.ones(2))
    assert np.array_equal(tape.backward(tape(wrap(getattr(Layer(), name)), x), np.ones(2))[x], [3, 3])


def test_a_method_is_never_paired_with_what_its_module_has():
    tape, layer = Tape(), Layer()
    x = tape.param(np.ones(2))
    with pytest.raises(TypeError, match="lone_forward has no backward function in its module"):
        tape(layer.lone_forward, x)
    layer.backward = lambda dout, _: 5 * dout  # This attribute belongs to the object itself.
    assert np.array_equal(tape.backward(tape(layer.forward, x), np.ones(2))[x], [5, 5])


def test_need_dx(rng, monkeypatch):
    """The gradient by the images is computed only if it is requested."""

    layer = fastconv.layers.convolution.conv

    def no_dx(op, *case):
        assert op != "backward_data", "dx was computed"
        return plan_of(op, *case)

    plan_of = layer.plan_of
    monkeypatch.setattr(layer, "plan_of", no_dx)
    x, w = rng.standard_normal((1, 2, 5, 5)), rng.standard_normal((3, 2, 3, 3))
    tape = Tape()
    out = tape(conv_forward, tape.input(x), tape.param(w, "w"), None)
    assert tape.backward(out, out.value)["w"].shape == w.shape
    tape = Tape()
    out = tape(conv_forward, tape.input(x, requires_grad=True), tape.param(w, "w"), None)
    with pytest.raises(AssertionError, match="dx was computed") as error:
        tape.backward(out, out.value)
    assert error.value.__notes__ == ["raised by the backward function of conv_forward"]
    # After a failure, the tape refuses another backward pass, too.
    with pytest.raises(RuntimeError, match="has run on this tape already"):
        tape.backward(out, out.value)


def test_needs_are_told_by_the_names_of_arguments():
    seen = {}

    def layer_forward(image, weight, flavour="plain"):
        return image * weight, (image, weight)

    def layer_backward(dout, cache, *, need_dimage=True, need_dweight=True, need_dother=True):
        seen.update(image=need_dimage, weight=need_dweight, other=need_dother)
        return None, dout * cache[0]

    tape = Tape()
    out = tape((layer_forward, layer_backward), tape.input([2.0]), tape.param([3.0], "w"), flavour="sour")
    assert tape.backward(out, [1.0])["w"] == [2.0]
    assert seen == {"image": False, "weight": True, "other": True}


def test_names_of_the_course(rng):
    x, w, b = rng.standard_normal((2, 3, 6, 6)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    tape = Tape()
    nodes = [tape.param(a) for a in (x, w, b)]
    out = tape(cs231n.conv_forward_fast, *nodes, {"stride": 1, "pad": 1})
    out = tape(cs231n.max_pool_forward_naive, out, {"pool_height": 2, "pool_width": 2, "stride": 2})
    dout = rng.standard_normal(out.shape)
    grads = tape.backward(out, dout)
    other = Tape()
    mine = [other.param(a) for a in (x, w, b)]
    h = other(max_pool_forward, other(conv_forward, *mine, pad=1), kernel_size=2)
    expected = other.backward(h, dout)
    for node, twin in zip(nodes, mine, strict=True):
        np.testing.assert_allclose(grads[node], expected[twin], atol=1e-12)


def test_homework_that_writes_to_dout():
    def relu(x):
        return np.maximum(x, 0), x

    def relu_gradient(dout, x):
        dout[x < 0] = 0
        return dout

    given = np.ones(2)
    tape = Tape()
    x = tape.param(np.array([-1.0, 1.0]))
    y = tape((relu, relu_gradient), x) + tape((relu, relu_gradient), tape.scale(x, -1)) + x
    assert np.array_equal(tape.backward(y, given, keep=y)[x], [-1 + 1, 1 + 1])
    assert np.array_equal(given, [1, 1])


def test_gradients_are_the_users_own(rng):
    """No two gradients share memory, and none shares it with an input, whatever the pairs return."""
    values = [rng.standard_normal((2, 3)) for _ in range(3)]
    dout = rng.standard_normal((2, 6))
    tape = Tape()
    nodes = [tape.param(value) for value in values]
    out = tape.concat([tape.add(*nodes), nodes[2]])
    grads = tape.backward(out, dout, keep=out)
    arrays = [*values, dout, grads[out], *(grads[node] for node in nodes)]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])
    assert all(a.flags.writeable and a.flags.c_contiguous for a in arrays)
    assert np.array_equal(grads[nodes[0]], dout[:, :3]) and np.array_equal(grads[out], dout)

    tape = Tape()
    x = tape.param(values[0])
    y = tape(lambda x: (x.sum(), x), x, backward=lambda d, x: np.broadcast_to(d, x.shape))
    assert tape.backward(y)[x].flags.writeable
    tape = Tape()
    x = tape.param(values[0])
    y = tape(lambda x: ((x * x).sum() / 2, x), x, backward=lambda d, x: x)  # This pair returns the parameter itself.
    assert not np.shares_memory(tape.backward(y)[x], values[0])


ONES = np.ones(3)


def constant_forward(x):
    return x, None


def constant_backward(dout, _):
    return ONES


def constant_loss(x):
    return x.sum(), ONES


@functools.wraps(relu_forward)
def dressed_forward(x):
    return x, None


@pytest.mark.parametrize(
    "call",
    [
        lambda tape, x: tape(constant_loss, x),
        lambda tape, x: tape(constant_forward, x),
        lambda tape, x: tape(constant_loss, x + 0 * x),
        lambda tape, x: tape(constant_loss, tape.concat([x], axis=0)),
        lambda tape, x: tape.add(tape(constant_loss, x), tape(constant_loss, x)),
        # A wrapper that claims to belong to fastconv.
        lambda tape, x: tape((dressed_forward, functools.wraps(relu_forward)(lambda dout, _: ONES)), x),
    ],
    ids=["loss", "pair", "sum before", "view", "sum after", "wrapper"],
)
def test_arrays_that_a_pair_keeps_are_not_results(call):
    """An update in place must change no other array of the user."""
    tape = Tape()
    x = tape.param(np.arange(3.0), "x")
    y = call(tape, x)
    grads = tape.backward(y, np.ones(y.shape), keep=y)
    for gradient in (grads["x"], grads[y]):
        assert not np.shares_memory(gradient, ONES)
        gradient -= 7
    assert np.array_equal(ONES, [1, 1, 1])


def test_gradients_of_layers_are_not_copied(monkeypatch):
    """Gradients as large as the parameters are not copied if nothing else refers to them."""
    made = []

    def copy(array, *args, **options):
        made.append(np.shape(array))
        return np_array(array, *args, **options)

    np_array = np.array
    tape = Tape()
    w = tape.param(np.ones((3, 4)), "w")
    y = tape(affine_forward, tape.input(np.ones((2, 3))), w, None)
    dout = np.ones(y.shape)
    monkeypatch.setattr(np, "array", copy)
    tape.backward(y, dout)
    assert (3, 4) not in made


BN = {"mode": "train"}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}
X, ROWS = np.arange(64.0).reshape(2, 2, 4, 4), np.arange(6.0).reshape(2, 3)
W, B, UNITS = np.ones((2, 2, 3, 3)), np.ones(2), np.ones(3)
CALLS = {
    "affine": (ROWS, np.ones((3, 2)), B),
    "affine_relu": (ROWS, np.ones((3, 2)), B),
    "avg_pool": (X, POOL),
    "batchnorm": (ROWS, UNITS, UNITS, BN),
    "conv": (X, W, B, {"stride": 1, "pad": 1}),
    "conv_bn_relu": (X, W, B, B, B, {"stride": 1, "pad": 1}, BN),
    "conv_relu": (X, W, B, {"stride": 1, "pad": 1}),
    "conv_relu_pool": (X, W, B, {"stride": 1, "pad": 1}, POOL),
    "conv_transpose": (X, W, B),
    "dropout": (X, {"p": 0.5, "mode": "test"}),
    "global_avg_pool": (X,),
    "global_max_pool": (X,),
    "layernorm": (ROWS, UNITS, UNITS),
    "leaky_relu": (X,),
    "lp_pool": (X, POOL),
    "lrn": (X, {"size": 3}),
    "max_pool": (X, POOL),
    "pool": (X, {"kernel_size": 1}, lambda windows: windows.sum(axis=-1), lambda windows, out: np.ones_like(windows)),
    "relu": (X,),
    "sigmoid": (X,),
    "spatial_batchnorm": (X, B, B, BN),
    "spatial_groupnorm": (X, B, B, 2),
    "tanh": (X,),
}


def test_every_pair_of_fastconv_is_called_below():
    assert {f"{name}_backward" for name in CALLS} == {name for name in fastconv.__all__ if name.endswith("_backward")}


def arrays_in(*values):
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from arrays_in(*value)


PAIRS = [(module, name) for module in (fastconv, cs231n) for name in module.__all__ if "_forward" in name]


@pytest.mark.parametrize(("module", "name"), PAIRS, ids=[f"{m.__name__}.{n}" for m, n in PAIRS])
def test_layers_return_memory_of_its_own_for_each_gradient(module, name):
    """The tape relies on this: it adds to such a gradient in place, and returns it without a copy."""
    args = copy.deepcopy(CALLS[name.split("_forward")[0]])
    out, cache = getattr(module, name)(*args)
    dout = np.ones(out.shape)
    gradients = list(arrays_in(getattr(module, name.replace("forward", "backward"))(dout, cache)))
    for gradient in gradients:
        assert gradient.flags.writeable
        others = (other for other in arrays_in(dout, out, args, cache, gradients) if other is not gradient)
        assert not any(np.shares_memory(gradient, other) for other in others)
