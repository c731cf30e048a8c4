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

"""Run an inference engine over scans, in one process or several: one that fails is reported, the others are done."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import ignite.distributed as idist
import torch
from monai.data import Dataset, MetaTensor, list_data_collate
from monai.engines import SupervisedEvaluator
from monai.utils import CommonKeys
from torch import Tensor, nn
from tqdm import tqdm

from monai_sliceinterp.command_line import INPUT_ERRORS, one_line, report
from monai_sliceinterp.engines.adaptation import adaptation_text
from monai_sliceinterp.engines.background import BackgroundWork
from monai_sliceinterp.failures import write_failures
from monai_sliceinterp.files import printable
from monai_sliceinterp.geometry import read_adaptation, read_grid
from monai_sliceinterp.interruption import when_interrupted
from monai_sliceinterp.networks.blocks.onnx_network import OnnxNetwork
from monai_sliceinterp.precision import dtype_name, network_dtype
from monai_sliceinterp.transforms import SaveInterpolatedd

__all__ = ["interpolate_volumes"]

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)

_LARGEST_BESIDE = 2**30
"""Bytes of the largest volume that is held beside the next one."""


def interpolate_volumes(
    evaluator: SupervisedEvaluator,
    dataset: Dataset,
    saving: SaveInterpolatedd | None = None,
    key: str = CommonKeys.PRED,
) -> list[str]:
    """Run the evaluator over each volume of a dataset on its own, report every result, and go on after failures.

    Where processes were started together (``torchrun``, Slurm), each takes every n-th volume of those that are left.
    One volume is in memory at a time in every process, and one that is written while the next is computed, if it takes
    less than a gibibyte. A failure is reported in one line; its traceback goes to the log at level DEBUG, and is shown
    where the failure is a mistake in a program. Of several volumes, those that failed are listed at the end in a file
    beside the results, see :func:`monai_sliceinterp.failures.write_failures`.

    Args:
        evaluator: engine whose postprocessing writes the volumes.
        dataset: inputs ``{"image": path}`` and the preprocessing.
        saving: the part of ``evaluator``'s postprocessing that writes: it is asked about every input before anything
            is computed, and which inputs are finished already.
        key: key of the written volume in the engine's output.

    Returns:
        The files written by this process.

    Raises:
        SystemExit: with status 1, after all volumes have been tried, if any failed in any process.
    """
    # ignite logs an exception before it raises it; here every failure is reported once, in one line
    evaluator.logger.setLevel(logging.CRITICAL)
    rank, processes = idist.get_rank(), idist.get_world_size()
    dtype = network_dtype(getattr(evaluator.inferer, "amp", False), evaluator.state.device)
    if rank == 0 and any(isinstance(module, OnnxNetwork) for module in _modules(evaluator.network)):
        _print("the network computes in 8-bit integers by ONNX Runtime; --engine torch: in PyTorch")
    elif rank == 0 and dtype != torch.float32:
        _print(f"the network computes in {dtype_name(dtype)}; --amp false: in float32")
    names = [str(item[CommonKeys.IMAGE]) for item in dataset.data]
    written: list[str] = []
    failures: dict[int, str] = {}

    def number(index: int) -> str:
        return f"[{index + 1}/{len(names)}] " if len(names) > 1 else ""

    def fail(index: int, error: BaseException) -> None:
        reason = one_line(error)
        failures[index] = reason if names[index] in reason else f"{names[index]}: {reason}"
        _LOGGER.debug("%s failed", names[index], exc_info=error)
        report(error, f"{number(index)}failed: {failures[index]}")

    def finish(index: int, data: dict[Hashable, Any]) -> None:
        """Write a volume that was computed, and report it."""
        try:
            result = (data if saving is None else saving.write(data))[key]
        except INPUT_ERRORS as error:
            fail(index, error)
            return
        written.append(str(result.meta["saved_to"]))
        _print(f"{number(index)}{names[index]} -> {written[-1]} {_size(result)}")
        for remark in _remarks(result):
            _print(f"{number(index)}{names[index]}: {remark}")

    left: Sequence[int] = range(len(names))
    if saving is not None and saving.resume:
        left = [index for index in left if not saving.is_finished(names[index])]
        if rank == 0 and len(left) < len(names):
            _print(f"{len(names) - len(left)} of {len(names)} inputs are finished already")
    before = len(names) - len(left)

    def hint() -> str:
        work.wait()
        return f"{before + len(written)} of {len(names)} inputs are done; the same command with --resume true goes on."

    with BackgroundWork() as work, when_interrupted(hint):
        if processes > 1:
            _meet(idist.barrier)  # before any process writes, all have seen the same files
        mine = []
        for index in left[rank::processes]:
            try:
                if saving is not None:
                    saving.check(names[index])
                mine.append(index)
            except INPUT_ERRORS as error:
                fail(index, error)
        for index in mine:
            try:
                with nullcontext() if saving is None else saving.deferred():
                    data = _compute(evaluator, dataset[index])
            except INPUT_ERRORS as error:
                work.wait()  # reports come in the order of the inputs
                fail(index, error)
                continue
            is_small = _size_in_memory(data[key]) <= _LARGEST_BESIDE
            if saving is not None and saving.is_independent and is_small and index != mine[-1]:
                work.start(partial(finish, index, data))
            else:
                work.wait()
                finish(index, data)
            del data
        work.wait()
        if processes > 1:  # nobody leaves before all are done: torchrun ends the others when one fails
            for others in cast("list[dict[int, str]]", _meet(idist.all_gather, failures)):
                failures |= others
    if saving is not None and len(names) > 1 and rank == 0:
        _list_failures(saving.output_dir, [(names[index], failures[index]) for index in sorted(failures)])
    if failures:
        reasons = " | ".join(failures[index] for index in sorted(failures))
        raise SystemExit(
            printable(f"error: {len(failures)} of {len(names)} inputs failed: {reasons}") if rank == 0 else 1
        )
    return written


def _compute(evaluator: SupervisedEvaluator, item: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Run the evaluator over one volume; return its input and its output."""
    try:
        evaluator.data_loader = [list_data_collate([item])]
        evaluator.state.epoch_length = 1
        evaluator.run()
        return {**evaluator.state.batch[0], **evaluator.state.output[0]}
    except INPUT_ERRORS:
        evaluator._internal_run_generator = None  # else ignite's next run only ends the failed one
        raise
    finally:
        evaluator.state.batch = evaluator.state.output = None


def _size_in_memory(volume: Tensor) -> int:
    """Bytes that a volume holds, of which it may show a part only."""
    return volume.untyped_storage().nbytes()


def _size(result: MetaTensor) -> str:
    """Tell the size and the spacing of a result."""
    frames = f"x{result.shape[0]}" if result.shape[0] > 1 else ""
    size = "x".join(str(length) for length in result.shape[1:]) + frames
    spacing = " x ".join(f"{length:g}" for length in result.pixdim.numpy().round(4).tolist())
    return f"({size}, {spacing} mm)"


def _modules(network: Any) -> list[nn.Module]:
    """List the modules of a network, none of a method that has none."""
    return list(network.modules()) if isinstance(network, nn.Module) else []


def _meet(meeting: Callable[..., T], *args: Any) -> T:
    """Meet the other processes; where one of them is gone, as after a kill, end with a line that says how to go on."""
    try:
        return meeting(*args)
    except RuntimeError as error:
        _LOGGER.debug("the processes do not meet", exc_info=error)
        raise SystemExit(
            "error: another process of this run has ended, see the log for why; what is done is kept: the same command "
            "with --resume true goes on."
        ) from error


def _list_failures(folder: Path, failures: Sequence[tuple[str, str]]) -> None:
    """Write the report of failures; a disk that is full does not hide them."""
    try:
        if path := write_failures(folder, [(name, reason.removeprefix(f"{name}: ")) for name, reason in failures]):
            _print(f"{len(failures)} failures are listed in {path}")
    except OSError as error:
        report(error)


def _remarks(result: MetaTensor) -> list[str]:
    """What a user should know of a result, though it is right."""
    record = read_grid(result.meta)
    adaptation = read_adaptation(result.meta)
    remarks = [] if adaptation is None else [adaptation_text(adaptation)]
    if record.axis != 2:
        remarks.append(f"its slices are taken along axis {record.axis}; --axis takes another one.")
    if len(record.grid) == record.grid.num_slices and record.factor is record.spacing is None:
        remarks.append(
            f"its slices are {record.source_spacing:g} mm apart, as fine as its pixels: no slice is added; --factor or "
            "--spacing asks for more."
        )
    return remarks


def _print(line: str) -> None:
    """Write a line in one piece: ``print`` writes its end apart where output is unbuffered, as under ``torchrun``.

    Progress bars, as of the volume that is computed meanwhile, make room for it.
    """
    with tqdm.external_write_mode(sys.stdout):
        sys.stdout.write(printable(f"{line}\n"))
        sys.stdout.flush()
