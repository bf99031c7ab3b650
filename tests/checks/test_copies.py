"""An input that is not C-contiguous is copied once, block by block, on the threads of the call."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

import fastconv
from fastconv import layers
from fastconv.checks import arrays as _arrays, copies as _copies
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads
from fastconv.runtime.plan_cache import plans

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@pytest.fixture
def copies(monkeypatch):
    """The arrays that the kernel copied, each with its number of threads."""
    seen = []
    share = _copies._threads.share

    def spy(kernel, args, **options):
        if isinstance(getattr(kernel, "__self__", None), _copies._ext.CopyPlan):
            seen.append((args[0], options["threads"], options["items"]))
        return share(kernel, args, **options)

    monkeypatch.setattr(
        _copies, "_threads", type("Spied", (), {"share": staticmethod(spy), "get_threads": fastconv.get_threads})
    )
    return seen


@st.composite
def views(draw):
    """A view with permuted axes, steps, negative strides or repeated elements."""
    rank = draw(st.integers(1, 5))
    sizes = [draw(st.sampled_from([1, 2, 3, 4, 7, 8, 9, 16, 19])) for _ in range(rank)]
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in range(rank)]
    dtype = draw(st.sampled_from(DTYPES))
    whole = tuple(size * abs(step) + draw(st.integers(0, 2)) for size, step in zip(sizes, steps, strict=True))
    if np.prod(whole) > 1 << 17:
        whole, steps = tuple(sizes), [1] * rank
    numbers = np.random.default_rng(draw(st.integers(0, 99))).integers(
        0, 256, np.prod(whole) * dtype.itemsize, np.uint8
    )
    array = numbers.view(dtype).reshape(whole)[tuple(slice(None, None, step) for step in steps)]
    array = array.transpose(draw(st.permutations(range(rank))))
    if draw(st.integers(0, 4)) == 0:
        array = np.broadcast_to(array[:, np.newaxis], (array.shape[0], 3, *array.shape[1:]))
    return array


@given(views(), st.integers(1, 3), st.sampled_from([1, 3, 8, 64]), st.sampled_from([64, 1 << 14]))
def test_any_view_is_copied_to_the_bit(array, threads, high, nbytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_copies, "_SMALL_BYTES", 0)
        patch.setattr(_copies, "_BLOCK_HIGH", high)
        patch.setattr(_copies, "_BLOCK_BYTES", nbytes)
        plans.clear()
        patch.setattr(_copies._memory, "empty", lambda shape, dtype: np.full(shape, 77, dtype))
        patch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
        for isa in range(_isa.current + 1):
            patch.setattr(_isa, "current", isa)
            copy = _copies.contiguous(array, threads)
            assert copy.flags.c_contiguous and copy.dtype == array.dtype and copy.shape == array.shape
            assert copy.tobytes() == array.tobytes()
            assert not np.may_share_memory(copy, array)


def aligned(shape, dtype):
    """Memory that starts at a cache line, filled with a value that no copy contains."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    room = np.full(nbytes + 64, 0xA5, np.uint8)
    first = -room.ctypes.data % 64
    return room[first : first + nbytes].view(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("off", [0, 1])
@pytest.mark.parametrize("shape", [(2, 64, 16, 16), (3, 16, 48, 5), (1, 75, 32, 40), (2, 24, 7, 7)], ids=str)
def test_large_copies_are_written_past_the_caches(shape, off, threads, dtype, isa, rng, monkeypatch):
    """Copies that bypass the caches, with rows that are whole cache lines or not.

    They write no byte outside of the copy.
    """
    array = channels_last(rng, *shape, dtype=dtype)
    nbytes = array.nbytes
    rooms = []

    def room(shape, dtype):
        rooms.append(aligned((nbytes // dtype.itemsize + 2 + off,), dtype))
        return rooms[-1][off:-2].reshape(shape)

    monkeypatch.setattr(_copies._memory, "empty", room)
    monkeypatch.setattr(_copies, "_SMALL_BYTES", 0)
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    for least, past in ((nbytes, 1), (nbytes + 1, 0)):
        monkeypatch.setattr(_copies, "_PAST_BYTES", least)
        plans.clear()
        assert _copies.make_plan(array.shape, array.strides, array.itemsize).nontemporal == past
        copy = _copies.contiguous(array, threads)
        assert copy.tobytes() == array.tobytes()
        beside = np.r_[rooms[-1][:off], rooms[-1][-2:]]
        assert set(beside.tobytes()) == {0xA5}


def test_blocks_end_with_a_line():
    """Each block ends at a cache line, except the last of a row, so that the next block starts with a line."""
    for channels in (3, 24, 33, 64, 500):
        for dtype in DTYPES:
            array = np.moveaxis(np.empty((1, 300, 300, channels), dtype), -1, 1)
            _, columns = _copies.make_plan(array.shape, array.strides, array.itemsize).block
            assert columns * dtype.itemsize % 64 == 0 and columns < 90_000


def channels_last(rng, *shape, dtype=np.float32):
    """An array (N, C, ...) whose channels are last in memory."""
    return np.moveaxis(rng.standard_normal((shape[0], *shape[2:], shape[1])).astype(dtype), -1, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 64, 31, 17), (3, 3, 40, 41), (1, 33, 5, 6, 40), (2, 130, 301)])
def test_blocks_cover_the_view_once(shape, dtype, rng):
    array = channels_last(rng, *shape, dtype=dtype)
    plan = _copies.make_plan(array.shape, array.strides, array.itemsize)
    rows, columns = plan.block
    assert plan.elements == array.size and rows * columns * array.itemsize <= _copies._BLOCK_BYTES
    assert plan.items == shape[0] * -(-shape[1] // rows) * -(-int(np.prod(shape[2:])) // columns)
    np.testing.assert_array_equal(_copies.contiguous(array), array, strict=True)


def views_of_rows(rng):
    array = rng.standard_normal((8, 64, 80)).astype(np.float32)
    odd = np.zeros(array.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(array.shape)
    odd[...] = array
    return {
        "rows": array[:, :, 8:70],
        "every other": array[:, :, ::2],
        "backwards": array[:, :, ::-1],
        "small": channels_last(rng, 1, 8, 8, 8),
        "swapped": array.astype(">f4").transpose(0, 2, 1),
        "unaligned": odd.transpose(0, 2, 1),
        "half": array.astype(np.float16).transpose(0, 2, 1),
        "one number": np.broadcast_to(np.float32(3), (64, 64, 8)),
    }


@pytest.mark.parametrize("name", views_of_rows(np.random.default_rng(0)))
def test_what_numpy_copies_as_well(name, copies, rng):
    array = views_of_rows(rng)[name]
    copy = _arrays.prepare(array, np.dtype(np.float32))
    assert not copies
    assert copy.flags.c_contiguous and copy.flags.aligned and copy.dtype == np.float32 and copy.dtype.isnative
    np.testing.assert_array_equal(copy, array)


W = np.random.default_rng(1).standard_normal((8, 8, 3, 3)).astype(np.float32)
ONES = np.ones(8, np.float32)
#: Layers of an image of shape (2, 8, 64, 48).
FORWARD = {
    "conv": lambda x: fastconv.conv(x, W, pad=1),
    "depthwise": lambda x: fastconv.conv(x, W[:, :1], groups=8),
    "reflect": lambda x: fastconv.conv(x, W, pad=1, pad_mode="reflect"),
    "strided": lambda x: fastconv.conv(x, W, stride=2),
    "conv_transpose": lambda x: fastconv.conv_transpose(x, W, stride=2),
    "max_pool": lambda x: fastconv.max_pool_forward(x, kernel_size=2)[0],
    "avg_pool": lambda x: fastconv.avg_pool_forward(x, kernel_size=2)[0],
    "lp_pool": lambda x: fastconv.lp_pool_forward(x, kernel_size=2)[0],
    "global_max": lambda x: layers.global_max_pool_forward(x)[0],
    "global_avg": lambda x: layers.global_avg_pool_forward(x)[0],
    "relu": lambda x: layers.relu_forward(x)[0],
    "im2col": lambda x: fastconv.im2col(x, (3, 3)),
    "batchnorm": lambda x: layers.spatial_batchnorm_forward(x, ONES, ONES, {"mode": "train"})[0],
    "groupnorm": lambda x: layers.spatial_groupnorm_forward(
        x, ONES.reshape(1, 8, 1, 1), ONES.reshape(1, 8, 1, 1), 2, {}
    )[0],
    "lrn": lambda x: layers.lrn_forward(x, {"size": 3, "alpha": 1e-4, "beta": 0.75, "k": 1.0})[0],
}


@pytest.mark.parametrize("name", FORWARD)
def test_every_layer_copies_a_view_once(name, copies, rng, monkeypatch):
    x = channels_last(rng, 2, 8, 64, 48)
    result = FORWARD[name](np.ascontiguousarray(x))
    assert not copies
    numpy_array = np.array

    def array(value, *args, **options):
        assert not (isinstance(value, np.ndarray) and value.nbytes >= x.nbytes), "copied by NumPy"
        return numpy_array(value, *args, **options)

    monkeypatch.setattr(np, "array", array)
    np.testing.assert_array_equal(FORWARD[name](x), result)
    assert [seen.nbytes for seen, *_ in copies] == [x.nbytes]


def test_gradients_are_copied_as_well(copies, rng):
    x = rng.standard_normal((2, 8, 64, 48)).astype(np.float32)
    dout = channels_last(rng, 2, 8, 64, 48)
    small = channels_last(rng, 2, 8, 32, 24)
    for forward, backward, upstream in (
        (lambda x: fastconv.conv_forward(x, W, None, pad=1), fastconv.conv_backward, dout),
        (layers.relu_forward, layers.relu_backward, dout),
        (lambda x: fastconv.max_pool_forward(x, kernel_size=2), fastconv.max_pool_backward, small),
        (lambda x: fastconv.avg_pool_forward(x, kernel_size=2), fastconv.avg_pool_backward, small),
    ):
        _, cache = forward(x)
        wanted = backward(np.ascontiguousarray(upstream), cache)
        assert not copies
        found = backward(upstream, cache)
        for a, b in zip(wanted, found, strict=True) if isinstance(wanted, tuple) else [(wanted, found)]:
            np.testing.assert_array_equal(a, b)
        assert [seen.shape for seen, *_ in copies] == [upstream.shape]
        copies.clear()


def test_threads_of_the_call_copy_and_no_others(copies, rng):
    x, w = channels_last(rng, 2, 8, 64, 48), W
    cols = fastconv.im2col(x, (3, 3)).transpose(0, 2, 1).copy().transpose(0, 2, 1)
    _, conv_cache = fastconv.conv_forward(x, w, None, pad=1, threads=3)
    _, pool_cache = fastconv.max_pool_forward(x, kernel_size=2, threads=3)
    _, mean_cache = fastconv.avg_pool_forward(x, kernel_size=2, threads=3)
    _, power_cache = fastconv.lp_pool_forward(x, kernel_size=2, threads=3)
    _, up_cache = fastconv.conv_transpose_forward(x, w, None, threads=3)
    copies.clear()
    operator = fastconv.toeplitz_operator(w, (8, 64, 48), pad=1, threads=3)
    half, padded = channels_last(rng, 2, 8, 32, 24), channels_last(rng, 2, 8, 66, 50)
    calls = [
        lambda: fastconv.conv(x, w, threads=3),
        lambda: fastconv.conv_transpose(x, w, threads=3),
        lambda: fastconv.max_pool_forward(x, kernel_size=2, threads=3),
        lambda: fastconv.lp_pool_forward(x, kernel_size=2, threads=3),
        lambda: fastconv.im2col(x, (3, 3), threads=3),
        lambda: fastconv.col2im(cols, x.shape, (3, 3), threads=3),
        lambda: fastconv.conv_backward(x, conv_cache),
        lambda: fastconv.max_pool_backward(half, pool_cache),
        lambda: fastconv.avg_pool_backward(half, mean_cache),
        lambda: fastconv.lp_pool_backward(half, power_cache),
        lambda: fastconv.conv_transpose_backward(padded, up_cache),
        lambda: operator @ x.reshape(2, -1).copy().T,
    ]
    with fastconv.threads(2):
        for call in calls[:-1]:
            call()
            assert [threads for _, threads, _ in copies] == [3]
            copies.clear()
        calls[-1]()
        layers.relu_forward(x)
        assert [threads for _, threads, _ in copies] == [2]


def test_one_thread_is_one_thread(rng, monkeypatch):
    """With threads=1 a copy uses no workers, however large it is."""
    x = channels_last(rng, 4, 32, 96, 96)
    asked = []
    work_queue = _copies._threads._workers.work_queue
    monkeypatch.setattr(
        _copies._threads._workers,
        "work_queue",
        lambda helpers, grain: asked.append(helpers) or work_queue(helpers, grain),
    )
    wanted = np.ascontiguousarray(x)
    assert np.array_equal(_copies.contiguous(x, 1), wanted) and asked == [0]
    assert np.array_equal(_copies.contiguous(x, 2), wanted) and asked == [0, 1]


def test_copies_come_from_the_memory_of_results(rng, monkeypatch):
    """A copy uses the memory of an earlier result, because the pages of that memory are mapped already."""
    x = channels_last(rng, 2, 64, 64, 64)
    given = []
    empty = _memory.empty
    monkeypatch.setattr(_memory, "empty", lambda *args: given.append(empty(*args)) or given[-1])
    copy = _copies.contiguous(x)
    assert len(given) == 1 and copy is given[0] and copy.shape == x.shape and copy.dtype == x.dtype


def test_the_kernel_refuses_the_plan_of_another_array():
    plan = _copies._ext.CopyPlan(
        rows=4,
        row_stride=6,
        to_row_stride=6,
        columns=6,
        column_stride=1,
        outer=(),
        block_rows=4,
        block_columns=6,
        nontemporal=False,
    )
    with pytest.raises(ValueError) as raised:
        _threads.share(plan.run, (np.ones((4, 6)), np.empty((4, 5)), 1, _isa.current), items=1, work=24, threads=1)
    assert str(raised.value) == "the plan copies 24 elements, but the array `to` has 20"
