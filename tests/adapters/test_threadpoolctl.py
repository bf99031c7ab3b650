"""threadpoolctl limits fastconv's threads as it limits those of BLAS."""

import sys
import types

import pytest
from conftest import python

import fastconv
from fastconv.adapters import threadpoolctl as _threadpoolctl


@pytest.mark.parametrize("first", ["threadpoolctl", "fastconv"])
def test_threadpoolctl(first):
    """If threadpoolctl is imported first, no registration is needed.

    Its limit ends with its block, and fastconv's own settings override it.
    """
    code = f"""
        import {first}
        import fastconv, threadpoolctl
        from threadpoolctl import threadpool_info, threadpool_limits

        for _ in range(1 if {first!r} == "threadpoolctl" else 2):
            if {first!r} == "fastconv":
                assert not [library for library in threadpool_info() if library["user_api"] == "fastconv"] or _
                fastconv.register_threadpoolctl()
        (library,) = [library for library in threadpool_info() if library["user_api"] == "fastconv"]
        assert library["version"] == fastconv.__version__ and library["num_threads"] == fastconv.get_threads() == 5
        for options in ({{}}, {{"user_api": "fastconv"}}):
            with threadpool_limits(1, **options):
                assert fastconv.get_threads() == 1
                with fastconv.threads(3):
                    assert fastconv.get_threads() == 3
            assert fastconv.get_threads() == 5
        with threadpool_limits(1, user_api="blas"):
            assert fastconv.get_threads() == 5
        print("as told")
    """
    result = python(code, FASTCONV_NUM_THREADS="5")
    assert result.stdout.strip() == "as told", result.stderr


def test_threadpoolctl_that_takes_no_others(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", types.SimpleNamespace(__version__="3.1.0"))
    with pytest.raises(
        ImportError, match=r"^threadpoolctl 3\.1\.0 cannot limit the threads of fastconv; install version 3\.2"
    ):
        fastconv.register_threadpoolctl()
    _threadpoolctl.register_if_loaded()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(ImportError):
        fastconv.register_threadpoolctl()
    assert python("import fastconv, sys; assert 'threadpoolctl' not in sys.modules").returncode == 0
