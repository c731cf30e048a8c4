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

"""Check that the parts of a bundle are in step: configs, metadata, weights and card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.engines import check_description, describe_network, load_weights
from monai_sliceinterp.files import file_sha256
from monai_sliceinterp.zoo.metadata import check_metadata

__all__ = ["check_bundle"]

WEIGHTS = "model.pt"
"""Weights that ``monai.bundle.load`` reads, and a config that names no others."""


def check_bundle(name: str, files: Mapping[str, Path]) -> str:
    """Check that a bundle can be published: its metadata is complete, its weights fit and its card mentions everything.

    - Every config is JSON, the metadata has what MONAI's schema requires, and the options it lists are in the configs.
    - The weights that ``inference.json`` reads are there. They load strictly into its network and into that of
      ``train.json``; so does every other file of weights into the network of the overlay that names it.
    - The metadata list the SHA-256 of every file of weights, and what network it is of.
    - The card names every config and every file of weights, none that are not there, and contains the number of
      parameters of the network (or of each of its parts) and the scores in the metadata.

    An overlay may name weights that are not shipped, for users to train.

    Args:
        name: name of the bundle.
        files: its files, see :func:`monai_sliceinterp.zoo.bundle_files`.

    Returns:
        The version of the bundle.

    Raises:
        ValueError: with one line, if anything is missing or out of step.
    """
    if "_v" in name:
        raise ValueError(f"{name}: cannot be the name of a bundle in a zoo, which splits names from versions at '_v'.")
    configs = {Path(path).stem: _read(files[path]) for path in files if re.fullmatch(r"configs/[^/]+\.json", path)}
    metadata = configs.pop("metadata")
    try:
        check_metadata(metadata)
    except ValueError as error:
        raise ValueError(f"{files['configs/metadata.json']}: {error}") from error
    _check_options(files, configs, metadata)
    network = _check_weights(files, configs, metadata.get("weights", {}))
    _check_card(name, files, configs, metadata, network)
    return metadata["version"]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also where it is not text
        raise ValueError(f"{path}: is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; expected keys and values.")
    return content


def _check_options(
    files: Mapping[str, Path], configs: Mapping[str, Mapping[str, Any]], metadata: Mapping[str, Any]
) -> None:
    """Check that the options listed for a config are keys of it; an overlay has those of what it lies over."""
    path = files["configs/metadata.json"]
    for name, options in metadata.get("options", {}).items():
        if name not in configs:
            raise ValueError(f"{path}: lists options of {name}.json, which is not there.")
        below = "inference" if name in ("inference", "quantize") else "train"
        known = {**configs[name], **configs.get(below, {})}
        for option in options:
            one_of(f"option of {Path(path).with_name(name)}.json", option, known)


def _check_weights(
    files: Mapping[str, Path], configs: Mapping[str, Mapping[str, Any]], listed: Mapping[str, Any]
) -> nn.Module:
    """Load every file of weights into the networks that are to use it; return the network of inference."""
    networks: dict[str, nn.Module] = {}
    named = {name: config.get("weights", WEIGHTS) for name, config in configs.items()}
    default = named["inference"]
    if f"models/{default}" not in files:
        raise ValueError(f"{files['configs/inference.json']}: reads models/{default}, which is missing; ship it.")
    networks[default] = network = _load(files, ["inference"], default)
    if "train" in configs:
        _load(files, ["train"], default)
    for name, file in named.items():
        if name not in ("inference", "train") and "weights" in configs[name] and f"models/{file}" in files:
            networks.setdefault(file, _load(files, [_base(name, configs), name], file))
    for path in files:
        if re.fullmatch(r"models/[^/]+\.pt", path) and path.removeprefix("models/") not in named.values():
            raise ValueError(f"{files[path]}: no config reads it; name it in one, as its 'weights', or remove it.")
    for file, owner in networks.items():
        entry = {"sha256": file_sha256(files[f"models/{file}"]), **describe_network(owner)}
        if listed.get(file, {}).get("sha256") != entry["sha256"]:
            raise ValueError(
                f"{files['configs/metadata.json']}: does not describe models/{file} as it is; expected below its "
                f'"weights": {json.dumps({file: entry})}.'
            )
        check_description(files["configs/metadata.json"], listed[file], owner)
    _check_quantized(files, networks, listed)
    return network


def _check_quantized(files: Mapping[str, Path], networks: Mapping[str, nn.Module], listed: Mapping[str, Any]) -> None:
    """Check that quantized parts are listed as they are, and made from weights that are there."""
    for path in files:
        if not (match := re.fullmatch(r"models/(([^/]+)_int8_\w+\.onnx)", path)):
            continue
        if f"{match[2]}.pt" not in networks:
            raise ValueError(f"{files[path]}: is made from models/{match[2]}.pt, which no config reads; remove it.")
        found = file_sha256(files[path])
        if listed.get(match[1], {}).get("sha256") != found:
            raise ValueError(
                f"{files['configs/metadata.json']}: does not list {path} as it is; expected below its "
                f'"weights": {json.dumps({match[1]: {"sha256": found}})}.'
            )


def _base(overlay: str, configs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the config below an overlay: training if the overlay changes a part that inference lacks."""
    parts = {key.split("#")[0] for key in configs[overlay] if "#" in key}
    return "inference" if parts <= configs["inference"].keys() else "train"


def _load(files: Mapping[str, Path], names: Sequence[str], file: str) -> nn.Module:
    """Load weights into the network that some configs define together."""
    parser, path = ConfigParser(), files[f"models/{file}"]
    try:
        parser.read_config([files[f"configs/{name}.json"] for name in names])
        network = parser.get_parsed_content("network_def")
    except Exception as error:  # a config is a program: anything can come of it
        lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{files[f'configs/{names[-1]}.json']}: {' + '.join(names)} gives no network_def ({lines[0]})."
        ) from error
    try:
        load_weights(network, path)
    except ValueError as error:
        raise ValueError(f"{error} The network is that of {' + '.join(names)}.") from error
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state.keys() != network.state_dict().keys():
        raise ValueError(f"{path}: is the checkpoint of a training; expected the weights alone, which MONAI loads.")
    return network


def _check_card(
    name: str,
    files: Mapping[str, Path],
    configs: Mapping[str, Mapping[str, Any]],
    metadata: Mapping[str, Any],
    network: nn.Module,
) -> None:
    path = files["docs/README.md"]
    card = path.read_text(encoding="utf-8")
    shipped = [Path(file).name for file in files if re.fullmatch(r"models/[^/]+\.(pt|onnx)", file)]
    for config in sorted(configs):
        if not _mentions(card, f"{config}.json"):
            raise ValueError(f"{path}: does not mention {config}.json; say what it is for.")
    for file in shipped:
        if not _mentions(card, file):
            raise ValueError(f"{path}: does not mention models/{file}; say how it was trained.")
    weights = re.findall(r"(?<![\w/])models/[\w.-]+\.(?:pt|onnx)\b", card)
    commands = re.findall(rf"(?<![\w/])(?:bundles/{re.escape(name)}|configs)/([\w-]+\.json)\b", card)
    for file in (*weights, *(f"configs/{config}" for config in commands)):
        if file not in files:
            raise ValueError(f"{path}: mentions {file}, which is not there.")
    total, *parts = (_count(module) for module in (network, *network.children()))
    if f"{total:,}" not in card and not (parts and all(f"{part:,}" in card for part in parts)):
        raise ValueError(f"{path}: does not say that the network has {total:,} parameters.")
    for key, value in metadata.get("eval_metrics", {}).items():
        if f"{value}" not in card:
            raise ValueError(f"{path}: does not contain {key} {value}, which is in metadata.json.")


def _mentions(text: str, name: str) -> bool:
    """Whether a text has a file name, not only as the end of another one."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?!\w)", text) is not None


def _count(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())
