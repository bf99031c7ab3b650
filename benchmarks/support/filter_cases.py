"""The cases of `bench_filters.py`: images, signals, volumes, separable kernels and images with borders."""

from __future__ import annotations

from typing import NamedTuple

SIZES = (256, 512, 2048)
KERNELS = (3, 5, 7, 11, 15, 21, 31, 45, 63, 91, 129)
DTYPES = ("float32", "float64")


class FilterCase(NamedTuple):
    """A square image of one channel and a square kernel of full rank, with zeros as border."""

    size: int
    kernel: int
    dtype: str

    @property
    def case(self) -> str:
        """In words."""
        return f"{self.size}, {self.kernel}x{self.kernel} {self.dtype}"

    @property
    def part(self) -> str:
        """The name of the group of rows over which a mean is printed."""
        return f"{self.size} {self.dtype}"

    @property
    def quick(self) -> bool:
        """Whether a quick run includes the case."""
        return self.size == 256 and self.kernel in (3, 11, 31, 91) and self.dtype == "float32"


class SignalCase(NamedTuple):
    """A signal or volume (1, C, *spatial) and its kernel (F, C, *kernel), with 'same' padding."""

    shape: tuple[int, ...]
    weights: tuple[int, ...]
    dtype: str

    @property
    def case(self) -> str:
        """In words."""
        if len(self.shape) == 3 and self.shape[1] == 1:
            return f"{self.shape[-1]} samples, {self.weights[-1]} taps {self.dtype}"
        return f"{'x'.join(map(str, self.shape[1:]))}, {'x'.join(map(str, self.weights))} {self.dtype}"

    @property
    def part(self) -> str:
        """The name of the group of rows over which a mean is printed."""
        return self.dtype

    @property
    def quick(self) -> bool:
        """Whether a quick run includes the case."""
        return self.dtype == "float32" and self.shape[-1] in (10**4, 10**5)


class SeparableCase(NamedTuple):
    """A square image and a kernel of rank one, the same for each channel."""

    kind: str  # Gaussian, box or Sobel
    size: int
    channels: int
    kernel: int
    dtype: str

    @property
    def case(self) -> str:
        """In words."""
        dtype = "" if self.dtype == "float32" else " float64"
        return f"{self.kind} {self.size}, {self.channels} ch., {self.kernel}x{self.kernel}{dtype}"

    @property
    def part(self) -> str:
        """The name of the group of rows over which a mean is printed."""
        return f"{self.kind} of {self.channels} ch. {self.dtype}"

    @property
    def quick(self) -> bool:
        """Whether a quick run includes the case."""
        return self.size == 256 and self.channels == 1 and self.kernel in (3, 15, 63) and self.dtype == "float32"


class BorderCase(NamedTuple):
    """A one-channel image, signal or volume with a border of its own cells, and a result of the same size."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    pad_mode: str
    op: str  # forward, adjoint or weights
    dtype: str

    @property
    def case(self) -> str:
        """In words."""
        sizes = ["x".join(map(str, shape)) for shape in (self.spatial, self.kernel)]
        return f"{self.pad_mode} {self.op} {sizes[0]}, {sizes[1]}" + ("" if self.dtype == "float32" else " float64")

    @property
    def part(self) -> str:
        """The name of the group of rows over which a mean is printed."""
        return f"{self.pad_mode} {self.op}"

    @property
    def quick(self) -> bool:
        """Whether a quick run includes the case."""
        return self.spatial in ((509, 509), (61, 61, 61)) and self.dtype == "float32" and self.op == "forward"


FILTERS = tuple(FilterCase(size, k, dtype) for dtype in DTYPES for size in SIZES for k in KERNELS)

SIGNALS = tuple(
    SignalCase((1, 1, n), (1, 1, taps), dtype)
    for dtype in DTYPES
    for n in (10**4, 10**5, 10**6)
    for taps in (101, 501, 1001, 4001)
) + (
    SignalCase((1, 1, 134, 284, 284), (1, 1, 25, 25, 25), "float32"),
    SignalCase((1, 64, 16000), (64, 64, 1024), "float32"),
)

SEPARABLE = (
    *(
        SeparableCase(kind, size, channels, k, "float32")
        for kind, kernels in (
            ("Gaussian", (3, 5, 7, 11, 15, 21, 31, 45, 63)),
            ("box", (3, 7, 15, 31, 63)),
            ("Sobel", (3, 7, 15, 31, 63)),
        )
        for channels in (1, 3)
        for size in SIZES
        for k in kernels
    ),
    *(SeparableCase("Gaussian", size, 1, k, "float64") for size in SIZES for k in (3, 15, 63)),
)

#: Sizes with a fast transform, prime sizes, and kernels as large as the image.
_BORDERED = (
    ((256, 256), (31, 31)),
    ((512, 512), (31, 31)),
    ((509, 509), (31, 31)),
    ((512, 512), (129, 129)),
    ((1021, 1021), (63, 63)),
    ((2048, 2048), (31, 31)),
    ((256, 256), (255, 255)),
    ((509, 509), (509, 509)),
    ((100_000,), (1001,)),
    ((99_991,), (1001,)),
    ((1_000_003,), (4001,)),
    ((64, 64, 64), (15, 15, 15)),
    ((61, 61, 61), (15, 15, 15)),
)
_MODES, _OPS = ("circular", "reflect", "replicate"), ("forward", "adjoint", "weights")
BORDERS = (
    *(BorderCase(*sizes, mode, op, "float32") for mode in _MODES[:2] for op in _OPS[:2] for sizes in _BORDERED),
    *(BorderCase(*sizes, "replicate", op, "float32") for op in _OPS for sizes in _BORDERED[::6]),
    *(BorderCase(*sizes, mode, "weights", "float32") for mode in _MODES[:2] for sizes in _BORDERED[::3]),
    *(BorderCase((512, 512), (31, 31), mode, op, "float64") for mode in _MODES[:2] for op in _OPS),
)
