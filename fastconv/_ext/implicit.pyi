import numpy as np

# The names of the instruction sets. The index of a name is the number of the instruction set.
isas: tuple[str, ...]

class Multiply:
    def __init__(
        self,
        dtype: int,
        axes: np.ndarray,
        phases: np.ndarray,
        sizes: np.ndarray,
        at: np.ndarray,
        tap_of: np.ndarray,
        space_pitch: int,
        isa: int,
        probing: bool,
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        w: np.ndarray,
        bias: np.ndarray | None,
        result: np.ndarray,
        space: np.ndarray,
        queue: np.ndarray | bytearray | None,
    ) -> bool: ...

def all_finite(array: np.ndarray) -> bool: ...
def usable(isa: int) -> bool: ...
def compiled(isa: int) -> bool: ...
def cpu() -> tuple[str, int]: ...
def shape(dtype: int, isa: int) -> tuple[int, int, int]: ...
