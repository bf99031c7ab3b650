"""The tape: acyclic graphs of forward/backward pairs, and caches that are freed during the backward pass."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fastconv import affine_forward, conv, conv_backward, conv_forward, max_pool_forward, relu_forward, softmax_loss
from fastconv.gradient_check import eval_numerical_gradient
from fastconv.graph import Node, Tape


def product_forward(a, b):
    return a * b, (a, b)


def product_backward(dout, cache):
    a, b = cache
    return dout * b, dout * a


def halves_forward(x):
    cut = x.shape[1] // 2
    return x[:, :cut], x[:, cut:], "no need of a cache"


def halves_backward(dleft, dright, cache):
    return np.concatenate([dleft, dright], axis=1)


def test_a_chain_is_what_one_writes_by_hand(rng):
    x, w, b = rng.standard_normal((2, 3, 6, 6)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    dout = rng.standard_normal((2, 4, 3, 3))
    tape = Tape()
    nodes = tape.input(x, "x", requires_grad=True), tape.param(w, "w"), tape.param(b, "b")
    out = tape(conv_forward, *nodes, {"stride": 2, "pad": 1})
    assert np.array_equal(out.value, conv(x, w, b, stride=2, pad=1))
    grads = tape.backward(out, dout)
    expected = conv_backward(dout, conv_forward(x, w, b, stride=2, pad=1)[1])
    for name, wanted in zip("xwb", expected, strict=True):
        assert np.array_equal(grads[name], wanted)


def test_a_graph_by_central_differences(rng):
    """A graph with a skip connection, branches, a value used three times, an auxiliary loss and decay."""
    x, y = rng.standard_normal((2, 2, 5, 5)), np.array([1, 3])
    params = {
        "w1": rng.standard_normal((2, 2, 3, 3)),
        "w2": rng.standard_normal((3, 2, 1, 1)),
        "w3": rng.standard_normal((5 * 25, 4)),
        "b3": rng.standard_normal(4),
        "aux": rng.standard_normal((50, 4)),
    }

    def decay(w):
        return 0.05 * (w * w).sum(), 0.1 * w

    def net():
        tape = Tape()
        p = tape.params(params)
        h = tape(conv_forward, tape.input(x), p["w1"], None, pad=1)
        h = tape(relu_forward, h + x) + h
        wide = tape.concat([h, tape(conv_forward, h, p["w2"], None)])
        loss = tape(softmax_loss, tape(affine_forward, wide, p["w3"], p["b3"]), y)
        aux = tape(softmax_loss, tape(affine_forward, tape.flatten(h), p["aux"], None), y)
        return tape, sum([loss, 0.3 * aux, tape.loss(decay, p["w3"])])

    tape, loss = net()
    grads = tape.backward(loss)
    assert list(grads) == list(params)
    for name, value in params.items():
        numeric = eval_numerical_gradient(lambda _: float(net()[1]), value, verbose=False)
        np.testing.assert_allclose(grads[name], numeric, rtol=1e-5, atol=1e-7)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), leaves=st.integers(1, 3))
def test_random_linear_graphs(seed, count, leaves):
    """Each value is a sum of small multiples of earlier ones, so the gradients solve a triangular system."""
    rng = np.random.default_rng(seed)
    weights = np.tril(rng.integers(-2, 3, (leaves + count,) * 2), -1)
    weights[:leaves] = 0
    tape = Tape()
    nodes = [tape.param(np.full(1, float(i)), str(i)) for i in range(leaves)]
    for row in weights[leaves:]:
        terms = [float(weight) * nodes[j] for j, weight in enumerate(row) if weight]
        nodes.append(tape.add(*terms) if terms else tape.input(np.zeros(1)))
    last = nodes[-1]
    if not last.requires_grad:
        return
    grads = tape.backward(last, [1.0], unused="zero")
    paths = np.linalg.inv(np.eye(leaves + count) - weights)[-1]
    assert [grads[str(i)][0] for i in range(leaves)] == pytest.approx(paths[:leaves], abs=1e-9)


def test_values_used_more_than_once(rng):
    a = rng.standard_normal((2, 3))
    dout = rng.standard_normal((2, 3))
    tape = Tape()
    x = tape.param(a)
    y = tape(product_forward, x, x)  # twice in one call
    y = tape(product_forward, y, x) + x + x  # and in others
    assert np.allclose(tape.backward(y, dout)[x], dout * (3 * a**2 + 2))


def test_a_diamond(rng):
    a, dout = rng.standard_normal(4), rng.standard_normal(4)
    tape = Tape()
    x = tape.param(a)
    left, right = tape(product_forward, x, np.arange(4.0)), tape(relu_forward, x)
    y = tape(product_forward, left, right)
    expected = dout * np.arange(4) * 2 * np.maximum(a, 0)
    assert np.allclose(tape.backward(y, dout)[x], expected)


def test_what_the_loss_does_not_depend_on_has_zeros():
    ran = []

    def spy(x):
        return x, None

    def spy_gradient(dout, cache):
        ran.append(dout)
        return dout

    tape = Tape()
    w, v = tape.param(np.ones(3, np.float32), "w"), tape.param(np.ones((2, 2), np.float32), "v")
    tape((spy, spy_gradient), w)
    tape((spy, spy_gradient), v)
    y = tape.scale(w, 2)
    tape((spy, spy_gradient), y)  # This call is recorded after y.
    message = (
        r"no gradient of Node.* reaches 'v' \(its path ends with the result of spy\); pass the nodes .*unused='zero'"
    )
    with pytest.raises(ValueError, match=message):
        tape.backward(y, np.ones(3))
    assert len(tape) == 4  # The backward pass has not run.
    grads = tape.backward(y, np.ones(3), unused="zero")
    assert not ran
    assert np.array_equal(grads["w"], [2, 2, 2])
    assert grads["v"].dtype == np.float32 and np.array_equal(grads["v"], np.zeros((2, 2)))


class Cache:
    """An object whose deletion can be observed."""


def test_caches_are_freed_one_by_one():
    alive = weakref.WeakSet()
    counts = []

    def forward(x):
        cache = Cache()
        alive.add(cache)
        return x + 1, cache

    def backward(dout, cache):
        counts.append(len(alive))
        return dout

    tape = Tape()
    h = tape.param(np.zeros(2))
    for _ in range(5):
        h = tape(forward, h, backward=backward)
    assert len(alive) == len(tape) == 5
    gc.disable()  # Without a garbage collection, because there are no cycles.
    try:
        tape.backward(h, np.ones(2))
    finally:
        gc.enable()
    assert counts == [5, 4, 3, 2, 1]
    assert not alive and not len(tape)


def test_values_and_gradients_in_between_are_freed():
    alive, counts = [], []

    def watch(array):
        alive.append(weakref.ref(array))
        return array

    def forward(x):
        return watch(x + 1), None

    def backward(dout, cache):
        counts.append(sum(ref() is not None for ref in alive))
        return watch(dout + 0)

    tape = Tape()
    leaf = tape.param(np.zeros(2))
    h = leaf
    for _ in range(6):
        h = tape(forward, h, backward=backward)
        assert sum(ref() is not None for ref in alive) == 1
    alive.clear()
    grads = tape.backward(h, np.ones(2))
    assert len(counts) == 6 and max(counts) <= 1
    # The result is a copy, because the pair might have kept its own array.
    assert not any(ref() is not None for ref in alive) and np.array_equal(grads[leaf], [1, 1])


def test_a_tape_that_is_dropped_frees_its_caches():
    """Dropping a tape frees its caches at once, because there is no cycle for the garbage collector."""
    alive = weakref.WeakSet()

    def forward(x):
        cache = Cache()
        alive.add(cache)
        return x + 1, cache

    gc.disable()
    try:
        tape = Tape()
        w = tape.param(np.zeros(2), "w")
        h = tape(forward, w + w, backward=max)
        assert len(alive) == 1
        del tape, w, h
        assert not alive
    finally:
        gc.enable()


def test_what_needs_no_gradient_keeps_no_cache(rng):
    tape = Tape()
    h = tape.input(rng.standard_normal((1, 2, 5, 5)))
    for _ in range(3):
        h = tape(relu_forward, tape(conv_forward, h, np.ones((2, 2, 3, 3)), None, pad=1))
    assert not len(tape) and not h.requires_grad
    with pytest.raises(ValueError, match="does not depend on a parameter"):
        tape.backward(h, np.ones(h.shape))


def test_three_ways_to_a_backward(rng):
    a, b = rng.standard_normal((2, 3))
    for give in (
        lambda tape, x: tape(product_forward, x, b),  # This pair has a backward function in the same module.
        lambda tape, x: tape(product_forward, x, b, backward=product_backward),
        lambda tape, x: tape((product_forward, product_backward), x, b),
    ):
        tape = Tape()
        x = tape.param(a)
        assert np.array_equal(tape.backward(give(tape, x), np.ones(3))[x], b)


def test_several_outputs(rng):
    a = rng.standard_normal((2, 6))
    tape = Tape()
    x = tape.param(a)
    left, right = tape(halves_forward, x)
    assert np.array_equal(left.value, a[:, :3]) and np.array_equal(right.value, a[:, 3:])
    y = tape(product_forward, left, right)
    assert np.allclose(tape.backward(y, np.ones((2, 3)))[x], np.roll(a, 3, axis=1))
    tape = Tape()
    x = tape.param(a)
    left, right = tape(halves_forward, x)
    grads = tape.backward(right, np.ones((2, 3)))  # No gradient reaches `left`, so zeros stand for it.
    assert np.array_equal(grads[x], [[0, 0, 0, 1, 1, 1]] * 2)


def test_losses(rng):
    x, y = rng.standard_normal((3, 4)), np.array([0, 1, 2])

    def both(a, b):
        return np.float64((a * b).sum()), (b, a)

    tape = Tape()
    a, b = tape.param(x, "a"), tape.param(x + 1, "b")
    loss = tape(softmax_loss, a, y)
    assert loss.shape == () and float(loss) == softmax_loss(x, y)[0]
    total = tape.add(loss, 2 * tape.loss(both, a, b))
    assert float(total) == pytest.approx(softmax_loss(x, y)[0] + 2 * (x * (x + 1)).sum())
    grads = tape.backward(total, 10.0)
    np.testing.assert_allclose(grads["a"], 10 * softmax_loss(x, y)[1] + 20 * (x + 1))
    np.testing.assert_allclose(grads["b"], 20 * x)


@pytest.mark.parametrize("dtype", [int, bool, np.uint8, np.float16, np.float32])
def test_gradients_of_any_real_dtype(dtype):
    """Gradients of a real dtype other than float, such as masks and signs, are added and scaled as numbers."""

    def mask_loss(x):
        return x.sum(), np.ones(2, dtype)

    tape = Tape()
    w = tape.param(np.array([3.0, -2.0]), "w")
    both = tape(lambda x: (x, None), w, backward=lambda dout, _: np.ones(2, dtype))
    many = tape(lambda x: (x, None), w, backward=lambda dout, _: np.full(2, 1 if dtype is bool else 200, dtype))
    loss = tape(mask_loss, w) * 0.5 + tape.loss(mask_loss, both) + tape.loss(mask_loss, many * 70000.0)
    found = tape.backward(loss)["w"]
    assert found.dtype == float and np.array_equal(found, np.full(2, 0.5 + 1 + (1 if dtype is bool else 200)))


def test_a_pair_may_write_to_its_buffer_again():
    buffer = np.zeros(2)

    def scaled_backward(dout, k):
        np.multiply(dout, k, out=buffer)
        return buffer

    tape = Tape()
    w, v = tape.param(np.ones(2), "w"), tape.param(np.ones(2), "v")
    a, b = (tape(lambda x, k: (x * k, k), x, k, backward=scaled_backward) for x, k in ((w, 2.0), (v, 5.0)))
    grads = tape.backward(a + b, np.ones(2))
    buffer[:] = 99
    assert np.array_equal(grads["w"], [2, 2]) and np.array_equal(grads["v"], [5, 5])


def test_a_list_of_arrays_is_several_gradients():
    tape = Tape()
    x, y = tape.param(np.ones(2), "x"), tape.param(np.ones(2), "y")
    product = tape(lambda a, b: (a * b, None), x, y, backward=lambda dout, _: [2 * dout, 3 * dout])
    grads = tape.backward(product, np.ones(2))
    assert np.array_equal(grads["x"], [2, 2]) and np.array_equal(grads["y"], [3, 3])


def take_forward(x, i):
    return x[i], (x, i)


def take_backward(dout, cache):
    x, i = cache
    dx = np.zeros_like(x)
    dx[i] = dout
    return dx, None


def test_a_gradient_of_none_adds_nothing():
    def taken():
        tape = Tape()
        x, i = tape.param(np.arange(3.0), "x"), tape.param([2], "i")
        return tape, tape(take_forward, x, i)

    tape, y = taken()
    grads = tape.backward(y, [5.0], unused="zero")
    assert np.array_equal(grads["x"], [0, 0, 5]) and np.array_equal(grads["i"], [0])
    tape, y = taken()
    with pytest.raises(ValueError, match=r"reaches 'i' \(the backward of take_forward returned None\); pass"):
        tape.backward(y, [5.0])
    tape = Tape()  # None is no error for a constant, or for a parameter that gets a gradient from another call.
    x, i = tape.param(np.arange(3.0), "x"), tape.param([2], "i")
    grads = tape.backward(tape(take_forward, x, [2]) + tape(take_forward, x, i) + i, [5.0])
    assert np.array_equal(grads["x"], [0, 0, 10]) and np.array_equal(grads["i"], [5])
    tape = Tape()
    x, i = tape.param(np.arange(3.0), "x"), tape.param([2])
    between = tape((lambda i: (i, None), lambda dout, _: dout), i)
    with pytest.raises(
        ValueError, match=r"an unnamed parameter of shape \(1,\) \(the backward of take_forward returned"
    ):
        tape.backward(tape(take_forward, x, between), [1.0])


def test_float32_stays(rng):
    x, w = rng.standard_normal((1, 2, 5, 5)).astype(np.float32), rng.standard_normal((2, 2, 3, 3)).astype(np.float32)
    tape = Tape()
    node, weights = tape.input(x, "x", requires_grad=True), tape.param(w, "w")
    h = tape(conv_forward, node, weights, None, pad=1) + node
    h = tape.concat([0.5 * h, h])
    assert h.dtype == np.float32
    loss = 0.1 * tape(softmax_loss, tape.flatten(h), [3])
    grads = tape.backward(loss)
    assert grads["x"].dtype == grads["w"].dtype == np.float32
    mixed = Tape()
    a, b = mixed.param(x, "a"), mixed.param(x.astype(float), "b")
    grads = mixed.backward(a + b, np.ones(x.shape))
    assert grads["a"].dtype == np.float32 and grads["b"].dtype == np.float64


def test_an_empty_batch():
    tape = Tape()
    w = tape.param(np.ones((4, 3, 3, 3)), "w")
    h = tape(conv_forward, tape.input(np.ones((0, 3, 5, 5))), w, None)
    h = tape.flatten(tape.concat([h, h]))
    assert h.shape == (0, 72)
    assert np.array_equal(tape.backward(h, np.ones((0, 72)))["w"], np.zeros((4, 3, 3, 3)))


def test_kept_gradients(rng):
    """The gradient by an intermediate value, as class activation maps need it."""
    a, dout = rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    tape = Tape()
    x = tape.param(a)
    h = tape.scale(x, 3)
    y = tape(relu_forward, h) + h
    grads = tape.backward(y, dout, keep=[h, x])
    assert np.allclose(grads[h], dout * (1 + (a > 0))) and np.allclose(grads[x], 3 * grads[h])
    assert len(grads) == 0 and x in grads and y not in grads


def test_gradients_are_a_mapping():
    tape, other = Tape(), Tape()
    w, v = tape.param(np.ones(2), "w"), tape.param(np.ones(2))
    tape.input(np.ones(2), "x")
    grads = tape.backward(w + v, [1, 1])
    assert list(grads) == ["w"] and len(grads) == 1 and dict(grads)["w"] is grads[w]
    assert repr(grads) == "Gradients(w (2,))"
    for key in ("x", "no", 0, other.param(np.ones(2)), None):
        with pytest.raises(KeyError, match=r"there is no gradient of .*there are gradients of w,"):
            grads[key]


def test_nodes():
    tape = Tape()
    w = tape.param(np.ones((2, 2), np.float32), "w")
    assert repr(tape.input(1.5)) == "Node(value 1.5)" and repr(w) == "Node('w', shape (2, 2), requires_grad)"
    assert (w.shape, w.dtype, w.name, w.requires_grad) == ((2, 2), np.float32, "w", True)
    array = np.ones((2, 2))
    assert isinstance(array + w, Node) and np.array_equal((array + w).value, (w + array).value)
    assert isinstance(np.float32(2) * w, Node) and (w * 2).dtype == np.float32
    with pytest.raises(TypeError, match=r"^x is a Node: call it through the tape"):
        relu_forward(w)
    assert repr(tape) == "Tape(5 calls recorded)"
    tape.backward(w + w, array)
    assert repr(tape) == "Tape(backward has run)"


def test_a_small_skip_net_learns(rng):
    images = rng.standard_normal((40, 1, 8, 8), dtype=np.float32)
    labels = (images[:, 0, :4].mean((1, 2)) > images[:, 0, 4:].mean((1, 2))).astype(int)
    params = {
        "w1": rng.standard_normal((4, 1, 3, 3)) / 3,
        "w2": rng.standard_normal((4, 4, 3, 3)) / 6,
        "w3": rng.standard_normal((64, 2)) / 8,
        "b3": np.zeros(2),
    }
    params = {name: value.astype(np.float32) for name, value in params.items()}
    losses = []
    for _ in range(40):
        tape = Tape()
        p = tape.params(params)
        h = tape(relu_forward, tape(conv_forward, tape.input(images), p["w1"], None, pad=1))
        h = tape(relu_forward, tape(conv_forward, h, p["w2"], None, pad=1) + h)
        h = tape(max_pool_forward, h, kernel_size=2)
        loss = tape(softmax_loss, tape(affine_forward, h, p["w3"], p["b3"]), labels)
        losses.append(float(loss))
        for name, gradient in tape.backward(loss).items():
            params[name] -= 0.2 * gradient
    assert losses[-1] < 0.5 * losses[0]


def back(tape, node):
    return tape.backward(node, np.ones(node.shape))
