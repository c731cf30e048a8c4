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

"""Scale intensities invertibly, and change their contrast at random."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, RandomizableTransform
from monai.utils import TraceKeys, TransformBackends
from torch import Tensor

from monai_sliceinterp.checks import switch
from monai_sliceinterp.transforms.mapping import InvertiblyApplyToKeys, RandApplyToKeys

__all__ = [
    "InvertibleScaleIntensityRange",
    "InvertibleScaleIntensityRangeD",
    "InvertibleScaleIntensityRangeDict",
    "InvertibleScaleIntensityRangePercentiles",
    "InvertibleScaleIntensityRangePercentilesD",
    "InvertibleScaleIntensityRangePercentilesDict",
    "InvertibleScaleIntensityRangePercentilesd",
    "InvertibleScaleIntensityRanged",
    "RandSigmoidContrast",
    "RandSigmoidContrastD",
    "RandSigmoidContrastDict",
    "RandSigmoidContrastd",
    "percentile_range",
    "scale_to_unit",
    "sigmoid_curve",
    "unscale_from_unit",
]


def percentile_range(image: Tensor, lower: float, upper: float) -> tuple[float, float]:
    """Compute the intensities at two percentiles of an image; its minimum and maximum where these coincide.

    Args:
        image: tensor of any shape and size.
        lower: lower percentile in [0, 100).
        upper: upper percentile in (lower, 100].

    Raises:
        ValueError: if the intensities at the percentiles are not finite.

    Example:
        >>> percentile_range(torch.arange(101), 1, 99)
        (1.0, 99.0)
    """
    values = np.asarray(image.detach().cpu())
    low, high = np.percentile(values, [lower, upper])
    if high <= low:  # nearly everything is background: the percentiles are no range of the foreground
        low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise ValueError(f"the image has NaN or infinite intensities ({low:g} to {high:g}); expected finite ones.")
    return float(low), float(high)


def scale_to_unit(image: Tensor, low: float, high: float, clip: bool) -> Tensor:
    """Map [low, high] to [0, 1] in float32; an empty range maps to 0."""
    width = high - low if high > low else float("inf")
    scaled = (image.to(torch.float64) - low) / width
    return (scaled.clamp(0.0, 1.0) if clip else scaled).to(torch.float32)


def unscale_from_unit(image: Tensor, low: float, high: float) -> Tensor:
    """Map [0, 1] back to [low, high]; with an empty range everything becomes ``low``."""
    return (image * (high - low)).add_(low)


class InvertibleScaleIntensityRange(InvertibleTransform):
    """Transform that scales a fixed intensity window to [0, 1], with an inverse that restores the original units.

    Args:
        a_min: intensity that becomes 0, for instance in HU.
        a_max: intensity that becomes 1.
        clip: clip to [0, 1]. What was clipped cannot be restored.

    Raises:
        ValueError: if the window is empty.

    Example:
        >>> scaler = InvertibleScaleIntensityRange(-1000, 1000)
        >>> scaled = scaler(torch.tensor([[-1000.0, 0.0, 500.0]]))
        >>> scaled.tolist(), scaler.inverse(scaled).tolist()
        ([[0.0, 0.5, 0.75]], [[-1000.0, 0.0, 500.0]])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, a_min: float, a_max: float, clip: bool = False) -> None:
        if not a_min < a_max:
            raise ValueError(f"the intensity window needs a_min < a_max, got {a_min} and {a_max}.")
        self.a_min, self.a_max, self.clip = float(a_min), float(a_max), switch("clip", clip)

    def range_of(self, img: Tensor) -> tuple[float, float]:
        """Return the intensities that become 0 and 1."""
        return self.a_min, self.a_max

    def __call__(self, img: Tensor) -> MetaTensor:
        """Scale ``img``, of any shape, to float32."""
        low, high = self.range_of(img)
        image = img if isinstance(img, MetaTensor) else MetaTensor(img)
        return self.push_transform(scale_to_unit(image, low, high, self.clip), extra_info={"low": low, "high": high})

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Restore the original units."""
        info = self.pop_transform(data)[TraceKeys.EXTRA_INFO]
        return cast(MetaTensor, unscale_from_unit(data, float(info["low"]), float(info["high"])))


class InvertibleScaleIntensityRangePercentiles(InvertibleScaleIntensityRange):
    """Transform that scales the range between two percentiles of each volume to [0, 1], with an inverse.

    The percentiles are those of the whole tensor, so that the frames of a cine share one scaling. A constant image
    becomes 0 and is restored exactly.

    Args:
        lower: lower percentile in [0, 100).
        upper: upper percentile in (lower, 100].
        clip: clip to [0, 1]. What was clipped cannot be restored.

    Raises:
        ValueError: if the percentiles are not in order.

    Example:
        >>> scaler = InvertibleScaleIntensityRangePercentiles(0, 100)
        >>> scaled = scaler(torch.tensor([[20.0, 30.0, 60.0]]))
        >>> scaled.tolist(), scaler.inverse(scaled).tolist()
        ([[0.0, 0.25, 1.0]], [[20.0, 30.0, 60.0]])
    """

    def __init__(self, lower: float = 1.0, upper: float = 99.0, clip: bool = False) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"percentiles need 0 <= lower < upper <= 100, got {lower} and {upper}.")
        self.lower, self.upper, self.clip = lower, upper, switch("clip", clip)

    def range_of(self, img: Tensor) -> tuple[float, float]:
        """Return the intensities that become 0 and 1."""
        return percentile_range(img, self.lower, self.upper)


class InvertibleScaleIntensityRanged(InvertiblyApplyToKeys):
    """Dictionary version of :class:`InvertibleScaleIntensityRange`, with its arguments after ``keys``.

    Example:
        >>> InvertibleScaleIntensityRanged("image", a_min=0, a_max=4)({"image": torch.tensor([3.0])})["image"].tolist()
        [0.75]
    """

    backend = InvertibleScaleIntensityRange.backend

    def __init__(
        self, keys: KeysCollection, a_min: float, a_max: float, clip: bool = False, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, InvertibleScaleIntensityRange(a_min, a_max, clip), allow_missing_keys)


class InvertibleScaleIntensityRangePercentilesd(InvertiblyApplyToKeys):
    """Dictionary version of :class:`InvertibleScaleIntensityRangePercentiles`, with its arguments after ``keys``.

    Example:
        >>> scaler = InvertibleScaleIntensityRangePercentilesd("image", lower=0, upper=100)
        >>> scaler({"image": torch.tensor([1.0, 2.0, 5.0])})["image"].tolist()
        [0.0, 0.25, 1.0]
    """

    backend = InvertibleScaleIntensityRangePercentiles.backend

    def __init__(
        self,
        keys: KeysCollection,
        lower: float = 1.0,
        upper: float = 99.0,
        clip: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, InvertibleScaleIntensityRangePercentiles(lower, upper, clip), allow_missing_keys)


def sigmoid_curve(image: Tensor, gain: float, cutoff: float) -> Tensor:
    """Apply a sigmoid intensity curve through (0, 0) and (1, 1).

    Args:
        image: intensities in [0, 1].
        gain: steepness, positive.
        cutoff: intensity at which the curve is steepest, in [0, 1].

    Example:
        >>> sigmoid_curve(torch.tensor([0.0, 0.25, 1.0]), gain=5.0, cutoff=0.5)
        tensor([0.0000, 0.1731, 1.0000])
    """
    low, high = (float(torch.sigmoid(torch.tensor(gain * (end - cutoff)))) for end in (0.0, 1.0))
    return ((torch.sigmoid(gain * (image - cutoff)) - low) / (high - low)).clamp(0.0, 1.0)


class RandSigmoidContrast(RandomizableTransform):
    """Random transform that applies a monotone intensity curve, ASI's augmentation of contrast (section IV).

    Args:
        prob: probability of applying a curve.
        gain: range of the steepness.
        cutoff: range of the intensity at which the curve is steepest.

    Example:
        >>> augment = RandSigmoidContrast(prob=1.0).set_random_state(seed=0)
        >>> augment(torch.tensor([0.0, 1.0]))
        tensor([0., 1.])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self, prob: float = 0.5, gain: tuple[float, float] = (2.5, 7.5), cutoff: tuple[float, float] = (0.25, 0.75)
    ) -> None:
        super().__init__(prob)
        if not (0 < gain[0] <= gain[1] and 0 <= cutoff[0] <= cutoff[1] <= 1):
            raise ValueError(f"need 0 < gain and cutoff within [0, 1], both ascending, got {gain} and {cutoff}.")
        self.gain, self.cutoff = gain, cutoff
        self.curve = (gain[0], cutoff[0])

    def randomize(self, data: Any = None) -> None:
        """Draw whether a curve is applied, and which."""
        super().randomize(data)
        self.curve = (float(self.R.uniform(*self.gain)), float(self.R.uniform(*self.cutoff)))

    def __call__(self, img: Tensor, randomize: bool = True) -> Tensor:
        """Apply the transform to ``img``, of any shape, with intensities in [0, 1]."""
        if randomize:
            self.randomize()
        return sigmoid_curve(img, *self.curve) if self._do_transform else img


class RandSigmoidContrastd(RandApplyToKeys):
    """Dictionary version of :class:`RandSigmoidContrast`: one curve for all keys.

    Example:
        >>> augment = RandSigmoidContrastd(["image", "label"], prob=1.0).set_random_state(seed=0)
        >>> out = augment({"image": torch.tensor([0.3]), "label": torch.tensor([0.3])})
        >>> bool(out["image"] == out["label"])
        True
    """

    backend = RandSigmoidContrast.backend

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        gain: tuple[float, float] = (2.5, 7.5),
        cutoff: tuple[float, float] = (0.25, 0.75),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandSigmoidContrast(prob, gain, cutoff), allow_missing_keys)


InvertibleScaleIntensityRangeD = InvertibleScaleIntensityRangeDict = InvertibleScaleIntensityRanged
InvertibleScaleIntensityRangePercentilesD = InvertibleScaleIntensityRangePercentilesDict = (
    InvertibleScaleIntensityRangePercentilesd
)
RandSigmoidContrastD = RandSigmoidContrastDict = RandSigmoidContrastd
