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

"""Draw groups of consecutive slices: two ends and all slices between them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, MultiSampleTrait, Randomizable, Transform
from monai.utils import CommonKeys, TransformBackends
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "RandSliceGroup",
    "RandSliceGroupD",
    "RandSliceGroupDict",
    "RandSliceGroupd",
    "RandSliceGroups",
    "RandSliceGroupsD",
    "RandSliceGroupsDict",
    "RandSliceGroupsd",
    "slice_group",
]


def slice_group(volume: Tensor, indices: Sequence[int], corner: Sequence[int], patch_size: Sequence[int]) -> Tensor:
    """Cut a patch from several slices of a volume.

    Args:
        volume: ``(C, H, W, N)``, slices last.
        indices: the slices, in any order.
        corner: row and column of the patch's corner.
        patch_size: height and width of the patch. Where the volume is smaller, its border is repeated.

    Returns:
        ``(len(indices), C, h, w)`` float32, plain and contiguous.

    Example:
        >>> volume = torch.arange(5.0).expand(1, 4, 4, 5)
        >>> slice_group(volume, [4, 2], corner=(0, 0), patch_size=(2, 2))[:, 0, 0, 0].tolist()
        [4.0, 2.0]
    """
    plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    row, column = corner
    height, width = patch_size
    patch = plain[:, row : row + height, column : column + width, list(indices)]
    patch = patch.permute(3, 0, 1, 2).to(torch.float32)
    down, right = height - patch.shape[-2], width - patch.shape[-1]
    if down or right:
        patch = F.pad(patch, (0, right, 0, down), mode="replicate")
    return patch.contiguous()


class RandSliceGroup(Randomizable, Transform):
    """Draw one patch of n slices at equal distances from a volume (HRINet, section 3.3.2).

    The first and the last slice of the group are the pair to interpolate between, the others the targets, at alpha =
    i / (n - 1).

    Args:
        num_slices: number n of slices of a group; the paper has 7.
        patch_size: height and width of the patch; one number for both. A volume smaller than the patch has its border
            repeated. None: whole slices.
        stride: distance of the group's slices in the volume; of several numbers one is drawn for every sample, among
            those the volume is large enough for.
        reverse_prob: probability of giving the group in reverse order.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> sample = RandSliceGroup(num_slices=7, patch_size=32).set_random_state(0)(torch.rand(1, 64, 48, 9))
        >>> {key: tuple(value.shape) for key, value in sample.items()}
        {'image': (2, 32, 32), 'label': (5, 32, 32), 'alpha': (5,)}
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        num_slices: int = 7,
        patch_size: int | Sequence[int] | None = 128,
        stride: int | Sequence[int] = 1,
        reverse_prob: float = 0.5,
    ) -> None:
        if isinstance(num_slices, bool) or num_slices != int(num_slices) or num_slices < 3:
            raise ValueError(f"a group needs 3 slices or more, got {num_slices!r}.")
        if isinstance(patch_size, int):
            patch_size = (patch_size, patch_size)
        if patch_size is not None and (len(patch_size) != 2 or min(patch_size) < 1):
            raise ValueError(f"patch_size must be a positive height and width, got {patch_size!r}.")
        strides = (stride,) if isinstance(stride, int | float) else tuple(stride)
        if not strides or any(isinstance(value, bool) or value != int(value) or value < 1 for value in strides):
            raise ValueError(f"stride must be one or more positive integers, got {stride!r}.")
        if not 0 <= reverse_prob <= 1:
            raise ValueError(f"reverse_prob must be within [0, 1], got {reverse_prob!r}.")
        self.num_slices = int(num_slices)
        self.patch_size = None if patch_size is None else tuple(patch_size)
        self.strides = tuple(sorted(int(value) for value in strides))
        self.reverse_prob = reverse_prob
        self.drawn: dict[str, Any] = {}

    def randomize(self, data: Tensor) -> None:
        """Draw slices, position and order for the volume ``data`` ``(C, H, W, N)``."""
        _, height, width, num_slices = data.shape
        strides = [stride for stride in self.strides if stride * (self.num_slices - 1) < num_slices]
        if not strides:
            needed = self.strides[0] * (self.num_slices - 1) + 1
            raise ValueError(
                f"groups of {self.num_slices} slices at stride {self.strides[0]} need {needed} slices, the volume has "
                f"{num_slices}."
            )
        stride = strides[int(self.R.randint(len(strides)))]
        size = (height, width) if self.patch_size is None else self.patch_size
        first = int(self.R.randint(num_slices - stride * (self.num_slices - 1)))
        corner = [
            int(self.R.randint(max(full - part, 0) + 1)) for full, part in zip((height, width), size, strict=True)
        ]
        indices = [first + stride * index for index in range(self.num_slices)]
        if self.R.random_sample() < self.reverse_prob:
            indices.reverse()
        self.drawn = {"indices": indices, "corner": corner, "patch_size": size}

    def __call__(self, img: Tensor, randomize: bool = True) -> Any:
        """Draw a sample from ``img`` ``(C, H, W, N)``, slices last.

        Returns:
            ``image``: the pair ``(2 C, h, w)``; ``label``: the slices between in order ``((n - 2) C, h, w)``;
            ``alpha``: their fractions of the way from the first to the second slice of the pair ``(n - 2,)``.
        """
        if randomize:
            self.randomize(img)
        group = slice_group(img, **self.drawn)
        steps = self.num_slices - 1
        return {
            CommonKeys.IMAGE.value: group[[0, -1]].flatten(0, 1).contiguous(),
            CommonKeys.LABEL.value: group[1:-1].flatten(0, 1).contiguous(),
            "alpha": torch.arange(1, steps, dtype=torch.float32) / steps,
        }


class RandSliceGroups(RandSliceGroup, MultiSampleTrait):
    """Draw several samples of :class:`RandSliceGroup` from a volume.

    Args:
        num_samples: number of samples.
        num_slices: see :class:`RandSliceGroup`.
        patch_size: see :class:`RandSliceGroup`.
        stride: see :class:`RandSliceGroup`.
        reverse_prob: see :class:`RandSliceGroup`.

    Example:
        >>> len(RandSliceGroups(num_samples=3, patch_size=16)(torch.rand(1, 32, 32, 8)))
        3
    """

    def __init__(
        self,
        num_samples: int,
        num_slices: int = 7,
        patch_size: int | Sequence[int] | None = 128,
        stride: int | Sequence[int] = 1,
        reverse_prob: float = 0.5,
    ) -> None:
        super().__init__(num_slices, patch_size, stride, reverse_prob)
        if num_samples < 1:
            raise ValueError(f"num_samples must be positive, got {num_samples!r}.")
        self.num_samples = num_samples

    def __call__(self, img: Tensor, randomize: bool = True) -> list[dict[str, Tensor]]:
        """Draw ``num_samples`` samples from ``img`` ``(C, H, W, N)``."""
        return [super(RandSliceGroups, self).__call__(img, randomize) for _ in range(self.num_samples)]


class RandSliceGroupd(Randomizable, MapTransform):
    """Dictionary version of :class:`RandSliceGroup`: the volume under ``keys`` is replaced by a sample.

    Args:
        keys: one volume ``(C, H, W, N)``.
        num_slices: see :class:`RandSliceGroup`.
        patch_size: see :class:`RandSliceGroup`.
        stride: see :class:`RandSliceGroup`.
        reverse_prob: see :class:`RandSliceGroup`.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: if a parameter is out of range, or there are several keys.

    Example:
        >>> sample = RandSliceGroupd("image", patch_size=16)({"image": torch.rand(1, 32, 32, 8)})
        >>> sorted(sample)
        ['alpha', 'image', 'label']
    """

    backend = RandSliceGroup.backend

    def __init__(
        self,
        keys: KeysCollection,
        num_slices: int = 7,
        patch_size: int | Sequence[int] | None = 128,
        stride: int | Sequence[int] = 1,
        reverse_prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"expected one key, got {self.keys}.")
        if self.keys[0] in ("label", "alpha"):
            raise ValueError(
                f"the sample of key {self.keys[0]!r} would overwrite its own parts; expected another name."
            )
        self.sampler = RandSliceGroup(num_slices, patch_size, stride, reverse_prob)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandSliceGroupd:
        """Set the random state of the sampler behind."""
        super().set_random_state(seed, state)
        self.sampler.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        """Draw one sample."""
        return self._sample(dict(data))

    def _sample(self, data: dict[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            image = data[key]
            try:
                sample = self.sampler(image)
            except ValueError as error:
                name = getattr(image, "meta", {}).get("filename_or_obj", key)
                raise ValueError(f"{name}: {error}") from error
            return {**data, **sample, key: sample[CommonKeys.IMAGE.value]}
        return data


class RandSliceGroupsd(RandSliceGroupd, MultiSampleTrait):
    """Draw several samples of :class:`RandSliceGroupd` from every volume, as a list.

    Args:
        keys: one volume ``(C, H, W, N)``.
        num_samples: number of samples.
        num_slices: see :class:`RandSliceGroup`.
        patch_size: see :class:`RandSliceGroup`.
        stride: see :class:`RandSliceGroup`.
        reverse_prob: see :class:`RandSliceGroup`.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> len(RandSliceGroupsd("image", num_samples=4, patch_size=16)({"image": torch.rand(1, 32, 32, 8)}))
        4
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_samples: int,
        num_slices: int = 7,
        patch_size: int | Sequence[int] | None = 128,
        stride: int | Sequence[int] = 1,
        reverse_prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, num_slices, patch_size, stride, reverse_prob, allow_missing_keys)
        if num_samples < 1:
            raise ValueError(f"num_samples must be positive, got {num_samples!r}.")
        self.num_samples = num_samples

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Draw ``num_samples`` samples."""
        return [self._sample(dict(data)) for _ in range(self.num_samples)]


RandSliceGroupD = RandSliceGroupDict = RandSliceGroupd
RandSliceGroupsD = RandSliceGroupsDict = RandSliceGroupsd
