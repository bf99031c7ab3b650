"""show_config() describes this installation."""

import numpy as np

import fastconv


def test_show_config(capsys):
    fastconv.show_config()
    text = capsys.readouterr().out
    for word in ("fastconv", fastconv.__version__, "numpy", np.__version__, "scipy", "BLAS", "threads", "im2col"):
        assert word in text
