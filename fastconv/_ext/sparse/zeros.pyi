import numpy as np

steps: int
counted: int

def density(w: np.ndarray, *, dtype: int, dense: float) -> float: ...
