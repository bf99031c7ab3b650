"""Error messages about options, borders and names: each says what was probably meant."""

import re

import numpy as np
import pytest
from test_messages import SIGNAL, B, W, X

from fastconv import (
    avg_pool_forward,
    col2im,
    conv,
    conv_transpose,
    convolution_matrix,
    downsample,
    im2col,
    layers,
    lp_pool_forward,
    max_pool_forward,
    pool_forward,
    toeplitz_matrix,
    upsample,
)
from fastconv.compat import cs231n


def median_forward(x, pool_param=None, **options):
    return pool_forward(x, pool_param, lambda windows: np.median(windows, axis=-1), **options)


POOLINGS = [max_pool_forward, avg_pool_forward, lp_pool_forward, median_forward]
POOL = {"kernel_size": 2}
OPTIONS = [
    (conv, {"mode": "same"}, "pad"),
    (conv, {"mode": "valid"}, "pad"),
    (conv, {"mode": "mirror"}, "pad_mode"),
    (conv, {"padding": 1}, "pad"),
    (conv, {"strides": 2}, "stride"),
    (conv, {"dilation_rate": 2}, "dilation"),
    (conv, {"num_groups": 3}, "groups"),
    (conv, {"padding_mode": "reflect"}, "pad_mode"),
    (conv, {"boundary": "wrap"}, "pad_mode"),
    (conv, {"workers": 2}, "threads"),
    (conv, {"method": "fft"}, "algorithm"),
    (conv, {"Stride": 2}, "stride"),
    (conv, {"size": 3}, None),
    (conv, {"ksize": 3}, None),
    (max_pool_forward, {"size": 2}, "kernel_size"),
    (max_pool_forward, {"ksize": 2}, "kernel_size"),
    (max_pool_forward, {"pool_size": 2}, "kernel_size"),
    (max_pool_forward, {"kernel": 2}, "kernel_size"),
    (max_pool_forward, {**POOL, "mode": "same"}, "pad"),
    (max_pool_forward, {**POOL, "strides": 2}, "stride"),
    (lp_pool_forward, {**POOL, "norm_type": 1}, "p"),
    (lambda x, w, **o: im2col(x, 3, **o), {"padding": 1}, "pad"),
    (lambda x, w, **o: im2col(x, 3, **o), {"dilations": 1}, "dilation"),
    (lambda x, w, **o: conv_transpose(x, w, **o), {"output_padding": 1}, "output_pad"),
    (lambda x, w, **o: toeplitz_matrix(w, x.shape[1:], **o), {"mode": "same"}, "pad"),
    (lambda x, w, **o: im2col(x, **o), {"ksize": 2}, "kernel_size"),
    (lambda x, w, **o: im2col(x, 2, **o), {"size": 2}, "kernel_size"),
    (lambda x, w, **o: col2im(np.ones((2, 12, 42)), x.shape, **o), {"ksize": 2}, "kernel_size"),
    (lambda x, w, **o: upsample(x, **o), {"size": 2}, "factor"),
    (lambda x, w, **o: upsample(x, **o), {"scale_factor": 2}, "factor"),
    (lambda x, w, **o: downsample(x, **o), {"stride": 2}, "factor"),
    (lambda x, w, **o: downsample(x, 2, **o), {"threads": 2}, None),
    (lambda x, w, **o: cs231n.max_pool_forward_fast(x, o), {"pool_size": 2}, "pool_height"),
    (lambda x, w, **o: layers.spatial_groupnorm_forward(x, np.ones(3), np.ones(3), 1, o), {"epsilon": 1}, "eps"),
]


@pytest.mark.parametrize(("function", "options", "meant"), OPTIONS)
def test_options_of_other_libraries(function, options, meant):
    with pytest.raises(TypeError) as caught:
        function(X, W, **options) if function not in POOLINGS else function(X, **options)
    text = str(caught.value)
    assert "got an unknown option " in text and "; known are " in text
    assert text.endswith(f"; did you mean {meant!r}?") if meant else "did you mean" not in text, text


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: im2col(X), "im2col() needs kernel_size"),
        (lambda: im2col(X, stride=2), "im2col() needs kernel_size"),
        (lambda: col2im(np.ones((2, 12, 42)), X.shape), "col2im() needs kernel_size"),
        (lambda: upsample(X), "upsample() needs factor"),
        (lambda: downsample(X), "downsample() needs factor"),
    ],
)
def test_what_is_missing_is_named(call, name):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == f"{name}, an int or one int per spatial axis"


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"layout": "NHWC"}, (0, 3, 1, 2)),
        ({"layout": "NWC"}, (0, 2, 1)),
        ({"data_format": "NDHWC"}, (0, 4, 1, 2, 3)),
        ({"data_format": "channels_last"}, (0, 3, 1, 2)),
        ({"channel_axis": -1}, (0, 3, 1, 2)),
    ],
)
def test_layouts_are_not_served(options, order):
    end = f"; x is always (N, C, *spatial): if its channels are last, give x.transpose{order}"
    for call in (
        lambda: conv(X, W, **options),
        lambda: max_pool_forward(X, 2, **options),
        lambda: im2col(X, 2, **options),
        lambda: toeplitz_matrix(W, (3, 8, 7), **options),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        text = str(caught.value)
        assert f"got an unknown option {next(iter(options))!r}; known are " in text and text.endswith(end), text


BORDERS = {
    "reflect": ("mirror", "reflect_101", "reflect101", "BORDER_REFLECT_101", "Reflect"),
    "replicate": ("nearest", "edge", "border_replicate"),
    "circular": ("wrap", "periodic", "grid-wrap", "grid_wrap"),
    "zeros": ("constant", "zero", "fill", "zeroes"),
}


@pytest.mark.parametrize(("name", "meant"), [(name, border) for border, names in BORDERS.items() for name in names])
def test_borders_of_other_libraries(name, meant):
    with pytest.raises(ValueError) as caught:
        conv(X, W, pad=1, pad_mode=name)
    assert str(caught.value).startswith(f"pad_mode is {name!r}; legal are 'zeros', 'reflect', ")
    assert str(caught.value).endswith(f"; did you mean {meant!r}?")


def test_a_border_that_is_not_served_says_what_to_do():
    for name in ("symmetric", "symm", "grid-mirror"):
        with pytest.raises(ValueError, match=r"np\.pad's 'symmetric' and scipy\.ndimage's 'reflect'.*give pad=0$"):
            conv(X, W, pad=1, pad_mode=name)
    with pytest.raises(ValueError, match=r"'zeros', 'reflect', 'replicate', 'circular'$"):
        conv(X, W, pad=1, pad_mode="magic")


@pytest.mark.parametrize(
    ("pad", "end"),
    [
        ("SAME", "; did you mean 'same'?"),
        ("VALID", "; did you mean 'valid'?"),
        ("same_upper", "; did you mean 'same'?"),
        ("half", "; did you mean 'same'?"),
        ("sam", "; did you mean 'same'?"),
        ("constant", "pad is a number of cells, and pad_mode='zeros' if the function takes that"),
        ("reflect", "pad is a number of cells, and pad_mode='reflect' if the function takes that"),
        ("magic", "'same_lower', 'full'"),
    ],
)
def test_names_of_padding(pad, end):
    with pytest.raises(ValueError, match=f"^pad is {pad!r}; legal names are 'valid', 'same'") as caught:
        conv(X, W, pad=pad)
    assert str(caught.value).endswith(end)


CONV_PARAM, LARGE = {"stride": 1, "pad": 1}, np.broadcast_to(np.float32(1), (1, 1, 2**30, 2**30))
NAMES = [
    (lambda: col2im(np.ones((2, 36, 16)), (2, 4), 3), r"^x_shape has 2 axes, \(2, 4\)"),
    (lambda: col2im(np.ones((2, 36, 16)), (2, 0, 6, 6), 3), r"^x_shape \(2, 0, 6, 6\) has no channels"),
    (lambda: im2col(X[:, :0], 3), r"^x \(2, 0, 8, 7\) has no channels; at least one is needed$"),
    (
        lambda: conv_transpose(SIGNAL, np.ones((3, 2, 3)), pad=10),
        r"axis 0: pad \(10, 10\) would crop the whole output: .* give 11 cells",
    ),
    (lambda: max_pool_forward(X, {"pool_height": 0, "pool_width": 2}), "^pool_height must be an int >= 1, got 0$"),
    (lambda: avg_pool_forward(X, pool_height=2, pool_width=2.0), "^pool_width must be an int >= 1, got 2.0$"),
    (
        lambda: upsample(X, 2**62),
        rf"^factor {2**62} is too large for x \(2, 3, 8, 7\): the result .* more elements than can be",
    ),
    (
        lambda: upsample(LARGE, (1, 2)),
        r"^factor \(1, 2\) is too large for x .* more bytes in float32 than can be addressed$",
    ),
    (lambda: upsample(X[:0], 2**40), r"^factor 1099511627776 is too large for x \(0, 3, 8, 7\)"),
    (lambda: convolution_matrix([1, 2], 2**62), rf"^shape \({2**62},\) and h \(2,\) are too large together: "),
    (lambda: convolution_matrix([1, 2], 2**63), rf"^shape \({2**63},\) has more elements than can be addressed"),
    (
        lambda: convolution_matrix(np.ones((1, 2)), (2**31, 2**31)),
        r"^shape \(2147483648, 2147483648\) and h \(1, 2\) are",
    ),
    (
        lambda: toeplitz_matrix(W, (3, 2**29, 2**29)),
        r"^x_shape \(3, 536870912, 536870912\) and w \(6, 3, 3, 3\) are too",
    ),
    (
        lambda: im2col(LARGE, 3),
        r"^x \(1, 1, 1073741824, 1073741824\) with kernel_size \(3, 3\) is too large: the lowered",
    ),
    (
        lambda: conv(LARGE, np.ones((99, 1, 1, 1))),
        r"^x \(1, 1, .*\) and w \(99, 1, 1, 1\) give the output .* more elements",
    ),
    (lambda: cs231n.conv_forward_fast(X, W, B, {"steps": 1}), r"^conv_forward_fast\(\) got an unknown option 'steps'"),
    (lambda: cs231n.conv_forward_fast(X, W, B, 1), r"^conv_param must be a dict .*, got int"),
    (
        lambda: cs231n.conv_backward_fast(X, (X,)),
        "^cache must come from conv_forward_fast and be a tuple of 5, got a tuple of 1",
    ),
    (
        lambda: cs231n.conv_backward_strides(X, (X,)),
        "^cache must come from conv_forward_strides and be a tuple of 5, got a",
    ),
    (
        lambda: cs231n.max_pool_backward_fast(X, ("im2col", ())),
        "^cache must come from max_pool_forward_fast and be a tuple of 4",
    ),
    (lambda: cs231n.conv_forward_im2col(X, W[0, 0], B, CONV_PARAM), r"^w must be \(F, C, HH, WW\), got shape \(3, 3\)"),
    (
        lambda: layers.spatial_batchnorm_forward(X, np.ones(3), np.ones(3), {"mod": "train"}),
        r"^spatial_batchnorm_forward\(\) got an unknown option 'mod'",
    ),
]


@pytest.mark.parametrize(("call", "message"), NAMES, ids=[message[:40] for _, message in NAMES])
def test_names_that_the_caller_knows(call, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)


ONES = np.ones(3)
KEYWORDS = [
    (
        lambda: layers.dropout_forward(X, p=0.25),
        "dropout_forward",
        "p",
        "{'p': 0.25, 'mode': 'train'} as dropout_param",
    ),
    (
        lambda: layers.dropout_forward(X, mode="test", seed=1),
        "dropout_forward",
        "mode",
        "{'mode': 'test', 'seed': 1, 'p': 0.5} as dropout_param",
    ),
    (
        lambda: layers.batchnorm_forward(X[..., 0, 0], ONES, ONES, eps=1e-3),
        "batchnorm_forward",
        "eps",
        "{'eps': 0.001, 'mode': 'train'} as bn_param",
    ),
    (
        lambda: layers.spatial_batchnorm_forward(X, ONES, ONES, mode="test"),
        "spatial_batchnorm_forward",
        "mode",
        "{'mode': 'test'} as bn_param",
    ),
    (
        lambda: layers.layernorm_forward(X[..., 0, 0], ONES, ONES, eps=1),
        "layernorm_forward",
        "eps",
        "{'eps': 1} as ln_param",
    ),
    (
        lambda: layers.spatial_groupnorm_forward(X, ONES, ONES, 1, eps=1),
        "spatial_groupnorm_forward",
        "eps",
        "{'eps': 1} as gn_param",
    ),
    (lambda: layers.lrn_forward(X, alpha=1e-3), "lrn_forward", "alpha", "{'alpha': 0.001, 'size': 5} as lrn_param"),
]


@pytest.mark.parametrize(("call", "function", "option", "give"), KEYWORDS, ids=[case[1] for case in KEYWORDS])
def test_options_that_belong_into_a_dict(call, function, option, give):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == f"{function}() got an unknown option {option!r}; pass options as a dict: give {give}"
