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

"""Networks of which parts are computed in 8-bit integers by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.files import file_sha256
from monai_sliceinterp.networks.blocks.onnx_network import OnnxNetwork

__all__ = ["ENGINES", "INT8", "MADE_FROM", "quantized_file", "quantized_parts", "use_engine"]

INT8 = "onnx-int8"

ENGINES = ("torch", INT8)
"""What computes a network: PyTorch, or ONNX Runtime those parts of it that were quantized to 8-bit integers."""

MADE_FROM = "weights_sha256"
"""Entry of a graph's metadata: the SHA-256 of the weights that it was made from."""

_PARTS = {"SAINT": {"ami": "ami.feature_learning", "rfn": "rfn.network"}}
"""Parts of networks that can be quantized. What is left is little, or depends on the spacing, as SAINT's filters."""


def quantized_parts(network: nn.Module) -> dict[str, str]:
    """Return the parts of a network that can be quantized: the name of a module in it by a short name.

    Raises:
        ValueError: if there are none.

    Example:
        >>> from monai_sliceinterp.networks.nets import SAINT
        >>> quantized_parts(SAINT())["rfn"]
        'rfn.network'
    """
    name = type(network).__name__
    if name not in _PARTS:
        raise ValueError(f"engine {INT8} is not made for {name}; expected {' or '.join(_PARTS)}, or engine torch.")
    return _PARTS[name]


def quantized_file(weights: str | Path, part: str) -> Path:
    """Return the file of a quantized part, beside the weights that it was made from.

    Example:
        >>> quantized_file("models/model.pt", "ami").as_posix()
        'models/model_int8_ami.onnx'
    """
    path = Path(weights)
    return path.with_name(f"{path.stem}_int8_{part}.onnx")


def use_engine(
    network: nn.Module,
    engine: str,
    weights: str | Path,
    device: torch.device | str = "cpu",
    shipped: Mapping[str, Mapping[str, Any]] | None = None,
) -> nn.Module:
    """Have the parts of a network that were quantized computed by an engine.

    Args:
        network: the network with its weights; it is changed in place.
        engine: one of ``ENGINES``; "torch" changes nothing.
        weights: file of the weights, beside which the quantized parts are, see :func:`quantized_file`.
        device: where the network computes.
        shipped: the weights of a bundle as its metadata list them, see :func:`monai_sliceinterp.engines.load_weights`.

    Returns:
        ``network``.

    Raises:
        ValueError: with one line, if the engine is unknown, not made for this network or this device, or its files are
            missing, changed, or made from other weights.
        ImportError: if ONNX Runtime is not installed.

    Example:
        >>> use_engine(nn.Linear(1, 1), "torch", "model.pt")
        Linear(in_features=1, out_features=1, bias=True)
    """
    if one_of("engine", engine, ENGINES) != INT8:
        return network
    parts = quantized_parts(network)
    if torch.device(device).type != "cpu":
        raise ValueError(f"engine {INT8} computes on the CPU, not on {device}; expected --device cpu, or engine torch.")
    if not _multiplies_exactly():
        raise ValueError(
            f"engine {INT8} needs a processor with VNNI instructions, for products of 8-bit integers overflow on this "
            "one; expected engine torch."
        )
    weights_sha256 = file_sha256(weights)
    for part, module in parts.items():
        path = quantized_file(weights, part)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; the bundle's quantize.json makes it of {weights}.")
        listed = (shipped or {}).get(path.name, {}).get("sha256")
        if listed is not None and path.absolute().parent.name == "models" and file_sha256(path) != listed:
            raise ValueError(f"{path}: is not the file that the bundle ships (its SHA-256 is not {listed[:16]}...).")
        graph = OnnxNetwork(path)
        if graph.metadata.get(MADE_FROM) != weights_sha256:
            raise ValueError(f"{path}: was not made from {weights}; the bundle's quantize.json makes it anew.")
        parent, _, name = module.rpartition(".")
        setattr(network.get_submodule(parent), name, graph)
    return network


def _multiplies_exactly() -> bool:
    """Whether products of 8-bit integers are summed without overflow: with VNNI, and by processors that are not x86."""
    capabilities = torch.cpu.get_capabilities()
    return capabilities["architecture"] != "x86_64" or any(
        capabilities.get(name, False) for name in ("avx512_vnni", "avx_vnni")
    )
