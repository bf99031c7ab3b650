import numpy as np

# The largest number of elements that a kernel may write past the end of a list.
spare: int

def product(
    dtype: int,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    result: np.ndarray,
    axes: np.ndarray,
    phases: np.ndarray,
    sizes: np.ndarray,
    tap_offsets: np.ndarray,
    copies: np.ndarray,
    row_offsets: np.ndarray,
    tiles: np.ndarray,
    space: np.ndarray,
    lists_bytes: int,
    space_pitch: int,
    first_row_block: int,
    row_blocks: int,
    weight_at: np.ndarray,
    parts: int,
    step: int,
    isa: int,
    queue: np.ndarray | bytearray,
) -> None: ...
def clear(dtype: int, w: np.ndarray, dw: np.ndarray, items: int, isa: int, queue: np.ndarray | bytearray) -> None: ...
def shape(dtype: int, isa: int, dots: bool) -> tuple[int, int]: ...
