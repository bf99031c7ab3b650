"""The command line, and a full run of the demo."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastconv import __main__ as cli

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")


def test_demo_learns(tmp_path, capsys):
    out = tmp_path / "demo.png"
    assert cli.main(["--out", str(out)]) == 0
    text = capsys.readouterr().out
    accuracy = float(re.search(r"held-out accuracy: ([\d.]+)%", text)[1])
    assert accuracy >= 98
    errors = [float(e) for e in re.findall(r"\b[wb]\d (\d?e[-+]\d+|\de-\d+)", text)]
    assert len(errors) == 8 and max(errors) < 1e-4
    assert "times" in text and "plain NumPy" in text
    assert out.read_bytes().startswith(b"\x89PNG") and out.stat().st_size > 20_000
    assert list(tmp_path.iterdir()) == [out]


def test_plain_step_is_the_same_step(rng):
    from fastconv.demo import net
    from fastconv.demo.plain import PLAIN

    params = net.init(rng, np.float64, (3, 4, 5))
    x, y = rng.standard_normal((6, 1, 8, 8)), rng.integers(0, 10, 6)
    loss, grads = net.step(params, x, y)
    plain_loss, plain_grads = net.step(params, x, y, PLAIN)
    assert np.isclose(loss, plain_loss)
    for name in params:
        np.testing.assert_allclose(grads[name], plain_grads[name], atol=1e-12)


def test_gradient_check_would_find_a_fault(rng, monkeypatch):
    from fastconv.demo import net, run

    x, y = run.load()[:2]
    honest = net.step

    def faulty(params, x, y):
        loss, grads = honest(params, x, y)
        return loss, {**grads, "w1": grads["w1"] * 1.01}

    monkeypatch.setattr(net, "step", faulty)
    errors = run.check_gradients(rng, x[:5], y[:5])
    assert errors["w1"] > 5e-3 and errors["w2"] < 1e-4


def test_info(capsys):
    assert cli.main(["info"]) == 0
    assert "algorithms" in capsys.readouterr().out


def test_any_terminal_will_do(tmp_path):
    """A terminal that knows only ASCII and is 40 columns wide."""
    environment = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "COLUMNS": "40"}
    result = subprocess.run(
        [sys.executable, "-m", "fastconv", "--epochs", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "taken for" in result.stdout or "right class by row" in result.stdout
    assert (tmp_path / "fastconv_demo.png").is_file()


def test_missing_extra_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.chdir(tmp_path)
    assert cli.main([]) == 1
    assert "python -m pip install 'fastconv[demo]'" in capsys.readouterr().err


def test_bad_arguments(capsys, tmp_path):
    with pytest.raises(SystemExit):
        cli.main(["--epochs", "0"])
    assert "0 is not a positive number" in capsys.readouterr().err
    assert cli.main(["--out", str(tmp_path / "nowhere" / "x.png")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    for out, message in (
        (tmp_path, "ends in .png"),
        (tmp_path / "x.jpg", "ends in .png"),
        ("/dev/null", "ends in .png"),
    ):
        assert cli.main(["--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "folder.png").mkdir()
    assert cli.main(["--out", str(tmp_path / "folder.png")]) == 2
    assert "not a file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["--seed", "-1"])
    assert "a seed must be 0 or more" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_ends_it_cleanly(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "fastconv", "--epochs", "5000"],
        # A shell that runs the tests in the background makes its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = ""
    while "gradient check" not in line:
        line = process.stdout.readline()
        assert line or process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())
