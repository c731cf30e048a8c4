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

"""Run an evaluation: in one process or several, to be taken up again after an interruption."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from monai_sliceinterp.command_line import check_writable
from monai_sliceinterp.evaluation.methods import Method, find_device, find_methods
from monai_sliceinterp.evaluation.presentation import check_curve, present
from monai_sliceinterp.evaluation.settings import EvaluationSettings, VolumeItem
from monai_sliceinterp.evaluation.statistics import score_table
from monai_sliceinterp.evaluation.volume import VolumeResult, evaluate_volume
from monai_sliceinterp.metrics import PerceptualMetric

__all__ = ["Evaluation", "NothingScoredError", "run_evaluation"]


class NothingScoredError(ValueError):
    """Error of an evaluation all of whose volumes failed."""


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        scores: see :func:`monai_sliceinterp.evaluation.score_table`; in the order of volumes, protocols and methods.
        failures: a line for each.
        report: the report to be opened first.
    """

    scores: pd.DataFrame
    failures: list[str]
    report: Path


def run_evaluation(settings: EvaluationSettings, progress: bool = True) -> Evaluation:
    """Evaluate methods on volumes: degrade, interpolate, score, test, and write a report.

    Writes to the output folder: ``scores.csv`` (a row for each volume, protocol and method), ``summary.csv`` (means),
    ``statistics.csv`` (tests), ``report.html`` and ``report.md``, the pictures of these in ``pictures/``, and in
    ``volumes/``, ``panels/`` and ``sweeps/`` what was computed, so that the next run need not. A failure is printed
    to stderr at once, and the rest goes on.

    Args:
        settings: what is evaluated.
        progress: show a progress bar.

    Returns:
        Scores and failures. They do not depend on the number of processes.

    Raises:
        ValueError: if there is no volume, or a method is unknown.
        NothingScoredError: if all volumes failed.
        ImportError: if a package is missing.

    Example:
        >>> import tempfile
        >>> from monai_sliceinterp.data import write_phantoms
        >>> folder = tempfile.mkdtemp()
        >>> paths = write_phantoms(folder + "/data", "head", range(2), shape=(24, 24, 7), spacing=(8, 8, 8))
        >>> settings = EvaluationSettings(paths, ["linear", "cubic"], folder, factors=[2], panels=0, sweep=0)
        >>> evaluation = run_evaluation(settings, progress=False)
        >>> len(evaluation.scores), evaluation.failures, evaluation.report.name
        (4, [], 'report.html')
    """
    settings.require_packages()
    items = settings.volumes()
    methods, perceptual = _prepare(settings)
    check_curve(settings, methods)
    check_writable(settings.output_dir)
    results: dict[int, VolumeResult] = {}
    with tqdm(total=len(items), desc="volumes", unit="volume", disable=not progress) as bar:
        if settings.workers > 1 and len(items) > 1:
            done = _in_processes(items, settings)
        else:
            done = (evaluate_volume(item, settings, methods, perceptual, bar.set_postfix_str) for item in items)
        for result in done:
            results[result.item.number] = result
            for line in result.failures:
                bar.write(f"failed: {line}", file=sys.stderr)
            for title in result.skipped if result.scores else ():
                bar.write(f"left out: {result.item.path}: too few slices for {title}", file=sys.stderr)
            bar.update()
    ordered = [results[item.number] for item in items]
    scores = score_table(row for result in ordered for row in result.scores)
    failures = [line for result in ordered for line in result.failures]
    if scores.empty:
        raise NothingScoredError(f"nothing could be scored on {len(items)} volumes; the first failure: {failures[0]}")
    report, more = present(ordered, scores, settings, methods)
    for line in more:
        print(f"failed: {line}", file=sys.stderr)
    return Evaluation(scores, failures + more, report)


def _prepare(settings: EvaluationSettings) -> tuple[list[Method], dict[str, PerceptualMetric]]:
    device = find_device(settings.device)
    perceptual = {name: PerceptualMetric(name, device=device) for name in settings.perceptual}
    return find_methods(settings.methods, device), perceptual


_worker: list = []  # what a worker process has loaded


def _start_worker(settings: EvaluationSettings, threads: int) -> None:
    torch.set_num_threads(threads)
    _worker[:] = [settings, *_prepare(settings)]


def _work(item: VolumeItem) -> VolumeResult:
    return evaluate_volume(item, *_worker)


def _in_processes(items: Sequence[VolumeItem], settings: EvaluationSettings) -> Iterator[VolumeResult]:
    """Evaluate volumes in several processes; results come as they are done.

    A process that is ended from outside (the system may do so when memory runs out) takes the pool with it. The volumes
    that are left are then done one after another, each in a process of its own, so that only one is lost.
    """
    workers = min(settings.workers, len(items))
    left: dict[int, VolumeItem] = {item.number: item for item in items}
    for result in _in_pool(items, settings, workers):
        del left[result.item.number]
        yield result
    for item in left.values():
        alone = list(_in_pool([item], settings, 1))
        ended = f"{item.path}: its process was ended, probably as memory ran out; try fewer workers."
        yield from alone or [VolumeResult(item, failures=[ended])]


def _in_pool(items: Sequence[VolumeItem], settings: EvaluationSettings, workers: int) -> Iterator[VolumeResult]:
    """Evaluate volumes in a pool of processes, until one of these is ended."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # forked processes would hang in the threads of torch
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (settings, max(1, cores // workers)))
    try:
        for future in as_completed([pool.submit(_work, item) for item in items]):
            yield future.result()
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(cancel_futures=True)
