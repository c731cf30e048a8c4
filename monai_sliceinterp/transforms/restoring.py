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

from monai_sliceinterp.inferers.base import SliceInterpolationInferer, paste_observed
from monai_sliceinterp.inferers.multi_view import MultiViewSliceInferer
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

    Args:
        keys: interpolated volumes ``(C, H, W, M)`` as the inferer returns them.
        transform: the preprocessing, whose invertible transforms are undone.
        inferer: the inferer, which knows the output grid and whether observed slices are kept.
        image_key: the inferer's input ``(C, H, W, N)``.
        observed_key: the volume as it was loaded, before any change of intensities; any axis order that
            :class:`monai_sliceinterp.transforms.ThroughPlaneLastd` has not touched.

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
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform, self.inferer = transform, inferer
        self.image_key, self.observed_key = image_key, observed_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore every key."""
        result = dict(data)
        image, observed = result[self.image_key], result[self.observed_key]
        last = moved_axis(image) + 1
        grid = self.inferer.output_grid(image[None])
        for key in self.key_iterator(result):
            restored = self.transform.inverse({self.image_key: result[key]})[self.image_key]
            voxels = cast_to(restored.as_tensor(), observed.dtype)
            stored = np.dtype(observed.meta.get("stored_dtype", "float32"))
            if stored.kind == "u" and stored.itemsize < voxels.element_size():  # read into a larger type
                voxels.clamp_(0, int(np.iinfo(stored).max))
            if self.inferer.keep_observed:
                source = observed.as_tensor().to(voxels.device)
                paste_observed(voxels.movedim(last, -1), source.movedim(last, -1), grid)
            output = MetaTensor(voxels).copy_meta_from(observed)
            output.affine = restored.affine
            result[key] = output
        return result


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
