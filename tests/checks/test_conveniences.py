"""Small conveniences: alternative forms of options, the text of tables and caches, and the exit of the command line."""

import copy
import os
import pickle
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy import signal as scipy_signal

import fastconv
from fastconv import (
    __main__ as cli,
    affine_forward,
    avg_pool_forward,
    conv,
    conv_forward,
    conv_transpose,
    conv_transpose_forward,
    convolution_matrix,
    im2col,
    layers,
    lp_pool_forward,
    max_pool_forward,
    pool_forward,
    receptive_field,
    relu_forward,
    same_pad,
    summarize,
    toeplitz_matrix,
    upsample,
)

RNG = np.random.default_rng(0)
X, W, B = RNG.standard_normal((2, 3, 8, 7)), RNG.standard_normal((6, 3, 3, 3)), np.zeros(6)
SIGNAL, FILTERS = RNG.standard_normal((2, 3, 9)), RNG.standard_normal((4, 3, 3))
ONES = np.ones(3)


def median_forward(x, pool_param=None, **options):
    return pool_forward(x, pool_param, lambda windows: np.median(windows, axis=-1), **options)


POOLINGS = [max_pool_forward, avg_pool_forward, lp_pool_forward, median_forward]


# Options per axis may be ints, arrays of ints, or sequences of length one.


@pytest.mark.parametrize("pool", POOLINGS)
@pytest.mark.parametrize(
    "size", [2, np.int64(2), np.array(2), (2, 1), [2, 1], np.array([2, 1]), np.array([2, 1], "u1")]
)
def test_pool_param_may_be_the_kernel_size_alone(pool, size):
    expected = pool(X, kernel_size=np.ravel(size).tolist() if np.ndim(size) else int(size))[0]
    assert np.array_equal(pool(X, size)[0], expected)
    assert np.array_equal(pool(X, size, stride=1)[0], pool(X, {"kernel_size": size, "stride": 1})[0])


def test_a_kernel_size_alone_in_sandwiches_and_on_one_axis():
    out = layers.conv_relu_pool_forward(X, W, B, None, 2)[0]
    assert np.array_equal(out, max_pool_forward(relu_forward(conv(X, W, B))[0], kernel_size=2)[0])
    assert np.array_equal(max_pool_forward(SIGNAL, [3])[0], max_pool_forward(SIGNAL, kernel_size=3)[0])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, ">i4"])
def test_arrays_of_ints_are_lists(dtype):
    def array(*values):
        return np.array(values, dtype)

    assert np.array_equal(conv(X, W, stride=array(1, 2)), conv(X, W, stride=[1, 2]))
    assert np.array_equal(conv(X, W, pad=array(1, 2)), conv(X, W, pad=[1, 2]))
    assert np.array_equal(conv(X, W, pad=array([1, 2], [0, 1])), conv(X, W, pad=[(1, 2), (0, 1)]))
    assert np.array_equal(conv(X, W, dilation=array(2, 1)), conv(X, W, dilation=[2, 1]))
    assert np.array_equal(conv_forward(X, W, B, {"stride": array(1, 2)})[0], conv(X, W, B, stride=(1, 2)))
    w = W.transpose(1, 0, 2, 3)
    options = {"stride": array(3, 2), "pad": array(1, 0), "output_pad": array(1, 0)}
    lists = {name: value.tolist() for name, value in options.items()}
    assert np.array_equal(conv_transpose(X, w, **options), conv_transpose(X, w, **lists))
    assert np.array_equal(im2col(X, array(3, 2), stride=array(2, 1)), im2col(X, (3, 2), stride=(2, 1)))
    assert np.array_equal(upsample(X, array(2, 1)), upsample(X, (2, 1)))
    a, b = toeplitz_matrix(W, (3, 8, 7), stride=array(2, 1)), toeplitz_matrix(W, (3, 8, 7), stride=(2, 1))
    assert (a != b).nnz == 0
    options = {"kernel_size": array(3, 2), "stride": array(1, 2), "pad": array(1, 0), "dilation": array(1, 1)}
    lists = {name: value.tolist() for name, value in options.items()}
    assert np.array_equal(max_pool_forward(X, **options)[0], max_pool_forward(X, **lists)[0])
    assert summarize([("conv", 4, array(3, 2), array(2, 1))], X.shape).out_shape == (2, 4, 3, 6)


def test_arrays_of_no_axes_are_ints_and_of_fractions_fractions():
    two = np.array(2)
    assert np.array_equal(conv(X, W, stride=two, pad=two, dilation=two), conv(X, W, stride=2, pad=2, dilation=2))
    halves = np.array([Fraction(1, 2), 1], object)
    assert np.array_equal(conv(X, W, stride=halves), conv(X, W, stride=(Fraction(1, 2), 1)))


@pytest.mark.parametrize("one", [list, tuple, np.array])
def test_a_sequence_of_one_for_one_axis(one):
    expected = conv(SIGNAL, FILTERS, stride=2, pad=1, dilation=2)
    assert np.array_equal(conv(SIGNAL, FILTERS, stride=one([2]), pad=one([1]), dilation=one([2])), expected)
    assert np.array_equal(im2col(SIGNAL, one([3]), pad=one([1])), im2col(SIGNAL, 3, pad=1))
    pooled = max_pool_forward(SIGNAL, one([3]), stride=one([2]), pad=one([1]))[0]
    assert np.array_equal(pooled, max_pool_forward(SIGNAL, 3, stride=2, pad=1)[0])
    assert np.array_equal(upsample(SIGNAL, one([2])), upsample(SIGNAL, 2))
    assert same_pad(one([9]), one([4]), one([2])) == same_pad(9, 4, 2)
    assert receptive_field([(one([3]), one([2]), one([1]))]) == receptive_field([(3, 2, 1)])


# Tables, docs and caches.


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        ((3, 32, 32), "1-D signals: (N, C, W)"),
        ((1, 3, 32, 32), "2-D images: (N, C, H, W)"),
        ((1, 3, 8, 32, 32), "3-D volumes: (N, C, D, H, W)"),
        ((3, 32), "rows of numbers: (N, D)"),
    ],
)
def test_a_table_says_how_its_input_was_read(shape, read):
    lines = str(summarize(["relu", ("affine", 10)], shape)).splitlines()
    assert lines[1].startswith(f"-- {read} ---") and len(lines[1]) == len(lines[-3]) and set(lines[-3]) == {"-"}
    assert lines[2].split(maxsplit=1) == ["input", str(shape)]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
def test_same_of_scipy_is_same_lower(k):
    x, h = RNG.standard_normal((9, 10)), RNG.standard_normal((k, 3))
    ours = {
        (pad, flip): conv(x[None, None], h[None, None], pad=pad, flip=flip)[0, 0]
        for pad in ("same", "same_lower")
        for flip in (False, True)
    }
    np.testing.assert_allclose(ours["same_lower", True], scipy_signal.convolve(x, h, "same"), atol=1e-12)
    np.testing.assert_allclose(ours["same_lower", False], scipy_signal.correlate(x, h, "same"), atol=1e-12)
    assert np.allclose(ours["same", True], ours["same_lower", True]) == (k % 2 == 1)
    matrix = convolution_matrix(h, x.shape, "same")
    np.testing.assert_allclose((matrix @ x.ravel()).reshape(x.shape), ours["same_lower", True], atol=1e-12)


def test_users_are_told_of_scipys_same():
    for function in (conv, im2col, same_pad, convolution_matrix):
        assert "same_lower" in function.__doc__, function
    for function in (conv, im2col, same_pad):
        assert "scipy.signal" in function.__doc__, function


PROBABILITY = {"p": 0.5, "mode": "train", "seed": 1}
SINGLE = {"x": X.astype("f4"), "w": W.astype("f4")}
CACHES = [
    (
        lambda: conv_forward(SINGLE["x"], SINGLE["w"], None),
        "ConvCache(x=float32 (2, 3, 8, 7), w=float32 (6, 3, 3, 3), b=None, "
        "geometry=<ConvGeometry (2, 3, 8, 7) to (2, 6, 6, 5)>, algorithm='auto', threads=None)",
    ),
    (
        lambda: max_pool_forward(X, 2),
        "MaxPoolCache(geometry=<PoolGeometry (2, 3, 8, 7) to (2, 3, 4, 3)>, indices=int32 (2, 3, 4, 3), dtype=float64, "
        "threads=None)",
    ),
    (lambda: affine_forward(X, np.ones((168, 2)), None), "(float64 (2, 3, 8, 7), float64 (168, 2), None)"),
    (
        lambda: layers.dropout_forward(X, PROBABILITY),
        "({'p': 0.5, 'mode': 'train', 'seed': 1}, float64 (2, 3, 8, 7))",
    ),
    (
        lambda: layers.layernorm_forward(X[..., 0, 0], ONES, ONES),
        "GroupNormCache(x=float64 (2, 3), gamma=float64 (3,), beta_shape=(3,), mean=float64 (2, 1), "
        "scale=float64 (2, 1))",
    ),
]
OTHER_CACHES = [
    lambda: conv_forward(X, W, None, stride=Fraction(1, 2)),
    lambda: conv_transpose_forward(X, W.transpose(1, 0, 2, 3), None),
    lambda: avg_pool_forward(X, 2),
    lambda: lp_pool_forward(X, 2),
    lambda: median_forward(X, 2),
    lambda: layers.spatial_batchnorm_forward(X, ONES, ONES, {"mode": "train"}),
    lambda: layers.lrn_forward(X, {"size": 3}),
    lambda: layers.leaky_relu_forward(X),
    lambda: layers.conv_relu_pool_forward(X, W, B, None, 2),
    lambda: layers.affine_relu_forward(X, np.ones((168, 2)), np.ones(2)),
    lambda: layers.conv_bn_relu_forward(X, W, B, np.ones(6), np.ones(6), None, {"mode": "train"}),
]


@pytest.mark.parametrize(("call", "text"), CACHES)
def test_a_cache_prints_shapes_and_dtypes(call, text):
    cache = call()[1]
    assert repr(cache) == text
    assert (
        isinstance(cache, tuple) and repr(copy.copy(cache)) == text and repr(pickle.loads(pickle.dumps(cache))) == text
    )


@pytest.mark.parametrize("call", OTHER_CACHES)
def test_no_cache_prints_its_numbers(call):
    text = repr(call()[1])
    assert "float64 (2, 3, 8, 7)" in text or "<PoolGeometry (2, 3, 8, 7) to" in text
    assert "array(" not in text and len(text) < 600, text


# The command line.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--epochs", "abc"], "argument --epochs: 'abc' is not a whole number"),
        (["--epochs", "1.5"], "argument --epochs: '1.5' is not a whole number"),
        (["--seed", "x"], "argument --seed: 'x' is not a whole number"),
        (["explain", "1,1,5", "1,1,3", "--groups", "x"], "argument --groups: 'x' is not a whole number"),
        (["explain", "1,1,5", "1,1,3", "--threads", "x"], "argument --threads: 'x' is not a whole number"),
        (["explain", "1,1,5", "1,1,3", "--density", "x"], "argument --density: 'x' is not a number"),
    ],
)
def test_the_command_line_speaks_of_no_private_names(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.endswith(message) and "_" not in last


#: A module that replaces NumPy, and sends Ctrl-C while Python imports it.
INTERRUPTED = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(1000):\n    pass\n"


def run_interrupted(folder, *arguments, source=INTERRUPTED):
    (folder / "numpy").mkdir()
    (folder / "numpy" / "__init__.py").write_text(source)
    tree = str(Path(fastconv.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), tree])},
        cwd=folder,
        # Restore SIGINT, because a shell that runs the tests in the background makes its children ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("arguments", [("-m", "fastconv"), ("-um", "fastconv", "info"), ("-mfastconv",)])
def test_ctrl_c_during_import_ends_quietly(arguments, tmp_path):
    result = run_interrupted(tmp_path, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_during_another_import_is_left_alone(tmp_path):
    result = run_interrupted(tmp_path, "-c", "import fastconv")
    assert result.returncode == -signal.SIGINT and "KeyboardInterrupt" in result.stderr


def test_ctrl_c_after_import_is_an_exception_again():
    code = "import runpy, signal, sys\nimport fastconv.__main__ as m\nm._demo = lambda options: print(signal.getsignal("
    code += "signal.SIGINT) is signal.default_int_handler) or 0\nfrom fastconv.runtime import interrupt as _interrupt\n"
    code += "signal.signal(signal.SIGINT, _interrupt._leave)\nsys.exit(m.main([]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "True"), result.stderr
