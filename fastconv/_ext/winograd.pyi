from collections.abc import Callable, Mapping

# One compiled function per dtype, by its name in C.
product: Mapping[str, Callable[..., int]]
