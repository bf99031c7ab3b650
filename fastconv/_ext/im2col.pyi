from collections.abc import Callable, Mapping

# One compiled function per dtype, by its name in C.
im2col: Mapping[str, Callable[..., None]]
col2im: Mapping[str, Callable[..., None]]
checked: bool
