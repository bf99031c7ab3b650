"""The layers of Carnegie Mellon's course 11-785, homework 2: ``from fastconv.compat.cmu11785 import *``.

The package has the classes of the homework's ``resampling.py``, ``Conv1d.py``, ``Conv2d.py``, ``ConvTranspose.py``
and ``pool.py``. Signals are ``(batch_size, in_channels, input_size)``, and images are
``(batch_size, in_channels, input_height, input_width)``.
"""

from __future__ import annotations

from fastconv.compat.cmu11785.conv import Conv1d, Conv1d_stride1, Conv2d, Conv2d_stride1
from fastconv.compat.cmu11785.pool import MaxPool2d, MaxPool2d_stride1, MeanPool2d, MeanPool2d_stride1
from fastconv.compat.cmu11785.resampling import Downsample1d, Downsample2d, Upsample1d, Upsample2d
from fastconv.compat.cmu11785.transpose import ConvTranspose1d, ConvTranspose2d

__all__ = [
    "Conv1d",
    "Conv1d_stride1",
    "Conv2d",
    "Conv2d_stride1",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Downsample1d",
    "Downsample2d",
    "MaxPool2d",
    "MaxPool2d_stride1",
    "MeanPool2d",
    "MeanPool2d_stride1",
    "Upsample1d",
    "Upsample2d",
]
