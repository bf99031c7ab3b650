"""im2col and col2im against fancy indexing, and against each other as adjoints."""

import numpy as np
import oracle
import pytest
from cases import CASES

import fastconv
from fastconv import col2im, im2col

OPTIONS = ("stride", "pad", "dilation", "pad_mode")


def settings(case):
    return case.w[2:], {name: value for name, value in case.options.items() if name in OPTIONS}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_against_indexing(case, dtype, blocks):
    x = case.arrays(dtype)[0]
    kernel, options = settings(case)
    table, _ = case.table()
    expected = oracle.im2col(x, table)
    values = np.random.default_rng(5).standard_normal(expected.shape).astype(dtype)
    folded, tolerance = oracle.col2im(values, table, x.shape), 1e-5 if dtype == np.float32 else 1e-12
    for threads in (1, 3):
        cols = im2col(x, kernel, threads=threads, **options)
        assert cols.dtype == dtype and cols.shape == case.geometry.cols_shape
        assert np.array_equal(cols, expected), threads
        image = col2im(values, x.shape, kernel, threads=threads, **options)
        assert image.dtype == dtype
        np.testing.assert_allclose(image, folded, rtol=0, atol=tolerance * 20, err_msg=f"threads={threads}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_adjoint(case):
    x = case.arrays()[0]
    kernel, options = settings(case)
    cols = im2col(x, kernel, **options)
    values = np.random.default_rng(6).standard_normal(cols.shape)
    assert np.isclose(np.vdot(cols, values), np.vdot(x, col2im(values, x.shape, kernel, **options)), atol=1e-9)


def test_row_order_is_c_kh_kw():
    x = np.arange(2 * 3 * 3).reshape(1, 2, 3, 3)
    cols = im2col(x, 2)
    assert np.array_equal(cols[0, :, 0], [0, 1, 3, 4, 9, 10, 12, 13])
    assert np.array_equal(cols[0, 0], [0, 1, 3, 4])


def test_toeplitz_of_a_4x4_image():
    """The product with a 3x3 kernel as a row is the valid correlation, with the sizes of a published 4x4 example."""
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    cols = im2col(x, 3)
    assert cols.shape == (1, 9, 4)
    assert np.array_equal(np.ones(9) @ cols[0], [45, 54, 81, 90])


def test_out_is_used_and_inputs_are_left_alone(rng):
    x = rng.standard_normal((2, 3, 5, 5))
    kept = x.copy()
    cols = np.empty((2, 27, 9))
    assert im2col(x, 3, out=cols) is cols
    image = np.empty_like(x)
    assert col2im(cols, x.shape, 3, out=image) is image
    assert np.array_equal(x, kept)
    times = col2im(np.ones_like(cols), x.shape, 3)
    np.testing.assert_allclose(image, x * times)


@pytest.mark.parametrize("name", ["fortran", "strided", "reversed", "read_only", "byte_swapped", "unaligned", "list"])
def test_layouts(name, rng):
    from cases import variants

    x = rng.standard_normal((2, 3, 6, 5))
    cols = im2col(x, (3, 2), pad=1, stride=2)
    assert np.array_equal(im2col(variants(x)[name], (3, 2), pad=1, stride=2), cols)
    image = col2im(cols, x.shape, (3, 2), pad=1, stride=2)
    assert np.array_equal(col2im(variants(cols)[name], x.shape, (3, 2), pad=1, stride=2), image)


def test_slices_are_not_copied_first(rng):
    """A crop with contiguous rows is lowered without a copy."""
    x = rng.standard_normal((2, 3, 9, 9))
    crop = x[1:, ::2, 2:7, 1:8]
    assert np.array_equal(im2col(crop, 3, pad=1), im2col(crop.copy(), 3, pad=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, bool])
def test_converted_input(dtype):
    cols = im2col(np.ones((1, 1, 3, 3), dtype), 2)
    assert cols.dtype == (np.float32 if dtype == np.float16 else np.float64)
    assert np.all(cols == 1)


def test_options_as_numpy_ints_and_lists(rng):
    x = rng.standard_normal((1, 2, 7, 7))
    a = im2col(x, [np.int64(3), 2], stride=np.int8(2), pad=[[1, 0], (0, 2)], dilation=[1, np.uint16(2)])
    b = im2col(x, (3, 2), stride=(2, 2), pad=((1, 0), (0, 2)), dilation=(1, 2))
    assert np.array_equal(a, b)


def test_repeats_are_identical_to_the_bit(rng):
    x = rng.standard_normal((4, 16, 33, 31)).astype(np.float32)
    cols = im2col(x, 5, pad=2, threads=2)
    images = [col2im(cols, x.shape, 5, pad=2, threads=2) for _ in range(5)]
    assert all(np.array_equal(image, images[0]) for image in images)
    assert fastconv.im2col(x, 5, pad=2, threads=1).tobytes() == cols.tobytes()
