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

"""Check a bundle's metadata as a model zoo demands it, without the schema file, which is on the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["REQUIRED_KEYS", "REQUIRED_KEYS_OF_A_TENSOR", "check_metadata"]

PACKAGE = "monai_sliceinterp"

REQUIRED_KEYS: dict[str, type] = {
    "schema": str,
    "version": str,
    "changelog": dict,
    "monai_version": str,
    "pytorch_version": str,
    "numpy_version": str,
    "required_packages_version": dict,
    "task": str,
    "description": str,
    "authors": str,
    "copyright": str,
    "network_data_format": dict,
}
"""Keys that MONAI's schema of 2024-07-25 requires, and the types of their values."""

REQUIRED_KEYS_OF_A_TENSOR: dict[str, type] = {
    "type": str,
    "format": str,
    "num_channels": int,
    "spatial_shape": list,
    "dtype": str,
    "value_range": list,
}
"""What the schema requires of every tensor below ``network_data_format``."""


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Check the keys that MONAI's schema requires, and that the versions are in step.

    Args:
        metadata: content of ``metadata.json``.

    Raises:
        ValueError: with one line that names the key.

    Example:
        >>> check_metadata({"schema": "https://example.org/schema.json"})
        Traceback (most recent call last):
        ...
        ValueError: lacks version, changelog, monai_version, pytorch_version, numpy_version, ...
    """
    _check_keys(metadata, REQUIRED_KEYS, "")
    _check_versions(metadata)
    _check_options(metadata.get("options", {}))
    for direction in ("inputs", "outputs"):
        tensors = metadata["network_data_format"].get(direction)
        if not isinstance(tensors, dict) or not tensors:
            raise ValueError(f"lacks network_data_format#{direction}; expected the tensors by name.")
        for name, tensor in tensors.items():
            where = f"network_data_format#{direction}#{name}"
            if not isinstance(tensor, dict):
                raise ValueError(f"{where} is {tensor!r}; expected the format of a tensor.")
            _check_keys(tensor, REQUIRED_KEYS_OF_A_TENSOR, f"{where}#")


def _check_options(options: Any) -> None:
    """Check that the options of each config are texts, which MONAI would not take for expressions or keys."""
    for config, texts in options.items() if isinstance(options, dict) else [("options", None)]:
        for text in texts.values() if isinstance(texts, dict) else [None]:
            if not isinstance(text, str) or not text or text[0] in "$%" or set(text) & set("@#\n"):
                raise ValueError(f"has options#{config} with {text!r}; expected a line of text for each option.")


def _check_keys(values: Mapping[str, Any], required: Mapping[str, type], prefix: str) -> None:
    missing = [f"{prefix}{key}" for key in required if key not in values]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}.")
    for key, kind in required.items():
        if type(values[key]) is not kind or not values[key] and kind is str:
            raise ValueError(f"has {prefix}{key} {values[key]!r}; expected a {kind.__name__} that is not empty.")


def _check_versions(metadata: Mapping[str, Any]) -> None:
    bundle, required = metadata["version"], metadata["required_packages_version"]
    if not re.fullmatch(r"\d\.\d\.\d", bundle):
        raise ValueError(
            f"has version {bundle!r}; expected three digits such as 0.1.0: MONAI compares versions as texts, by which "
            "0.10.0 is older than 0.9.0."
        )
    if bundle not in metadata["changelog"]:
        raise ValueError(f"has version {bundle}, which its changelog does not contain.")
    tested = {key: metadata[key] for key in ("monai_version", "pytorch_version", "numpy_version")}
    for key, value in {**tested, **required}.items():
        if not re.fullmatch(r"\d+(\.\d+)*((a|b|rc)\d+)?", str(value)):
            raise ValueError(f"has version {value!r} of {key}; expected one such as 2.13.0, without a local part.")
    package = next((required[name] for name in (PACKAGE, PACKAGE.replace("_", "-")) if name in required), None)
    if package is not None and package != _package_version():
        raise ValueError(f"needs {PACKAGE} {package}, but {_package_version()} packs it; make them the same.")


def _package_version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError as error:
        raise ValueError(
            f"needs a version of {PACKAGE}, which is not installed: no version to compare; pip install -e ."
        ) from error
