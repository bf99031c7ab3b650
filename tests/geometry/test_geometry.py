"""Output sizes, pads and strides, against values computed by hand and by brute force."""

import itertools

import numpy as np
import oracle
import pytest
from cases import CASES
from hypothesis import given, strategies as st

from fastconv import conv_geometry, conv_output_shape, im2col, same_pad
from fastconv.geometry.pool import resolve_pool


def test_7x7_with_3x3_at_strides_1_2_3():
    """The example of the course: a 7x7 image, a 3x3 kernel, and a stride that does not fit."""
    x, w = (1, 1, 7, 7), (1, 1, 3, 3)
    assert conv_output_shape(x, w, strict=True) == (1, 1, 5, 5)
    assert conv_output_shape(x, w, stride=2, strict=True) == (1, 1, 3, 3)
    assert conv_output_shape(x, w, stride=3) == (1, 1, 2, 2)
    with pytest.raises(ValueError) as error:
        conv_output_shape(x, w, stride=3, strict=True)
    message = str(error.value)
    assert "spatial axis 0" in message and "remainder of 1" in message
    assert "nearest legal strides: 2, 4" in message
    assert "nearest legal pads at stride 3: 1, (0, 2)" in message
    assert conv_output_shape(x, w, stride=3, pad=1, strict=True) == (1, 1, 3, 3)


@given(
    size=st.integers(1, 40),
    k=st.integers(1, 7),
    stride=st.integers(1, 9),
    dilation=st.integers(1, 3),
    lo=st.integers(0, 5),
    hi=st.integers(0, 5),
)
def test_what_a_strict_error_calls_legal_is_legal(size, k, stride, dilation, lo, hi):
    def check(stride, pad):
        conv_geometry((1, 1, size), (1, 1, k), stride=stride, pad=[pad], dilation=dilation, strict=True)

    try:
        check(stride, (lo, hi))
    except ValueError as error:
        if "remainder" not in str(error):
            return
        _, strides, pads = str(error).rsplit(": ", 2)
        strides = strides.split(";")[0]
        for legal in map(int, strides.split(", ")):
            check(legal, (lo, hi))
        named = eval(f"[{pads}]")
        assert named
        for legal in named:
            check(stride, (legal, legal) if isinstance(legal, int) else legal)


def test_strict_error_of_a_huge_stride_is_quick():
    with pytest.raises(ValueError, match="nearest legal strides: 999999999999999998;"):
        conv_geometry((1, 1, 10**18), (1, 1, 3), stride=10**20, strict=True, pad=[(0, 1)])


def test_nearest_legal_strides_are_found_far_away():
    with pytest.raises(ValueError, match="nearest legal strides: 2, 100003;"):
        conv_geometry((1, 1, 200007), (1, 1, 1), stride=50000, strict=True)


def test_a_sheet_of_a_huge_shape_is_quick():
    text = str(conv_geometry((1, 1, 10**12), (1, 1, 3), pad=1, pad_mode="reflect"))
    assert "2,999,999,999,998 entries" in text


def test_strict_has_nothing_to_say_under_same():
    assert conv_output_shape((1, 1, 8, 8), (1, 1, 3, 3), stride=3, pad="same", strict=True) == (1, 1, 3, 3)
    assert conv_output_shape((1, 1, 8, 8), (1, 1, 1, 1), stride=3, pad="same_lower", strict=True) == (1, 1, 3, 3)


@given(
    size=st.integers(0, 60),
    k=st.integers(1, 9),
    stride=st.integers(1, 9),
    dilation=st.integers(1, 4),
)
def test_same_pad_gives_ceil(size, k, stride, dilation):
    lo, hi = same_pad(size, k, stride, dilation)
    assert 0 <= lo <= hi <= lo + 1
    if size:
        for pad in ("same", [(lo, hi)]):
            out = conv_output_shape((1, 1, size), (1, 1, k), stride=stride, pad=pad, dilation=dilation)
            assert out == (1, 1, -(-size // stride))
        geometry = conv_geometry((1, 1, size), (1, 1, k), stride=stride, pad="same_lower", dilation=dilation)
        assert geometry.pads == ((hi, lo),)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_counts_against_brute_force(case):
    geometry = case.geometry
    table, out = case.table()
    assert geometry.out_spatial == out
    assert geometry.n_params == np.prod(case.w) + case.w[0]
    assert geometry.flops == 2 * case.x[0] * case.w[0] * len(table) * np.prod(case.w[1:])
    pairs = {(o, cell) for o, row in enumerate(table) for cell in row if cell >= 0}
    assert geometry.toeplitz_nnz == len(pairs) * case.w[0] * case.w[1]
    options = {k: v for k, v in case.options.items() if k in ("stride", "pad", "dilation", "pad_mode")}
    cols = im2col(np.zeros(case.x, np.float32), case.w[2:], **options)
    assert geometry.im2col_bytes(np.float32) == cols.nbytes == geometry.im2col_bytes("float64") // 2
    assert str(geometry.out_shape) in str(geometry)


def test_sheet():
    text = str(conv_geometry((1, 3, 32, 30), (10, 3, 5, 5), pad=2, flip=True))
    assert "true convolution" in text and "760" in text
    assert [line.split()[:3] for line in text.splitlines()[2:4]] == [["H", "32", "5"], ["W", "30", "5"]]


def test_frozen():
    geometry = conv_geometry((1, 1, 5), (1, 1, 3))
    with pytest.raises(AttributeError):
        geometry.groups = 2
    with pytest.raises(ValueError, match="read-only"):
        geometry.output_ranges[0, 0] = 7


def test_a_flat_pair_is_one_value_per_axis():
    assert conv_geometry((1, 1, 5, 5), (1, 1, 3, 3), pad=(1, 2)).pads == ((1, 1), (2, 2))
    assert conv_geometry((1, 1, 5), (1, 1, 3), pad=[(1, 2)]).pads == ((1, 2),)
    with pytest.raises(ValueError, match=r"pad has 2 values, \(1, 2\), for 1 spatial axis"):
        conv_geometry((1, 1, 5), (1, 1, 3), pad=(1, 2))


@given(
    size=st.integers(1, 12),
    k=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    lo=st.integers(0, 3),
    hi=st.integers(0, 3),
    ceil_mode=st.booleans(),
)
def test_pool_axis_by_brute_force(size, k, stride, dilation, lo, hi, ceil_mode):
    """Windows follow each other; ceil mode adds one more if it starts before the padding at the end."""
    extent = dilation * (k - 1) + 1
    starts = list(range(-lo, size + hi - extent + 1, stride))
    if ceil_mode and (size + lo + hi - extent) % stride:
        extra = starts[-1] + stride if starts else -lo
        if extra < size and (starts or extent - (size + lo + hi) < stride):
            starts.append(extra)
    taps = [[s + t * dilation for t in range(k)] for s in starts]
    legal = max(lo, hi) < extent and taps and all(any(0 <= c < size for c in row) for row in taps)
    try:
        geometry = resolve_pool(
            (1, 1, size), kernel_size=k, stride=stride, pad=[(lo, hi)], dilation=dilation, ceil_mode=ceil_mode
        )
    except ValueError:
        assert not legal
        return
    assert legal
    assert geometry.out_shape == (1, 1, len(starts))
    assert geometry.window_sizes(True).tolist() == [sum(c < size + hi for c in row) for row in taps]
    assert geometry.window_sizes(False).tolist() == [sum(0 <= c < size for c in row) for row in taps]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_source_cells_are_numpys(mode):
    from fastconv.geometry.axis import source_cells

    for size, lo, hi in itertools.product((1, 2, 5), (0, 1, 4), (0, 2, 4)):
        if mode == "replicate" or max(lo, hi) < size + (mode == "circular"):
            expected = oracle.padded_cells((size,), [(lo, hi)], mode)
            assert np.array_equal(source_cells(np.arange(-lo, size + hi), size, mode), expected)
