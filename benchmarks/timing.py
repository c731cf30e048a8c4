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

"""Time, memory and the machine's own rate, for the benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def seconds(*calls: Callable[[], object], repeats: int = 5) -> list[float]:
    """Median time of each call; the calls take turns, so that a change of the machine's speed meets them all."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def peak_memory_mb() -> float:
    """Largest resident memory since :func:`reset_peak_memory` (Linux), else NaN."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def reset_peak_memory() -> None:
    """Forget the largest resident memory so far (Linux)."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def matmul_rate(size: int = 2048) -> float:
    """Floating point operations a second of a float32 matrix product: the best of a few, as a product at rest runs."""
    first, second = torch.rand(size, size), torch.rand(size, size)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        first @ second
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
