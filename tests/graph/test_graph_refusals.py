"""Errors of a tape, and how they name parameters that no gradient reaches."""

import re

import numpy as np
import pytest
from test_graph import back

from fastconv import affine_forward, conv, conv_forward, relu_forward, softmax_loss
from fastconv.graph import Tape


def net_of(tape, p, arrays, x):
    """The loss of a net with two layers. `p` holds its nodes, or arrays in place of some nodes."""
    h = tape(conv_forward, x, arrays.get("w1", p["w1"]), arrays.get("b1", p["b1"]), pad=1)
    h = tape(relu_forward, h)
    h = arrays["cut"](h) if "cut" in arrays else h
    return tape(affine_forward, tape.flatten(h), arrays.get("w2", p["w2"]), None)


def test_parameters_that_no_gradient_reaches_are_named(rng):
    P = {"w1": rng.standard_normal((2, 1, 3, 3)), "b1": np.zeros(2), "w2": rng.standard_normal((32, 3))}
    x, labels = rng.standard_normal((2, 1, 4, 4)), np.array([0, 2])

    def refusal(arrays, unused="error", labels=labels):
        tape = Tape()
        loss = tape(softmax_loss, net_of(tape, tape.params(P), arrays, tape.input(x)), labels)
        with pytest.raises(ValueError) as found:
            tape.backward(loss)
        assert str(found.value).endswith("or call backward with unused='zero' to get zeros")
        grads = tape.backward(loss, unused="zero")
        return re.search(r"no gradient of .*? reaches (.*); pass the nodes", str(found.value)).group(1), grads

    tape = Tape()
    whole = tape.backward(tape(softmax_loss, net_of(tape, tape.params(P), {}, tape.input(x)), labels))
    assert all(gradient.any() for gradient in whole.values())
    # P['w1'] in place of p['w1'], once and several times, and p['w1'].value, which is the same array.
    message, grads = refusal({"w1": P["w1"]})
    assert message == "'w1' (argument 1 of conv_forward got its array, not its node)"
    assert not grads["w1"].any() and all(np.array_equal(grads[name], whole[name]) for name in ("b1", "w2"))
    message, _ = refusal({"w1": P["w1"], "b1": P["b1"]})
    assert message == (
        "'w1' (argument 1 of conv_forward got its array, not its node), "
        "'b1' (argument 2 of conv_forward got its array, not its node)"
    )
    # The tape cannot recognise a copy of the array.
    assert refusal({"w2": P["w2"].copy()})[0] == "'w2' (no call got its node)"
    # If all of them are arrays, the loss itself needs no gradient.
    message, grads = refusal(P)
    assert message.count("got its array, not its node") == 3 and not any(g.any() for g in grads.values())
    # `.value` cuts this path.
    message, grads = refusal({"cut": lambda h: h.value})
    ends = "its path ends with the result of relu_forward"
    assert message == f"'w1' ({ends}), 'b1' ({ends})" and np.array_equal(grads["w2"], whole["w2"])


def test_arrays_given_by_name_and_nodes_to_keep_are_named():
    tape = Tape()
    p = tape.params({"w": np.ones(3), "v": np.ones(3)})

    def shifted(x, shift):
        return x + shift, None

    pair_of = (shifted, lambda dout, _: dout)
    side = tape(relu_forward, p["w"])
    y = tape(pair_of, p["w"], shift=p["v"].value)
    with pytest.raises(ValueError, match=r"reaches 'v' \(shift= of shifted got its array, not its node\); pass"):
        tape.backward(y, np.ones(3))
    with pytest.raises(ValueError, match=r"reaches Node\(shape \(3,\), requires_grad\) in keep \(no call"):
        tape.backward(y, np.ones(3), keep=side)
    grads = tape.backward(y, np.ones(3), keep=[side, y], unused="zero")
    assert [grads[key].tolist() for key in ("w", "v", side, y)] == [[1] * 3, [0] * 3, [0] * 3, [1] * 3]


def test_a_backward_that_forgets_to_return():
    def halved_forward(x):
        return x / 2, None

    def halved_backward(dout, cache):
        dout / 2

    class Layer:
        def forward(self, x):
            return x, None

        def backward(self, dout, cache):
            pass

    for pair_of, name, of in (
        ((halved_forward, halved_backward), "halved_backward", "halved_forward"),
        (Layer().forward, "backward", "forward"),
        ((halved_forward, lambda dout, cache: None), "<lambda>", "halved_forward"),
    ):
        for unused in ("error", "zero"):
            tape = Tape()
            y = tape(pair_of, tape.param(np.ones(3)))
            with pytest.raises(TypeError) as found:
                tape.backward(y, np.ones(3), unused=unused)
            assert str(found.value).startswith(
                f"{name}, the backward function of {of}, returned None; it must return the gradients"
            )
    tape = Tape()
    w = tape.param(np.ones(3), "w")
    y = tape((halved_forward, lambda dout, cache: (None,)), w) + w
    assert tape.backward(y, np.ones(3))["w"].tolist() == [1, 1, 1]
    tape = Tape()
    loss = tape.loss(lambda w: (w.sum(), None), tape.param(np.ones(3), "w"))
    with pytest.raises(ValueError, match=r"reaches 'w' \(the backward of <lambda> returned None\)"):
        tape.backward(loss)


def no_cache_forward(x):
    return x


def no_cache_backward(dout, cache):
    return dout


def fresh(call):
    """A call with a new tape, and a node of it."""

    def run():
        tape = Tape()
        return call(tape, tape.param(np.ones((2, 3)), "w"))

    return run


def pair(gradients, *outs):
    """A pair that returns the given outputs and gradients."""
    return (lambda *_: (*outs, None) if outs else (np.ones((2, 3)), None)), (lambda *_: gradients)


CASES = [
    (
        lambda t, w: t(no_cache_forward, w),
        TypeError,
        r"no_cache_forward must return \(out, cache\) on a tape, got an ndarray",
    ),
    (
        lambda t, w: t(lambda x: (x,), w, backward=max),
        TypeError,
        r"<lambda> must return \(out, cache\) on a tape, got a tuple of 1",
    ),
    (lambda t, w: t(lambda x: ({}, 1), w, backward=max), TypeError, "got an out that is a dict"),
    (
        lambda t, w: t(conv, w),
        TypeError,
        "conv has no backward function in its module; pass one as backward=, or pass a pair",
    ),
    (
        lambda t, w: t(lambda x: (x, x), w),
        TypeError,
        "<lambda> has no backward function in its module.*if the function is a loss.*call tape.loss",
    ),
    (
        lambda t, w: t((relu_forward, max), w, backward=max),
        TypeError,
        r"backward is given both in the pair \(forward, backward\) and as a keyword",
    ),
    (lambda t, w: t("relu", w), TypeError, "forward and backward must be functions, got 'relu' and None"),
    (lambda t, w: t(relu_forward, w, backward=1), TypeError, "must be functions, got .* and 1"),
    (lambda t, w: t(relu_forward, x=w), TypeError, r"relu_forward got Node\('w'.* as the keyword x; pass nodes as"),
    (lambda t, w: t(relu_forward, [w, w]), TypeError, "argument 0 of relu_forward is a list of nodes; pass each"),
    (
        lambda t, w: t(relu_forward, Tape().param(1.0)),
        ValueError,
        "argument 0 of relu_forward must be a Node of this tape",
    ),
    (lambda t, w: t.input([1.0], "w"), ValueError, "name 'w' is used on this tape already"),
    (lambda t, w: t.param([1.0], 5), TypeError, "name must be a str or None, got 5"),
    (lambda t, w: t.param([1j]), TypeError, "value has dtype complex128"),
    (lambda t, w: t.params({"v": "text"}), TypeError, "v is a str: 'text'"),
    (lambda t, w: t.params([1]), TypeError, "values must be a dict of names and arrays, got list"),
    (lambda t, w: t.input(1.0, requires_grad=1), TypeError, "requires_grad must be True or False, got 1"),
    (lambda t, w: t.loss(1, w), TypeError, r"function must be a function that returns \(loss, gradient\), got 1"),
    (
        lambda t, w: t.loss(relu_forward, w),
        TypeError,
        r"relu_forward must return \(loss, gradient\), where loss is a number, got a tuple of 2",
    ),
    (
        lambda t, w: t.loss(np.sum, w),
        TypeError,
        r"sum must return \(loss, gradient\), where loss is a number, got a float64",
    ),
    (lambda t, w: t.add(), ValueError, "add needs at least one node"),
    (lambda t, w: t.add(w, np.ones(3)), ValueError, r"nodes\[1\] has shape \(3,\) and nodes\[0\] has shape \(2, 3\)"),
    (lambda t, w: t.add(w, "text"), TypeError, r"nodes\[1\] is a str"),
    (lambda t, w: t.concat(w), TypeError, "nodes must be a list of nodes, got Node"),
    (lambda t, w: t.concat([]), ValueError, "concat needs at least one node"),
    (lambda t, w: t.concat([w, w], axis=2), ValueError, "axis must be from -2 to 1 for nodes with 2 axes, got 2"),
    (lambda t, w: t.concat([w, w], axis=-3), ValueError, "axis must be an int >= -2, got -3"),
    (lambda t, w: t.concat([w, w], axis=None), TypeError, "axis must be an int"),
    (lambda t, w: t.concat([w, np.ones((3, 3))]), ValueError, r"may differ only along axis 1, but nodes\[1\] has"),
    (lambda t, w: t.concat([w, np.ones(3)]), ValueError, r"nodes\[1\] has \(3,\) and nodes\[0\] \(2, 3\)"),
    (lambda t, w: t.flatten(1.0), ValueError, "node must have at least one axis"),
    (lambda t, w: t.scale(w, "2"), TypeError, "factor must be a finite number, got '2'"),
    (lambda t, w: t.scale(w, True), TypeError, "factor must be a finite number, got True"),
    (lambda t, w: np.inf * w, ValueError, "factor must be a finite number, got inf"),
    (lambda t, w: t.scale(w, w), TypeError, r"factor must be a finite number, got Node\('w'"),
    (lambda t, w: t.backward(w), ValueError, r"is not a loss, so pass its gradient, of shape \(2, 3\), as dout"),
    (lambda t, w: t.backward(w, np.ones(3)), ValueError, r"dout has shape \(3,\), but the output .* shape \(2, 3\)"),
    (lambda t, w: t.backward(w.value), TypeError, "node must be a Node, got ndarray"),
    (lambda t, w: t.backward(Tape().param(1.0)), ValueError, "node must be a Node of this tape"),
    (lambda t, w: t.backward(w, w.value, keep=["w"]), TypeError, "keep must be a Node, got str"),
    (
        lambda t, w: t.backward(w, w.value, keep=t.input(1.0)),
        ValueError,
        "a node in keep does not depend on a parameter",
    ),
    (
        lambda t, w: t.backward(w, w.value, unused="zeros"),
        ValueError,
        "unused must be 'error' or 'zero', got 'zeros'",
    ),
    (lambda t, w: t.backward(w, w.value, unused=True), TypeError, "unused must be 'error' or 'zero', got True"),
    (lambda t, w: back(t, t(pair((1, 2)), w)), ValueError, "returned 2 gradients, but <lambda> got 1 argument$"),
    (lambda t, w: back(t, t(pair((1, 2, 3)), w, 0)), ValueError, "returned 3 gradients, but <lambda> got 2 arguments$"),
    (
        lambda t, w: back(t, t(pair((1, 2)), 0, 0, w)),
        TypeError,
        "returned 2 gradients for the first arguments, but <lambda> got 3 arguments, and a later one",
    ),
    (
        lambda t, w: back(t, t(pair(1.0), 0, w)),
        TypeError,
        "returned 1 gradient for the first argument, but <lambda> got 2 arguments, and a later one",
    ),
    (lambda t, w: back(t, t(pair(np.ones(3)), w)), ValueError, r"gradient of shape \(3,\) for argument 0.*\(2, 3\)"),
    (
        lambda t, w: (back(t, w), t.input(1.0)),
        RuntimeError,
        "backward has run on this tape already and freed its caches",
    ),
    (lambda t, w: (back(t, w), t(relu_forward, w)), RuntimeError, "record the forward pass on a new Tape"),
    (lambda t, w: (back(t, w), back(t, w)), RuntimeError, "backward has run on this tape already"),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[case[2][:50] for case in CASES])
def test_refusals(call, error, message):
    with pytest.raises(error) as found:
        fresh(call)()
    assert re.search(message, str(found.value)), found.value
