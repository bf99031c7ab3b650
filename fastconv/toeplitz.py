"""Convolution as a matrix: sparse Toeplitz matrices, and matrix-free linear operators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Unpack

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from fastconv.checks import arrays as _arrays
from fastconv.checks.arrays import prepare_inputs
from fastconv.checks.messages import channels_hint, count, count_axes, kind_of, missing_axes_hint, sparse_operand
from fastconv.checks.options import as_int, as_shape, merge_options
from fastconv.convolution.choose import DEFAULT_ALGORITHM, check_name, choose
from fastconv.convolution.dispatch import backward_data, forward
from fastconv.convolution.plan import Case, Op
from fastconv.convolution.toeplitz import csr as _csr
from fastconv.geometry.conv import GEOMETRY_DEFAULTS, ConvGeometry, GeometryOptions, resolve_conv
from fastconv.runtime import threads as _threads

FORMATS = ("csr", "csc", "coo", "bsr", "lil", "dok", "dia")
MODES = ("full", "same", "valid")
#: The operations with which a `ToeplitzOperator` computes products: `forward` for A @ x, `backward_data` for A.T @ y.
_OPS: tuple[Op, ...] = ("forward", "backward_data")


class MatrixOptions(GeometryOptions, total=False):
    """The options of `toeplitz_matrix`."""

    format: str


class OperatorOptions(GeometryOptions, total=False):
    """The options of `toeplitz_operator`."""

    algorithm: str
    threads: int | None


def _geometry(w: np.ndarray, x_shape: Any, settings: dict[str, Any]) -> ConvGeometry:
    x_shape = as_shape("x_shape", x_shape)
    batch = (-1, *x_shape)  # -1 stands for the batch axis, which x_shape lacks.
    if not 3 <= w.ndim <= 5:
        raise ValueError(
            f"w has {count_axes(w.ndim)}, {w.shape}; legal are 3 to 5: (F, C // groups, *kernel), "
            "with x_shape (C, *spatial)" + missing_axes_hint(batch, w.shape, "x_shape")
        )
    if len(x_shape) != w.ndim - 1:
        raise ValueError(
            f"x_shape {x_shape} has {count_axes(len(x_shape))}, but w {w.shape} goes with {w.ndim - 1}: "
            "(C, *spatial) of one image, without the batch" + missing_axes_hint(batch, w.shape, "x_shape")
        )
    groups = as_int("groups", settings["groups"], 1)
    channels, filters = x_shape[0], w.shape[0]
    if min(channels, filters) < 1:
        raise ValueError(f"x_shape {x_shape} and w {w.shape} must have at least one channel and one filter")
    if channels % groups == filters % groups == 0 and w.shape[1] * groups != channels:
        raise ValueError(
            f"x_shape {x_shape} has {count(channels, 'channel')}, so with groups={groups} w must be "
            f"(F, {channels // groups}, *kernel), got w {w.shape} with {w.shape[1]}"
            + channels_hint(batch, w.shape, groups, "x_shape")
        )
    return resolve_conv((1, *x_shape), w.shape, **settings)


def _prepare_weights(
    w: Any, x_shape: Any, settings: dict[str, Any], threads: int | None = None
) -> tuple[ConvGeometry, np.ndarray]:
    """Check the arguments. Return all sizes and options of the convolution, and w as an array that kernels can read."""
    if type(w) is not np.ndarray and sparse.issparse(w):
        raise TypeError(f"w is {kind_of(w)} of scipy.sparse; give w.toarray()")
    geometry, (w,), _ = prepare_inputs(lambda w: (_geometry(w, x_shape, settings), threads), w=w)
    return geometry, w


def _format(value: Any) -> str:
    if not isinstance(value, str) or value not in FORMATS:
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"format is {value!r}; legal are {', '.join(map(repr, FORMATS))}")
    return value


@contextmanager
def _naming(arguments: str) -> Iterator[None]:
    """If the matrix is too large, begin the message of the ValueError with the text `arguments`."""
    try:
        yield
    except ValueError as error:
        # Do not change an error of a subclass of ValueError. The message of a TooLargeError describes the matrix
        # already. Any other subclass comes from a signal handler.
        if type(error) is not ValueError:
            raise
        raise ValueError(f"{arguments} are too large together: {error}") from None


def _matrix(w: np.ndarray, geometry: ConvGeometry, form: str) -> Any:
    threads, transposed = _threads.get_threads(), form == "csc" and geometry.pad_mode == "zeros"
    made = "csr" if transposed else form
    # Copy the weights. The entries are counted first and written later, and a signal handler or another thread could
    # change the array w in between.
    w = w.copy()
    some = _csr.support(w)
    _csr.check_weights(w, geometry, made, transposed, some)
    sparsity = (_csr.of_cells if transposed else _csr.of_outputs)(geometry, geometry.flip, some)
    arrays = _csr.build(w, sparsity, threads, made, transposed)
    if form == "dia":
        _csr.check_diagonals(arrays)
    matrix = _wrap(arrays)
    if transposed:
        return matrix.T
    return matrix if form == "csr" else matrix.asformat(form)


def _wrap(arrays: _csr.Csr) -> Any:
    """Return a SciPy CSR array that shares the memory of `arrays`. SciPy does not check or sort the indices."""
    matrix = sparse.csr_array((arrays.data, arrays.indices, arrays.indptr), shape=arrays.shape, copy=False)
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix


def toeplitz_matrix(w: Any, x_shape: Sequence[int], **options: Unpack[MatrixOptions]) -> Any:
    """Return the sparse matrix whose product with a raveled image is the convolution of that image.

    Parameters
    ----------
    w : array_like, (F, C // groups, *kernel)
        Filters with one to three spatial axes. Weights that are zero make no
        entries.
    x_shape : tuple of int
        ``(C, *spatial)``, the shape of one image.
    **options
        ``stride``, ``pad``, ``dilation``, ``groups``, ``pad_mode``, ``flip``
        and ``strict`` as `conv` takes them; and ``format``, one of 'csr' (the
        default), 'csc', 'coo', 'bsr', 'lil', 'dok' and 'dia'.

    Returns
    -------
    scipy.sparse array, (F * L, C * prod(spatial))
        ``A @ x[n].ravel()`` is ``conv(x[n : n + 1], w, ...).ravel()``, and
        ``A.T @ dout[n].ravel()`` is its gradient by the image. The dtype is float32
        or float64, as `conv` would use. Indices are int32 if the numbers of rows,
        columns and entries fit, else int64. The format is canonical: within a row,
        columns ascend without duplicates.

    Raises
    ------
    ValueError
        If shapes or options do not fit each other, or the matrix has more
        entries than can be indexed.
    MemoryError
        If the matrix, or its conversion to `format`, needs more memory than is
        free. The error states the size, is a ValueError as well, and is raised
        before the arrays are allocated. The exception is 'dia', whose error is raised
        after the entries are built, because counting the diagonals needs them.
    TypeError
        As docs/conventions.md says.

    See Also
    --------
    toeplitz_operator : the same map without a matrix.
    convolution_matrix : the matrix of an array without channels.

    Notes
    -----
    For 'csr', and for 'csc' with a padding of zeros, the entries are counted first,
    and then written once by several threads, at about the speed of a copy. SciPy
    converts 'csr' to all other formats. 'dia' stores whole diagonals, and may take
    hundreds of times the memory of 'csr'; 'dok' takes about 25 times the memory.

    With pad_mode 'reflect', 'replicate' or 'circular', several weights of a filter may be multiplied by the same cell
    of the image. The entry of the matrix is then the sum of these weights. If nonzero weights have the sum zero, the
    matrix stores the zero, because the sparsity pattern depends only on which weights are zero.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep
    learning", arXiv:1603.07285, section 4.1.

    Examples
    --------
    The 4 x 16 matrix of a 3x3 kernel on a 4x4 image:

    >>> import numpy as np
    >>> from fastconv import conv, toeplitz_matrix
    >>> w = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    >>> A = toeplitz_matrix(w, (1, 4, 4))
    >>> A.shape, A.nnz
    ((4, 16), 36)
    >>> A.toarray()[1].astype(int)
    array([0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0])
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> bool(np.all(A @ x.ravel() == conv(x, w).ravel()))
    True
    """
    settings = merge_options("toeplitz_matrix", {**GEOMETRY_DEFAULTS, "format": "csr"}, options)
    form = _format(settings.pop("format"))
    geometry, w = _prepare_weights(w, x_shape, settings)
    with _naming(f"x_shape {geometry.x_shape[1:]} and w {w.shape}"):
        return _matrix(w, geometry, form)


def _operand(name: str, value: Any, size: int, ranks: tuple[int, ...] = (1, 2), transpose_name: str = ".T") -> Any:
    """Return `value`, which will be multiplied by a Toeplitz operator. Raise an error for a sparse array, and for an
    array of images that have not been raveled.

    `size` is the number of elements of one image. `ranks` are the legal numbers of axes: 1 for a vector, which is one
    image, and 2 for a matrix. `transpose_name` is ".T" if an image is a column of the matrix, and "" if it is a row.
    """
    if type(value) is np.ndarray and value.ndim <= 2:
        return value
    if sparse.issparse(value):
        raise TypeError(sparse_operand(name, "toeplitz_operator"))
    if isinstance(value, (list, tuple)):
        value = np.asarray(value)
    if getattr(value, "ndim", 0) > 2:
        one = f"{name}.ravel()" if 1 in ranks else f"{name}.reshape(1, -1){transpose_name}"
        several = f"{name}.reshape(len({name}), -1){transpose_name}" if 2 in ranks else f"{name}[i].ravel()"
        give = f"{one} or {several}, of {count(size, 'element')} an image"
        if value.size == size:
            give = one
        elif value.size == size * len(value):
            give = several
        raise ValueError(f"{name} has {count_axes(value.ndim)}, {value.shape}; give {give}")
    return value


class ToeplitzOperator(LinearOperator):
    """The linear operator that convolves one raveled image: see `toeplitz_operator`."""

    def __init__(
        self, w: np.ndarray, geometry: ConvGeometry, algorithm: str, threads: int | None, adjoint: bool = False
    ) -> None:
        shape = math.prod(geometry.out_shape[1:]), math.prod(geometry.x_shape[1:])
        super().__init__(w.dtype, shape[::-1] if adjoint else shape)
        self._w, self._geometry, self._algorithm, self._workers = w, geometry, algorithm, threads
        self._is_adjoint = adjoint

    def _adjoint(self) -> LinearOperator:
        return ToeplitzOperator(self._w, self._geometry, self._algorithm, self._workers, not self._is_adjoint)

    #: The operator is real, so its transpose is its adjoint.
    _transpose = _adjoint

    # These methods check their operands, because SciPy's errors for sparse arrays and for images with several axes do
    # not say what to pass instead.
    def dot(self, x: Any) -> Any:
        return super().dot(_operand("x", x, self.shape[1]))

    def __rmul__(self, x: Any) -> Any:
        return super().__rmul__(_operand("x", x, self.shape[0], transpose_name=""))

    def matvec(self, x: Any) -> np.ndarray:
        return super().matvec(_operand("x", x, self.shape[1], (1,)))

    def matmat(self, X: Any) -> np.ndarray:
        return super().matmat(_operand("X", X, self.shape[1], (2,)))

    def rmatvec(self, x: Any) -> np.ndarray:
        return super().rmatvec(_operand("x", x, self.shape[0], (1,)))

    def rmatmat(self, X: Any) -> np.ndarray:
        return super().rmatmat(_operand("X", X, self.shape[0], (2,)))

    def _apply(self, columns: np.ndarray, reverse: bool) -> np.ndarray:
        """Return A @ columns, or A.T @ columns if `reverse` is true. `columns` has shape (size, K); a column is one
        raveled image.
        """
        adjoint = self._is_adjoint != reverse
        if columns.dtype.kind == "c":
            parts = self._apply(columns.real, reverse), self._apply(columns.imag, reverse)
            result = np.empty(parts[0].shape, np.result_type(parts[0].dtype, np.complex64))
            result.real, result.imag = parts
            return result
        name = "y" if adjoint else "x"
        given: dict[str, Any] = {name: columns.T, "w": self._w}
        workers, (images, w), _ = prepare_inputs(lambda *_: (_threads.resolve(self._workers), self._workers), **given)
        count = len(images)
        geometry = self._geometry.for_batch(count)
        shapes = geometry.x_shape, geometry.out_shape
        images = images.reshape(shapes[adjoint])
        result = _arrays.empty_result(shapes[not adjoint], w.dtype, "the product")
        if not adjoint:
            forward(images, w, None, geometry, result, self._algorithm, workers)
        elif count:
            backward_data(images, w, geometry, result, self._algorithm, workers)
        return result.reshape(count, self.shape[reverse]).T

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._apply(x.reshape(-1, 1), False)[:, 0]

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._apply(x.reshape(-1, 1), True)[:, 0]

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        return self._apply(X, False)

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        return self._apply(X, True)


def toeplitz_operator(w: Any, x_shape: Sequence[int], **options: Unpack[OperatorOptions]) -> LinearOperator:
    """Return an operator that computes the products of `toeplitz_matrix` without building the matrix.

    Parameters
    ----------
    w : array_like, (F, C // groups, *kernel)
        Filters, with one to three spatial axes; not copied if they are
        C-contiguous floats already.
    x_shape : tuple of int
        ``(C, *spatial)``, the shape of one image.
    **options
        ``stride``, ``pad``, ``dilation``, ``groups``, ``pad_mode``, ``flip``,
        ``strict``, ``algorithm`` and ``threads`` as `conv` takes them.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator, (F * L, C * prod(spatial))
        ``matvec`` and ``matmat`` compute `conv` of one image per column;
        ``rmatvec`` and ``rmatmat`` compute the exact adjoint, as `conv_backward`
        does. A product is computed in the common dtype of `w` and the vector, so
        float32 stays float32. The real and the imaginary part of a complex vector
        are multiplied separately.

    Raises
    ------
    ValueError
        If shapes or options do not fit each other, or `algorithm` cannot do
        this convolution and its adjoint.
    TypeError
        As docs/conventions.md says.

    See Also
    --------
    toeplitz_matrix : the same map with all its entries.

    Examples
    --------
    Recover an image from its blurred version:

    >>> import numpy as np
    >>> from scipy.sparse.linalg import lsqr
    >>> from fastconv import toeplitz_operator
    >>> blur = toeplitz_operator(np.array([[[1.0, 2.0, 1.0]]]) / 4, (1, 9), pad=1)
    >>> blur.shape
    (9, 9)
    >>> x = np.arange(9.0)
    >>> bool(np.allclose(lsqr(blur, blur @ x, atol=1e-12, btol=1e-12)[0], x))
    True
    """
    defaults = {**GEOMETRY_DEFAULTS, "algorithm": DEFAULT_ALGORITHM, "threads": None}
    settings = merge_options("toeplitz_operator", defaults, options)
    algorithm, threads = check_name(settings.pop("algorithm")), settings.pop("threads")
    if threads is not None:
        _threads.resolve(threads)
    geometry, w = _prepare_weights(w, x_shape, settings, threads)
    if algorithm != "auto":
        for op in _OPS:
            choose(Case.of(op, geometry, w.dtype, _threads.resolve(threads)), algorithm)
    return ToeplitzOperator(w, geometry, algorithm, threads)


def convolution_matrix(
    h: Any,
    shape: int | Sequence[int],
    mode: Literal["full", "same", "valid"] = "full",
    *,
    format: str = "csr",
) -> Any:
    """Return the sparse matrix of a true convolution with the kernel `h`, for arrays without channels.

    Parameters
    ----------
    h : array_like
        Kernel with one to three axes. Its zeros make no entries of the matrix.
    shape : int or tuple of int
        Shape of the array `x` that is convolved; an int if it has one axis.
    mode : {'full', 'same', 'valid'}
        The part of the convolution to compute, as in `scipy.signal.convolve`.
        'full' is the whole convolution. 'same' is its middle part, which has the
        shape of `x` (for an even `h`, the part that `conv` computes with
        ``pad='same_lower'``). 'valid' is the part that does not depend on zeros
        beyond the edges; either `x` or `h` must be at least as large as the other
        along every axis. If `shape` is an int below the length of `h`, 'same' has
        the length of `h`, as in `scipy.linalg.convolution_matrix` and
        `np.convolve`.
    format : str, default 'csr'
        'csr', 'csc', 'coo', 'bsr', 'lil', 'dok' or 'dia'.

    Returns
    -------
    scipy.sparse array
        ``A @ x.ravel()`` is ``scipy.signal.convolve(x, h, mode).ravel()``. In
        one dimension A equals the dense result of `scipy.linalg.convolution_matrix`.
        The dtype is float32 or float64; integers become float64.

    Raises
    ------
    ValueError
        If `h` and `shape` differ in their numbers of axes, one of them has no
        elements, or with 'valid' neither is at least as large as the other in
        every axis.
    MemoryError
        As in `toeplitz_matrix`.
    TypeError
        As docs/conventions.md says.

    See Also
    --------
    toeplitz_matrix : with channels, stride, dilation, groups and padding.

    Examples
    --------
    >>> from fastconv import convolution_matrix
    >>> convolution_matrix([-1, 4, -2], 5, 'valid').toarray()
    array([[-2.,  4., -1.,  0.,  0.],
           [ 0., -2.,  4., -1.,  0.],
           [ 0.,  0., -2.,  4., -1.]])
    >>> convolution_matrix([[1, 2], [3, 4]], (5, 6)).shape
    (42, 30)
    """

    def resolve(h: np.ndarray) -> tuple[tuple[tuple[int, ...], str, dict[str, Any]], None]:
        if isinstance(shape, np.ndarray) and shape.ndim:
            raise TypeError(
                f"shape must be an int or a tuple of ints, got an ndarray; to use its shape, pass {shape.shape}"
            )
        bare = not isinstance(shape, (list, tuple))
        sizes = as_shape("shape", (as_int("shape", shape, 1),) if bare else shape, 1)
        if not isinstance(mode, str) or mode not in MODES:
            kind = ValueError if isinstance(mode, str) else TypeError
            raise kind(f"mode is {mode!r}; legal are {', '.join(map(repr, MODES))}")
        if not 1 <= h.ndim <= 3 or not h.size:
            raise ValueError(f"h has shape {h.shape}; it must have one to three axes, none of them empty")
        if len(sizes) != h.ndim:
            raise ValueError(f"shape {sizes} has {count_axes(len(sizes))}, but h {h.shape} has {h.ndim}")
        form = _format(format)
        if mode == "full":
            pads = [(k - 1, k - 1) for k in h.shape]
        elif mode == "same":
            # The result of mode 'same' is the part of the full result that starts at index (k - 1) // 2.
            pads = [(k // 2, (k - 1) // 2) for k in h.shape]
            if bare and h.size > sizes[0]:
                (k,), (n,) = h.shape, sizes
                pads = [(k - 1 - (n - 1) // 2, k - 1 - n // 2)]
        else:
            excess = [k - n for k, n in zip(h.shape, sizes, strict=True)]
            if max(excess) > 0 and min(excess) < 0:
                raise ValueError(
                    f"mode 'valid' needs h or shape to be at least as large as the other in every axis, "
                    f"got h {h.shape} and shape {sizes}"
                )
            pads = [(max(e, 0),) * 2 for e in excess]
        settings = {**GEOMETRY_DEFAULTS, "pad": tuple(pads), "flip": True}
        return (sizes, form, settings), None

    (sizes, form, settings), (h,), _ = prepare_inputs(resolve, h=h)
    w = h[np.newaxis, np.newaxis]
    with _naming(f"shape {sizes} and h {h.shape}"):
        return _matrix(w, _geometry(w, (1, *sizes), settings), form)
