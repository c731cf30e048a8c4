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

"""Missing voxels: NaN, as tools that resample scans leave it outside of the field of view."""

from __future__ import annotations

import torch
from monai.config import KeysCollection
from monai.utils import TransformBackends
from torch import Tensor

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.transforms.mapping import ApplyToKeys

__all__ = ["FillMissingD", "FillMissingDict", "FillMissingd", "fill_missing", "has_missing", "mark_missing"]


def has_missing(volume: Tensor) -> bool:
    """Check whether a volume has NaN voxels, without a mask in memory.

    Args:
        volume: tensor of any shape and type.

    Example:
        >>> has_missing(torch.tensor([0.0, float("nan")])), has_missing(torch.tensor([0, 1]))
        (True, False)
    """
    return volume.is_floating_point() and volume.numel() > 0 and bool(volume.amin().isnan())  # a minimum passes NaN on


def fill_missing(volume: Tensor) -> Tensor:
    """Replace NaN voxels by the smallest intensity of the volume, that of its background.

    Infinite voxels stay: they are wrong, not missing.

    Args:
        volume: tensor of any shape, any type and unit.

    Returns:
        The volume itself if nothing is missing, else a copy.

    Raises:
        ValueError: if no voxel is finite.

    Example:
        >>> fill_missing(torch.tensor([float("nan"), 3.0, -5.0]))
        tensor([-5.,  3., -5.])
    """
    if not has_missing(volume):
        return volume
    finite = volume[volume.isfinite()]
    if not len(finite):
        name = getattr(volume, "meta", {}).get("filename_or_obj", "the volume")
        raise ValueError(f"{name}: has no finite voxel, the others are NaN; expected an image with intensities.")
    return volume.nan_to_num(nan=float(finite.amin()), posinf=torch.inf, neginf=-torch.inf)


def mark_missing(output: Tensor, image: Tensor, grid: OutputGrid) -> Tensor:
    """Set the missing voxels of an interpolated volume to NaN, in place.

    These are the voxels between two input slices that are NaN in one of them, and at the position of an input slice
    those that are NaN in it.

    Args:
        output: ``(..., M)`` floating point, slices last.
        image: ``(..., N)`` the input slices as they were loaded, with NaN.
        grid: the output grid.

    Returns:
        ``output``.

    Example:
        >>> grid = OutputGrid.from_factor(3, 2)
        >>> mark_missing(torch.zeros(5), torch.tensor([1.0, 2.0, float("nan")]), grid).tolist()
        [0.0, 0.0, 0.0, nan, nan]
    """
    lower = grid.lower
    upper = lower + (grid.alpha > 0)
    lower = torch.where(grid.alpha < 1, lower, upper)  # the last slice ends a gap
    for index, (first, second) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        missing = image[..., first].isnan() | image[..., second].isnan()
        output[..., index].masked_fill_(missing, torch.nan)
    return output


class FillMissingd(ApplyToKeys):
    """Dictionary version of :func:`fill_missing`.

    :class:`monai_sliceinterp.transforms.RestoreVolumed` puts the NaN back, from the volume as it was loaded.

    Args:
        keys: volumes to fill.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> FillMissingd("image")({"image": torch.tensor([float("nan"), 3.0])})["image"]
        tensor([3., 3.])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, fill_missing, allow_missing_keys)


FillMissingD = FillMissingDict = FillMissingd
