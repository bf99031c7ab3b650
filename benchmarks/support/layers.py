"""The table of layers that all benchmarks measure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

import fastconv

Size = int | tuple[int, ...]


class Layer(NamedTuple):
    """A convolution layer. A single int holds for both axes of an image."""

    name: str
    size: Size
    channels: int
    filters: int
    kernel: Size
    stride: Size = 1
    pad: Size = 0
    dilation: Size = 1
    groups: int = 1

    @property
    def rank(self) -> int:
        """Spatial axes."""
        return len(self.size) if isinstance(self.size, tuple) else 2

    def axes(self, value: Size) -> tuple[int, ...]:
        """A size, stride, pad or dilation, with one value per axis."""
        return value if isinstance(value, tuple) else (value,) * self.rank

    @property
    def options(self) -> dict[str, Any]:
        """The options that make fastconv compute this layer."""
        stride, pad, dilation = map(self.axes, (self.stride, self.pad, self.dilation))
        return {"stride": stride, "pad": pad, "dilation": dilation, "groups": self.groups}

    def x_shape(self, batch: int) -> tuple[int, ...]:
        """The shape of the input."""
        return (batch, self.channels, *self.axes(self.size))

    @property
    def w_shape(self) -> tuple[int, ...]:
        """The shape of the filters."""
        return (self.filters, self.channels // self.groups, *self.axes(self.kernel))

    def geometry(self, batch: int) -> fastconv.ConvGeometry:
        """The geometry of the layer."""
        return fastconv.conv_geometry(self.x_shape(batch), self.w_shape, **self.options)

    @property
    def out(self) -> tuple[int, ...]:
        """The spatial sizes of the output."""
        return self.geometry(1).out_spatial

    @property
    def product(self) -> tuple[int, int, int]:
        """m, n and k of the matrix product of one image and one group: [m x k] @ [k x n]."""
        return self.filters // self.groups, math.prod(self.out), math.prod(self.w_shape[1:])

    def entries(self, batch: int) -> int:
        """The number of entries of the lowered matrix."""
        return batch * self.channels * math.prod(self.axes(self.kernel)) * math.prod(self.out)

    @property
    def case(self) -> str:
        """The name and shape in short."""
        marks = {"s": (self.stride, 1), "d": (self.dilation, 1), "g": (self.groups, 1)}
        suffix = "".join(f" {mark}{_short(value)}" for mark, (value, usual) in marks.items() if value != usual)
        return f"{self.name} {_short(self.size)} {self.channels}-{self.filters} k{_short(self.kernel)}{suffix}"

    def arrays(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, w, b and dout in float32, the same in every call; the weights are scaled so that outputs are near one."""
        rng = np.random.default_rng(0)
        shapes = (self.x_shape(batch), self.w_shape, (self.filters,), (batch, self.filters, *self.out))
        x, w, b, dout = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
        w /= np.float32(math.sqrt(math.prod(self.w_shape[1:])))
        return x, w, b, dout


def _short(size: Size) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


#: The layers that the targets are about. They come from nets that courses and papers measure.
LIST = (
    Layer("LeNet", 28, 1, 6, 5, pad=2),
    Layer("LeNet", 14, 6, 16, 5),
    Layer("AlexNet", 227, 3, 96, 11, stride=4),
    Layer("AlexNet", 27, 96, 256, 5, pad=2),
    Layer("VGG", 224, 3, 64, 3, pad=1),
    Layer("VGG", 224, 64, 64, 3, pad=1),
    Layer("VGG", 56, 256, 256, 3, pad=1),
    Layer("VGG", 14, 512, 512, 3, pad=1),
    Layer("ResNet", 224, 3, 64, 7, stride=2, pad=3),
    Layer("ResNet", 56, 64, 64, 3, pad=1),
    Layer("ResNet", 28, 128, 128, 3, pad=1),
    Layer("ResNet", 7, 512, 512, 3, pad=1),
    Layer("ResNet", 56, 128, 128, 3, stride=2, pad=1),
    Layer("ResNet", 56, 256, 64, 1),
    Layer("ResNet", 14, 1024, 256, 1),
    Layer("GoogLeNet", 28, 16, 32, 5, pad=2),
    Layer("GoogLeNet", 14, 160, 320, 3, pad=1),
    Layer("CS231n", 32, 3, 32, 7, pad=3),
)

#: Further layers, for which nothing was tuned.
BEYOND = (
    Layer("MobileNet", 112, 32, 32, 3, pad=1, groups=32),
    Layer("MobileNet", 112, 64, 64, 3, stride=2, pad=1, groups=64),
    Layer("MobileNet", 14, 512, 512, 3, pad=1, groups=512),
    Layer("EfficientNet", 28, 240, 240, 5, pad=2, groups=240),
    Layer("EfficientNet", 56, 144, 144, 5, stride=2, pad=2, groups=144),
    Layer("ResNeXt", 56, 128, 128, 3, pad=1, groups=32),
    Layer("ResNeXt", 14, 512, 512, 3, pad=1, groups=32),
    Layer("ShuffleNet", 28, 240, 240, 1, groups=3),
    Layer("DeepLab", 28, 256, 256, 3, pad=2, dilation=2),
    Layer("DeepLab", 33, 256, 256, 3, pad=4, dilation=4),
    Layer("Inception", 17, 192, 192, (1, 7), pad=(0, 3)),
    Layer("Inception", 17, 192, 192, (7, 1), pad=(3, 0)),
    Layer("Inception", 149, 32, 32, 3),
    Layer("wide", (48, 160), 64, 64, 3, pad=1),
    Layer("odd", (37, 53), 25, 41, 3, pad=1),
    Layer("odd", 15, 101, 99, 3),
    Layer("odd", 61, 17, 31, (5, 3), stride=(2, 3), pad=(2, 1)),
    Layer("ResNet", 56, 256, 512, 1, stride=2),
    Layer("ResNet", 7, 512, 2048, 1),
    Layer("text", (64,), 300, 100, (3,)),
    Layer("text", (128,), 300, 128, (5,), pad=(2,)),
    Layer("WaveNet", (16000,), 32, 64, (2,), dilation=(64,)),
    Layer("audio", (16000,), 32, 32, (3,), pad=(128,), dilation=(128,)),
    Layer("audio", (16000,), 1, 64, (80,), stride=(4,)),
    Layer("C3D", (16, 56, 56), 3, 64, (3, 3, 3), pad=(1, 1, 1)),
    Layer("R3D", (8, 28, 28), 64, 64, (3, 3, 3), pad=(1, 1, 1)),
    Layer("R3D", (8, 14, 14), 128, 128, (3, 3, 3), pad=(1, 1, 1)),
    Layer("R(2+1)D", (16, 28, 28), 64, 64, (3, 1, 1), pad=(1, 0, 0)),
)

#: Layers that people compute by hand or train in a minute; the overhead of a call dominates their time.
SMALL = (
    Layer("hand", 5, 1, 1, 3),
    Layer("hand", 8, 1, 1, 3, pad=1),
    Layer("hand", 4, 3, 2, 3, pad=1),
    Layer("hand", 12, 3, 8, 3, stride=2, pad=1),
    Layer("hand", (16,), 2, 3, (3,)),
    Layer("digits", 8, 1, 8, 3, pad=1),
    Layer("digits", 8, 8, 16, 3, pad=1),
)

#: Convolutions whose gradients are the layers of decoders: many weights, few positions, strides.
DECODERS = (
    Layer("decoder", 16, 256, 512, 4, stride=2, pad=1),
    Layer("decoder", 8, 512, 1024, 4, stride=2, pad=1),
    Layer("decoder", 64, 64, 128, 3, stride=2, pad=1),
)
