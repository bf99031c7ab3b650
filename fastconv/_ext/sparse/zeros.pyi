import numpy as np

steps: int
counted: int

def density(dtype: int, w: np.ndarray, dense: float) -> float: ...
