import numpy as np

GATE_WORDS: int
OPEN: int
AWAY: int
SHUT: int
WORDS: int
WANTED: int
GATE: int
GRAIN: int

def help(gate: np.ndarray, turns: int) -> None: ...
def call_away(gate: np.ndarray, helpers: int) -> None: ...
