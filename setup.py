"""Build of the compiled modules and of the sdist; everything else is in pyproject.toml.

``FASTCONV_DEBUG=1`` builds with bounds checks on every run of elements that a
kernel reads or writes.
``FASTCONV_SANITIZE=address,undefined`` builds for GCC's or clang's sanitizers.
``FASTCONV_BUILD_CACHE=FOLDER`` keeps compiled objects in a folder, and takes
them from there if their sources, compiler and settings are the same.
"""

import gc
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
if CACHE:
    CACHE = str(Path(CACHE).expanduser().resolve())

# The stable ABI has no free-threaded form yet: such interpreters get a wheel of their own.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    # The next three make the generated C shorter. Functions need no signature, because only fastconv calls them. Python
    # itself refuses to pickle objects with fields of C.
    "binding": False,
    "auto_pickle": False,
    "emit_code_comments": DEBUG,
}

# Each kernel begins at a cache line. Otherwise a change elsewhere in a module moves its kernels, and a loop that then
# crosses cache lines in another way takes up to a tenth longer.
ALIGNED = ["-falign-functions=64"]
# For GCC. -O3 takes 1.5 times as long to compile, and makes only the objects that `AT_O3` names faster. The flags turn
# on the loop vectoriser with the cost model of -O3; without it, local response normalisation takes five times as long.
USUAL = ["-O2", "-ftree-loop-vectorize", "-fno-tree-slp-vectorize", "-fvect-cost-model=dynamic"]
AT_O3 = ["norm", "lowering.im2col", "pool.pool"]
# Modules that call kernels, and whose own loops take little of the time.
AT_O1 = [
    *("buffers.buffers", "buffers.call_cache", "depthwise.depthwise", "elementwise.activation", "elementwise.planes"),
    *("fft.fft", "gemm.microkernel", "lowering.borders", "norm.lrn", "norm.norm", "separable.separable", "simd.peak"),
    *("sparse.sparse", "sparse.zeros", "threads.team", "toeplitz.toeplitz", "winograd.winograd"),
]
# Families that are written with vectors throughout. Where CPUs with AVX2 have kernels of their own, the baseline
# kernels of these families are compiled at -O1, at which they take about a tenth longer to run. No baseline kernels are
# then compiled at -O3.
VECTORS = ["depthwise", "fft", "microkernel", "separable", "sparse", "winograd"]

debug_macros = [("FASTCONV_DEBUG", "1")] if DEBUG else []
macros = [*debug_macros, ("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else debug_macros

link_args = []
optimizes = False
if os.name == "nt":
    object_args = ["/Od"] if DEBUG else ["/O2"]
    OPTIONAL = []
else:
    # -O0 for sanitizers, because GCC takes many times as long to optimise the checks that they add.
    checked = ["-O0", "-g1"] if SANITIZE else ["-O1", "-g"] if DEBUG else []
    # No trap on comparing NaN: lets the compiler turn the maximum into selects. Values are not changed.
    compile_args = ["-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden"]
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
    object_args = [*(checked or ["-O3", "-g0"]), *compile_args]
    optimizes = not checked


@dataclass
class Unit:
    """A C file to be compiled to an object, unless the object is current."""

    name: str
    sources: list[Path]
    digest: str
    compile: Callable[[], None]
    made: Path
    #: Writes the C file, if Cython has to.
    generate: Callable[[], None] | None = None


class BuildModules(build_ext):
    """Compiles what is not current, several files at a time, and links the modules.

    A build in place keeps objects in build/objects. Every other build compiles all of them.
    """

    def run(self) -> None:
        every, self._keeps, self._forced = self.extensions, bool(self.inplace), bool(self.force)
        self._linked: dict[str, str] = {}
        super().run()
        # A build in place links elsewhere, and copies the modules at the end.
        for name, digest in self._linked.items():
            self._record(f"link-{name}", self._library(name), digest)
        self.extensions = every

    def build_extensions(self) -> None:
        self._optional, self._aligned = self._known(OPTIONAL), self._known(ALIGNED)
        self._tunes = optimizes and self._accepts(*USUAL)
        self._has_avx2 = self._tunes and self._accepts(code='#include "simd/isa.h"\n#if !FC_X86\n#error\n#endif\n')
        named = {*AT_O3, *AT_O1, *VECTORS}
        if unknown := named - {*build_stamps.families(FOLDER), *build_stamps.modules(FOLDER)}:
            raise SystemExit(f"fastconv: setup.py names {sorted(unknown)}, which {FOLDER} does not have")
        # Some compilers look for their programs at the first use, which is not safe in several threads.
        if not getattr(self.compiler, "initialized", True):
            self.compiler.initialize()
        self._kernel_settings, self._settings = self._find_settings()
        # Builds with other settings have objects of their own.
        folder = build_stamps.digest([], self._settings)[:12]
        self._objects = ROOT / "build" / "objects" / folder if self._keeps else Path(self.build_temp)
        if self._keeps:
            self._remove_old()
        # Old files in the build folder were made with other settings or from other sources.
        self.force = self.compiler.force = True
        kernels = {family: self._kernel_units(family) for family in build_stamps.families(FOLDER)}
        modules = {extension.name: self._module_unit(extension) for extension in self.extensions}
        linked = {name: [unit, *self._kernels_of(unit.name, kernels)] for name, unit in modules.items()}
        digests = {name: build_stamps.digest([], [unit.digest for unit in units]) for name, units in linked.items()}
        stale = [name for name, of in digests.items() if not self._is_current(f"link-{name}", self._library(name), of)]
        print(f"fastconv: {len(stale)} of {len(digests)} modules have to be compiled", flush=True)
        self._compile([unit for name in stale for unit in linked[name]])
        self.extensions = [extension for extension in self.extensions if extension.name in stale]
        for extension in self.extensions:
            self._stamp(f"link-{extension.name}").unlink(missing_ok=True)
            self._link(extension, linked[extension.name])
            self._linked[extension.name] = digests[extension.name]

    def _compile(self, wanted: list[Unit]) -> None:
        """Compile the units that are not current, the large ones first."""
        units = list({unit.name: unit for unit in wanted}.values())
        units.sort(key=lambda unit: -sum(path.stat().st_size for path in unit.sources))
        stale = [unit for unit in units if not self._is_current(unit.name, unit.made, unit.digest)]
        workers = self.parallel if isinstance(self.parallel, int) and self.parallel > 0 else os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:
            # Cython makes many objects in cycles. Looking for dead ones takes a third of its time, and frees 100 MB.
            gc.disable()
            try:
                running = [pool.submit(self._compile_unit, unit) for unit in stale if not unit.generate]
                # Cython runs in this thread. It is not safe in several threads, and a process of its own for each
                # module would spend most of its time on starting.
                for unit in stale:
                    if unit.generate:
                        if not self._cached(unit):
                            unit.generate()
                        running.append(pool.submit(self._compile_unit, unit))
                for compilation in running:
                    compilation.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                gc.enable()
        print(f"fastconv: compiled {len(stale)} of {len(units)} objects", flush=True)

    @staticmethod
    def _cached(unit: Unit) -> bool:
        """Whether the folder of compiled objects has an object for the unit."""
        return bool(CACHE) and Path(CACHE, f"{unit.digest}-{unit.made.name}").is_file()

    def _compile_unit(self, unit: Unit) -> None:
        self._stamp(unit.name).unlink(missing_ok=True)
        began = time.perf_counter()
        cached = Path(CACHE, f"{unit.digest}-{unit.made.name}") if CACHE else None
        if cached and cached.is_file():
            unit.made.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(cached, unit.made)
        else:
            unit.compile()
        if cached and not cached.is_file():
            cached.parent.mkdir(parents=True, exist_ok=True)
            # Renaming is atomic, so that builds side by side never read half an object.
            with tempfile.TemporaryDirectory(dir=cached.parent) as own:
                shutil.copy2(unit.made, own)
                Path(own, unit.made.name).replace(cached)
        self._record(unit.name, unit.made, unit.digest)
        print(f"fastconv: compiled {unit.name} in {time.perf_counter() - began:.1f} s", flush=True)

    def _kernel_units(self, family: str) -> list[Unit]:
        """An object for each instruction set and dtype."""
        source, sources = build_stamps.kernel_source(FOLDER, family), build_stamps.kernel_sources(FOLDER, family)
        units = []
        for isa, dtype in build_stamps.versions(FOLDER, family):
            level = self._level(family)
            if isa == "baseline" and self._has_avx2:
                level = ["-O1"] if family in VECTORS else USUAL
            arguments = [*object_args, *self._aligned, *level]
            only = [("FC_ONLY", "1"), (f"FC_ONLY_{isa}", "1"), (f"FC_ONLY_{dtype}", "1")]
            digest = build_stamps.digest(sources, [self._kernel_settings, only, arguments])
            name = f"{family}-{isa}-{dtype}"
            units.append(self._unit(name, source, sources, digest, [*debug_macros, *only], arguments))
        return units

    def _level(self, name: str) -> list[str]:
        """The arguments that replace the level of optimization in `object_args`, for a module or a family."""
        if not self._tunes or name in AT_O3:
            return []
        return ["-O1"] if name in AT_O1 else USUAL

    def _module_unit(self, extension: Extension) -> Unit:
        """The object of a module, whose C file Cython writes."""
        name = extension.name.removeprefix(f"{build_stamps.PACKAGE}.")
        sources = build_stamps.module_sources(FOLDER, name)
        arguments = [*object_args, *self._level(name)]
        digest = build_stamps.digest(sources, [self._settings, arguments])
        generated = Path(self._relative(self._objects), f"{name}.c")
        unit = self._unit(name, generated, sources, digest, macros, arguments)

        def generate() -> None:
            from Cython.Compiler import Main

            generated.parent.mkdir(parents=True, exist_ok=True)
            (source,) = extension.sources
            options = Main.CompilationOptions(
                Main.default_options, compiler_directives=dict(DIRECTIVES), output_file=str(generated)
            )
            if Main.compile(source, options, full_module_name=extension.name).num_errors:
                raise SystemExit(f"fastconv: Cython cannot compile {source}")

        unit.generate = generate
        return unit

    def _unit(
        self, name: str, source: Path, sources: list[Path], digest: str, defines: list, arguments: list[str]
    ) -> Unit:
        folder = str(Path(self._relative(self._objects), name))
        (made,) = self.compiler.object_filenames([str(source)], output_dir=folder)

        def to_object() -> None:
            flags = [*arguments, *self._optional]
            self.compiler.compile([str(source)], folder, defines, [str(FOLDER)], debug=self.debug, extra_postargs=flags)

        return Unit(name, sources, digest, to_object, Path(made))

    @staticmethod
    def _relative(path: Path) -> Path:
        return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path

    @staticmethod
    def _kernels_of(module: str, kernels: dict[str, list[Unit]]) -> list[Unit]:
        return [unit for family in build_stamps.linked_families(FOLDER, module) for unit in kernels[family]]

    def _link(self, extension: Extension, units: list[Unit]) -> None:
        sources, extension.sources = extension.sources, []
        extension.extra_objects = [str(unit.made) for unit in units]
        try:
            self.build_extension(extension)
        finally:
            extension.sources = sources

    def _is_current(self, name: str, made: Path, digest: str) -> bool:
        return self._keeps and not self._forced and build_stamps.is_current(self._stamp(name), made, digest)

    def _record(self, name: str, made: Path, digest: str) -> None:
        if self._keeps:
            build_stamps.record(self._stamp(name), made, digest)

    def _remove_old(self) -> None:
        """Remove the libraries of modules whose source is gone."""
        names = build_stamps.modules(FOLDER)
        known = {self._library(f"{build_stamps.PACKAGE}.{name}") for name in names}
        for suffix in {path.name.partition(".")[2] for path in known}:
            for path in (ROOT / FOLDER).rglob(f"*.{suffix}"):
                if path not in known:
                    path.unlink()

    def _find_settings(self) -> tuple[list[object], list[object]]:
        """The settings that determine the objects of kernels, and those of modules.

        They are part of the digests, because other settings make other objects.
        """
        commands = [getattr(self.compiler, name, None) for name in ("compiler_type", "compiler_so", "linker_so")]
        python = [sys.implementation.cache_tag if not LIMITED_API else "abi3", sys.abiflags if os.name != "nt" else ""]
        target = [sysconfig.get_platform(), os.environ.get("MACOSX_DEPLOYMENT_TARGET")]
        of_kernels = [*commands, *target, self._run("--version"), debug_macros, self._optional]
        of_kernels.append(bool(self.debug))
        return of_kernels, [*of_kernels, *python, version("cython"), DIRECTIVES, macros, object_args, link_args]

    def _run(self, *arguments: str) -> str | None:
        """The compiler's output, or None if the command fails or there is no such compiler."""
        command = getattr(self.compiler, "compiler_so", None)
        if not command:
            return None
        try:
            result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return result.stdout if result.returncode == 0 else None

    def _known(self, flags: list[str]) -> list[str]:
        """The flags that the compiler knows; for clang most flags of GCC alone are errors."""
        return flags if self._accepts(*flags) else [flag for flag in flags if self._accepts(flag)]

    def _accepts(self, *flags: str, code: str = "") -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "accepted.c")
            source.write_text(f"{code}int fastconv_accepted;\n", encoding="utf-8")
            flags = "-Werror", *flags, f"-I{FOLDER}", "-c", str(source), "-o", str(source.with_suffix(".o"))
            return self._run(*flags) is not None

    def _library(self, name: str) -> Path:
        return ROOT / self.get_ext_filename(name)

    def _stamp(self, name: str) -> Path:
        return ROOT / "build" / "stamps" / f"{name}.json"


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
            [build_stamps.module_source(FOLDER, name).as_posix()],
            include_dirs=[FOLDER.as_posix()],
            define_macros=macros,
            extra_link_args=link_args,
            py_limited_api=LIMITED_API,
        )
        for name in build_stamps.modules(FOLDER)
    ],
    cmdclass={"build_ext": BuildModules, "sdist": SourceDistribution},
    options={
        # Files are compiled side by side, because one after the other they take minutes.
        "build_ext": {"parallel": os.cpu_count() or 1},
        **({"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {}),
    },
)
