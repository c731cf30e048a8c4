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
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import CommonKeys
from torch import Tensor, nn

from monai_sliceinterp.engines.quantized import MADE_FROM, quantized_file, quantized_parts
from monai_sliceinterp.extras import require_package
from monai_sliceinterp.files import atomic_path, file_sha256

__all__ = ["quantize", "record_inputs", "share_ranges"]

Range = tuple[Any, Any]
"""Smallest and largest number that integers stand for."""

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
    coarse. Features of a dense block have one range, see :func:`share_ranges`. All of it is done by ONNX Runtime's own
    quantizer.

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
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
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
            ranges = share_ranges(onnx.load(prepared).graph, _ranges(prepared, recorded[part]))
            quantize_static(
                prepared,
                str(made),
                _Reader(recorded[part][:1]),  # its own ranges are all replaced
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={
                    "TensorQuantOverrides": {
                        name: [{"rmin": low, "rmax": high}] for name, (low, high) in ranges.items()
                    }
                },
            )
            graph = onnx.load(str(made))
            onnx.helper.set_model_props(graph, {MADE_FROM: file_sha256(weights), "module": part})
            onnx.save(graph, str(made))
        files.append(target)
    return files


def share_ranges(graph: Any, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Give features that are concatenated layer by layer, as in a dense block, one range of integers.

    To concatenate them is to copy integers then, instead of looking up and rounding each of them at every layer. What
    ReLU makes keeps a range that begins at 0, where the integers clip it; it is rounded to the block's range once.

    Args:
        graph: an ONNX graph in float32.
        ranges: smallest and largest number of a tensor, by its name.

    Returns:
        The ranges, those of a block's features widened to hold each of them.

    Example:
        >>> from onnx import helper
        >>> nodes = [("Relu", ["c"], ["d"]), ("Concat", ["a", "b"], ["ab"]), ("Concat", ["ab", "d"], ["abd"])]
        >>> graph = helper.make_graph([helper.make_node(*node) for node in nodes], "block", [], [])
        >>> share_ranges(graph, {"a": (-2, 0), "b": (0, 2), "ab": (-1, 2), "d": (0, 9), "abd": (-1, 3)})
        {'a': (-2, 3), 'b': (-2, 3), 'ab': (-2, 3), 'd': (0, 9), 'abd': (-2, 3)}
    """
    clipped = {name for node in graph.node if node.op_type == "Relu" for name in node.output}
    blocks: dict[str, list[Any]] = {}  # concatenations of a block, by the name of what the last one makes
    for node in graph.node:
        if node.op_type == "Concat":
            earlier = [step for name in node.input if name in blocks for step in blocks.pop(name)]
            blocks[node.output[0]] = [*earlier, node]
    shared = dict(ranges)
    for steps in blocks.values():
        names = {name for node in steps for name in (*node.input, *node.output)} - clipped
        if len(steps) > 1:
            lows, highs = zip(*(ranges[name] for name in names), strict=True)
            shared.update(dict.fromkeys(names, (min(lows), max(highs))))
    return shared


def _ranges(path: str, batches: list[np.ndarray]) -> dict[str, Range]:
    """Measure which range holds the share ``_PERCENTILE`` of every tensor of a graph."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    calibrator = create_calibrator(
        path,
        augmented_model_path=str(Path(path).with_name("calibration.onnx")),
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={"percentile": _PERCENTILE, "symmetric": False},
    )
    calibrator.collect_data(_Reader(batches))
    with redirect_stdout(None):  # it prints how many tensors there are
        found = calibrator.compute_data()
    return {name: (np.float32(data.range_value[0]), np.float32(data.range_value[1])) for name, data in found.items()}


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
