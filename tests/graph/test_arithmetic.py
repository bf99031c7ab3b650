"""Arithmetic on nodes of a tape: values against NumPy's, gradients against central differences."""

import copy
import operator
import re

import numpy as np
import pytest

from fastconv import affine_forward, relu_forward
from fastconv.gradient_check import eval_numerical_gradient_array
from fastconv.graph import Node, Tape
from fastconv.graph.pairs import RULES

BINARY = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "true_divide": operator.truediv,
    "power": operator.pow,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
UNARY = [ufunc for ufunc, rules in RULES.items() if len(rules) == 1]
SHAPES = [
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), ()),
    ((), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((3, 1), (2, 1, 4)),
    ((1, 3, 1), (2, 3, 4)),
    ((), ()),
    ((1,), (0,)),
]


def positive(rng, shape):
    """Numbers so far from zero that every function is smooth there."""
    return rng.uniform(0.5, 2, shape)


def check(function, *arrays, rng):
    """Compare `function` of nodes with `function` of arrays, and its gradients with central differences."""
    tape = Tape()
    nodes = [tape.param(array) for array in arrays]
    out = function(*nodes)
    expected = function(*arrays)
    assert isinstance(out, Node) and out.shape == np.shape(expected)
    np.testing.assert_allclose(out.value, expected, rtol=1e-15)
    dout = rng.standard_normal(out.shape)
    grads = tape.backward(out, dout)
    for i, array in enumerate(arrays):

        def of_one(value, i=i):
            return np.asarray(function(*(value if j == i else other for j, other in enumerate(arrays))))

        numeric = eval_numerical_gradient_array(of_one, array.copy(), dout)
        assert grads[nodes[i]].shape == array.shape
        np.testing.assert_allclose(grads[nodes[i]], numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", BINARY)
def test_two_nodes(name, shapes, rng):
    check(BINARY[name], *(positive(rng, shape) for shape in shapes), rng=rng)


@pytest.mark.parametrize("ufunc", UNARY, ids=[ufunc.__name__ for ufunc in UNARY])
def test_one_node(ufunc, rng):
    check(ufunc, positive(rng, (3, 4)), rng=rng)
    if ufunc in (np.absolute, np.negative, np.positive, np.square, np.reciprocal, np.tanh, np.sin, np.cos, np.exp):
        check(ufunc, -positive(rng, (3, 4)), rng=rng)


NUMBERS = [
    lambda a: a + 1,
    lambda a: 1 + a,
    lambda a: a - 0.5,
    lambda a: 1 - a,
    lambda a: 2 * a,
    lambda a: a * np.float64(3),
    lambda a: np.float64(3) * a,
    lambda a: np.float64(3) - a,
    lambda a: a * True,
    lambda a: False * a,
    lambda a: a * np.True_,
    lambda a: a + True,
    lambda a: a / 3,
    lambda a: 3 / a,
    lambda a: a**3,
    lambda a: a**-0.5,
    lambda a: 2**a,
    lambda a: -a,
    lambda a: +a,
    abs,
    lambda a: np.maximum(a, 1),
    lambda a: np.minimum(1, a),
    lambda a: np.maximum(0, a - 1) ** 2 / (1 + np.exp(-a)),
]


@pytest.mark.parametrize("function", NUMBERS)
def test_numbers(function, rng):
    check(function, positive(rng, (3, 4)), rng=rng)


@pytest.mark.parametrize("function", [*NUMBERS, lambda a: a * a, lambda a: a / a, np.sqrt])
def test_float32_stays(function):
    tape = Tape()
    a = tape.param(np.linspace(0.5, 2, 6, dtype=np.float32), "a")
    out = function(a)
    assert out.dtype == np.float32
    assert tape.backward(out, np.ones(6))["a"].dtype == np.float32


def test_arrays_on_either_side(rng):
    array = positive(rng, (2, 3))
    for function in (
        lambda a: array * a,
        lambda a: a * array.tolist(),
        lambda a: array - a,
        lambda a: a - array[0],
        lambda a: array[:, :1] / a,
        lambda a: np.maximum(array, a),
        lambda a: array + a,
        lambda a: a + array[0],
        lambda a: array**a,
    ):
        check(function, positive(rng, (2, 3)), rng=rng)


def test_a_sum_over_what_was_repeated_by_hand():
    tape = Tape()
    a, b = tape.param(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "a"), tape.param(np.array([[10.0], [20.0]]), "b")
    grads = tape.backward(a * b, np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]))
    assert np.array_equal(grads["a"], [[10, 20, 30], [20, 20, 20]])
    assert np.array_equal(grads["b"], [[14], [15]])


def test_a_long_sum_over_what_was_repeated_keeps_its_digits():
    tape = Tape()
    bias, rows = tape.param(np.zeros(2, np.float32), "bias"), np.zeros((2**20, 2), np.float32)
    dout = np.full(rows.shape, 0.1, np.float32)
    gradient = tape.backward(bias + rows, dout)["bias"]
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, 2**20 * np.float64(np.float32(0.1)), rtol=1e-7)


def test_equal_operands_share_a_gradient_and_nan_hides_nothing():
    tape = Tape()
    a, b = tape.param(np.array([1.0, 2.0, 3.0, np.nan]), "a"), tape.param(np.array([2.0, 2.0, 2.0, 2.0]), "b")
    out = np.maximum(a, b)
    assert np.array_equal(out.value, [2, 2, 3, np.nan], equal_nan=True)
    grads = tape.backward(out, np.ones(4))
    assert np.array_equal(grads["a"], [0, 0.5, 1, 1]) and np.array_equal(grads["b"], [1, 0.5, 0, 1])


def test_powers_at_zero():
    tape = Tape()
    a = tape.param(np.array([0.0, 2.0]), "a")
    assert np.array_equal(tape.backward(a**2 + a**1 + a**0, np.ones(2))["a"], [1, 5])
    tape = Tape()
    b = tape.param(np.array([1.0, 2.0]), "b")
    np.testing.assert_allclose(tape.backward(np.array([0.0, 2.0]) ** b, np.ones(2))["b"], [0, 4 * np.log(2)])


def test_losses_and_layers_together(rng):
    x, w = rng.standard_normal((5, 4)), rng.standard_normal((4, 3))

    def square_loss(scores):
        return 0.5 * (scores**2).sum(), scores

    tape = Tape()
    p = tape.param(w, "w")
    h = tape(affine_forward, tape.input(x), p, None)
    loss = tape(square_loss, np.tanh(h) - 0.5)
    total = sum([loss / 5, loss * loss, 1 - loss])
    t = np.tanh(x @ w) - 0.5
    value = 0.5 * (t**2).sum()
    np.testing.assert_allclose(float(total), value / 5 + value**2 + 1 - value)
    expected = x.T @ (t * (1 - np.tanh(x @ w) ** 2) * (1 / 5 + 2 * value - 1))
    np.testing.assert_allclose(tape.backward(total)["w"], expected, rtol=1e-12)


def test_gradients_that_are_shared_are_not_written_to():
    """`a - b` gives one gradient array to both nodes, so adding to the gradient of one must not change the other."""
    tape = Tape()
    a, b = tape.param(np.ones(3), "a"), tape.param(np.ones(3), "b")
    dout = np.ones(3)
    grads = tape.backward((a - b) + a + (a + b), dout)
    assert np.array_equal(grads["a"], [3, 3, 3]) and np.array_equal(grads["b"], [0, 0, 0])
    assert np.array_equal(dout, [1, 1, 1])


def test_what_is_wanted_alone_is_computed(monkeypatch):
    seen = []
    rules = RULES[np.multiply]
    watched = tuple(lambda *args, i=i: seen.append(i) or rules[i](*args) for i in (0, 1))
    monkeypatch.setitem(RULES, np.multiply, watched)
    tape = Tape()
    a, x = tape.param(np.ones(3), "a"), tape.input(np.ones(3))
    tape.backward(x * a, np.ones(3))
    assert seen == [1]
    tape = Tape()
    assert (tape.input(np.ones(3)) * np.ones(3)).value.shape == (3,) and len(tape) == 0


def node():
    return Tape().param(np.ones((2, 3)), "w")


PAIR_OR_VALUE = (
    r"pass a forward and a backward function, as in tape\(\(forward, backward\), node\), or apply np\.[a-z_.]+ to "
    r"node\.value$"
)
NO_ARRAY = r"^a Node is not an array: call the function through the tape, .*, or take node.value$"
COMPARE = r"^a comparison of nodes has no gradient: compare their values, as in a.value > b.value$"
REFUSED = [
    (lambda a: a @ a, TypeError, r"^nodes do not support a @ b: write tape\(affine_forward, a, b, None\)$"),
    (lambda a: np.ones((3, 2)) @ a, TypeError, "write tape"),
    (lambda a: np.arctan(a), TypeError, f"^a tape cannot record np.arctan of a Node: {PAIR_OR_VALUE}"),
    (lambda a: np.sum(a), TypeError, f"^a tape cannot record np.add.reduce of a Node: {PAIR_OR_VALUE}"),
    (lambda a: np.mean(a), TypeError, NO_ARRAY),
    (lambda a: np.asarray(a), TypeError, NO_ARRAY),
    (lambda a: np.dot(a, a), TypeError, NO_ARRAY),
    (lambda a: np.clip(a, 0, 1), TypeError, NO_ARRAY),
    (lambda a: np.concatenate([a, a]), TypeError, NO_ARRAY),
    (lambda a: a > 0, TypeError, COMPARE),
    (lambda a: a <= a, TypeError, COMPARE),
    (lambda a: np.ones(3) == a, TypeError, COMPARE),
    (
        lambda a: a // 2,
        TypeError,
        "^np.floor_divide has no gradient, because it is piecewise constant: apply it to node.value$",
    ),
    (lambda a: 5 % a, TypeError, "^np.remainder has no gradient, because it is piecewise constant"),
    (lambda a: divmod(a, 2), TypeError, "^np.divmod has no gradient, because it is piecewise constant"),
    (lambda a: divmod(2, a), TypeError, "^np.divmod has no gradient, because it is piecewise constant"),
    (lambda a: ~a, TypeError, f"^a tape cannot record np.invert of a Node: {PAIR_OR_VALUE}"),
    (lambda a: a & 1, TypeError, f"^a tape cannot record np.bitwise_and of a Node: {PAIR_OR_VALUE}"),
    (lambda a: 1 | a, TypeError, f"^a tape cannot record np.bitwise_or of a Node: {PAIR_OR_VALUE}"),
    (lambda a: a ^ a, TypeError, f"^a tape cannot record np.bitwise_xor of a Node: {PAIR_OR_VALUE}"),
    (
        lambda a: a[0],
        TypeError,
        r"^a tape cannot record an index of a Node: pass a forward and a backward function, as in "
        r"tape\(\(forward, backward\), node\), or use node\.value\[\.\.\.\]$",
    ),
    (
        lambda a: a.max(),
        AttributeError,
        r"^a tape cannot record max of a Node: pass a forward and a backward function, as in "
        r"tape\(\(forward, backward\), node\), or use node\.value\.max\(\.\.\.\)$",
    ),
    (lambda a: a.T, AttributeError, r"^a tape cannot record T of a Node: pass .* or use node\.value\.T$"),
    (lambda a: a.ravel(), AttributeError, r": write tape\.flatten\(node\), or use node\.value\.ravel\(\.\.\.\)$"),
    (lambda a: a.foo, AttributeError, "^'Node' object has no attribute 'foo'$"),
    (lambda a: np.sign(a), TypeError, "^np.sign has no gradient, because it is piecewise constant"),
    (
        lambda a: np.add(a, 1, out=np.ones((2, 3))),
        TypeError,
        "^np.add of a Node does not accept out, because it returns a new node$",
    ),
    (
        lambda a: np.exp(a, dtype=np.float32),
        TypeError,
        "^np.exp of a Node does not accept dtype, because it returns a new node$",
    ),
    (lambda a: operator.iadd(np.ones((2, 3)), a), TypeError, "^np.add of a Node does not accept out"),
    (
        lambda a: a - np.ones(2),
        ValueError,
        r"^the operands of subtract must have shapes that broadcast, got \(2, 3\) and \(2,\)",
    ),
    (lambda a: a - "text", TypeError, "^operand 1 of subtract is a str: 'text'"),
    (lambda a: None / a, TypeError, "^operand 0 of (true_)?divide is None; it must be an array"),
    (lambda a: a * None, TypeError, "^factor must be a finite number, got None"),
    (lambda a: a + np.ones((2, 3)) * 1j, TypeError, "has dtype complex128"),
    (lambda a: a * node(), ValueError, r"argument 1 of multiply must be a Node of this tape, got Node\('w'"),
    (
        lambda a: [*a],
        TypeError,
        r"^a Node cannot be unpacked; write h = tape\(\.\.\.\), because the tape keeps the cache$",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[case[2][:40] for case in REFUSED])
def test_what_has_no_gradient_says_what_to_write(call, error, message):
    with pytest.raises(error) as caught:
        call(node())
    assert re.search(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_the_pair_that_a_message_gives_works(name, rng):
    tape = Tape()
    node = tape.param(rng.standard_normal((2, 3)), "w")
    with pytest.raises(AttributeError) as caught:
        getattr(node, name)
    loss = eval(re.search(r"as in (tape\(.*, node\)),", str(caught.value))[1], {"tape": tape, "node": node, "np": np})
    assert float(loss) == getattr(node.value, name)()
    np.testing.assert_allclose(tape.backward(loss)["w"], np.full((2, 3), {"sum": 1, "mean": 1 / 6}[name]))


def test_a_node_has_no_more_attributes_than_before():
    one = node()
    assert not any(hasattr(one, name) for name in ("sum", "T", "foo", "__array_interface__", "_missing"))
    assert copy.copy(one).value is one.value


def test_unpacking_a_call_says_who_has_the_cache():
    tape = Tape()
    with pytest.raises(TypeError, match="the tape keeps the cache"):
        _h, _cache = tape(relu_forward, tape.param(np.ones(3)))


def test_nodes_are_themselves_alone():
    a, b = node(), node()
    assert a == a and a != b and [b, a].index(a) == 1 and len({a, b}) == 2
