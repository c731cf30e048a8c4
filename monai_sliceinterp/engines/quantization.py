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

"""Static quantization of networks to 8-bit integers by ONNX Runtime, calibrated on scans."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import CommonKeys
from torch import Tensor, nn

from monai_sliceinterp.engines.quantized import MADE_FROM, quantized_file, quantized_parts
from monai_sliceinterp.extras import require_package
from monai_sliceinterp.files import atomic_path, file_sha256

__all__ = ["quantize", "record_inputs"]

_PERCENTILE = 99.99
"""Share of what a layer hands on that lies in the range of its integers."""


def record_inputs(
    modules: Mapping[str, nn.Module],
    dataset: Iterable[Any],
    interpolate: Callable[[Tensor], Any],
    key: str = CommonKeys.IMAGE,
) -> dict[str, list[np.ndarray]]:
    """Interpolate scans and record what goes into some modules of the network meanwhile.

    Args:
        modules: modules with one input, by name.
        dataset: dictionaries with a volume ``(C, H, W, N)``, or lists of such.
        interpolate: interpolates volumes ``(1, C, H, W, N)``.
        key: key of the volumes.

    Returns:
        The float32 inputs of every module, in the order in which it got them.

    Raises:
        ValueError: if the dataset is empty.

    Example:
        >>> layer = nn.Flatten(0)
        >>> [array.shape for array in record_inputs({"a": layer}, [{"image": torch.ones(1, 2, 2, 3)}], layer)["a"]]
        [(1, 1, 2, 2, 3)]
    """
    recorded: dict[str, list[np.ndarray]] = {name: [] for name in modules}
    with ExitStack() as stack:
        for name, module in modules.items():

            def record(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                recorded[name].append(np.ascontiguousarray(inputs[0].detach().float().cpu().numpy()))

            stack.callback(module.register_forward_pre_hook(record).remove)
        for item in dataset:
            for data in item if isinstance(item, list) else [item]:
                interpolate(data[key][None])
    if not all(recorded.values()):
        raise ValueError("there is nothing to calibrate on; expected scans from which slices are interpolated.")
    return recorded


def quantize(
    network: nn.Module,
    dataset: Iterable[Any],
    interpolate: Callable[[Tensor, nn.Module], Any],
    weights: str | Path,
    output_dir: str | Path,
) -> list[Path]:
    """Quantize the parts of a network that :func:`monai_sliceinterp.engines.use_engine` replaces.

    Weights become signed 8-bit integers, one scale for each channel; what layers hand on unsigned ones, over the range
    that holds 99.99 % of it while scans are interpolated: over the whole range, few voxels would make all others
    coarse. All of it is done by ONNX Runtime's own quantizer.

    Args:
        network: the network with its weights, on the CPU.
        dataset: the scans, see :func:`record_inputs`. They have to be some that the network was trained on: those that
            are scored tell nothing otherwise.
        interpolate: the inferer, in float32.
        weights: file of the weights; the files are called after it, and tell its SHA-256.
        output_dir: folder for the files.

    Returns:
        The files.

    Raises:
        ImportError: if ONNX Runtime or ONNX is not installed.
        ValueError: if the network has no such parts, or one is not two-dimensional, or there are no scans.
    """
    for package in ("onnx", "onnxruntime"):
        require_package(package, "quantization", "onnx")
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    modules = {part: network.get_submodule(name) for part, name in quantized_parts(network).items()}
    if any(isinstance(layer, nn.Conv3d) for layer in network.modules()):
        raise ValueError("networks with fusion in 3D are not quantized; expected one of two-dimensional layers.")
    network.eval()
    recorded = record_inputs(modules, dataset, lambda volume: interpolate(volume, network))
    files = []
    for part, module in modules.items():
        target = Path(output_dir) / quantized_file(weights, part).name
        with tempfile.TemporaryDirectory() as folder, atomic_path(target) as made:
            exact, prepared = (str(Path(folder) / name) for name in ("exact.onnx", "prepared.onnx"))
            _export(module, torch.from_numpy(recorded[part][0]), exact)
            quant_pre_process(exact, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                str(made),
                _Reader(recorded[part]),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": _PERCENTILE},
            )
            graph = onnx.load(str(made))
            onnx.helper.set_model_props(graph, {MADE_FROM: file_sha256(weights), "module": part})
            onnx.save(graph, str(made))
        files.append(target)
    return files


def _export(module: nn.Module, example: Tensor, path: str) -> None:
    """Write a module with one input ``(B, C, H, W)`` as a graph of free batch, height and width."""
    free = {0: "batch", 2: "height", 3: "width"}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # the newer exporter writes where in the program an operation comes from, and fixes sizes
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            module,
            (example,),
            path,
            input_names=["image"],
            output_names=["result"],
            dynamic_axes={"image": free, "result": free},
            dynamo=False,
        )


class _Reader:
    """Images of batches one after another, as the quantizer asks for inputs of one shape."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self.arrays: Iterator[np.ndarray] = (image[None] for batch in batches for image in batch)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next input, None after the last one."""
        array = next(self.arrays, None)
        return None if array is None else {"image": array}
