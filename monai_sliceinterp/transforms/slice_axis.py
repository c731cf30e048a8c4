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

"""Draw which axis of a volume is its slice axis."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends
from torch import Tensor

from monai_sliceinterp.transforms.orientation import move_axis_last

__all__ = [
    "RandThinAxisLast",
    "RandThinAxisLastD",
    "RandThinAxisLastDict",
    "RandThinAxisLastd",
    "thin_axes",
]


def thin_axes(image: MetaTensor, max_ratio: float = 2.0) -> list[int]:
    """Axes along which a volume is sampled finely, so that it can be made thick along them.

    Args:
        image: ``(C, X, Y, Z)`` with its affine in mm.
        max_ratio: largest spacing that counts as thin, in units of the smallest one.

    Returns:
        One to three of 0, 1, 2.

    Example:
        >>> thin_axes(MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.diag(torch.tensor([1.4, 1.4, 5.0, 1.0]))))
        [0, 1]
    """
    spacings = image.pixdim.tolist()
    return [axis for axis, spacing in enumerate(spacings) if spacing <= max_ratio * min(spacings)]


class RandThinAxisLast(RandomizableTransform):
    """Move one of a volume's thin axes to the end, where the slice axis is.

    A scan has thin "slices" along its rows and columns as well, thick-slice scans too. All of them can teach what is
    lost when slices are thick.

    Args:
        max_ratio: largest spacing that counts as thin, in units of the volume's smallest one.
        prob: probability to draw an axis, every thin one as likely as the others; otherwise the last axis stays, if it
            is thin.

    Raises:
        ValueError: if ``max_ratio`` is below 1, or ``prob`` not a probability.

    Example:
        >>> scan = MetaTensor(torch.zeros(1, 8, 9, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
        >>> RandThinAxisLast().set_random_state(0)(scan).shape[-1] in (8, 9)
        True
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, max_ratio: float = 2.0, prob: float = 1.0) -> None:
        super().__init__(prob)
        if not max_ratio >= 1:
            raise ValueError(f"max_ratio must be 1 or more, got {max_ratio!r}.")
        self.max_ratio, self.axis = max_ratio, 2

    def randomize(self, data: MetaTensor) -> None:
        """Draw the axis for a volume ``data`` ``(C, X, Y, Z)``."""
        super().randomize(None)
        axes = thin_axes(data, self.max_ratio)
        drawn = axes[int(self.R.randint(len(axes)))]
        self.axis = drawn if self._do_transform or 2 not in axes else 2

    def __call__(self, img: Tensor, randomize: bool = True) -> MetaTensor:
        """Apply the transform to ``img`` ``(C, X, Y, Z)``; the affine follows."""
        if img.ndim != 4:
            raise ValueError(f"expected a volume (C, X, Y, Z), got shape {tuple(img.shape)}.")
        image = img if isinstance(img, MetaTensor) else MetaTensor(img)
        if randomize:
            self.randomize(image)
        moved, matrix = move_axis_last(image.as_tensor(), self.axis)
        return MetaTensor(moved, affine=torch.as_tensor(image.affine) @ matrix.to(image.affine), meta=dict(image.meta))


class RandThinAxisLastd(RandomizableTransform, MapTransform):
    """Dictionary version of :class:`RandThinAxisLast`: the axis is drawn for the first key, the others follow.

    Args:
        keys: volumes of one grid.
        max_ratio: see :class:`RandThinAxisLast`.
        prob: see :class:`RandThinAxisLast`.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> scan = MetaTensor(torch.zeros(1, 8, 8, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
        >>> RandThinAxisLastd("image")({"image": scan})["image"].shape
        torch.Size([1, 8, 3, 8])
    """

    backend = RandThinAxisLast.backend

    def __init__(
        self, keys: KeysCollection, max_ratio: float = 2.0, prob: float = 1.0, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.rand_axis = RandThinAxisLast(max_ratio, prob)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandThinAxisLastd:
        """Set the random state of the transform behind."""
        super().set_random_state(seed, state)
        self.rand_axis.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply the transform to every key."""
        result = dict(data)
        for number, key in enumerate(self.key_iterator(result)):
            result[key] = self.rand_axis(result[key], randomize=number == 0)
        return result


RandThinAxisLastD = RandThinAxisLastDict = RandThinAxisLastd
