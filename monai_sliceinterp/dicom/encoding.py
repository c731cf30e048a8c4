# Copyright (c) monai_sliceinterp contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Intensities as 16-bit pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.valuerep import format_number_as_ds

__all__ = ["PixelEncoding", "decimal_string"]


def decimal_string(value: float) -> str:
    """Write a number as DICOM does, in 16 characters at most.

    Example:
        >>> decimal_string(1 / 3)
        '0.33333333333333'
    """
    return format_number_as_ds(float(value))


@dataclass(frozen=True)
class PixelEncoding:
    """Encoding of intensities as 16-bit pixels: ``intensity = slope * pixel + intercept``.

    Attributes:
        signed: whether pixels are int16, else uint16.
        slope: RescaleSlope.
        intercept: RescaleIntercept.
    """

    signed: bool
    slope: float
    intercept: float

    @classmethod
    def create(cls, slices: NDArray[Any]) -> PixelEncoding:
        """Choose an encoding that holds all intensities.

        Whole numbers that span at most 65535 are stored exactly. Others are spread over the range of uint16, where
        the error is at most half a step, (max - min) / 65535 / 2.

        Args:
            slices: ``(M, H, W)`` intensities.

        Raises:
            ValueError: if there are NaN or infinite intensities.

        Example:
            >>> PixelEncoding.create(np.array([[[-1000.0, 3000.0]]]))
            PixelEncoding(signed=True, slope=1.0, intercept=0.0)
        """
        low, high, whole = np.inf, -np.inf, True
        for image in slices:
            ends = image.min().item(), image.max().item()
            if not np.isfinite(ends).all():
                raise ValueError("there are NaN or infinite intensities, which DICOM cannot hold.")
            low, high = min(low, ends[0]), max(high, ends[1])
            whole = whole and bool(image.dtype.kind in "iub" or (image == np.rint(image)).all())
        if whole and high - low <= 65535:
            if low >= 0 and high <= 65535:
                return cls(False, 1.0, 0.0)
            if low >= -32768 and high <= 32767:
                return cls(True, 1.0, 0.0)
        else:
            whole = False
        slope = 1.0 if whole or high == low else float(decimal_string((high - low) / 65535))
        return cls(False, slope, float(decimal_string(low)))

    @property
    def is_identity(self) -> bool:
        """Pixels are the intensities themselves."""
        return self.slope == 1.0 and self.intercept == 0.0

    def encode(self, image: NDArray[Any]) -> NDArray[Any]:
        """Convert intensities to pixels, little-endian."""
        pixels = np.rint((image.astype(np.float64) - self.intercept) / self.slope)
        kind = np.dtype("<i2" if self.signed else "<u2")
        limits = np.iinfo(kind)  # a decimal string has 16 characters, so that the ends may be off by rounding
        return pixels.clip(limits.min, limits.max).astype(kind)
