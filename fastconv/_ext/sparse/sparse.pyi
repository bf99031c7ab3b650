from typing import Any

import numpy as np

def lanes(*, dtype: int, isa: int) -> int: ...
def most_vectors(*, isa: int, dots: bool) -> int: ...
def workspace(tables: Any) -> int: ...
def clear(
    w: np.ndarray, dw: np.ndarray, queue: np.ndarray | bytearray | None, *, dtype: int, isa: int, items: int
) -> None: ...

class ProductPlan:
    row_blocks_at_once: int
    def __init__(
        self, *, dtype: int, isa: int, tables: Any, layout: Any, tap_offsets: np.ndarray, weight_at: np.ndarray
    ) -> None: ...
    def run(
        self,
        source: np.ndarray,
        w: np.ndarray,
        bias: np.ndarray | None,
        result: np.ndarray,
        space: np.ndarray,
        list_queue: np.ndarray | bytearray | None,
        queue: np.ndarray | bytearray | None,
    ) -> None: ...
    def run_gradient(
        self,
        x: np.ndarray,
        dout: np.ndarray,
        w: np.ndarray,
        dw: np.ndarray,
        space: np.ndarray,
        list_queue: np.ndarray | bytearray | None,
        queue: np.ndarray | bytearray | None,
    ) -> None: ...
