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

"""Values of voxels: what stored integers with a slope and an offset stand for, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_SPACING", "UnusableFile", "smallest_integers", "stored_values", "whole_values"]

NO_SPACING = "the spacing is zero or missing in the header; expected voxel sizes in mm, in the file or given."

_EXACT = 0.25
"""Values in float32 lead back to the stored integer where their rounding is below this fraction of the slope."""


class UnusableFile(ValueError):
    """Fault of a file that was read, without its name."""


def whole_values(stored: NDArray[Any], slope: float = 1.0, offset: float = 0.0) -> tuple[NDArray[Any], dict[str, Any]]:
    """Convert stored numbers to values, ``slope * stored + offset``, in the smallest type that is exact.

    64-bit integers become the smallest integers that hold them. Integers with a slope of 1 and a whole offset become
    integers; with another slope float32, or float64 where float32 would not lead back to the stored integer. Floating
    point stays as it is.

    Args:
        stored: numbers of any shape.
        slope: value per stored unit.
        offset: value of a stored zero.

    Returns:
        The values, and entries for the metadata, with which :func:`stored_values` goes back: ``packed_dtype``,
        ``packed_slope`` and ``packed_offset``; none where the values are the stored numbers.

    Raises:
        UnusableFile: if the slope is 0, or integers are beyond what is computed with exactly.

    Example:
        >>> values, meta = whole_values(np.array([0, 1000], np.int16), 1.0, -1024.0)
        >>> values.tolist(), values.dtype.name, meta["packed_dtype"]
        ([-1024, -24], 'int16', 'int16')
    """
    if not np.isfinite([slope, offset]).all() or slope == 0:
        raise UnusableFile(
            f"its values have the slope {slope:g} and the offset {offset:g}; expected finite numbers, "
            "and a slope other than 0."
        )
    if stored.dtype.kind in "iu" and stored.dtype.itemsize == 8:
        stored = smallest_integers(stored)
    plain = slope == 1 and offset == 0
    if plain or stored.dtype.kind not in "iuf" or not stored.size:
        return stored, {}
    if stored.dtype.kind == "f":
        wide = np.float64 if stored.dtype.itemsize >= 8 else np.float32
        return (stored.astype(np.float64) * slope + offset).astype(wide), {}
    entries = {"packed_dtype": stored.dtype.name, "packed_slope": float(slope), "packed_offset": float(offset)}
    if slope == 1 and float(offset).is_integer():
        return smallest_integers(stored.astype(np.int64) + int(offset), signed=True), entries
    ends = np.array([stored.min(), stored.max()], dtype=np.float64) * slope + offset
    exact = np.abs(ends).max() * np.finfo(np.float32).eps <= _EXACT * abs(slope)
    return (stored.astype(np.float64) * slope + offset).astype(np.float32 if exact else np.float64), entries


def smallest_integers(values: NDArray[np.integer], signed: bool = False) -> NDArray[np.integer]:
    """Convert 64-bit integers to the smallest integers that hold them.

    Args:
        values: integers.
        signed: only signed types of at least 16 bits, as of CT.

    Raises:
        UnusableFile: if 32 bits do not hold them.

    Example:
        >>> smallest_integers(np.array([0, 300])).dtype.name
        'uint16'
    """
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kinds = (np.int16, np.int32) if signed else (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)
    for kind in kinds:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    raise UnusableFile(f"has integers from {low} to {high}; expected some that fit into 32 bits.")


def stored_values(values: NDArray[Any], meta: Mapping[str, Any]) -> tuple[NDArray[Any], float, float]:
    """Convert values back to the stored numbers of their source, see :func:`whole_values`.

    Args:
        values: values of any shape.
        meta: metadata of the volume.

    Returns:
        The numbers to store, slope and offset. Values beyond what the source's type holds are limited to it.

    Example:
        >>> meta = {"packed_dtype": "int16", "packed_slope": 0.5, "packed_offset": 10.0}
        >>> stored_values(np.array([10.0, 11.2], np.float32), meta)
        (array([0, 2], dtype=int16), 0.5, 10.0)
    """
    if "packed_slope" not in meta or values.dtype == bool:
        return values, 1.0, 0.0
    slope, offset = (float(np.ravel(meta[key])[0]) for key in ("packed_slope", "packed_offset"))
    name = meta["packed_dtype"]
    kind = np.dtype(name if isinstance(name, str) else name[0])
    limits = np.iinfo(kind)
    result = np.empty(values.shape, kind)
    for index in range(values.shape[2]) if values.ndim > 2 else [slice(None)]:  # bounds the copies in float64
        part = (Ellipsis, index) if values.ndim < 3 else (slice(None), slice(None), index)
        numbers = np.rint((values[part].astype(np.float64) - offset) / slope)
        result[part] = np.nan_to_num(numbers).clip(limits.min, limits.max)
    return result, slope, offset
