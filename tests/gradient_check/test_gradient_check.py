"""The gradient checker: what it compares, prints, restores and refuses."""

import numpy as np
import pytest

from fastconv import gradient_check
from fastconv.gradient_check import eval_numerical_gradient, eval_numerical_gradient_array, rel_error


def test_rel_error_of_integers_does_not_wrap():
    assert rel_error(np.uint8([0]), np.uint8([1])) == 1
    assert rel_error(np.int8([-100]), np.int8([100])) == 1
    assert rel_error([True], [True]) == 0
    assert rel_error(np.empty(0), np.empty(0)) == 0


def test_checker_restores_x_when_f_fails():
    x = np.array([1.0, 2.0])

    def fails(_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        eval_numerical_gradient(fails, x, verbose=False)
    assert np.array_equal(x, [1, 2])


def test_checker_copes_with_f_that_reuses_its_array():
    buffer = np.zeros(2)
    x = np.array([1.0, 2.0])
    numeric = eval_numerical_gradient_array(lambda x: np.multiply(x, 3, out=buffer), x, np.ones(2))
    np.testing.assert_allclose(numeric, [3, 3], rtol=1e-6)


def test_verbose_prints_each_entry(capsys):
    eval_numerical_gradient(lambda x: x.sum(), np.zeros((1, 2)))
    assert [line.split(") ")[0] for line in capsys.readouterr().out.splitlines()] == ["(0, 0", "(0, 1"]


def test_sparse_check_finds_a_wrong_gradient(capsys):
    x = np.array([[3.0]])
    gradient_check.grad_check_sparse(lambda x: (x**2).sum(), x, np.array([[1.0]]), num_checks=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert float(lines[0].rsplit(" ", 1)[1]) == pytest.approx(5 / 7, rel=1e-4)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.arange(3), TypeError, "float dtype"),
        ([1.0], TypeError, "NumPy array"),
        (np.broadcast_to(1.0, 3), ValueError, "writeable"),
    ],
)
def test_checker_refuses(x, error, message):
    for check in (
        lambda: eval_numerical_gradient(np.sum, x, verbose=False),
        lambda: eval_numerical_gradient_array(np.sum, x, 1),
        lambda: gradient_check.grad_check_sparse(np.sum, x, np.ones(3)),
    ):
        with pytest.raises(error, match=message):
            check()
