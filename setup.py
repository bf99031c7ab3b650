"""Build of the compiled modules and of the sdist; everything else is in pyproject.toml.

``FASTCONV_DEBUG=1`` builds with bounds checks on every memoryview access and
on every run of elements that a kernel reads or writes.
``FASTCONV_SANITIZE=address,undefined`` builds for GCC's or clang's sanitizers.
``FASTCONV_BUILD_CACHE=FOLDER`` keeps compiled modules in a folder, and takes
them from there if their sources, compiler and settings are the same.
"""

import gzip
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
import build_stamps  # noqa: E402

if int(setuptools.__version__.split(".")[0]) < 77:
    raise SystemExit(
        f"fastconv builds with setuptools 77 or newer, and this is {setuptools.__version__}; "
        "type `python -m pip install -e .`, which fetches what the build needs"
    )

FOLDER = Path("fastconv", "_ext")
DEBUG = os.environ.get("FASTCONV_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("FASTCONV_SANITIZE", "")
CACHE = os.environ.get("FASTCONV_BUILD_CACHE", "")

# The stable ABI has no free-threaded form yet: such interpreters get a wheel of their own.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
}

macros = [("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else []
if DEBUG:
    macros.append(("FASTCONV_DEBUG", "1"))

link_args = []
if os.name == "nt":
    compile_args = ["/Od"] if DEBUG else ["/O2"]
    OPTIONAL = []
else:
    # -O0 for sanitizers, because GCC takes many times as long to optimise the checks that they add.
    optimise = ["-O0", "-g1"] if SANITIZE else ["-O1", "-g"] if DEBUG else ["-O3", "-g0"]
    # No trap on comparing NaN: lets the compiler turn the maximum into selects. Values are not changed.
    compile_args = [*optimise, "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden"]
    # Flags that only some compilers know.
    OPTIONAL = [
        "-fno-tree-loop-distribute-patterns",  # see FC_CALL_BYTES in runs.h
        "-Wno-unused-but-set-variable",  # Cython's C has such variables
    ]
    if SANITIZE:
        # -fno-wrapv, because Python's own flags have -fwrapv, under which a signed overflow is no error.
        compile_args += [
            f"-fsanitize={SANITIZE}",
            "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer",
            "-fno-wrapv",
        ]
        link_args.append(f"-fsanitize={SANITIZE}")
    elif sys.platform == "linux" and not DEBUG:
        # Strip symbols, and make the tables that the loader fills read-only afterwards (full RELRO).
        link_args += ["-s", "-Wl,-z,relro,-z,now"]


class BuildModules(build_ext):
    """Compiles the modules that are not current, and prints how many they are.

    Only a build in place skips current modules; every other build compiles all modules.
    """

    def run(self) -> None:
        every, self._in_place = self.extensions, bool(self.inplace)
        self._built: dict[str, str] = {}
        super().run()
        if self._in_place:
            for name, of_sources in self._built.items():
                build_stamps.record(self._stamp(name), self._library(name), of_sources)
        self.extensions = every

    def build_extensions(self) -> None:
        optional = [flag for flag in OPTIONAL if self._accepts(flag)]
        for extension in self.extensions:
            extension.extra_compile_args = [*compile_args, *optional]
        settings = self._settings(optional)
        digests = {e.name: build_stamps.digest(FOLDER, e.name.split(".")[-1], settings) for e in self.extensions}
        stale = list(digests)
        if self._in_place and not self.force:
            stale = build_stamps.stale((n, self._stamp(n), self._library(n), d) for n, d in digests.items())
        for name in stale:
            self._stamp(name).unlink(missing_ok=True)
        print(f"fastconv: {len(stale)} of {len(digests)} modules have to be compiled", flush=True)
        self._built = {name: digests[name] for name in stale}
        self.extensions = [extension for extension in self.extensions if extension.name in self._built]
        # Old files in the build folder were made with other settings or from other sources.
        self.force = True
        super().build_extensions()

    def build_extension(self, extension: Extension) -> None:
        if not CACHE:
            self._compile(extension)
            return
        library = Path(self.get_ext_fullpath(extension.name))
        cached = Path(CACHE, f"{self._built[extension.name]}-{library.name}")
        if cached.is_file():
            library.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(cached, library)
            print(f"fastconv: took {extension.name} from {CACHE}", flush=True)
        else:
            self._compile(extension)
            cached.parent.mkdir(parents=True, exist_ok=True)
            # Renaming is atomic, so that builds side by side never read half a module.
            written = cached.with_name(f"{cached.name}.{os.getpid()}")
            shutil.copy2(library, written)
            written.replace(cached)

    def _compile(self, extension: Extension) -> None:
        began = time.perf_counter()
        (source,) = extension.sources
        generated = str(Path(source).with_suffix(".c"))
        command = [sys.executable, "-m", "cython", "--module-name", extension.name, source, "-o", generated]
        for name, value in DIRECTIVES.items():
            command += ["-X", f"{name}={value}"]
        subprocess.run(command, check=True)
        extension.sources = [generated]
        try:
            super().build_extension(extension)
        finally:
            extension.sources = [source]
        print(f"fastconv: compiled {extension.name} in {time.perf_counter() - began:.0f} s", flush=True)

    def _settings(self, optional: list[str]) -> list[object]:
        """The settings of the build, which are part of a module's digest because other settings make another module."""
        commands = [getattr(self.compiler, name, None) for name in ("compiler_type", "compiler_so", "linker_so")]
        python = [sys.implementation.cache_tag if not LIMITED_API else "abi3", sys.abiflags if os.name != "nt" else ""]
        return [
            *(commands + python),
            sysconfig.get_platform(),
            self._run("--version"),
            version("cython"),
            DIRECTIVES,
            macros,
            compile_args,
            optional,
            link_args,
        ]

    def _run(self, *arguments: str) -> str | None:
        """The compiler's output, or None if the command fails or there is no such compiler."""
        command = getattr(self.compiler, "compiler_so", None)
        if not command:
            return None
        result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        return result.stdout if result.returncode == 0 else None

    def _accepts(self, flag: str) -> bool:
        """Whether the compiler knows a flag; for clang most flags of GCC alone are errors."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "empty.c")
            source.write_text("int fastconv_empty;\n", encoding="utf-8")
            return self._run("-Werror", flag, "-c", str(source), "-o", str(source.with_suffix(".o"))) is not None

    def _library(self, name: str) -> Path:
        return ROOT / self.get_ext_filename(name)

    def _stamp(self, name: str) -> Path:
        return ROOT / "build" / "stamps" / f"{Path(self.get_ext_filename(name)).name}.json"


class SourceDistribution(sdist):
    """A reproducible sdist: the same files make the same bytes, because SOURCE_DATE_EPOCH is the only date in it."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if format != "gztar" or epoch is None:
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = int(epoch)
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(base_dir, filter=plain)  # in the order of the names
        path = f"{base_name}.tar.gz"
        with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=int(epoch)) as packed:
            packed.write(whole.getvalue())
        return path


setup(
    ext_modules=[
        Extension(
            f"fastconv._ext.{name}",
            [(FOLDER / f"{name}.pyx").as_posix()],
            include_dirs=[FOLDER.as_posix()],
            define_macros=macros,
            extra_link_args=link_args,
            py_limited_api=LIMITED_API,
        )
        for name in build_stamps.modules(FOLDER)
    ],
    cmdclass={"build_ext": BuildModules, "sdist": SourceDistribution},
    options={
        # Modules side by side: alone, they take minutes.
        "build_ext": {"parallel": os.cpu_count() or 1},
        **({"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {}),
    },
)
