"""Each layer refuses a bad argument before it converts or allocates anything, even if all other arguments need copies."""

import numpy as np
import pytest

import fastconv
from fastconv import layers
from fastconv.checks import arrays as _arrays
from fastconv.layers.calls import Call
from fastconv.runtime import memory as _memory


def ints(*shape):
    """An array that layers convert, because it has an integer dtype and is not C-contiguous."""
    return np.asfortranarray(np.ones(shape, np.int32))


X, W, B = ints(2, 4, 6, 6), ints(4, 2, 3, 3), ints(4)
CONV = X, W, B
ROWS, MATRIX, BIAS = ints(3, 8), ints(8, 5), ints(5)
NORM = {"mode": "train"}
NEGATIVE = {"mode": "test", "running_mean": np.zeros(4), "running_var": -np.ones(4)}
MANY = ints(1, 64, 6, 6), ints(64, 64, 3, 3), None
POOLS = ("max_pool_forward", "avg_pool_forward", "lp_pool_forward")

#: For each function: positional arguments and options, of which the last one given is bad.
BAD = [
    ("conv", (X, W, ints(3)), {"groups": 2}),
    ("conv", CONV, {"groups": 2, "out": np.zeros((2, 4, 4, 5))}),
    ("conv", CONV, {"groups": 2, "threads": 0}),
    ("conv", MANY, {"algorithm": "depthwise"}),
    ("conv_forward", CONV, {"groups": 2, "stride": 0}),
    ("conv_forward", MANY, {"algorithm": "depthwise"}),
    ("conv_transpose", (X, W, ints(5)), {"groups": 2}),
    ("conv_transpose", MANY, {"algorithm": "depthwise"}),
    ("conv_transpose_forward", (X, W, ints(4)), {"groups": 2, "output_pad": 1}),
    *((name, (X, {"kernel_size": 2}), {"stride": 0}) for name in POOLS),
    ("avg_pool_forward", (X, 2), {"count_include_pad": 2}),
    ("lp_pool_forward", (X, 2), {"p": 0.5}),
    ("pool_forward", (X, 2, np.median), {"pad": 7}),
    ("pool_forward", (X, 2, np.median, "no function"), {}),
    *((f"global_{name}_pool_forward", (ints(2, 4, 0, 6),), {}) for name in ("max", "avg")),
    ("max_unpool", (X, np.full(X.shape, 36), (2, 4, 6, 6)), {}),
    ("max_unpool", (X, np.zeros(X.shape), (2, 4, 6, 6)), {}),
    ("max_unpool", (X, np.zeros(X.shape, int), (2, 3, 6, 6)), {}),
    ("upsample", (X, 0), {}),
    ("downsample", (X, (2, 0)), {}),
    ("batchnorm_forward", (ROWS, ints(8), ints(7), dict(NORM)), {}),
    ("batchnorm_forward", (ROWS, ints(8), ints(8), {**NORM, "running_mean": ints(7)}), {}),
    ("spatial_batchnorm_forward", (X, ints(4), ints(4), {**NORM, "running_var": ints(4) + 1j}), {}),
    ("spatial_batchnorm_forward", (X, ints(4), ints(4), NEGATIVE), {}),
    ("spatial_batchnorm_forward", (X, ints(4), ints(4), {"mode": "test", "eps": 0}), {}),
    ("layernorm_forward", (ROWS, ints(8), ints(8), {"eps": -1}), {}),
    ("layernorm_forward", (ROWS, ints(8), ints(7)), {}),
    ("spatial_groupnorm_forward", (X, ints(4), ints(4), 3), {}),
    ("lrn_forward", (X, {"size": 0}), {}),
    ("lrn_forward", (ROWS, {"size": 1}), {}),
    ("affine_forward", (ROWS, MATRIX, ints(4)), {}),
    ("affine_to_conv", (MATRIX, (2, 3, 1)), {}),
    ("conv_to_affine", (MATRIX,), {}),
    ("softmax_loss", (ROWS, np.array([0, 1, 8])), {}),
    ("svm_loss", (ROWS, np.array([0, 1])), {}),
    ("svm_loss", (ROWS, np.array([0.0, 1.0, 2.0])), {}),
    ("dropout_forward", (X, {"p": 0.5, "mode": "train", "seed": -1}), {}),
    ("leaky_relu_forward", (X, np.inf), {}),
    *((f"{name}_forward", (np.asfortranarray(X + 1j),), {}) for name in ("relu", "sigmoid", "tanh")),
    ("affine_relu_forward", (ROWS, MATRIX, ints(4)), {}),
    ("conv_relu_forward", (X, W, ints(3)), {"groups": 2}),
    ("conv_bn_relu_forward", (X, W, ints(3), ints(4), ints(4), {"groups": 2}, dict(NORM)), {}),
    ("conv_relu_pool_forward", (X, W, ints(3), {"groups": 2}, {"kernel_size": 2}), {}),
    ("im2col", (X, 3), {"pad_mode": "reflect", "pad": 1, "out": np.zeros((2, 36, 1))}),
    ("im2col", (X, 3), {"out": np.zeros((2, 36, 1))}),
    ("col2im", (ints(2, 36, 16), (2, 4, 6, 6), 3), {"out": np.zeros((2, 4, 6, 7))}),
    ("toeplitz_matrix", (W, (3, 6, 6)), {}),
]


@pytest.fixture
def taken(monkeypatch):
    """A list that names each conversion and each result allocated from now on. Conversions use the allocator, too."""
    found, empty, contiguous = [], _memory.empty, _arrays._copies.contiguous
    monkeypatch.setattr(_memory, "empty", lambda *args: (found.append(args), empty(*args))[1])
    monkeypatch.setattr(_arrays._copies, "contiguous", lambda *args: (found.append(args), contiguous(*args))[1])
    monkeypatch.setattr(_arrays, "_CAST_BYTES", 8)
    return found


def bad_call(name, args, options):
    with pytest.raises((TypeError, ValueError)):
        getattr(fastconv, name)(*args, **options)


@pytest.mark.parametrize(("name", "args", "options"), BAD, ids=[f"{i}-{name}" for i, (name, *_) in enumerate(BAD)])
def test_a_bad_argument_is_refused_before_anything_is_allocated(name, args, options, taken, forget):
    before = [array.copy() for array in args if isinstance(array, np.ndarray)]
    bad_call(name, args, options)
    assert not taken
    assert all(map(np.array_equal, before, (array for array in args if isinstance(array, np.ndarray))))


#: For each forward function with a gradient: good arguments.
GOOD = {
    "conv": (X, W, B, {"groups": 2}),
    "conv_transpose": (X, W, B, {"groups": 2}),
    "max_pool": (X, 2),
    "avg_pool": (X, 2),
    "lp_pool": (X, 2),
    "global_max_pool": (X,),
    "global_avg_pool": (X,),
    "pool": (X, 2, lambda windows: windows.max(axis=-1), lambda windows, out: windows),
    "batchnorm": (ROWS, ints(8), ints(8), dict(NORM)),
    "spatial_batchnorm": (X, ints(4), ints(4), dict(NORM)),
    "layernorm": (ROWS, ints(8), ints(8)),
    "spatial_groupnorm": (X, ints(4), ints(4), 2),
    "lrn": (X, {"size": 3}),
    "affine": (ROWS, MATRIX, BIAS),
    "dropout": (X, {"p": 0.5, "mode": "train"}),
    "relu": (X,),
    "leaky_relu": (X,),
    "sigmoid": (X,),
    "tanh": (X,),
    "affine_relu": (ROWS, MATRIX, BIAS),
    "conv_relu": (X, W, B, {"groups": 2}),
    "conv_bn_relu": (X, W, B, ints(4), ints(4), {"groups": 2}, dict(NORM)),
    "conv_relu_pool": (X, W, B, {"groups": 2}, {"kernel_size": 2}),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_gradient_of_a_wrong_shape_is_refused_before_anything_is_allocated(name, taken):
    out, cache = getattr(layers, f"{name}_forward")(*GOOD[name])
    assert taken, "the forward pass allocates, so the list is not always empty"
    taken.clear()
    bad_call(f"{name}_backward", (ints(*out.shape, 1), cache), {})
    assert not taken


@pytest.mark.parametrize(
    ("name", "cached"),
    [("relu", "cache"), ("sigmoid", "cache"), ("dropout", 1), ("affine", 0), ("leaky_relu", 0)],
)
def test_arrays_of_a_cache_are_converted_after_the_gradient_was_checked(name, cached, taken):
    out, cache = getattr(layers, f"{name}_forward")(*GOOD[name])
    good = np.asfortranarray(cache if cached == "cache" else cache[cached]).astype(np.int32)
    changed = good if cached == "cache" else (*cache[:cached], good, *cache[cached + 1 :])
    if name == "leaky_relu":
        changed = type(cache)(*changed)
    taken.clear()
    bad_call(f"{name}_backward", (ints(*out.shape, 1), changed), {})
    assert not taken


@pytest.fixture
def no_memory(monkeypatch):
    """No byte of memory is free, and each array is checked, however small it is."""
    monkeypatch.setattr(_memory, "available", lambda: 0)
    monkeypatch.setattr(_memory, "_ALWAYS_FREE", 0)


OUTPUTS = [name for name in GOOD if name.startswith(("conv", "max", "avg", "lp", "global", "pool"))]


@pytest.mark.parametrize("dtype", [np.int32, np.float32], ids=["cast", "copy"])
@pytest.mark.parametrize("name", ["conv", "conv_transpose", *(f"{name}_forward" for name in OUTPUTS)])
def test_an_output_that_is_not_free_is_refused_before_an_input_is_converted(
    name, dtype, taken, no_memory, monkeypatch, forget
):
    """Each array of a call needs a cast or a copy. No plan is made either, because its tables take memory."""
    forget()
    monkeypatch.setattr(Call, "__init__", lambda *_: pytest.fail("a call was planned"))
    args = GOOD[name.removesuffix("_forward")]
    args = [np.asarray(a, dtype, order="K") if isinstance(a, np.ndarray) else a for a in args]
    options = args.pop() if name in ("conv", "conv_transpose") else {}
    wide = np.dtype(dtype if dtype is np.float32 else np.float64)
    said = rf"^the output of shape \(2, 4, .*\) and dtype {wide} takes \d+ bytes; 0 bytes are free\. "
    with pytest.raises(_memory.TooLargeError, match=said):
        getattr(fastconv, name)(*args, **options)
    assert not taken


def test_an_output_that_is_given_needs_no_free_memory(no_memory, forget):
    forget()
    out = np.empty((2, 4, 4, 4))
    assert fastconv.conv(*CONV, groups=2, out=out, algorithm="reference") is out


@pytest.mark.parametrize("dtype", [np.int8, np.float32], ids=["cast", "copy"])
@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
def test_a_view_of_gigabytes_is_not_copied_for_an_output_of_terabytes(name, dtype, monkeypatch, forget):
    """The view has one element in memory. A copy of it would have 2**30, and the output 2**40."""
    forget()
    for module, allocates in ((_memory, "empty"), (_arrays._copies, "contiguous")):
        monkeypatch.setattr(module, allocates, lambda *_: pytest.fail("an array was allocated"))
    monkeypatch.setattr(_memory, "available", lambda: 1 << 40)
    x = np.broadcast_to(dtype(1), (1, 1, 1 << 15, 1 << 15))
    w = np.ones((1024, 1, 1, 1) if name == "conv" else (1, 1024, 1, 1), dtype)
    nbytes = (1 << 40) * (4 if dtype is np.float32 else 8)
    with pytest.raises(_memory.TooLargeError, match=rf"^the output .* takes {nbytes} bytes; {1 << 40} bytes are free"):
        getattr(fastconv, name)(x, w)


@pytest.mark.parametrize("need", ["need_dx", "need_dw"])
def test_an_algorithm_that_lacks_one_gradient_is_refused_before_the_other_is_computed(need, taken):
    for name in ("conv", "conv_transpose"):
        out, cache = getattr(layers, f"{name}_forward")(*MANY)
        cache = cache._replace(algorithm="depthwise")
        taken.clear()
        bad_call(f"{name}_backward", (np.asfortranarray(np.ones(out.shape, int)), cache), {need: False})
        assert not taken


def test_every_layer_is_driven():
    driven = {name for name, *_ in BAD} | {f"{name}_{way}" for name in GOOD for way in ("forward", "backward")}
    assert set(layers.__all__) - driven == {"max_pool_indices"}, "it takes a cache alone"
