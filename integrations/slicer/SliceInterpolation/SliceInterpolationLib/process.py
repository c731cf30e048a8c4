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

"""A process whose lines are read while it runs, and which ends with all that it started."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

__all__ = ["CommandProcess"]

_SECONDS = 10.0


class CommandProcess:
    """A process of its own group, with both of its streams as lines.

    Args:
        command: the program and its arguments.
        environment: all of its environment.
        folder: where it runs.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=sys.platform != "win32",
            creationflags=flags,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.put(line.rstrip("\n"))

    def new_lines(self) -> list[str]:
        """Return the lines since the last call, without waiting."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return lines

    def status(self) -> int | None:
        """Return the exit status; None while it runs, or while lines of it are still to be read."""
        status = self._process.poll()
        return None if status is None or self._reader.is_alive() else status

    def wait(self, seconds: float | None = None) -> int:
        """Wait for the end and return the exit status.

        Raises:
            subprocess.TimeoutExpired: if it runs longer.
        """
        status = self._process.wait(seconds)
        self._reader.join(seconds)
        return status

    def kill(self) -> None:
        """End it at once, with all processes that it started, and wait until they are gone."""
        if self.status() is not None:  # its number may be another one's by now
            return
        if sys.platform == "win32":
            if self._process.poll() is None:
                tree = ["taskkill", "/F", "/T", "/PID", str(self._process.pid)]
                subprocess.run(tree, capture_output=True, check=False)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them are ending
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_SECONDS)
        self._reader.join(_SECONDS)  # the stream ends with the last one that holds it
