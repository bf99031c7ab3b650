"""Build of the compiled modules; everything else is in pyproject.toml.

``FASTCONV_DEBUG=1`` builds with bounds checks on every memoryview access and
on every run of elements that a kernel reads or writes.
"""

import os
import sysconfig
from glob import glob

import setuptools
from Cython.Build import cythonize
from setuptools import Extension, setup

if int(setuptools.__version__.split(".")[0]) < 77:
    raise SystemExit(
        f"fastconv builds with setuptools 77 or newer, and this is {setuptools.__version__}; "
        "type `python -m pip install -e .`, which fetches what the build needs"
    )

DEBUG = os.environ.get("FASTCONV_DEBUG", "0") not in ("", "0")

# The stable ABI has no free-threaded form yet: such interpreters get a wheel of their own.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

macros = [("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else []
if DEBUG:
    macros.append(("FASTCONV_DEBUG", "1"))

if os.name == "nt":
    compile_args = ["/Od"] if DEBUG else ["/O2"]
else:
    # No trap on comparing NaN: lets the compiler turn the maximum into selects. Values are not changed.
    optimise = ["-O1", "-g"] if DEBUG else ["-O3", "-g0"]
    compile_args = [
        *optimise,
        "-fno-trapping-math",
        "-fno-math-errno",
        "-fno-tree-loop-distribute-patterns",  # see FC_CALL_BYTES in runs.h
        "-fvisibility=hidden",
    ]

extensions = [
    Extension(
        f"fastconv._ext.{name}",
        [f"fastconv/_ext/{name}.pyx"],
        depends=[*glob("fastconv/_ext/*.h"), *glob("fastconv/_ext/*.pxd")],
        include_dirs=["fastconv/_ext"],
        define_macros=macros,
        extra_compile_args=compile_args,
        py_limited_api=LIMITED_API,
    )
    for name in (
        "im2col",
        "pool",
        "pool_rows",
        "planes",
        "copies",
        "activation",
        "norm",
        "lrn",
        "implicit",
        "implicit_weights",
        "winograd",
        "winograd_weights",
        "depthwise",
        "toeplitz",
        "sparse",
        "peak",
        "team",
        "recall",
    )
]

setup(
    ext_modules=cythonize(
        extensions,
        force=DEBUG,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "initializedcheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "freethreading_compatible": True,
        },
    ),
    options={
        # Modules side by side: alone, they take minutes.
        "build_ext": {"parallel": os.cpu_count() or 1},
        **({"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {}),
    },
)
