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

"""Bring an interpolated volume back to the input's units, type and orientation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import CommonKeys
from torch import Tensor

from monai_sliceinterp.geometry import SLICE_POSITION_KEYS
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, paste_observed
from monai_sliceinterp.inferers.multi_view import MultiViewSliceInferer
from monai_sliceinterp.transforms.missing import has_missing, mark_missing
from monai_sliceinterp.transforms.orientation import moved_axis

__all__ = [
    "DisagreementMapD",
    "DisagreementMapDict",
    "DisagreementMapd",
    "RestoreVolumeD",
    "RestoreVolumeDict",
    "RestoreVolumed",
    "cast_to",
]

_SLICES_AT_ONCE = 16  # bounds the copies in types on the way


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
    return image.to(torch.float64).round().clamp(limits.min, largest).to(dtype)


class RestoreVolumed(MapTransform):
    """Undo the preprocessing of an interpolated volume: original units, type and axis order, observed slices pasted.

    Slices are restored a few at a time, so that memory does not hold the volume in further types. Voxels of which
    nothing is known, as the observed slices beside them are NaN there, become NaN.

    Args:
        keys: interpolated volumes ``(C, H, W, M)`` as the inferer returns them.
        transform: the preprocessing, whose invertible transforms are undone.
        inferer: the inferer, which knows the output grid and whether observed slices are kept.
        image_key: the inferer's input ``(C, H, W, N)``.
        observed_key: the volume as it was loaded, before any change of intensities; any axis order that
            :class:`monai_sliceinterp.transforms.ThroughPlaneLastd` has not touched.
        release: nothing else needs the interpolated volume: the result takes over its memory where it can, and it is
            empty afterwards. Large volumes then do not have to fit into memory twice.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        See ``bundles/asi/inference.json``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        inferer: SliceInterpolationInferer,
        image_key: str = CommonKeys.IMAGE,
        observed_key: str = "observed",
        release: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform, self.inferer, self.release = transform, inferer, release
        self.image_key, self.observed_key = image_key, observed_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore every key."""
        result = dict(data)
        image, observed = result[self.image_key], result[self.observed_key]
        last = moved_axis(image) + 1
        grid = self.inferer.output_grid(image[None])
        source = observed.as_tensor().movedim(last, -1)
        missing = has_missing(source)
        for key in self.key_iterator(result):
            volume = result[key]
            voxels, affine = self._restore(volume, observed, last)
            if missing:
                mark_missing(voxels, source.to(voxels.device), grid)
            if self.inferer.keep_observed:
                paste_observed(voxels, source.to(voxels.device), grid)
            output = MetaTensor(voxels.movedim(-1, last)).copy_meta_from(observed)
            output.affine = affine
            for entry in SLICE_POSITION_KEYS:  # those of the input; the output is evenly spaced
                output.meta.pop(entry, None)
            result[key] = output
            if self.release:
                volume.set_()
        return result

    def _restore(self, volume: MetaTensor, observed: MetaTensor, last: int) -> tuple[Tensor, Tensor]:
        """Restore units, type and axis order; returns the volume with axis ``last`` at its end, and its affine."""
        stored = np.dtype(observed.meta.get("stored_dtype", "float32"))
        plain = volume.as_tensor()
        count = plain.shape[-1]

        def restore(begin: int, end: int) -> tuple[Tensor, Tensor]:
            part = MetaTensor(plain[..., begin:end]).copy_meta_from(volume)
            undone = self.transform.inverse({self.image_key: part})[self.image_key]
            voxels = cast_to(undone.as_tensor(), observed.dtype)
            if stored.kind == "u" and stored.itemsize < voxels.element_size():  # read into a larger type
                voxels.clamp_(0, int(np.iinfo(stored).max))
            return voxels.movedim(last, -1), undone.affine

        # a transform that moves slices, as a flip along them does, makes the affine depend on their number
        (one, affine), (two, other) = restore(0, 1), restore(0, 2)
        if (one.shape[-1], two.shape[-1]) != (1, 2) or not affine.equal(other):
            return restore(0, count)
        size = (*one.shape[:-1], count)
        room = _own_memory(plain, size, one.dtype) if self.release else None
        if room is None:  # slices come first in memory, as the inferers lay them out
            room = one.new_empty(size[0], count, *size[1:-1]).movedim(1, -1)
        for begin in range(0, count, _SLICES_AT_ONCE):
            end = min(begin + _SLICES_AT_ONCE, count)
            room[..., begin:end] = restore(begin, end)[0]
        return room, affine


def _own_memory(volume: Tensor, size: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    """Let a volume's memory hold another one whose slices take at most the room of its own, or None if it cannot.

    Written from the first slice to the last, the other volume overwrites only slices that have been read.
    """
    stack = volume.movedim(-1, 1)
    if len(volume) > 1 or volume.shape != size or dtype.itemsize > volume.element_size() or not stack.is_contiguous():
        return None
    return stack.view(-1).view(dtype)[: volume.numel()].view(stack.shape).movedim(1, -1)


class DisagreementMapd(MapTransform):
    """Add the map of how much the views of an interpolated volume disagree, in the input's units and axis order.

    It has to come before :class:`RestoreVolumed`, whose input's metadata it reads.

    Args:
        keys: interpolated volume ``(C, H, W, M)`` as the inferer returns it.
        transform: the preprocessing, whose invertible transforms are undone.
        inferer: the inferer, run with ``disagreement=True``.
        image_key: the inferer's input.
        map_key: where the map goes.

    Raises:
        ValueError: if the inferer has kept no map.

    Example:
        See ``bundles/saint/inference.json``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        inferer: MultiViewSliceInferer,
        image_key: str = CommonKeys.IMAGE,
        map_key: str = "disagreement",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform, self.inferer = transform, inferer
        self.image_key, self.map_key = image_key, map_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the map."""
        result = dict(data)
        for key in self.key_iterator(result):
            deviation = self.inferer.disagreement_map
            if deviation is None:
                raise ValueError("the inferer has kept no disagreement of the views; expected disagreement=True.")
            values = torch.as_tensor(deviation)[0]
            # a deviation has the scale of the intensities, but not their offset
            restored, offset = (
                self.transform.inverse({self.image_key: MetaTensor(part).copy_meta_from(result[key])})[self.image_key]
                for part in (values, torch.zeros_like(values))
            )
            output = MetaTensor(restored.as_tensor() - offset.as_tensor()).copy_meta_from(restored)
            result[self.map_key] = output
        return result


DisagreementMapD = DisagreementMapDict = DisagreementMapd
RestoreVolumeD = RestoreVolumeDict = RestoreVolumed
