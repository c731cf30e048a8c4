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

"""Restore the input's units, type and orientation in an interpolated volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import CommonKeys
from torch import Tensor

from monai_sliceinterp.checks import switch
from monai_sliceinterp.geometry import DISAGREEMENT, SLICE_POSITION_KEYS, paste_observed, read_grid, write_grid
from monai_sliceinterp.transforms.missing import has_missing, mark_missing

__all__ = [
    "DisagreementMapD",
    "DisagreementMapDict",
    "DisagreementMapd",
    "RestoreVolumeD",
    "RestoreVolumeDict",
    "RestoreVolumed",
    "cast_to",
]

_SLICES_AT_ONCE = 8  # bounds the copies in types on the way


def cast_to(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert intensities to a type: rounded and limited to its range where it is an integer type.

    Example:
        >>> cast_to(torch.tensor([-3.2, 1.6, 300.0]), torch.uint8)
        tensor([  0,   2, 255], dtype=torch.uint8)
    """
    if dtype.is_floating_point:
        return image.to(dtype)
    limits = torch.iinfo(dtype)
    # float32 cannot hold the largest int32; float64 can, and of int64 the largest number below the limit
    largest = min(float(limits.max), float(np.nextafter(2.0**63, 0.0)))
    if limits.bits > 16:
        image = image.to(torch.float64)
    return image.round().clamp_(limits.min, largest).to(dtype)


class RestoreVolumed(MapTransform):
    """Transform that undoes the preprocessing of an interpolated volume: original units, type and axis order.

    Observed slices are pasted bit for bit. Slices are restored a few at a time, so that memory does not hold the volume
    in further types. Voxels become NaN where the input slices beside them are NaN. The result has the metadata of the
    original, its own affine, and the grid that the interpolated volume carries.

    Args:
        keys: interpolated volumes ``(C, H, W, M)`` as an inferer returns them.
        transform: the preprocessing, whose invertible transforms are undone.
        image_key: the key for which the preprocessing was defined.
        original_key: the volume as it was loaded, before any change of intensities and of the axis order.
        release: nothing else needs the interpolated volume: the result takes over its memory where it can, and it is
            empty afterwards. Large volumes then do not have to fit into memory twice.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: if the metadata of an interpolated volume has no grid.

    Example:
        >>> from monai.transforms import Compose
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> from monai_sliceinterp.transforms import InvertibleScaleIntensityRanged, ThroughPlaneLastd
        >>> scan = MetaTensor(torch.randint(0, 2000, (1, 3, 8, 9), dtype=torch.int16))
        >>> load = Compose([ThroughPlaneLastd("image", axis=0), InvertibleScaleIntensityRanged("image", 0, 2000)])
        >>> data = {"original": scan, **load({"image": scan})}
        >>> data["pred"] = SplineSliceInferer(factor=2)(data["image"][None])[0]
        >>> thin = RestoreVolumed("pred", load)(data)["pred"]
        >>> thin.shape, thin.dtype, torch.equal(thin[:, ::2].as_tensor(), scan.as_tensor())
        (torch.Size([1, 5, 8, 9]), torch.int16, True)
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        image_key: str = CommonKeys.IMAGE,
        original_key: str = "original",
        release: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform, self.release = transform, switch("release", release)
        self.image_key, self.original_key = image_key, original_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore every key."""
        result = dict(data)
        original = result[self.original_key]
        plain = original.as_tensor()
        missing = has_missing(plain)
        for key in self.key_iterator(result):
            volume = result[key]
            record = read_grid(volume.meta)
            voxels, affine, axis = self._restore(volume, original)
            source = plain.movedim(axis + 1, -1).to(voxels.device)
            if missing:
                mark_missing(voxels, source, record.grid)
            if record.keep_observed:
                paste_observed(voxels, source, record.grid)
            output = MetaTensor(voxels.movedim(-1, axis + 1)).copy_meta_from(original)
            output.affine = affine
            for entry in SLICE_POSITION_KEYS:  # those of the input; the output is evenly spaced
                output.meta.pop(entry, None)
            write_grid(output.meta, replace(record, axis=axis))
            result[key] = output
            if self.release:
                volume.set_()
                volume.meta.pop(DISAGREEMENT, None)
        return result

    def _restore(self, volume: MetaTensor, original: MetaTensor) -> tuple[Tensor, Tensor, int]:
        """Restore units, type and axis order.

        Returns:
            The volume with its slices along the last axis, its affine, and the axis where the slices belong.
        """
        stored = np.dtype(original.meta.get("stored_dtype", "float32"))
        plain = volume.as_tensor()
        count = plain.shape[-1]

        def restore(begin: int, end: int) -> tuple[Tensor, Tensor, int]:
            restored = self.transform.inverse({self.image_key: _like(volume, plain[..., begin:end])})[self.image_key]
            axis = read_grid(restored.meta).axis
            voxels = cast_to(restored.as_tensor(), original.dtype)
            if stored.kind == "u" and stored.itemsize < voxels.element_size():  # read into a larger type
                voxels.clamp_(0, int(np.iinfo(stored).max))
            return voxels.movedim(axis + 1, -1), restored.affine, axis

        # a transform that moves slices, as a flip along them does, makes the affine depend on their number
        (one, affine, axis), (two, other, _) = restore(0, 1), restore(0, 2)
        if (one.shape[-1], two.shape[-1]) != (1, 2) or not affine.equal(other):
            return restore(0, count)
        size = (*one.shape[:-1], count)
        room = _own_memory(plain, size, one.dtype) if self.release else None
        if room is None:  # slices come first in memory, as the inferers lay them out
            room = one.new_empty(size[0], count, *size[1:-1]).movedim(1, -1)
        for begin in range(0, count, _SLICES_AT_ONCE):
            end = min(begin + _SLICES_AT_ONCE, count)
            room[..., begin:end] = restore(begin, end)[0]
        return room, affine, axis


def _like(volume: MetaTensor, voxels: Tensor) -> MetaTensor:
    """Give voxels the metadata of an interpolated volume, without its voxelwise map, which inverses would copy."""
    result = MetaTensor(voxels).copy_meta_from(volume)
    result.meta.pop(DISAGREEMENT, None)
    return result


def _own_memory(volume: Tensor, size: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    """Reuse a volume's memory for another one whose slices are not larger; None if that is impossible.

    Written from the first slice to the last, the other volume overwrites only slices that have been read.
    """
    stack = volume.movedim(-1, 1)
    if len(volume) > 1 or volume.shape != size or dtype.itemsize > volume.element_size() or not stack.is_contiguous():
        return None
    return stack.view(-1).view(dtype)[: volume.numel()].view(stack.shape).movedim(1, -1)


class DisagreementMapd(MapTransform):
    """Transform that adds the map of how much the views of a volume disagree, in the input's units and axis order.

    It has to come before :class:`RestoreVolumed`, whose input's metadata it reads.

    Args:
        keys: interpolated volume ``(C, H, W, M)`` as an inferer returns it that was made with ``disagreement=True``.
        transform: the preprocessing, whose invertible transforms are undone.
        image_key: the key for which the preprocessing was defined.
        map_key: where the map goes.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: if the metadata has no map.

    Example:
        >>> from monai.transforms import Compose
        >>> from monai_sliceinterp.inferers import MultiViewSliceInferer
        >>> from monai_sliceinterp.networks.nets import SAINT
        >>> from monai_sliceinterp.transforms import ThroughPlaneLastd
        >>> size = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
        >>> load = Compose([ThroughPlaneLastd("image", axis=0)])
        >>> image = load({"image": MetaTensor(torch.rand(1, 3, 12, 13))})["image"]
        >>> pred = MultiViewSliceInferer(factor=2, disagreement=True)(image[None], SAINT(ami=size, rfn=size).eval())[0]
        >>> tuple(DisagreementMapd("pred", load)({"pred": pred})["disagreement"].shape)
        (1, 5, 12, 13)
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        image_key: str = CommonKeys.IMAGE,
        map_key: str = DISAGREEMENT,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = transform
        self.image_key, self.map_key = image_key, map_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the map."""
        result = dict(data)
        for key in self.key_iterator(result):
            volume = result[key]
            if DISAGREEMENT not in volume.meta:
                raise ValueError("the volume carries no disagreement of the views; expected disagreement=True.")
            values = volume.meta[DISAGREEMENT]
            if values.ndim == 5 and len(values) == 1:  # a batch of one that was not decollated
                values = values[0]
            # a deviation has the scale of the intensities, but not their offset
            restored, offset = (
                self.transform.inverse({self.image_key: _like(volume, part)})[self.image_key]
                for part in (values, torch.zeros_like(values))
            )
            result[self.map_key] = MetaTensor(restored.as_tensor() - offset.as_tensor()).copy_meta_from(restored)
        return result


DisagreementMapD = DisagreementMapDict = DisagreementMapd
RestoreVolumeD = RestoreVolumeDict = RestoreVolumed
