from collections.abc import Callable, Mapping

# The compiled function for each dtype; the key is the name of the dtype in C.
product: Mapping[str, Callable[..., None]]
weights: Mapping[str, Callable[..., None]]

def lanes(dtype: int, isa: int) -> int: ...
