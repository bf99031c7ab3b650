"""Texts for error messages: descriptions of arguments, and suggestions of what the caller probably meant.

These functions run only when a call raises an error or a cache is printed.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

#: Maps each option of fastconv to its names in other libraries.
_OPTIONS = {
    "pad": ("padding", "pads", "mode", "auto_pad"),
    "kernel_size": ("size", "ksize", "pool_size", "kernel", "kernel_shape", "kernelsize", "window", "window_shape"),
    "stride": ("strides", "step", "steps", "subsample"),
    "dilation": ("dilation_rate", "dilations", "rate", "rhs_dilation"),
    "groups": ("group", "num_groups", "n_groups", "num_group", "feature_group_count"),
    "pad_mode": ("border", "borders", "border_mode", "bordertype", "boundary", "padding_mode", "fill_mode"),
    "output_pad": ("output_padding",),
    "threads": ("n_threads", "num_threads", "nthreads", "workers", "num_workers", "n_jobs"),
    "algorithm": ("algo", "method", "backend", "impl"),
    "flip": ("flip_kernel", "true_convolution"),
    "p": ("norm_type", "ord"),
    "factor": ("factors", "scale", "scales", "scale_factor", "upsample_factor"),
    "eps": ("epsilon",),
    "running_mean": ("moving_mean",),
    "running_var": ("moving_var", "moving_variance", "running_variance"),
}
_OPTION_OF = {name: option for option, names in _OPTIONS.items() for name in names}
#: Names of options in other libraries that select the channel axis. fastconv has no such option.
_LAYOUTS = frozenset(
    ("layout", "data_layout", "data_format", "image_data_format", "memory_format", "channel_axis", "channels_last")
)

#: Maps each padding mode to its names in NumPy, SciPy, OpenCV and Keras. fastconv does not support 'symmetric'.
_BORDERS = {
    "zeros": ("zero", "constant", "fill", "grid-constant"),
    "reflect": ("mirror", "reflect101"),
    "replicate": ("nearest", "edge"),
    "circular": ("wrap", "periodic", "grid-wrap"),
    "symmetric": ("symm", "grid-mirror"),
}
_BORDER_OF = {name: border for border, names in _BORDERS.items() for name in (border, *names)}

#: Maps values of `pad` in TensorFlow, ONNX and Theano to the values of `pad` in fastconv.
_PAD_OF = {"same_upper": "same", "half": "same", "none": "valid", "notset": "valid"}


#: The largest number of characters of a value that a message shows.
_LONGEST = 200


def count(n: int, one: str, many: str = "") -> str:
    """Return a number with a noun, such as ``1 axis`` or ``2 axes``. `one` is the singular, and `many` is the plural.
    By default, the plural is the singular plus an s.
    """
    return f"{n} {one if n == 1 else many or one + 's'}"


def count_axes(n: int) -> str:
    """Return the text ``n axes``, or ``1 axis``."""
    return count(n, "axis", "axes")


def kind_of(value: Any) -> str:
    """Return the type of `value` with its article, such as "an ndarray" or "a tuple"."""
    name = type(value).__name__
    return f"{'an' if name.startswith((*'AEIOaeio', 'nd')) else 'a'} {name}"


def shown(value: Any) -> str:
    """Return the text that stands for `value` in a message: the shape of a large array, or a repr of limited length."""
    if isinstance(value, np.ndarray) and value.ndim and value.size > 8:
        return f"an array of shape {value.shape}"
    text = repr(value) if isinstance(value, (str, int, float, os.PathLike)) else reprlib.repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def cache_repr(cache: Any) -> str:
    """Return the repr of a named tuple, with the shapes and dtypes of its arrays instead of their elements."""
    fields = (f"{name}={brief(value)}" for name, value in zip(cache._fields, cache, strict=True))
    return f"{type(cache).__name__}({', '.join(fields)})"


def brief(value: Any) -> str:
    """Return a short text for one element of a cache. For an array, the text is its dtype and its shape."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, np.dtype):
        return str(value)
    if hasattr(value, "x_shape") and hasattr(value, "out_shape"):
        return f"<{type(value).__name__} {value.x_shape} to {value.out_shape}>"
    if type(value) is tuple or isinstance(value, TupleCache):
        return f"({', '.join(map(brief, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {brief(part)}' for name, part in value.items())}}}"
    return repr(value)


class TupleCache(tuple):
    """A cache that unpacks like a plain tuple. Its repr shows the shapes and dtypes of its arrays."""

    __slots__ = ()

    def __repr__(self) -> str:
        return brief(tuple(self))


def did_you_mean(name: str | None) -> str:
    """Return the text ``; did you mean 'name'?``, or an empty string if `name` is None."""
    return "" if name is None else f"; did you mean {name!r}?"


def _close(name: str, known: Iterable[str]) -> list[str]:
    """Return the name in `known` that is most similar to `name`, as a list of length 1. Return an empty list if no name
    is similar.
    """
    import difflib  # Imported here because only errors need it.

    return difflib.get_close_matches(name, tuple(known), 1)


def nearest_option(name: Any, value: Any, known: Iterable[str]) -> str | None:
    """Return the option in `known` that a caller who passed ``name=value`` probably meant, or None if no option fits.
    `name` may be misspelt, or it may be the name of the option in another library.
    """
    if not isinstance(name, str):
        return None
    known, lowered = tuple(known), name.lower()
    option = _OPTION_OF.get(lowered)
    if option == "pad" and isinstance(value, str) and border_name(value) is not None:
        option = "pad_mode"
    if "factor" in known and (option or lowered) in ("kernel_size", "stride", "dilation"):
        option = "factor"
    if option == "kernel_size" and "kernel_size" not in known:
        option = "pool_height"
    if option is not None:
        return option if option in known else None
    near = _close(lowered, known)
    return near[0] if near else None


def option_hint(name: Any, value: Any, known: Iterable[str]) -> str:
    """Return the end of the error message for the unknown option ``name=value``. The text suggests an option in
    `known`. If ``name=value`` selects the channel axis in another library, the text suggests a transpose of x instead.
    """
    if not isinstance(name, str) or name.lower() not in _LAYOUTS:
        return did_you_mean(nearest_option(name, value, known))
    # `value` may be a layout such as NWC or NDHWC, which has one letter per axis.
    rank = len(value) if isinstance(value, str) and 3 <= len(value) <= 5 else 4
    order = (0, rank - 1, *range(1, rank - 1))
    return f"; x is always (N, C, *spatial): if its channels are last, give x.transpose{order}"


def border_name(name: str) -> str | None:
    """Return fastconv's name for the padding mode that NumPy, SciPy, OpenCV or Keras call `name`. Return None if no
    library has a mode of this name.
    """
    plain = name.lower().removeprefix("cv2.").removeprefix("border_").replace("reflect_101", "reflect101")
    return _BORDER_OF.get(plain) or _BORDER_OF.get(plain.replace("_", "-"))


def border_hint(name: Any, legal: tuple[str, ...]) -> str:
    """Return the end of the error message for the unknown padding mode `name`: the most similar mode in `legal`."""
    if not isinstance(name, str):
        return ""
    border = border_name(name)
    if border == "symmetric" and border not in legal:
        return (
            "; a mirror that repeats the edge, np.pad's 'symmetric' and scipy.ndimage's 'reflect', is not among them: "
            "extend x by np.pad(x, widths, mode='symmetric'), and give pad=0"
        )
    if border in legal:
        return did_you_mean(border)
    near = _close(name.lower(), legal)
    return did_you_mean(near[0] if near else None)


def pad_hint(name: str, legal: tuple[str, ...]) -> str:
    """Return the end of the error message for ``pad=name`` if `name` is an unknown string. The text suggests one of
    the strings in `legal`.
    """
    lowered = name.lower()
    meant = lowered if lowered in legal else _PAD_OF.get(lowered)
    border = border_name(lowered)
    if meant is None and border is not None:
        return (
            f"; {name!r} says how padding is filled, not how much is added: pad is a number of cells, and "
            f"pad_mode={border!r} if the function takes that"
        )
    near = _close(lowered, legal)
    return did_you_mean(meant or (near[0] if near else None))


def pair_hint(pad: Any, rank: int) -> str:
    """Return the end of the error message for a flat `pad` with two numbers per axis, such as ``(1, 1, 2, 2)``. The
    text shows the same numbers as ``(lo, hi)`` pairs: ``[(1, 1), (2, 2)]``. Return an empty string for any other `pad`.
    """
    if not isinstance(pad, (list, tuple)) or len(pad) != 2 * rank:
        return ""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    return f"; one (lo, hi) pair per axis is {pairs}"


def _reordered(name: str, shape: tuple[int, ...], order: tuple[int, ...]) -> str:
    """Return the code that reorders the axes of an argument, as a text for a message. For an array, the text is
    ``name.transpose(order)``. For an argument that is a shape, the text is the reordered shape, such as
    ``x_shape=(3, 32, 32)``.

    The `x_shape` of a Toeplitz matrix has no batch axis. In `shape`, the size -1 stands for the missing axis, and the
    text omits this size.
    """
    if name.endswith("_shape"):
        return f"{name}={tuple(shape[i] for i in order if shape[i] >= 0)}"
    return f"{name}.transpose{order}"


def channels_last_hint(name: str, shape: tuple[int, ...], channels: int) -> str:
    """Return the suggestion to transpose an image whose channels are last. The channels are last if the last size of
    `shape` is `channels`, the number of channels that the weights need. Otherwise return an empty string.
    """
    if len(shape) < 3 or shape[-1] != channels or shape[1] == channels:
        return ""
    order = (0, len(shape) - 1, *range(1, len(shape) - 1))
    return f"; {name} has its channels last: give {_reordered(name, shape, order)}"


def channels_hint(x_shape: tuple[int, ...], w_shape: tuple[int, ...], groups: int, x: str = "x", w: str = "w") -> str:
    """Return a suggestion for an x and a w whose numbers of channels do not match: another number of groups, or a
    transpose of x or w. The shape of w should be (F, C // groups, *kernel).

    `x` and `w` are the names of the arguments in the text: "x" and "w", or "x_shape" and "w_shape".
    """
    grouped = _groups_hint(x_shape[1], w_shape, groups)
    # If w has one channel per filter, the layer is probably depthwise, and the caller forgot `groups`. Otherwise check
    # first whether the channels of the image are last.
    if grouped and w_shape[1] == 1:
        return grouped
    last = channels_last_hint(x, x_shape, w_shape[1] * groups)
    # In Keras, weights have the shape (*kernel, C // groups, F), and images have the shape (N, *spatial, C).
    order = (w_rank := len(w_shape)) - 1, w_rank - 2, *range(w_rank - 2)
    turned = f"give {_reordered(w, w_shape, order)}, since its filters are last"
    if not last and _ends_in_channels(w_shape):
        if w_shape[-2] * groups == x_shape[-1] != x_shape[1]:
            return f"{channels_last_hint(x, x_shape, x_shape[-1])}, and {turned}"
        if w_shape[-2] * groups == x_shape[1]:
            return f"; {turned}"
    return last or grouped


def _ends_in_channels(w_shape: tuple[int, ...]) -> bool:
    """Return whether `w_shape` may be the shape of Keras weights, which ends with the numbers of channels and filters.
    Return False for shapes such as (64, 32, 3, 3): two equal last sizes are probably a kernel if another size is at
    least as large.
    """
    return w_shape[-2] != w_shape[-1] or max(w_shape[:-2]) < w_shape[-1]


def transposed_channels_hint(x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> str:
    """Return a suggestion for an x and a w of a transposed convolution whose numbers of channels do not match: a
    transpose of x or w. The shape of w should be (C, F // groups, *kernel).
    """
    # Weights of Keras have the shape (*kernel, F // groups, C).
    order = (rank := len(w_shape)) - 1, rank - 2, *range(rank - 2)
    turned = f"give w.transpose{order}, since its channels are last"
    last = channels_last_hint("x", x_shape, w_shape[0])
    if not last and _ends_in_channels(w_shape):
        if w_shape[-1] == x_shape[-1] != x_shape[1]:
            return f"{channels_last_hint('x', x_shape, x_shape[-1])}, and {turned}"
        if w_shape[-1] == x_shape[1]:
            return f"; {turned}"
    return last


def _groups_hint(channels: int, w_shape: tuple[int, ...], groups: int) -> str:
    """Suggest the number of groups for which weights of shape `w_shape` match an image with `channels` channels. Return
    an empty string if there is no such number.
    """
    if w_shape[1] < 1 or channels % w_shape[1]:
        return ""
    meant = channels // w_shape[1]
    return "" if meant in (1, groups) or w_shape[0] % meant else f", or groups={meant}"


def missing_axes_hint(x_shape: tuple[int, ...], w_shape: tuple[int, ...], x: str = "x", w: str = "w") -> str:
    """Suggest how to add the axes that x or w lacks, such as ``x[None]`` for an image without a batch axis. `x` and `w`
    are the names of the arguments in the text.
    """
    more = len(x_shape) - len(w_shape)
    of_shape = w.endswith("_shape")
    if more == 2 and w_shape:
        channels = x_shape[1]
        alone = f"; give a single kernel as {f'{w}={(1, 1, *w_shape)}' if of_shape else f'{w}[None, None]'}"
        if channels == 1:
            return alone
        tiles = (channels, *(1,) * (len(x_shape) - 1))
        each = f"{w}={(channels, 1, *w_shape)}" if of_shape else f"np.tile({w}, {tiles})"
        return (
            f"{alone}, for images of one channel; to apply it to each of the {channels} channels, give {each} with "
            f"groups={channels}"
        )
    if more in (-1, -2) and 3 <= len(w_shape) <= 5:
        if x.endswith("_shape"):
            given = tuple(n for n in x_shape if n >= 0)
            fits = len(given) >= len(w_shape) - 2  # whether `x_shape` has all spatial axes
            return f"; give a single image as {x}={(1,) * -more + given}" if fits else ""
        return f"; give a single image as x[None{', None' if more == -2 else ''}]"
    return ""


def no_array(name: str, value: Any, options: str = "") -> str | None:
    """Return an error message for a value that callers often pass by mistake in place of an array: None, a dict, a
    sparse matrix, a tuple ``(out, cache)`` and so on. Return None for any other value.

    `options` says how to pass options. The message ends with this text if `value` is a dict.
    """
    kind = kind_of(value)
    modules = [str(base.__module__) for base in type(value).__mro__]
    if value is None:
        return f"{name} is None; it must be an array"
    if isinstance(value, Mapping):
        return f"{name} is {kind}{': ' if options else '; it must be an array'}{options}"
    if "fastconv.graph.node" in modules:
        return f"{name} is a Node: call it through the tape, as in tape(conv_forward, x, w, b)"
    if any(module.startswith("scipy.sparse") for module in modules):
        return f"{name} is {kind} of scipy.sparse; give {name}.toarray(){_matrix_hint(name)}"
    if isinstance(value, (str, bytes, os.PathLike)):
        return f"{name} is {kind}: {shown(value)}; it must be an array, which fastconv does not read from files"
    if isinstance(value, tuple) and any(isinstance(part, np.ndarray) for part in value):
        if len(value) != 2:
            return f"{name} is a tuple of {len(value)} with an ndarray among them; give one array"
        pair = all(isinstance(part, np.ndarray) for part in value)
        return (
            f"{name} is a tuple of {kind_of(value[0])} and {kind_of(value[1])}, as layers return; unpack it: "
            f"out, cache = ...{f'; if it is a batch of two, give np.stack({name})' if pair else ''}"
        )
    if callable(value):
        return f"{name} is {kind}, which can be called; it must be an array"
    return None


def _matrix_hint(name: str) -> str:
    if name not in ("x", "w"):
        return ""
    return ", or multiply with the convolution as a matrix: A @ x, where A = toeplitz_matrix(w, x_shape)"


def of_shapes(
    error: ValueError, hint: Callable[..., str], x_shape: tuple[int, ...], w_shape: tuple[int, ...], *settings: Any
) -> ValueError:
    """Return `error` with a message for a caller who passed `x_shape` and `w_shape` instead of arrays.

    The function `hint` makes suggestions for arrays, such as ``give x.transpose(0, 3, 1, 2)``, and for shapes. If the
    message ends with the suggestion for arrays, replace it by the suggestion for shapes.
    """
    text = str(error)
    try:
        of_arrays = hint(x_shape, w_shape, *settings)
    # If `error` is about invalid options or numbers of axes, `hint` raises an error, too.
    except (TypeError, ValueError, IndexError):
        return error
    if not of_arrays or not text.endswith(of_arrays):
        return error
    return ValueError(text.removesuffix(of_arrays) + hint(x_shape, w_shape, *settings, x="x_shape", w="w_shape"))


def sparse_operand(name: str, operator: str) -> str:
    """Return the error message for the product of a matrix-free operator with the sparse array `name`."""
    return (
        f"{name} is of scipy.sparse, and {operator} has no entries to multiply it with; give {name}.toarray(), or make "
        f"the matrix: A @ {name}, where A = toeplitz_matrix(w, x_shape)"
    )
