"""explain(), the choice that it reports, and the instruction sets."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import fastconv
from fastconv.__main__ import main
from fastconv.convolution.plan import Case
from fastconv.runtime import isa as _isa


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_every_candidate_is_told_with_cost_or_reason():
    text = fastconv.explain((2, 8, 14, 14), (8, 8, 3, 3), pad=1, stride=3)
    lines = {line.split()[0].removeprefix("->"): line for line in text.splitlines() if line.strip()}
    told = text.split("algorithm ")[1]
    for name in fastconv.algorithms():
        assert f" {name} " in told
    assert "the kernel (3, 3) must be longer than the stride (3, 3) along one of the last two axes" in text
    assert "at most 4 channels and 8 filters" in text
    assert lines


def test_the_arrow_is_what_auto_takes():
    algorithms = fastconv.convolution.choose
    for x, w, options in [
        ((16, 64, 56, 56), (64, 64, 3, 3), {"pad": 1}),
        ((1, 32, 112, 112), (32, 1, 3, 3), {"pad": 1, "groups": 32}),
        ((1, 3, 227, 227), (96, 3, 11, 11), {"stride": 4}),
    ]:
        geometry = fastconv.conv_geometry(x, w, **options)
        for op in algorithms.OPS:
            chosen = algorithms.choose(Case.of(op, geometry, np.dtype(np.float32), fastconv.get_threads()))
            arrows = [line for line in fastconv.explain(x, w, op=op, **options).splitlines() if line.startswith("-> ")]
            assert arrows[0].split()[1] == chosen.algorithm and arrows[-1].startswith(f"-> {chosen.algorithm}, ")
            assert chosen.workspace_bytes <= 1 << 25


def test_forced_and_empty():
    assert "-> im2col, as requested" in fastconv.explain((1, 1, 9), (1, 1, 3), algorithm="im2col")
    assert "there is nothing to compute" in fastconv.explain((0, 1, 9), (1, 1, 3))
    with pytest.raises(ValueError, match="algorithm 'winograd' cannot do this forward: the kernel"):
        fastconv.explain((1, 1, 9), (1, 1, 1), algorithm="winograd")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"op": "sideways"}, ValueError, "op must be one of 'forward'"),
        ({"dtype": "complex64"}, TypeError, "dtype has dtype complex64"),
        ({"stryde": 2}, TypeError, "stryde"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"algorithm": "magic"}, ValueError, "algorithm is 'magic'"),
    ],
)
def test_bad_questions(arguments, error, message):
    with pytest.raises(error, match=message):
        fastconv.explain((1, 1, 9), (1, 1, 3), **arguments)


def test_command_line(capsys):
    assert main(["explain", "2,4,9,9", "8,2,3,3", "--groups", "2", "--pad", "same", "--stride", "2,1"]) == 0
    out = capsys.readouterr().out
    assert "(2, 4, 9, 9)" in out and "winograd" in out
    assert main(["explain", "2,4,9,9", "8,4,11,11"]) == 2
    assert "python -m fastconv explain: spatial axis 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["explain", "2,x", "8,4,3,3"])
    assert "is not a list of whole numbers" in capsys.readouterr().err
    for text, stride in (("1/2", Fraction(1, 2)), ("2/3,2", (Fraction(2, 3), 2))):
        assert main(["explain", "2,4,9,9", "8,4,3,3", "--stride", text]) == 0
        assert capsys.readouterr().out == fastconv.explain((2, 4, 9, 9), (8, 4, 3, 3), stride=stride) + "\n"
    for text, factors in (("2", 2), ("2,3", (2, 3))):
        assert main(["explain", "2,4,9,9", "8,4,3,3", "--upsample", text, "--stride", "2"]) == 0
        expected = fastconv.explain((2, 4, 9, 9), (8, 4, 3, 3), upsample=factors, stride=2)
        assert capsys.readouterr().out == expected + "\n"
    assert main(["explain", "2,4,9,9", "8,4,3,3", "--upsample", "0"]) == 2
    assert "upsample must be an int >= 1, got 0" in capsys.readouterr().err
    arguments = ["--pad", "1", "--pad-mode", "reflect", "--flip", "--algorithm", "implicit"]
    assert main(["explain", "2,4,9,9", "8,4,3,3", *arguments]) == 0
    expected = fastconv.explain((2, 4, 9, 9), (8, 4, 3, 3), pad=1, pad_mode="reflect", flip=True, algorithm="implicit")
    assert capsys.readouterr().out == expected + "\n" and "-> implicit, as requested" in expected
    for option, value, error in (
        ("--algorithm", "magic", "algorithm is 'magic'; legal are"),
        ("--pad-mode", "mirror", "pad_mode is 'mirror'; legal are"),
    ):
        assert main(["explain", "2,4,9,9", "8,4,3,3", option, value]) == 2
        assert f"python -m fastconv explain: {error}" in capsys.readouterr().err
    for text in ("1/0", "0.5", "1/2/3"):
        with pytest.raises(SystemExit):
            main(["explain", "2,4,9,9", "8,4,3,3", "--stride", text])
        assert "is not a list of strides such as" in capsys.readouterr().err


@pytest.mark.parametrize("name", _isa.usable())
def test_an_instruction_set_can_be_forced(name):
    code = "import fastconv; from fastconv.runtime import isa as _isa; print(_isa.NAMES[_isa.current]); fastconv.show_config()"
    result = python(code, FASTCONV_ISA=name)
    assert result.stdout.split()[0] == name and f"in use {name}" in result.stdout and not result.stderr


def test_an_unknown_instruction_set_is_warned_of():
    result = python(
        "import fastconv; from fastconv.runtime import isa as _isa; print(_isa.NAMES[_isa.current])", FASTCONV_ISA="mmx"
    )
    assert result.stdout.strip() == _isa.usable()[-1]
    assert "RuntimeWarning: FASTCONV_ISA is 'mmx'" in result.stderr
