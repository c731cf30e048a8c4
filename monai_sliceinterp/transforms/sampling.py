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

"""Draw patches of slices from volumes: two slices to interpolate between, and what lies between them."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MultiSampleTrait, Randomizable, Transform
from monai.utils import CommonKeys, TransformBackends
from torch import Tensor
from torch.nn import functional as F

from monai_sliceinterp.checks import fraction, positive, positive_integer, positive_integers, switch
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms.mapping import RandApplyToKeys, name_in_errors

__all__ = [
    "RandSliceGroups",
    "RandSliceGroupsD",
    "RandSliceGroupsDict",
    "RandSliceGroupsd",
    "RandSlicePairs",
    "RandSlicePairsD",
    "RandSlicePairsDict",
    "RandSlicePairsd",
    "slice_group",
]


_LARGEST_PATCH, _COMMON_PATCH = 4, 512
"""Largest patch in sizes of a slice; pixels that none needs to fall below, whatever the slice."""


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


class RandSliceGroups(Randomizable, Transform, MultiSampleTrait):
    """Random transform that cuts patches of n slices at equal distances from a volume (HRINet, section 3.3.2).

    The first and the last slice of a group are the pair to interpolate between, the others are the targets. Groups may
    come in either order, so that a network cannot learn a direction. Unlike most array transforms of MONAI it returns
    a list of dictionaries, one for each sample.

    Args:
        num_samples: number of samples.
        num_slices: number n of slices of a group; the paper has 7.
        patch_size: height and width of the patch; one number for both. A volume smaller than the patch has its border
            repeated. None: whole slices.
        stride: distance of the group's slices in the volume; of several numbers one is drawn for every sample, among
            those the volume is large enough for.
        reverse_prob: probability of giving the group in reverse order.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> (sample,) = RandSliceGroups(num_slices=7, patch_size=32)(torch.rand(1, 64, 48, 9))
        >>> {key: tuple(value.shape) for key, value in sample.items()}
        {'image': (2, 32, 32), 'label': (5, 32, 32), 'alpha': (5,)}
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        num_samples: int = 1,
        num_slices: int = 7,
        patch_size: int | Sequence[int] | None = 128,
        stride: int | Sequence[int] = 1,
        reverse_prob: float = 0.5,
    ) -> None:
        if isinstance(patch_size, int):
            patch_size = (patch_size, patch_size)
        self.num_samples = positive_integer("num_samples", num_samples)
        self.num_slices = positive_integer("num_slices", num_slices, least=3)
        self.patch_size = None if patch_size is None else positive_integers("patch_size", patch_size, count=2)
        self.strides = tuple(sorted(positive_integers("stride", stride)))
        self.reverse_prob = fraction("reverse_prob", reverse_prob)
        self.draws: list[dict[str, Any]] = []

    def randomize(self, data: Tensor) -> None:
        """Draw slices, position and order of every sample for the volume ``data`` ``(C, H, W, N)``."""
        self.draws = [self._draw(data) for _ in range(self.num_samples)]

    def _draw(self, data: Tensor) -> dict[str, Any]:
        _, height, width, num_slices = data.shape
        gaps = self.num_slices - 1
        strides = [stride for stride in self.strides if stride * gaps < num_slices]
        if not strides:
            raise ValueError(
                f"a group of {self.num_slices} slices at distance {self.strides[0]} needs "
                f"{self.strides[0] * gaps + 1} slices, the volume has {num_slices}."
            )
        strides = self._allowed(strides, data)
        stride = strides[int(self.R.randint(len(strides)))]
        size = (height, width) if self.patch_size is None else self.patch_size
        largest = [max(_LARGEST_PATCH * full, _COMMON_PATCH) for full in (height, width)]
        if size[0] > largest[0] or size[1] > largest[1]:
            raise ValueError(
                f"patches of {size[0]} x {size[1]} are nothing but repeated border of slices of {height} x {width}; "
                f"expected a patch_size of at most {largest[0]} x {largest[1]}."
            )
        if size[0] > height or size[1] > width:
            warnings.warn(
                f"patches of {size[0]} x {size[1]} exceed slices of {height} x {width}, whose border is repeated.",
                stacklevel=2,
            )
        indices = self._indices(int(self.R.randint(num_slices - stride * gaps)), stride)
        corner = [
            int(self.R.randint(max(full - part, 0) + 1)) for full, part in zip((height, width), size, strict=True)
        ]
        if self.R.random_sample() < self.reverse_prob:
            indices.reverse()
        return {"indices": indices, "corner": corner, "patch_size": size}

    def _allowed(self, strides: list[int], data: Tensor) -> list[int]:
        return strides

    def _indices(self, first: int, stride: int) -> list[int]:
        return [first + stride * number for number in range(self.num_slices)]

    def __call__(self, img: Tensor, randomize: bool = True) -> list[dict[str, Tensor]]:
        """Draw samples from ``img`` ``(C, H, W, N)``, slices last.

        Returns:
            For every sample: ``image``: the pair ``(2 C, h, w)``; ``label``: the slices between in order
            ``((n - 2) C, h, w)``; ``alpha``: their fractions of the way from the first to the second slice of the pair
            ``(n - 2,)``.
        """
        if randomize:
            self.randomize(img)
        return [self._cut(img, draw) for draw in self.draws]

    def _cut(self, img: Tensor, draw: Mapping[str, Any]) -> dict[str, Tensor]:
        first, *between, last = draw["indices"]
        group = slice_group(img, **draw)
        alpha = [(index - first) / (last - first) for index in between]
        return {
            CommonKeys.IMAGE.value: group[[0, -1]].flatten(0, 1).contiguous(),
            CommonKeys.LABEL.value: group[1:-1].flatten(0, 1).contiguous(),
            "alpha": torch.tensor(alpha, dtype=torch.float32),
        }


class RandSlicePairs(RandSliceGroups):
    """Random transform that cuts patches of slice triples x_{n-g}, x_n, x_{n+g} from a volume (ASI, section III-D).

    A triple is a group of three slices at a stride of ``gap``, and the samples are those of
    :class:`RandSliceGroups`, with a scalar alpha. With ``fractional``, the
    pair is ``2 * gap`` slices apart and the slice between is any of the ``2 * gap - 1`` ones, at fraction alpha.

    Args:
        num_samples: number of samples.
        patch_size: see :class:`RandSliceGroups`.
        gap: number g of slices from the slice between to either slice of the pair; of several numbers one is drawn for
            every sample, among those the volume is large enough for.
        fractional: draw the position between the pair instead of taking the middle.
        reverse_prob: probability of giving the pair in reverse order.
        max_distance: largest distance g x slice spacing in mm; larger gaps are not drawn, but the smallest one always
            may be. So one setting serves thin and thick slices. The spacing comes from the volume's affine.
        draw_channel: draw one channel (a frame of a time series) instead of keeping all.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> (sample,) = RandSlicePairs(patch_size=32, gap=1)(torch.rand(1, 64, 48, 9))
        >>> {key: tuple(value.shape) for key, value in sample.items()}  # alpha is a scalar
        {'image': (2, 32, 32), 'label': (1, 32, 32), 'alpha': ()}
    """

    def __init__(
        self,
        num_samples: int = 1,
        patch_size: int | Sequence[int] | None = 128,
        gap: int | Sequence[int] = 1,
        fractional: bool = False,
        reverse_prob: float = 0.5,
        max_distance: float | None = None,
        draw_channel: bool = False,
    ) -> None:
        super().__init__(num_samples, 3, patch_size, positive_integers("gap", gap), reverse_prob)
        self.fractional, self.draw_channel = switch("fractional", fractional), switch("draw_channel", draw_channel)
        self.max_distance = None if max_distance is None else positive("max_distance", max_distance, "mm")

    def _draw(self, data: Tensor) -> dict[str, Any]:
        draw = super()._draw(data)
        channel = int(self.R.randint(len(data))) if self.draw_channel else None
        return {**draw, "channel": channel}

    def _allowed(self, strides: list[int], data: Tensor) -> list[int]:
        if self.max_distance is None or len(strides) == 1:
            return strides
        limit = self.max_distance / slice_geometry(data, axis=-1).slice_spacing
        return [stride for stride in strides if stride <= limit] or strides[:1]

    def _indices(self, first: int, stride: int) -> list[int]:
        offset = int(self.R.randint(1, 2 * stride)) if self.fractional else stride
        return [first, first + offset, first + 2 * stride]

    def _cut(self, img: Tensor, draw: Mapping[str, Any]) -> dict[str, Tensor]:
        channel, patch = draw["channel"], {key: draw[key] for key in ("indices", "corner", "patch_size")}
        sample = super()._cut(img if channel is None else img[channel : channel + 1], patch)
        return {**sample, "alpha": sample["alpha"].squeeze(0)}


class SampleKeys(RandApplyToKeys, MultiSampleTrait):
    """Base of dictionary transforms that make a list of samples, with the pairs of slices in place of the volumes.

    With several keys (an image and its mask, say) the slices, position and patch are drawn once for all. The slices
    between go to ``label`` for the first key, and to ``<key>_label`` for further ones.
    """

    def __init__(self, keys: KeysCollection, sampler: RandSliceGroups, allow_missing_keys: bool) -> None:
        super().__init__(keys, sampler, allow_missing_keys)
        names = [*self.keys, "label", *(f"{key}_label" for key in self.keys[1:]), "alpha"]
        if len(set(names)) < len(names):
            raise ValueError(f"the samples of keys {self.keys} would overwrite each other; rename those of {names}.")

    def __call__(  # type: ignore[override]
        self, data: Mapping[Hashable, Any]
    ) -> list[dict[Hashable, Any]]:
        """Draw the samples."""
        result = [dict(data) for _ in range(self.transform.num_samples)]
        size = None
        for number, key in enumerate(self.key_iterator(dict(data))):
            image = data[key]
            size = size or image.shape[1:]
            with name_in_errors(image, key):
                if image.shape[1:] != size:
                    raise ValueError(f"size {tuple(image.shape[1:])} differs from {tuple(size)} of the first key.")
                samples = self.transform(image, randomize=number == 0)
            for item, sample in zip(result, samples, strict=True):
                item[key] = sample["image"]
                item["label" if number == 0 else f"{key}_label"] = sample["label"]
                item["alpha"] = sample["alpha"]
        return result


class RandSliceGroupsd(SampleKeys):
    """Dictionary version of :class:`RandSliceGroups`, with its arguments after ``keys``.

    The pair takes the place of the volume, the slices between go to ``label`` (for the first key; to ``<key>_label``
    for further ones, which get the same slices, position and patch), and their fractions to ``alpha``.

    Example:
        >>> samples = RandSliceGroupsd("image", num_samples=4, patch_size=16)({"image": torch.rand(1, 32, 32, 8)})
        >>> len(samples), sorted(samples[0])
        (4, ['alpha', 'image', 'label'])
    """

    backend = RandSliceGroups.backend

    def __init__(
        self,
        keys: KeysCollection,
        num_samples: int = 1,
        num_slices: int = 7,
        patch_size: int | Sequence[int] | None = 128,
        stride: int | Sequence[int] = 1,
        reverse_prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        sampler = RandSliceGroups(num_samples, num_slices, patch_size, stride, reverse_prob)
        super().__init__(keys, sampler, allow_missing_keys)


class RandSlicePairsd(SampleKeys):
    """Dictionary version of :class:`RandSlicePairs`, with its arguments after ``keys``.

    The entries of the samples are those of :class:`RandSliceGroupsd`.

    Example:
        >>> samples = RandSlicePairsd("image", num_samples=4, patch_size=16)({"image": torch.rand(1, 32, 32, 5)})
        >>> len(samples), float(samples[0]["alpha"])
        (4, 0.5)
    """

    backend = RandSlicePairs.backend

    def __init__(
        self,
        keys: KeysCollection,
        num_samples: int = 1,
        patch_size: int | Sequence[int] | None = 128,
        gap: int | Sequence[int] = 1,
        fractional: bool = False,
        reverse_prob: float = 0.5,
        max_distance: float | None = None,
        draw_channel: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        sampler = RandSlicePairs(num_samples, patch_size, gap, fractional, reverse_prob, max_distance, draw_channel)
        super().__init__(keys, sampler, allow_missing_keys)


RandSliceGroupsD = RandSliceGroupsDict = RandSliceGroupsd
RandSlicePairsD = RandSlicePairsDict = RandSlicePairsd
