"""Changed, cast and invented caches. This is a script, because a wrong memory access ends the process.

``python tests/forged.py FAMILY`` prints each case before it runs it. At the end it prints how many cases raised an
error and how many gave the right gradients. `test_forged.py` runs this script.
"""

import ctypes
import dataclasses
import mmap
import pickle
import sys
from fractions import Fraction
from functools import partial

import numpy as np

import fastconv
from fastconv import layers
from fastconv.compat import cmu11785, cs231n, deeplearning_ai, dlfs
from fastconv.geometry.axis import Axis

RNG = np.random.default_rng(7)
PAGE = mmap.PAGESIZE
_MAPPINGS = []


def floats(*shape):
    return RNG.standard_normal(shape)


def guarded(array):
    """A copy that ends at a protected page of memory, so that reading past its end ends the process."""
    array = np.ascontiguousarray(array)
    if not sys.platform.startswith("linux") or not array.nbytes or array.dtype.hasobject:
        return array.copy()
    pages = -(-array.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + pages * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    _MAPPINGS.append(memory)
    copy = np.ndarray(array.shape, array.dtype, memory, pages * PAGE - array.nbytes)
    copy[...] = array
    return copy


class Lying(np.ndarray):
    """An array that reports another shape."""

    @property
    def shape(self):
        return self.claimed

    @property
    def size(self):
        return int(np.prod(self.claimed))

    @property
    def ndim(self):
        return len(self.claimed)


def lying(array, claimed):
    liar = guarded(array).view(Lying)
    liar.claimed = claimed
    return liar


class Overriding(np.ndarray):
    """An array that refuses NumPy's functions."""

    def __array_function__(self, *_):
        raise AssertionError("a function of NumPy was dispatched")


class Pretender:
    """An object that reports ndarray as its class."""

    __class__ = property(lambda self: np.ndarray)


#: The outcomes that a case may have. SAME: the right gradients, or TypeError or ValueError. ANY: these errors or any
#: gradients, but no crash. RESHAPED: ANY if the cache holds the caller's inputs, which then belong to another layer,
#: else SAME.
SAME, ANY, RESHAPED = "same", "any", "reshaped"


def of_array(a):
    yield "None", None, SAME
    yield "text", "text", SAME
    yield "an int", 3, SAME
    yield "a list", a.tolist(), SAME
    yield "a pretender", Pretender(), SAME
    yield "an object array", np.full(a.shape, None), SAME
    yield "complex", a.astype(complex), SAME
    for kind in (np.float32, np.float64, np.float16, np.int64, np.int8):
        # A cast that changes numbers may give the gradients of the changed numbers.
        keeps = np.array_equal(a.astype(kind).astype(a.dtype), a) or kind in (np.float32, np.float64)
        yield f"as {kind.__name__}", guarded(a.astype(kind)), SAME if keeps else ANY
    yield "swapped", guarded(a.astype(a.dtype.newbyteorder("S"))), SAME
    yield "a guarded copy", guarded(a), SAME
    if a.ndim:
        yield "shorter", guarded(a[:-1]), RESHAPED
        yield "one", guarded(a[:1]), RESHAPED if len(a) > 1 else SAME
        yield "flat and shorter", guarded(a.ravel()[:-1]), SAME
        yield "flat", guarded(a.ravel()), SAME
        yield "none", guarded(a[:0]), RESHAPED
        yield "longer", guarded(np.concatenate([a, a])), RESHAPED
        yield "lying", lying(a.ravel()[:1], a.shape), SAME
        yield "reversed", guarded(a[::-1])[::-1], SAME
        yield "strided", np.repeat(a, 2, axis=-1)[..., ::2], SAME
    yield "in Fortran's order", np.asfortranarray(a), SAME
    yield "turned", guarded(a.T), SAME if a.shape != a.T.shape else ANY
    yield "with an axis more", guarded(a)[None], SAME
    yield "a number", guarded(a.ravel()[0]), SAME
    yield "unaligned", np.frombuffer(b"\0" + a.tobytes(), a.dtype, a.size, 1).reshape(a.shape), SAME
    yield "overriding", guarded(a).view(Overriding), SAME
    if a.dtype.kind in "iu":
        for number in (-1, a.max(initial=0) + 1, np.iinfo(a.dtype).max, np.iinfo(a.dtype).min):
            yield f"all {number}", guarded(np.full(a.shape, number, a.dtype)), ANY


def of_geometry(g):
    for name, value in vars(g).items():
        if name in [field.name for field in dataclasses.fields(g)]:
            for said, wrong, _ in mutations(value):
                yield f"{name} {said}", ("field", g, name, wrong), ANY
    yield "without fields", object.__new__(type(g)), SAME
    yield "None", None, SAME
    yield "another kind", Axis(1, 1, 1, 0, 0, 1, 1), SAME
    yield "of another layer", layers.conv_forward(floats(1, 1, 9), floats(1, 1, 3), None)[1].geometry, SAME
    yield "of another pooling", layers.max_pool_forward(floats(1, 1, 9), kernel_size=3)[1].geometry, SAME


INTS = (-1, 0, 1, 2, 3, 7, 1 << 31, 1 << 62, 1 << 70, -(1 << 70))


def of_number(n):
    wrong = [*INTS, n + 1, 1.5, float("nan"), float("inf"), None, "text", (), np.int64(2)]
    yield from ((repr(value), value, ANY) for value in wrong)


def of_tuple(t):
    yield "a list", list(t), ANY
    yield "shorter", t[:-1], SAME
    yield "longer", (*t, *t[-1:]), SAME
    yield "None", None, SAME
    for i, item in enumerate(t):
        for said, wrong, outcome in mutations(item):
            yield f"[{i}] {said}", with_item(t, i, wrong), outcome


def of_axis(axis):
    for field in dataclasses.fields(axis):
        for value in (*INTS, getattr(axis, field.name) + 1, getattr(axis, field.name) - 1, 1.0, None):
            yield f"{field.name} {value}", dataclasses.replace(axis, **{field.name: value}), ANY


def mutations(value):
    """Triples: a description of the change, the changed value, and the outcomes that it may have."""
    if isinstance(value, np.ndarray):
        yield from of_array(value)
    elif isinstance(value, Axis):
        yield from of_axis(value)
    elif dataclasses.is_dataclass(value):
        yield from of_geometry(value)
    elif isinstance(value, tuple):
        yield from of_tuple(value)
    elif isinstance(value, (bool, str, type(None), np.dtype)) or callable(value):
        wrong = (None, True, False, 2, -1, 0, "text", "reference", [], (), np.float32, np.dtype(">f8"), np.dtype("f2"))
        wrong += (np.dtype("i4"), np.dtype("O"), np.dtype("f4"), np.dtype("f8"), np.zeros(3), {})
        yield from ((repr(other), other, ANY) for other in wrong)
    elif isinstance(value, (int, float)):
        yield from of_number(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"without {key}", {k: v for k, v in value.items() if k != key}, ANY
            for said, wrong, _ in mutations(item):
                yield f"{key} {said}", {**value, key: wrong}, ANY
        yield "None", None, SAME
        yield "a list", list(value), ANY
    else:
        raise AssertionError(value)


def with_items(t, items):
    return type(t)(*items) if hasattr(t, "_fields") else tuple(items)


def with_item(t, i, value):
    return with_items(t, [*t[:i], value, *t[i + 1 :]])


def cast(value, kind):
    """`value` with every float array in it cast, as a user may do to save memory."""
    if isinstance(value, tuple):
        return with_items(value, [cast(item, kind) for item in value])
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return guarded(value.astype(kind))
    return np.dtype(kind) if isinstance(value, np.dtype) else value


def replaced(value):
    """Rebuild the geometries in `value`; the constructor (or unpickling) has to refuse a changed one."""
    if isinstance(value, tuple) and len(value) == 4 and isinstance(value[0], str) and value[0] == "field":
        _, geometry, name, wrong = value
        made = dataclasses.replace(geometry, **{name: wrong})
        if isinstance(wrong, (int, tuple)):
            made = pickle.loads(pickle.dumps(made))
        return made
    if isinstance(value, tuple):
        return with_items(value, [replaced(item) for item in value])
    return value


def norm(dtype=np.float64):
    return {"mode": "train"}, np.ones(6, dtype), np.zeros(6, dtype)


X, W, B = floats(2, 6, 7, 8), floats(4, 6, 3, 3), floats(4)
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}
EVEN = floats(2, 3, 6, 8)
NHWC = floats(2, 7, 6, 3)


def conv(x=X, w=W, b=B, **options):
    return lambda: layers.conv_forward(x, w, b, **options)


#: Families by name: each has a name, a forward pass and a backward pass.
FAMILIES = {
    "conv": [
        ("conv", conv(pad=1), layers.conv_backward),
        ("conv of groups", conv(w=floats(4, 3, 3, 3), groups=2, stride=2), layers.conv_backward),
        ("conv reflected", conv(pad=1, pad_mode="reflect", flip=True), layers.conv_backward),
        ("conv at 3/2", conv(pad=1, stride=Fraction(3, 2)), layers.conv_backward),
        ("conv_transpose", lambda: layers.conv_transpose_forward(X, floats(6, 2, 3, 3), None, stride=2, output_pad=1),
         layers.conv_transpose_backward),
    ],
    "algorithms": [
        *((f"conv by {name}", conv(pad=1, algorithm=name), layers.conv_backward)
          for name in ("im2col", "implicit", "winograd")),
        ("conv by depthwise", conv(w=floats(6, 1, 3, 3), b=None, groups=6, algorithm="depthwise"),
         layers.conv_backward),
    ],
    "pools": [
        ("max_pool", lambda: layers.max_pool_forward(X, kernel_size=2), layers.max_pool_backward),
        ("max_pool of 3", lambda: layers.max_pool_forward(X, kernel_size=3, stride=2, pad=1), layers.max_pool_backward),
        ("avg_pool", lambda: layers.avg_pool_forward(X, kernel_size=3, ceil_mode=True), layers.avg_pool_backward),
        ("lp_pool", lambda: layers.lp_pool_forward(X, kernel_size=2), layers.lp_pool_backward),
        ("lp_pool of 3", lambda: layers.lp_pool_forward(X, kernel_size=2, p=3), layers.lp_pool_backward),
        ("pool", lambda: layers.pool_forward(X, {"kernel_size": 2}, lambda w: w.sum(axis=-1),
                                             lambda w, out: np.ones_like(w)), layers.pool_backward),
        ("global_max_pool", lambda: layers.global_max_pool_forward(X), layers.global_max_pool_backward),
        ("global_avg_pool", lambda: layers.global_avg_pool_forward(X), layers.global_avg_pool_backward),
    ],
    "norms": [
        ("batchnorm", lambda: layers.batchnorm_forward(floats(5, 6), *norm()[1:], norm()[0]),
         layers.batchnorm_backward),
        ("batchnorm in test", lambda: layers.batchnorm_forward(floats(5, 6), *norm()[1:], {"mode": "test"}),
         layers.batchnorm_backward),
        ("spatial_batchnorm", lambda: layers.spatial_batchnorm_forward(X, *norm()[1:], norm()[0]),
         layers.spatial_batchnorm_backward),
        ("layernorm", lambda: layers.layernorm_forward(floats(5, 6), *norm()[1:]), layers.layernorm_backward),
        ("spatial_groupnorm", lambda: layers.spatial_groupnorm_forward(X, *norm()[1:], 3),
         layers.spatial_groupnorm_backward),
        ("lrn", lambda: layers.lrn_forward(X, {"size": 3}), layers.lrn_backward),
    ],
    "others": [
        ("affine", lambda: layers.affine_forward(floats(3, 2, 2), floats(4, 5), floats(5)), layers.affine_backward),
        ("relu", lambda: layers.relu_forward(floats(3, 5)), layers.relu_backward),
        ("leaky_relu", lambda: layers.leaky_relu_forward(floats(3, 5)), layers.leaky_relu_backward),
        ("sigmoid", lambda: layers.sigmoid_forward(floats(3, 5)), layers.sigmoid_backward),
        ("tanh", lambda: layers.tanh_forward(floats(3, 5)), layers.tanh_backward),
        ("dropout", lambda: layers.dropout_forward(floats(3, 5), {"p": 0.5, "mode": "train"}), layers.dropout_backward),
        ("affine_relu", lambda: layers.affine_relu_forward(floats(3, 4), floats(4, 5), floats(5)),
         layers.affine_relu_backward),
        ("conv_relu", lambda: layers.conv_relu_forward(X, W, B), layers.conv_relu_backward),
        ("conv_bn_relu", lambda: layers.conv_bn_relu_forward(X, floats(6, 6, 3, 3), None, *norm()[1:], None, norm()[0]),
         layers.conv_bn_relu_backward),
        ("conv_relu_pool", lambda: layers.conv_relu_pool_forward(X, W, B, None, POOL), layers.conv_relu_pool_backward),
    ],
    "cs231n": [
        *((name, partial(getattr(cs231n, f"{name}_forward{kind}"), EVEN, floats(2, 3, 3, 3), floats(2),
                         {"stride": 1, "pad": 1}),
           getattr(cs231n, f"{name}_backward{kind}"))
          for name, kind in (("conv", "_naive"), ("conv", "_im2col"), ("conv", "_strides"), ("conv", "_fast"),
                             ("conv_relu", ""))),
        *((f"max_pool{kind}", partial(getattr(cs231n, f"max_pool_forward{kind}"), EVEN, POOL),
           getattr(cs231n, f"max_pool_backward{kind}"))
          for kind in ("_naive", "_reshape", "_im2col", "_fast")),
        ("max_pool_fast by columns", lambda: cs231n.max_pool_forward_fast(EVEN, {**POOL, "stride": 1}),
         cs231n.max_pool_backward_fast),
        ("conv_relu_pool", lambda: cs231n.conv_relu_pool_forward(EVEN, floats(2, 3, 3, 3), floats(2),
                                                                 {"stride": 1, "pad": 1}, POOL),
         cs231n.conv_relu_pool_backward),
        ("conv_bn_relu", lambda: cs231n.conv_bn_relu_forward(EVEN, floats(2, 3, 3, 3), floats(2), np.ones(2),
                                                             np.zeros(2), {"stride": 1, "pad": 1}, {"mode": "train"}),
         cs231n.conv_bn_relu_backward),
    ],
    "deeplearning_ai": [
        ("conv", lambda: deeplearning_ai.conv_forward(NHWC, floats(3, 3, 3, 2), floats(1, 1, 1, 2),
                                                      {"stride": 2, "pad": 1}), deeplearning_ai.conv_backward),
        *((f"{mode} pool", lambda mode=mode: deeplearning_ai.pool_forward(NHWC, {"f": 2, "stride": 2}, mode),
           lambda dA, cache, mode=mode: deeplearning_ai.pool_backward(dA, cache, mode))
          for mode in ("max", "average")),
    ],
}  # fmt: skip


#: Families whose caches hold the caller's inputs, as in the courses.
OF_INPUTS = ("cs231n", "deeplearning_ai")


def gradients(backward, dout, cache):
    result = backward(dout, cache)
    return result if isinstance(result, tuple) else (result,)


def equal(found, wanted):
    if (found is None) != (wanted is None):
        return True  # The changed cache claims that the layer had no bias.
    return found is None or (found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-4, atol=1e-4))


def run(family):
    refused = right = 0
    for name, forward, backward in FAMILIES[family]:
        out, cache = forward()
        dout = RNG.standard_normal(out.shape)
        wanted = gradients(backward, dout, cache)
        casts = [(f"all cast to {kind}", cast(cache, kind), SAME) for kind in ("f4", "f8")]
        for said, wrong, outcome in (*mutations(cache), *casts):
            print(f"{name}: {said}", flush=True)
            try:
                found = gradients(backward, dout, replaced(wrong))
            except (TypeError, ValueError) as error:
                assert len(str(error)) > 10, f"no words: {error!r}"
                refused += 1
                continue
            if outcome is SAME or (outcome is RESHAPED and family not in OF_INPUTS):
                assert len(found) == len(wanted) and all(map(equal, found, wanted)), "wrong gradients"
                right += 1
    print(f"{refused} refused, {right} right")


def dlfs_layer(x, W, b):
    layer = dlfs.Convolution(W, b)
    return layer.forward(x), layer.col, layer.col_W, layer.backward(np.ones((2, 2, 4, 6))), layer.dW, layer.db


def cmu11785_layer(x, W, b):
    layer = cmu11785.Conv2d(3, 2, 3, 2)
    layer.W, layer.b = W, b
    return layer.forward(x), layer.backward(np.ones((2, 2, 2, 3))), layer.dLdW, layer.dLdb


def taped(x):
    """The user's layer returns its input itself, so the tape must not add to that array in place."""
    tape = fastconv.graph.Tape()
    seen = np.ndarray.view(x, np.ndarray)
    node = tape.params({"x": seen})["x"]
    (out, doubled) = (tape(lambda _: (x, None), node, backward=lambda dout, _: dout) for _ in range(2))
    total = tape(layers.relu_forward, out + doubled)
    grads = tape.backward(total, np.ones(seen.shape))
    return grads["x"], np.array(out.shape), total.value


ONES, ZEROS = np.ones(6), np.zeros(6)
LABELS = np.array([1, 0, 4])
PLACES = np.array([[[0, 3], [2, 1]]])
#: Functions and their arguments; each array argument in turn is replaced by other kinds of arrays.
CALLS = [
    (fastconv.conv, X, W, B),
    (fastconv.conv_forward, X, W, B),
    (fastconv.conv_transpose, X, floats(6, 2, 3, 3), floats(2)),
    (fastconv.conv_transpose_forward, X, floats(6, 2, 3, 3), floats(2)),
    (fastconv.im2col, X, 3),
    (fastconv.col2im, floats(1, 4, 4), (1, 1, 3, 3), 2),
    (fastconv.upsample, X, 2),
    (fastconv.downsample, X, 2),
    (fastconv.max_pool_forward, X, POOL),
    (fastconv.avg_pool_forward, X, POOL),
    (fastconv.lp_pool_forward, X, POOL),
    (fastconv.pool_forward, X, POOL, lambda w: w.sum(axis=-1)),
    (fastconv.global_max_pool_forward, X),
    (fastconv.global_avg_pool_forward, X),
    (fastconv.max_unpool, floats(1, 2, 2), PLACES, (1, 2, 4)),
    (fastconv.toeplitz_matrix, W, (6, 7, 8)),
    (fastconv.convolution_matrix, W[0, 0], (7, 8)),
    (lambda w, x: fastconv.toeplitz_operator(w, (6, 7, 8)) @ x, W, X[0].ravel()),
    (layers.affine_forward, floats(3, 4), floats(4, 5), floats(5)),
    (layers.affine_to_conv, floats(6, 5), (6, 1, 1)),
    (layers.conv_to_affine, W),
    (layers.relu_forward, X),
    (layers.leaky_relu_forward, X),
    (layers.sigmoid_forward, X),
    (layers.tanh_forward, X),
    (layers.dropout_forward, X, {"p": 0.5, "mode": "train", "seed": 1}),
    (lambda *a: layers.batchnorm_forward(*a, {"mode": "train"}), floats(5, 6), ONES, ZEROS),
    (lambda *a: layers.spatial_batchnorm_forward(*a, {"mode": "train"}), X, ONES, ZEROS),
    (lambda x, mean, var: layers.spatial_batchnorm_forward(
        x, ONES, ZEROS, {"mode": "test", "running_mean": mean, "running_var": var}), X, ZEROS, ONES),
    (layers.layernorm_forward, floats(5, 6), ONES, ZEROS),
    (layers.spatial_groupnorm_forward, X, ONES, ZEROS, 3),
    (layers.lrn_forward, X, {"size": 3}),
    (layers.softmax_loss, floats(3, 5), LABELS),
    (layers.svm_loss, floats(3, 5), LABELS),
    (fastconv.gradient_check.rel_error, X, X + 1),
    (cs231n.im2col_indices, EVEN, 3, 3),
    (cs231n.col2im_indices, np.ones((9, 4)), (1, 1, 2, 2)),
    (deeplearning_ai.zero_pad, NHWC, 1),
    (dlfs.im2col, EVEN, 2, 2),
    (dlfs_layer, EVEN, floats(2, 3, 3, 3), floats(2)),
    (cmu11785_layer, EVEN, floats(2, 3, 3, 3), floats(2)),
    (taped, floats(2, 3)),
]  # fmt: skip


def flat(result):
    """The arrays and numbers of a result, without caches."""
    items = result if isinstance(result, tuple) else (result,)
    items = [item.toarray() if hasattr(item, "toarray") else item for item in items]
    return [np.array(item) for item in items if isinstance(item, (np.ndarray, float))]


def run_arguments():
    """Pass arrays that report false properties as arguments, gradients and `out=`."""
    calls = [(name, function, arguments) for function, *arguments in CALLS for name in [function.__name__]]
    for family in FAMILIES.values():
        for name, forward, backward in family:
            out, cache = forward()
            calls.append((f"backward of {name}", backward, [RNG.standard_normal(out.shape), cache]))
    refused = right = 0
    for name, function, arguments in calls:
        wanted = flat(function(*arguments))
        for i, array in enumerate(arguments):
            if not isinstance(array, np.ndarray):
                continue
            smaller, harmless = lying(array.ravel()[:1], array.shape), guarded(array).view(Overriding)
            liar = lying(array, (*array.shape, 1 << 40))
            for said, other in (("lying", smaller), ("harmless", harmless), ("modest", liar)):
                print(f"{name}: argument {i} {said}", flush=True)
                try:
                    found = flat(function(*arguments[:i], other, *arguments[i + 1 :]))
                except (TypeError, ValueError):
                    assert other is smaller, "a view of the right array was refused"
                    refused += 1
                    continue
                # fastconv sees the true shape of such an array: one number.
                told = wanted
                if other is smaller:
                    told = flat(function(*arguments[:i], array.ravel()[:1], *arguments[i + 1 :]))
                assert len(found) == len(told) and all(map(np.array_equal, found, told)), "a wrong result"
                right += 1
    for function, *arguments in CALLS[:1] + CALLS[4:6]:
        print(f"out of {function.__name__}", flush=True)
        wanted = function(*arguments)
        for out in (lying(np.zeros(1), wanted.shape), lying(np.zeros(wanted.size), wanted.shape), Pretender()):
            try:
                function(*arguments, out=out)
            except (TypeError, ValueError):
                refused += 1
                continue
            raise AssertionError("a result was written past the end")
        for out in (np.zeros_like(wanted).view(Overriding), lying(np.zeros_like(wanted), (1,))):
            assert function(*arguments, out=out) is out, "out is not returned"
            assert np.array_equal(np.ndarray.view(out, np.ndarray), wanted), "out does not hold the result"
            right += 1
    print(f"{refused} refused, {right} right")


if __name__ == "__main__":
    run_arguments() if sys.argv[1] == "arguments" else run(sys.argv[1])
