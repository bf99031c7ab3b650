from collections.abc import Callable, Mapping

# Names of the instruction sets, by index.
isas: tuple[str, ...]

# One compiled function per dtype, by its name in C.
product: Mapping[str, Callable[..., None]]

def usable(isa: int) -> bool: ...
def compiled(isa: int) -> bool: ...
def shape(dtype: int, isa: int) -> tuple[int, int, int]: ...
