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

"""Costs of a method: seconds and memory of a call."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TypeVar

import psutil
import torch

__all__ = ["measure_cost"]

T = TypeVar("T")

_PERIOD = 0.005  # seconds between two looks at the memory


def measure_cost(function: Callable[[], T], device: torch.device | str = "cpu") -> tuple[T, float, float]:
    """Measure the time and the memory of a function call.

    Args:
        function: its result is on the host, so that a GPU has finished when it returns.
        device: where it computes. On a GPU the memory is the largest amount that tensors held there at a time, weights
            included. Elsewhere it is the largest growth of the process while the function ran, looked at every 5 ms;
            weights were there before. Freed memory is given back to the system first, which only the GNU C library can
            do: with others the growth may be too small.

    Returns:
        The function's result, wall-clock seconds, and MiB.

    Example:
        >>> result, seconds, memory = measure_cost(lambda: torch.ones(3).sum())
        >>> float(result), seconds >= 0, memory >= 0
        (3.0, True, True)
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with nullcontext([0]) if on_gpu else _growth() as growth:
        begin = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else growth[0]
    return result, seconds, peak / 2**20


@contextmanager
def _growth() -> Iterator[list[int]]:
    """Watch the resident memory of this process; the list holds its largest growth in bytes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    process, ended = psutil.Process(), threading.Event()
    begin, growth = process.memory_info().rss, [0]

    def look() -> None:
        growth[0] = max(growth[0], process.memory_info().rss - begin)

    def watch() -> None:
        while not ended.wait(_PERIOD):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield growth
        look()
    finally:
        ended.set()
        thread.join()
