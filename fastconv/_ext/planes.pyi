from collections.abc import Callable, Mapping

# One compiled function per dtype, by its name in C.
totals: Mapping[str, Callable[..., None]]
highest: Mapping[str, Callable[..., None]]
