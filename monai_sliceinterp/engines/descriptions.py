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

"""What network weights belong to, beyond the names and shapes of their tensors, which networks may share."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from torch import nn

__all__ = ["add_description", "check_description", "describe_network", "read_description"]

_PACKAGE = "monai_sliceinterp.networks."
_RECORD = "description.json"
_STATES = ("training", "normalization_frozen")
"""Attributes that change in use."""


def describe_network(network: nn.Module) -> dict[str, Any]:
    """Describe a network by its class and the settings of its parts that are of this package.

    Args:
        network: the network.

    Returns:
        "network", the name of its class, and "settings", its plain attributes and those of its parts.

    Example:
        >>> from monai_sliceinterp.networks.nets import ASIAutoencoder
        >>> describe_network(ASIAutoencoder(channels=(2, 3), latent_channels=4))
        {'network': 'ASIAutoencoder', 'settings': {'in_plane_spacing': 0.0, 'in_channels': 1, 'multiple': 4}}
    """
    settings: dict[str, Any] = {}
    for name, part in network.named_modules():
        if not type(part).__module__.startswith(_PACKAGE):
            continue
        for key, value in vars(part).items():
            plain = list(value) if isinstance(value, tuple) else value
            if key[0] != "_" and key not in _STATES and _is_plain(plain):
                settings[f"{name}.{key}".lstrip(".")] = plain
    return {"network": type(network).__name__, "settings": settings}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


def add_description(file: str | Path | IO[bytes], network: nn.Module) -> None:
    """Add the description of a network to what ``torch.save`` has written; readers of tensors pass over it.

    Args:
        file: path, or a file opened for reading and writing.
        network: the network whose weights are in it.
    """
    try:
        made_by = f"{_PACKAGE} {version(_PACKAGE)}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        made_by = _PACKAGE
    with zipfile.ZipFile(file, "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        info = zipfile.ZipInfo(f"{folder}/{_RECORD}", date_time=(1980, 1, 1, 0, 0, 0))
        archive.writestr(info, json.dumps({"made_by": made_by, **describe_network(network)}))


def read_description(path: str | Path) -> dict[str, Any]:
    """Read the description that :func:`add_description` has added; an empty one where there is none.

    Raises:
        ValueError: if it is damaged.

    Example:
        >>> import tempfile, torch
        >>> file = Path(tempfile.mkdtemp()) / "model.pt"
        >>> torch.save(nn.Linear(1, 1).state_dict(), file)
        >>> add_description(file, nn.Linear(1, 1))
        >>> read_description(file)["network"], list(torch.load(file))
        ('Linear', ['weight', 'bias'])
    """
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(f"/{_RECORD}")]
        content = json.loads(archive.read(names[0])) if names else {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: has a damaged description; expected a file as torch.save and a training write it.")
    return content


def check_description(path: str | Path, description: Mapping[str, Any], network: nn.Module) -> None:
    """Check that weights belong to a network, by what is said of them.

    Args:
        path: file of the weights, for the message.
        description: see :func:`describe_network`; an empty one fits any network. Settings that only one of both has do
            not count, as versions of the package may add some.
        network: the network.

    Raises:
        ValueError: with one line that names what differs.

    Example:
        >>> check_description("model.pt", {"network": "SAINT"}, nn.Linear(1, 1))
        Traceback (most recent call last):
        ...
        ValueError: model.pt: are weights of SAINT, not of Linear; expected the overlay of their network among the ...
    """
    own = describe_network(network)
    hint = "expected the overlay of their network among the config files, or other weights."
    name = description.get("network", own["network"])
    if name != own["network"]:
        raise ValueError(f"{path}: are weights of {name}, not of {own['network']}; {hint}")
    theirs = description.get("settings", {})
    for key, value in own["settings"].items():
        if key in theirs and theirs[key] != value:
            raise ValueError(f"{path}: are weights of a {name} with {key} {theirs[key]}, not {value}; {hint}")
