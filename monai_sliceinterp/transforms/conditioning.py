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

"""Encode the condition of Virtual Thin Slice's discriminator: body part, slice interval, slab width."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from monai_sliceinterp.checks import not_negative, one_of, positive
from monai_sliceinterp.data import BODY_PARTS

__all__ = [
    "DegradationConditionD",
    "DegradationConditionDict",
    "DegradationConditiond",
    "condition_vector",
]


def condition_vector(
    body_part: str | None,
    factor: float,
    sigma: float,
    factors: Sequence[float] = (4, 8),
    sigma_threshold: float = 1.6,
) -> Tensor:
    """Encode a degradation as a vector of zeros and ones (Virtual Thin Slice, section 3.4).

    Args:
        body_part: "head", "chest", "abdomen" or "leg"; None or "": unknown, all zeros.
        factor: number of thin slices in the interval of the thick ones. At the paper's 1 mm, 4 is 4 mm.
        sigma: standard deviation of the slab in voxels.
        factors: the factors there are, one channel each; one that is named several times counts once.
        sigma_threshold: slabs up to this are narrow, others wide. The paper names two scales but not where they part;
            this is the middle of its range of 0 to 3.2.

    Returns:
        ``(4 + len(factors) + 2,)`` float32.

    Raises:
        ValueError: for an unknown body part, another factor, or a sigma that is negative or not a number.

    Example:
        >>> condition_vector("chest", factor=8, sigma=0.5).tolist()
        [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    """
    if body_part:
        one_of("body part", body_part, BODY_PARTS)
    factors = list(dict.fromkeys(factors))
    known = [math.isclose(factor, value, rel_tol=1e-6) for value in factors]
    if sum(known) != 1:
        raise ValueError(f"no condition for a factor of {factor!r}; expected one of {', '.join(map(str, factors))}.")
    narrow = not_negative("sigma", float(sigma)) <= sigma_threshold
    parts = [name == body_part for name in BODY_PARTS]
    return torch.tensor([*parts, *known, narrow, not narrow], dtype=torch.float32)


class DegradationConditiond(MapTransform):
    """Transform that encodes the parameters of a degradation, see :func:`condition_vector`.

    Args:
        keys: parameters as :class:`monai_sliceinterp.transforms.RandDegraderd` keeps them.
        body_part_key: entry of the data list with the body part; where it is missing, the part is unknown.
        condition_key: where the vector goes.
        factors: see :func:`condition_vector`.
        sigma_threshold: see :func:`condition_vector`.
        allow_missing_keys: do not raise for keys that are not there.
        unit: length in mm that factors and sigma count in, see :class:`monai_sliceinterp.transforms.RandDegrader`;
            None: the slice spacing of the thin volume.

    Raises:
        ValueError: if there are several keys, or the unit is not positive.

    Example:
        >>> transform = DegradationConditiond("degradation")
        >>> transform({"degradation": {"factor": 4.0, "sigma": 2.0}, "body_part": "leg"})["condition"].tolist()
        [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    """

    def __init__(
        self,
        keys: KeysCollection,
        body_part_key: str = "body_part",
        condition_key: str = "condition",
        factors: Sequence[float] = (4, 8),
        sigma_threshold: float = 1.6,
        allow_missing_keys: bool = False,
        unit: float | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.unit = None if unit is None else positive("unit", unit, "mm")
        if len(self.keys) != 1:
            raise ValueError(f"expected one key, got {self.keys}.")
        self.body_part_key, self.condition_key = body_part_key, condition_key
        self.factors, self.sigma_threshold = tuple(factors), sigma_threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the condition."""
        result = dict(data)
        for key in self.key_iterator(result):
            factor, sigma = result[key]["factor"], result[key]["sigma"]
            if self.unit is not None:
                scale = result[key]["slice_spacing"] / factor / self.unit  # units in a voxel
                factor, sigma = factor * scale, sigma * scale
                nearest = min(self.factors, key=lambda value: abs(value - factor))
                factor = nearest if math.isclose(factor, nearest, rel_tol=1e-3) else factor  # headers are rounded
            result[self.condition_key] = condition_vector(
                result.get(self.body_part_key), factor, sigma, self.factors, self.sigma_threshold
            )
        return result


DegradationConditionD = DegradationConditionDict = DegradationConditiond
