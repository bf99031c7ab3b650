"""The scripts in examples/: their pictures and their output."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("convolution_as_a_matrix", EXAMPLES / "convolution_as_a_matrix.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_of_the_page_is_drawn_and_there(script, tmp_path, capsys):
    assert script.main(["--out", str(tmp_path), "--rows", "40", "--columns", "48"]) == 0
    drawn = {path.name for path in tmp_path.iterdir()}
    page = (EXAMPLES.parent / "docs" / "convolution_as_a_matrix.md").read_text(encoding="utf-8")
    assert drawn == {path.name for path in script.IMAGES.iterdir()}
    assert all(f"](images/{name})" in page for name in drawn)
    assert capsys.readouterr().out.count("written: ") == len(drawn) == 4


def test_operator_and_matrix_deblur_alike(script):
    found = script.deblur(96, 128)
    assert np.abs(found.by_operator - found.by_matrix).max() < 1e-9
    assert script.rms(found.by_operator, found.photo) < 0.7 * script.rms(found.blurred, found.photo)


def test_blurs_add_up_to_one(script):
    for size in (3, 9):
        kernel = script.motion(size)
        assert kernel.shape == (size, size) and np.isclose(kernel.sum(), 1)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
