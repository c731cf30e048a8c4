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

"""Volumes as text in a page: reduced in the plane where they are large, as NIfTI, compressed."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from monai_sliceinterp.geometry import OutputGrid, scaled_affine

__all__ = ["LARGEST", "EmbeddedVolumes", "embed_map", "embed_pair"]

LARGEST = 18_000_000
"""Bytes of all compressed volumes of a page, which are a third more as text."""

_LEVEL = 6
_SLICES_AT_ONCE = 16
_SAMPLED = 12
"""Slices by whose compression that of a volume is told beforehand."""

_SMALLEST = 32
"""Pixels along the shorter edge of a slice below which nothing is reduced any further."""

_MAP_STEPS = 63
_INT16 = np.iinfo(np.int16)

Stored = NDArray[np.int16]


@dataclass(frozen=True)
class EmbeddedVolumes:
    """Volumes as they stand in a page.

    Attributes:
        texts: by name, a NIfTI file, compressed by gzip, in base64.
        reduction: pixels along an edge that were averaged.
        rounded: largest rounding error of the intensities, 0 where there is none.
    """

    texts: dict[str, str]
    reduction: int
    rounded: float


@dataclass(frozen=True)
class _Coding:
    """How intensities are stored: ``stored * slope + offset``."""

    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def of(cls, volumes: Iterable[Tensor]) -> _Coding:
        """Choose the coding: whole numbers within 16 bits stay what they are, others take 65,536 steps."""
        arrays = [volume.numpy() for volume in volumes]
        low, high = min(float(np.nanmin(a)) for a in arrays), max(float(np.nanmax(a)) for a in arrays)
        if all(a.dtype.kind in "iu" for a in arrays) and low >= _INT16.min and high <= _INT16.max:
            return cls()
        slope = float(np.float32((high - low) / int(_INT16.max - int(_INT16.min)))) or 1.0  # as the header holds it
        return cls(slope, float(np.float32(low - slope * int(_INT16.min))))

    def encode(self, volume: Tensor, reduction: int) -> Stored:
        """Encode a volume ``(H, W, N)``, its slices reduced, some at a time; NaN becomes the smallest value."""
        height, width, count = volume.shape
        result = np.empty((height // reduction, width // reduction, count), np.int16, order="F")
        for begin in range(0, count, _SLICES_AT_ONCE):
            part = volume[..., begin : begin + _SLICES_AT_ONCE].movedim(-1, 0).double()
            if reduction > 1:
                part = avg_pool2d(part[:, None], reduction)[:, 0]
            values = np.nan_to_num((part.numpy() - self.offset) / self.slope, nan=_INT16.min)
            result[..., begin : begin + _SLICES_AT_ONCE] = np.moveaxis(
                np.clip(np.round(values), _INT16.min, _INT16.max), 0, -1
            )
        return result


def embed_pair(thick: MetaTensor, thin: MetaTensor, grid: OutputGrid, largest: int = LARGEST) -> EmbeddedVolumes:
    """Make texts of a scan and of what was interpolated from it, small enough for a page.

    Both get one intensity scale. The text "output" has what is to be added to the rounded linear interpolation of the
    stored values of "input", modulo 2^16: nothing at observed slices, and little elsewhere, so that it takes about a
    third. Where both together take more than ``largest`` bytes, blocks of pixels are averaged in each slice: 2 x 2, or
    as many as it takes. Slices are not reduced.

    Args:
        thick: the scan ``(H, W, N)``, slices last.
        thin: the output ``(H, W, M)``.
        grid: where the output's slices lie.
        largest: bytes that they may take, compressed.

    Example:
        >>> scan = MetaTensor(np.arange(9216).reshape(64, 72, 2))
        >>> grid = OutputGrid.from_factor(2, 1)
        >>> embed_pair(scan, scan, grid).reduction, embed_pair(scan, scan, grid, largest=2000).reduction
        (1, 2)
    """
    coding = _Coding.of([thick.as_tensor(), thin.as_tensor()])
    reduction = 1
    while True:
        source, result = (coding.encode(volume.as_tensor(), reduction) for volume in (thick, thin))
        _subtract_linear(result, source, grid)
        last = min(source.shape[:2]) < 2 * _SMALLEST
        if last or _expected_size(source) + _expected_size(result) <= largest:
            volumes = {"input": (source, thick), "output": (result, thin)}
            files = {name: _file(array, like, reduction, coding) for name, (array, like) in volumes.items()}
            if last or sum(map(len, files.values())) <= largest:
                rounded = 0.0 if coding == _Coding() else coding.slope / 2
                return EmbeddedVolumes({name: _text(file) for name, file in files.items()}, reduction, rounded)
        reduction += 1


def embed_map(volume: MetaTensor, limit: float, largest: int = LARGEST) -> str:
    """Make a text of a map, in 63 steps from 0 to a limit, reduced in the plane until it is small enough.

    Args:
        volume: ``(H, W, M)``, not negative.
        limit: value above which all are alike.
        largest: bytes that it may take, compressed.

    Example:
        >>> file = gzip.decompress(base64.b64decode(embed_map(MetaTensor(np.ones((64, 64, 2))), limit=2.0)))
        >>> nib.Nifti1Image.from_bytes(file).get_fdata().max().round(2)
        np.float64(0.98)
    """
    coding = _Coding(slope=float(np.float32(limit / _MAP_STEPS)))
    clipped = volume.as_tensor().clamp(0, limit).nan_to_num(0.0)
    reduction = 1
    while True:
        array = coding.encode(clipped, reduction)
        file = _file(array, volume, reduction, coding) if _expected_size(array) <= largest else None
        if min(array.shape[:2]) < 2 * _SMALLEST or (file is not None and len(file) <= largest):
            return _text(file or _file(array, volume, reduction, coding))
        reduction += 1


def _subtract_linear(result: Stored, source: Stored, grid: OutputGrid) -> None:
    """Subtract what the page will add again, slice by slice, in the same arithmetic: float64, halves rounded up."""
    for k, (lower, alpha) in enumerate(zip(grid.lower.tolist(), grid.alpha.tolist(), strict=True)):
        first, second = (source[..., n].astype(np.float64) for n in (lower, lower + 1))
        result[..., k] -= np.floor(first + alpha * (second - first) + 0.5).astype(np.int16)


def _expected_size(array: Stored) -> float:
    """Tell how many bytes a volume takes, from some of its slices."""
    chosen = np.unique(np.linspace(0, array.shape[2] - 1, _SAMPLED).astype(int))
    size = len(gzip.compress(array[..., chosen].tobytes(order="F"), _LEVEL, mtime=0))
    return size * array.shape[2] / len(chosen)


def _file(array: Stored, like: MetaTensor, reduction: int, coding: _Coding) -> bytes:
    """Make a compressed NIfTI file; without a time, so that the same volumes make the same bytes."""
    affine = np.asarray(like.affine, dtype=np.float64)
    for axis in (0, 1):
        affine = scaled_affine(affine, axis, reduction, start=(reduction - 1) / 2)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(coding.slope, coding.offset)
    image.header["vox_offset"] = 352
    return gzip.compress(image.header.binaryblock + bytes(4) + array.tobytes(order="F"), _LEVEL, mtime=0)


def _text(file: bytes) -> str:
    return base64.b64encode(file).decode()
