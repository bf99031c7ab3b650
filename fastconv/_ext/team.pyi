import numpy as np

WORDS: int
OPEN: int
AWAY: int
SHUT: int

def help(gate: np.ndarray, turns: int) -> None: ...
