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

"""Interpolate a series in a process of its own, so that a crash costs one series and memory comes back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_sliceinterp.dicom_node.journal import without_uids

__all__ = ["Outcome", "interpolate_series", "outcome_of"]

_CHILD = "monai_sliceinterp.cli.node_child"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """How the interpolation of a series ended.

    Attributes:
        state: "sending", "failed", "skipped", or "stopped" where the node was told to end.
        reason: why, but for the first.
        result: folder of the interpolated files, for the first.
    """

    state: str
    reason: str | None = None
    result: Path | None = None


def interpolate_series(
    source: Path,
    out: Path,
    options: Sequence[str],
    timeout_seconds: float,
    stop: threading.Event,
    command: Sequence[str] = (sys.executable, "-m", _CHILD),
) -> Outcome:
    """Run ``sliceinterp`` on the folder of a series.

    Args:
        source: folder of the series.
        out: folder to make and to write to.
        options: options of ``sliceinterp``.
        timeout_seconds: time after which it has failed.
        stop: ends it.
        command: what is run, with source, out and options behind it.

    Raises:
        OSError: if the process cannot be started, or there is no room for what it says.
    """
    out.mkdir(mode=0o700)
    said, complaints = out / "stdout", out / "stderr"
    # the child ends when nobody holds the other end of this pipe any more: also after a kill of this process
    held, owned = os.pipe()
    try:
        with said.open("wb") as stdout, complaints.open("wb") as stderr:
            arguments = [*command, str(source), str(out), *options]
            child = subprocess.Popen(arguments, stdin=held, stdout=stdout, stderr=stderr)
        status = _wait(child, timeout_seconds, stop.is_set)
    finally:
        os.close(held)
        os.close(owned)
    if status is None:
        if stop.is_set():
            return Outcome("stopped")
        return Outcome("failed", f"took longer than {timeout_seconds:g} s; expected a larger --timeout")
    return outcome_of(status, _text(said), _text(complaints), source, out)


def _wait(child: subprocess.Popen[bytes], timeout_seconds: float, stopped: Callable[[], bool]) -> int | None:
    """Wait for a process; None if it had to be killed."""
    waited = 0.0
    while True:
        try:
            return child.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            waited += _POLL_SECONDS
            if stopped() or waited > timeout_seconds:
                child.kill()
                child.wait()
                return None


def outcome_of(status: int, said: str, complaints: str, source: Path, out: Path) -> Outcome:
    """Tell from the end of ``sliceinterp`` what became of a series.

    Args:
        status: its exit status.
        said: its standard output.
        complaints: its standard error stream.
        source: folder of the series.
        out: folder that it wrote to.

    Example:
        >>> outcome_of(1, "", "error: q/5f: has a single slice.", Path("q/5f"), Path("out")).reason
        'has a single slice.'
        >>> outcome_of(-11, "", "", Path("q/5f"), Path("out")).reason
        'its process was ended by SIGSEGV'
    """
    if status == 0:
        if (out / "result").is_dir():
            return Outcome("sending", result=out / "result")
        return Outcome(
            "skipped", _without_paths((said.strip().splitlines() or ["nothing is written"])[-1], source, out)
        )
    errors = [line for line in complaints.splitlines() if line.startswith("error: ")]
    if status > 0 and errors:
        return Outcome("failed", _without_paths(errors[-1].removeprefix("error: "), source, out))
    if status < 0:
        return Outcome("failed", f"its process was ended by {signal.Signals(-status).name}")
    return Outcome("failed", f"its process ended with status {status}; MONAI_DEBUG=true sliceinterp on it tells why")


def _without_paths(line: str, source: Path, out: Path) -> str:
    """Remove the folders of the queue and the UIDs from a line."""
    for path in (source, out):
        line = re.sub(rf"{re.escape(str(path))}(_interp)?(: |/)?", "", line)
    return without_uids(line)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
