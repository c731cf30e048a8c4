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

"""Dictionary versions of the Degrader, see :mod:`monai_sliceinterp.transforms.degrader`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import ensure_tuple
from torch import Tensor

from monai_sliceinterp.transforms.degrader import Degradation, Degrader, RandDegrader

__all__ = [
    "DegraderD",
    "DegraderDict",
    "Degraderd",
    "RandDegraderD",
    "RandDegraderDict",
    "RandDegraderd",
]


class Degraderd(MapTransform):
    """Dictionary version of :class:`Degrader`: the volumes under ``keys`` become thick.

    Args:
        keys: volumes to degrade.
        thin_keys: where the matching thin volumes go, one name for each key; None: they are not kept.
        parameters_key: where the parameters used go (for the first key); None: they are not kept.
        allow_missing_keys: do not raise for keys that are not there.
        **settings: arguments of :class:`Degrader`.

    Example:
        >>> import torch
        >>> pair = Degraderd("image", thin_keys="label", factor=2, sigma=0)({"image": torch.rand(1, 4, 4, 5)})
        >>> tuple(pair["image"].shape), tuple(pair["label"].shape), pair["degradation"]["slice_spacing"]
        ((1, 4, 4, 3), (1, 4, 4, 5), 2.0)
    """

    backend = Degrader.backend

    def __init__(
        self,
        keys: KeysCollection,
        thin_keys: KeysCollection | None = None,
        parameters_key: str | None = "degradation",
        allow_missing_keys: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.thin_keys, self.parameters_key = _thin_keys(self.keys, thin_keys), parameters_key
        self.degrader = Degrader(**settings)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Degrade every key."""
        result = dict(data)
        for number, (key, thin_key) in enumerate(self.key_iterator(result, self.thin_keys)):
            self._apply(result, key, thin_key, number)
        return result

    def _apply(self, result: dict[Hashable, Any], key: Hashable, thin_key: Hashable, number: int) -> None:
        image = result[key]
        try:
            thick, thin, parameters = self._degrade(image, number)
        except ValueError as error:
            name = getattr(image, "meta", {}).get("filename_or_obj", key)
            raise ValueError(f"{name}: {error}") from error
        result[key] = thick
        if thin_key is not None:
            result[thin_key] = thin
        if number == 0 and self.parameters_key is not None:
            result[self.parameters_key] = parameters

    def _degrade(self, image: Tensor, number: int) -> Degradation:
        return self.degrader(image)


class RandDegraderd(RandomizableTransform, Degraderd):
    """Dictionary version of :class:`RandDegrader`; all keys are degraded alike, each with noise of its own.

    Args:
        keys: volumes to degrade.
        thin_keys: see :class:`Degraderd`.
        parameters_key: see :class:`Degraderd`.
        allow_missing_keys: do not raise for keys that are not there.
        **settings: arguments of :class:`RandDegrader`.

    Example:
        >>> import torch
        >>> degrader = RandDegraderd("image", thin_keys="label", restore_grid=True).set_random_state(seed=0)
        >>> pair = degrader({"image": torch.rand(1, 8, 8, 33)})
        >>> pair["image"].shape == pair["label"].shape
        True
    """

    backend = Degrader.backend

    def __init__(
        self,
        keys: KeysCollection,
        thin_keys: KeysCollection | None = None,
        parameters_key: str | None = "degradation",
        allow_missing_keys: bool = False,
        **settings: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self)
        self.thin_keys, self.parameters_key = _thin_keys(self.keys, thin_keys), parameters_key
        self.rand_degrader = RandDegrader(**settings)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandDegraderd:
        """Set the random state of the transform behind."""
        super().set_random_state(seed, state)
        self.rand_degrader.set_random_state(seed, state)
        return self

    def _degrade(self, image: Tensor, number: int) -> Degradation:
        if number == 0:
            self.rand_degrader.randomize(image)
        else:  # the same slabs, but noise of its own
            self.rand_degrader.drawn["seed"] += 1
        return self.rand_degrader(image, randomize=False)


def _thin_keys(keys: Sequence[Hashable], thin_keys: KeysCollection | None) -> tuple[Hashable, ...]:
    names = (None,) * len(keys) if thin_keys is None else ensure_tuple(thin_keys)
    if len(names) != len(keys):
        raise ValueError(f"expected one name of thin_keys for each of {len(keys)} keys, got {len(names)}.")
    return names


DegraderD = DegraderDict = Degraderd
RandDegraderD = RandDegraderDict = RandDegraderd
