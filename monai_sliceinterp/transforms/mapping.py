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

"""Base of dictionary transforms that apply one array transform to every key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform

__all__ = ["ApplyToKeys", "InvertiblyApplyToKeys"]


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
