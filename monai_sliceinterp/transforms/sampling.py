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

"""Draw slice pairs and the slice between them from volumes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, MultiSampleTrait, Randomizable, Transform
from monai.utils import CommonKeys, TransformBackends
from torch import Tensor

from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms.groups import slice_group

__all__ = [
    "RandSlicePair",
    "RandSlicePairD",
    "RandSlicePairDict",
    "RandSlicePaird",
    "RandSlicePairs",
    "RandSlicePairsD",
    "RandSlicePairsDict",
    "RandSlicePairsd",
    "slice_pair",
]


def slice_pair(
    volume: Tensor, lower: int, upper: int, middle: int, corner: Sequence[int], patch_size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Cut two slices and one between them from a volume.

    Args:
        volume: ``(C, H, W, N)``, slices last.
        lower: index of the first slice of the pair.
        upper: index of the second slice of the pair; below ``lower`` for a pair in reverse order.
        middle: index of the slice between.
        corner: row and column of the patch's corner.
        patch_size: height and width of the patch. Where the volume is smaller, its border is repeated.

    Returns:
        The pair ``(2 C, h, w)`` and the slice between ``(C, h, w)``, as plain contiguous tensors.

    Example:
        >>> volume = torch.arange(3.0).expand(1, 4, 4, 3)
        >>> pair, between = slice_pair(volume, 0, 2, 1, corner=(0, 0), patch_size=(2, 2))
        >>> pair[:, 0, 0].tolist(), between[:, 0, 0].tolist()
        ([0.0, 2.0], [1.0])
    """
    patch = slice_group(volume, [lower, upper, middle], corner, patch_size)
    return patch[:2].flatten(0, 1).contiguous(), patch[2].contiguous()


class RandSlicePair(Randomizable, Transform):
    """Draw one patch of a slice triple x_{n-g}, x_n, x_{n+g} from a volume (ASI, section III-D).

    The pair may come in either order, so that a network cannot learn a direction. With ``fractional``, the pair is
    ``2 * gap`` slices apart and the slice between is any of the ``2 * gap - 1`` ones, alpha telling which.

    Args:
        patch_size: height and width of the patch; one number for both. A volume smaller than the patch has its border
            repeated. None: whole slices.
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
        >>> sampler = RandSlicePair(patch_size=32, gap=1).set_random_state(seed=0)
        >>> sample = sampler(torch.rand(1, 64, 48, 9))
        >>> {key: tuple(value.shape) for key, value in sample.items()}
        {'image': (2, 32, 32), 'label': (1, 32, 32), 'alpha': ()}
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        patch_size: int | Sequence[int] | None = 128,
        gap: int | Sequence[int] = 1,
        fractional: bool = False,
        reverse_prob: float = 0.5,
        max_distance: float | None = None,
        draw_channel: bool = False,
    ) -> None:
        if isinstance(patch_size, int):
            patch_size = (patch_size, patch_size)
        if patch_size is not None and (len(patch_size) != 2 or min(patch_size) < 1):
            raise ValueError(f"patch_size must be a positive height and width, got {patch_size!r}.")
        gaps = (gap,) if isinstance(gap, int | float) else tuple(gap)
        if not gaps or any(isinstance(value, bool) or value != int(value) or value < 1 for value in gaps):
            raise ValueError(f"gap must be one or more positive integers, got {gap!r}.")
        if max_distance is not None and not max_distance > 0:
            raise ValueError(f"max_distance must be a positive number of mm, got {max_distance!r}.")
        if not 0 <= reverse_prob <= 1:
            raise ValueError(f"reverse_prob must be within [0, 1], got {reverse_prob!r}.")
        self.patch_size = None if patch_size is None else tuple(patch_size)
        self.gaps = tuple(sorted(int(value) for value in gaps))
        self.fractional, self.reverse_prob = fractional, reverse_prob
        self.max_distance, self.draw_channel = max_distance, draw_channel
        self.drawn: dict[str, Any] = {}

    def randomize(self, data: Tensor) -> None:
        """Draw slices, position and order for the volume ``data`` ``(C, H, W, N)``."""
        channels, height, width, num_slices = data.shape
        gaps = [gap for gap in self.gaps if num_slices > 2 * gap]
        if not gaps:
            needed = 2 * self.gaps[0] + 1
            raise ValueError(f"a pair with gap {self.gaps[0]} needs {needed} slices, the volume has {num_slices}.")
        if self.max_distance is not None and len(gaps) > 1:
            limit = self.max_distance / slice_geometry(data, axis=-1).slice_spacing
            gaps = [gap for gap in gaps if gap <= limit] or gaps[:1]
        gap = gaps[int(self.R.randint(len(gaps)))] if len(gaps) > 1 else gaps[0]
        span = 2 * gap
        size = (height, width) if self.patch_size is None else self.patch_size
        lower = int(self.R.randint(num_slices - span))
        offset = int(self.R.randint(1, span)) if self.fractional and span > 2 else gap
        corner = [
            int(self.R.randint(max(full - part, 0) + 1)) for full, part in zip((height, width), size, strict=True)
        ]
        ends, alpha = (lower, lower + span), offset / span
        if self.R.random_sample() < self.reverse_prob:
            ends, alpha = ends[::-1], 1.0 - alpha
        self.drawn = {
            "lower": ends[0],
            "upper": ends[1],
            "middle": lower + offset,
            "alpha": alpha,
            "corner": corner,
            "patch_size": size,
            "channel": int(self.R.randint(channels)) if self.draw_channel and channels > 1 else None,
        }

    def __call__(self, img: Tensor, randomize: bool = True) -> dict[str, Tensor]:
        """Draw a sample from ``img`` ``(C, H, W, N)``, slices last.

        Returns:
            ``image``: the pair ``(2 C, h, w)``; ``label``: the slice between ``(C, h, w)``; ``alpha``: its fraction of
            the way from the first to the second slice of the pair, a scalar.
        """
        if randomize:
            self.randomize(img)
        place = {key: value for key, value in self.drawn.items() if key not in ("alpha", "channel")}
        channel = self.drawn["channel"]
        pair, between = slice_pair(img if channel is None else img[channel : channel + 1], **place)
        alpha = torch.tensor(self.drawn["alpha"], dtype=torch.float32)
        return {CommonKeys.IMAGE.value: pair, CommonKeys.LABEL.value: between, "alpha": alpha}


class RandSlicePairs(RandSlicePair, MultiSampleTrait):
    """Draw several samples of :class:`RandSlicePair` from a volume.

    Args:
        num_samples: number of samples.
        patch_size: see :class:`RandSlicePair`.
        gap: see :class:`RandSlicePair`.
        fractional: see :class:`RandSlicePair`.
        reverse_prob: see :class:`RandSlicePair`.
        max_distance: see :class:`RandSlicePair`.
        draw_channel: see :class:`RandSlicePair`.

    Example:
        >>> len(RandSlicePairs(num_samples=3, patch_size=16)(torch.rand(1, 32, 32, 5)))
        3
    """

    def __init__(
        self,
        num_samples: int,
        patch_size: int | Sequence[int] | None = 128,
        gap: int | Sequence[int] = 1,
        fractional: bool = False,
        reverse_prob: float = 0.5,
        max_distance: float | None = None,
        draw_channel: bool = False,
    ) -> None:
        super().__init__(patch_size, gap, fractional, reverse_prob, max_distance, draw_channel)
        if num_samples < 1:
            raise ValueError(f"num_samples must be positive, got {num_samples!r}.")
        self.num_samples = num_samples

    def __call__(self, img: Tensor, randomize: bool = True) -> list[dict[str, Tensor]]:  # type: ignore[override]
        """Draw ``num_samples`` samples from ``img`` ``(C, H, W, N)``."""
        return [super(RandSlicePairs, self).__call__(img, randomize) for _ in range(self.num_samples)]


class RandSlicePaird(Randomizable, MapTransform):
    """Dictionary version of :class:`RandSlicePair`: the volume under ``keys`` is replaced by a sample.

    With several keys (an image and its mask, say) the slices, position and patch are drawn once for all. The slice
    between goes to ``label`` for the first key, and to ``<key>_label`` for further ones.

    Args:
        keys: volumes ``(C, H, W, N)`` of the same size.
        patch_size: see :class:`RandSlicePair`.
        gap: see :class:`RandSlicePair`.
        fractional: see :class:`RandSlicePair`.
        reverse_prob: see :class:`RandSlicePair`.
        max_distance: see :class:`RandSlicePair`.
        draw_channel: see :class:`RandSlicePair`.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> sample = RandSlicePaird("image", patch_size=16)({"image": torch.rand(1, 32, 32, 5)})
        >>> sorted(sample), float(sample["alpha"])
        (['alpha', 'image', 'label'], 0.5)
    """

    backend = RandSlicePair.backend

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: int | Sequence[int] | None = 128,
        gap: int | Sequence[int] = 1,
        fractional: bool = False,
        reverse_prob: float = 0.5,
        max_distance: float | None = None,
        draw_channel: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        names = [*self.keys, "label", *(f"{key}_label" for key in self.keys[1:]), "alpha"]
        if len(set(names)) < len(names):
            raise ValueError(f"the samples of keys {self.keys} would overwrite each other; rename those of {names}.")
        self.sampler = RandSlicePair(patch_size, gap, fractional, reverse_prob, max_distance, draw_channel)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandSlicePaird:
        """Set the random state of the sampler behind."""
        super().set_random_state(seed, state)
        self.sampler.set_random_state(seed, state)
        return self

    def randomize(self, data: Tensor) -> None:
        """Draw slices, position and order for the volume ``data``."""
        self.sampler.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        """Draw one sample."""
        return self._sample(dict(data))

    def _sample(self, data: dict[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        keys = list(self.key_iterator(data))
        if keys:
            self.randomize(data[keys[0]])
        for number, key in enumerate(keys):
            if data[key].shape[1:] != data[keys[0]].shape[1:]:
                raise ValueError(
                    f"{key!r} has size {tuple(data[key].shape[1:])}, {keys[0]!r} has {tuple(data[keys[0]].shape[1:])}; "
                    "expected volumes of one size."
                )
            sample = self.sampler(data[key], randomize=False)
            result[key] = sample["image"]
            result["label" if number == 0 else f"{key}_label"] = sample["label"]
            result["alpha"] = sample["alpha"]
        return result


class RandSlicePairsd(RandSlicePaird, MultiSampleTrait):
    """Draw several samples of :class:`RandSlicePaird` from every volume, as a list.

    Args:
        keys: volumes ``(C, H, W, N)`` of the same size.
        num_samples: number of samples.
        patch_size: see :class:`RandSlicePair`.
        gap: see :class:`RandSlicePair`.
        fractional: see :class:`RandSlicePair`.
        reverse_prob: see :class:`RandSlicePair`.
        max_distance: see :class:`RandSlicePair`.
        draw_channel: see :class:`RandSlicePair`.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> len(RandSlicePairsd("image", num_samples=4, patch_size=16)({"image": torch.rand(1, 32, 32, 5)}))
        4
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_samples: int,
        patch_size: int | Sequence[int] | None = 128,
        gap: int | Sequence[int] = 1,
        fractional: bool = False,
        reverse_prob: float = 0.5,
        max_distance: float | None = None,
        draw_channel: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys, patch_size, gap, fractional, reverse_prob, max_distance, draw_channel, allow_missing_keys
        )
        if num_samples < 1:
            raise ValueError(f"num_samples must be positive, got {num_samples!r}.")
        self.num_samples = num_samples

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Draw ``num_samples`` samples."""
        return [self._sample(dict(data)) for _ in range(self.num_samples)]


RandSlicePairD = RandSlicePairDict = RandSlicePaird
RandSlicePairsD = RandSlicePairsDict = RandSlicePairsd
