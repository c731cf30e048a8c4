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

"""Ends of runs: Ctrl-C and SIGTERM give one line that says how to go on, and threads end before Python does."""

from __future__ import annotations

import atexit
import multiprocessing.pool
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

__all__ = ["Interrupted", "close_bars", "end_on_signals", "end_thread_pools", "when_interrupted"]

_POOL_WORKER = vars(multiprocessing.pool)["worker"]
"""What the threads of a pool run."""

_ACTIONS: list[Callable[[], str]] = []
"""What is done at an interruption; the last one counts."""

_PATIENCE = 120.0
"""Seconds that a thread may take for what it has begun, such as the loading of a volume."""


class Interrupted(SystemExit):
    """End of a run that was interrupted: exit status 130 of Ctrl-C, 143 of SIGTERM.

    It passes by whatever handles errors, so that files are closed and temporary ones removed on the way.

    Example:
        >>> Interrupted(130).code
        130
    """


def close_bars() -> None:
    """Clear progress bars, so that a line that ends a run stands for itself.

    Example:
        >>> close_bars()
    """
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()


def end_thread_pools(patience: float = _PATIENCE) -> None:
    """Let the threads of all thread pools end what they are at, and nothing more.

    A pool that an error closes, as that of MONAI's ``CacheDataset`` when a volume is refused, does not wait for its
    threads. Where Python ends while one of them computes in torch, the process aborts ("terminate called without an
    active exception") and loses its exit status.

    Args:
        patience: seconds for each thread.

    Example:
        >>> end_thread_pools()
    """
    workers = [t for t in threading.enumerate() if getattr(t, "_target", None) is _POOL_WORKER]
    for worker in workers:
        worker._args[0].put(None)  # type: ignore[attr-defined]  # the queue of its tasks: there are no more
    for worker in workers:
        worker.join(patience)


@contextmanager
def when_interrupted(action: Callable[[], str]) -> Iterator[None]:
    """Have something done and said where a command is interrupted within a block.

    Args:
        action: saves what has to be saved and returns how to go on, as the end of a line.

    Example:
        >>> with when_interrupted(lambda: "--resume true goes on."):
        ...     pass
    """
    _ACTIONS.append(action)
    try:
        yield
    finally:
        if action in _ACTIONS:
            _ACTIONS.remove(action)


def end_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process by :class:`Interrupted`, after one line to the standard error stream.

    What :func:`when_interrupted` has named last is done before. A second signal does not disturb it. To be called in
    the main thread; processes forked later are not concerned. However the process ends, :func:`end_thread_pools` is
    called then.
    """
    owner = os.getpid()
    atexit.unregister(end_thread_pools)
    atexit.register(end_thread_pools)

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker of a data loader, which its parent ends
            raise KeyboardInterrupt
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        hint = ""
        try:
            hint = _ACTIONS[-1]() if _ACTIONS else ""
        except OSError as error:
            hint = f"what was done is not saved ({error.strerror or error})."
        if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
            close_bars()
            sys.stderr.write(f"interrupted{': ' if hint else '.'}{hint}\n")
            sys.stderr.flush()
        raise Interrupted(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, end)
