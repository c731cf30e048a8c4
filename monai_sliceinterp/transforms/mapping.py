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

"""Bases of dictionary transforms: apply one array transform to every key, and name the file in errors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform, Randomizable
from typing_extensions import Self

__all__ = ["ApplyToKeys", "InvertiblyApplyToKeys", "RandApplyToKeys", "name_in_errors"]


class ApplyToKeys(MapTransform):
    """Dictionary transform that applies an array transform to every key.

    Args:
        keys: entries to transform.
        transform: the array transform.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> ApplyToKeys(["a", "b"], abs)({"a": -1, "b": -2, "c": -3})
        {'a': 1, 'b': 2, 'c': -3}
    """

    def __init__(self, keys: KeysCollection, transform: Callable[..., Any], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform: Any = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform every key."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.transform(result[key])
        return result


class InvertiblyApplyToKeys(ApplyToKeys, InvertibleTransform):
    """Dictionary transform that applies an invertible array transform to every key.

    Example:
        >>> import torch
        >>> from monai_sliceinterp.transforms import InvertibleScaleIntensityRange
        >>> scale = InvertiblyApplyToKeys("image", InvertibleScaleIntensityRange(0, 10))
        >>> scale.inverse(scale({"image": torch.tensor([5.0])}))["image"].item()
        5.0
    """

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo the transform on every key."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.transform.inverse(result[key])
        return result


class RandApplyToKeys(Randomizable, ApplyToKeys):
    """Base of random dictionary transforms: an array transform draws for the first key and treats the others alike.

    Example:
        >>> import torch
        >>> from monai_sliceinterp.transforms import RandSigmoidContrast
        >>> augment = RandApplyToKeys(["a", "b"], RandSigmoidContrast(prob=1.0)).set_random_state(seed=0)
        >>> result = augment({"a": torch.tensor([0.3]), "b": torch.tensor([0.3])})
        >>> bool(result["a"] == result["b"])
        True
    """

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        """Set the random state, that of the array transform included."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        """Transform every key."""
        result = dict(data)
        for number, key in enumerate(self.key_iterator(result)):
            result[key] = self.transform(result[key], randomize=number == 0)
        return result


@contextmanager
def name_in_errors(image: Any, key: Hashable) -> Iterator[None]:
    """Begin the message of a ValueError with the file that an image comes from, or with its key.

    Example:
        >>> with name_in_errors(image=None, key="label"):
        ...     raise ValueError("the volume is empty.")
        Traceback (most recent call last):
        ...
        ValueError: label: the volume is empty.
    """
    try:
        yield
    except ValueError as error:
        name = getattr(image, "meta", {}).get("filename_or_obj", key)
        raise ValueError(f"{name}: {error}") from error
