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

"""The PACS node: what comes is interpolated by one thread and sent by another, and both survive what goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pydicom import dcmread

from monai_sliceinterp import __version__
from monai_sliceinterp.dicom_node.health import start_health
from monai_sliceinterp.dicom_node.interpolating import Outcome, interpolate_series
from monai_sliceinterp.dicom_node.journal import log_event
from monai_sliceinterp.dicom_node.queue import SeriesQueue
from monai_sliceinterp.dicom_node.records import Job
from monai_sliceinterp.dicom_node.sending import RefusedError, UnreachableError, send_series
from monai_sliceinterp.dicom_node.settings import NodeSettings
from monai_sliceinterp.dicom_node.storage import start_storage

__all__ = ["Node", "judge", "serve"]

_MAX_ATTEMPTS = 3
_MAX_PAUSE = 600.0
_POLL_SECONDS = 0.2
_FORGET_SECONDS = 3600.0
_NO_SPACE = "no space is left on the disk"
_KINDS = {"OBSERVED", "SYNTHESIZED"}
"""Fourth values of ImageType of what this package writes."""


def judge(instances: frozenset[str], known: dict[str, frozenset[str]]) -> str:
    """Tell what to do with a series that may have been here.

    Args:
        instances: names of its instances.
        known: names of those that were here before, by the state in which the series ended.

    Returns:
        "new": to be interpolated; "known": it was done with all of these instances; "rest": it was taken for complete
        before these came, and they alone are not the series.

    Example:
        >>> judge(frozenset("abc"), {}), judge(frozenset("ab"), {"done": frozenset("ab")})
        ('new', 'known')
        >>> judge(frozenset("abc"), {"done": frozenset("ab")}), judge(frozenset("c"), {"done": frozenset("ab")})
        ('new', 'rest')
        >>> judge(frozenset("ab"), {"failed": frozenset("ab")})
        'new'
    """
    for state in ("done", "skipped"):
        if state in known and instances <= known[state]:
            return "known"
    for before in known.values():
        if not (instances >= before or instances <= before):
            return "rest"
    return "new"


class Node:
    """Node that runs from :meth:`start` to :meth:`stop`.

    Args:
        settings: its settings.
        interpolate: interpolates the folder of a series, see
            :func:`monai_sliceinterp.dicom_node.interpolating.interpolate_series`.

    Raises:
        ValueError: with one line, if the folder or an address cannot be used.
    """

    def __init__(self, settings: NodeSettings, interpolate: Callable[..., Outcome] = interpolate_series) -> None:
        self.settings, self._interpolate = settings, interpolate
        self.queue = SeriesQueue(settings.folder, settings.max_series, round(settings.min_free_gib * 2**30))
        self._stop = threading.Event()
        self._destination = "not tried yet"
        self._unreachable = 0
        self._forgotten = -_FORGET_SECONDS
        self._refusals: dict[str, int] = {}
        self._threads = [
            threading.Thread(target=self._loop, args=(step,), name=step.__name__)
            for step in (self.interpolate_next, self.send_next)
        ]

    def start(self) -> None:
        """Listen and work, in threads."""
        with ExitStack() as undo:
            undo.callback(self.queue.close)
            self._storage = start_storage(self.settings, self.queue)
            undo.callback(self._storage.ae.shutdown)
            self._health = start_health(self.settings.health, self.report)
            undo.pop_all()
        self.port = int(self._storage.server_address[1])
        self.health_port = int(self._health.server_port)
        for thread in self._threads:
            thread.start()
        log_event(
            "listening",
            ae_title=self.settings.ae_title,
            port=self.port,
            health=f"{self.settings.health[0]}:{self.health_port}",
            **{name: count for name, count in self.queue.counts().items() if count},
        )

    def stop(self) -> None:
        """End: the series in work goes on at the next start."""
        self._stop.set()
        self._storage.ae.shutdown()
        for thread in self._threads:
            thread.join()
        self._health.shutdown()
        self._health.server_close()
        self.queue.close()
        log_event("stopped")

    def report(self) -> dict[str, Any]:
        """Return what the health page shows."""
        free = shutil.disk_usage(self.queue.folder).free
        counts = self.queue.counts()
        status = "ok"
        if not all(thread.is_alive() for thread in self._threads):
            status = "a thread has ended: start the node again"
        elif free < self.queue.min_free:
            status = "disk full"
        elif counts["receiving"] + counts["working"] + counts["sending"] >= self.settings.max_series:
            status = "queue full"
        return {
            "status": status,
            "version": __version__,
            **counts,
            "destination": self._destination,
            "free_gib": round(free / 2**30, 1),
        }

    def _loop(self, step: Callable[[], float]) -> None:
        """Do a step again and again; it returns how long to wait before the next."""
        failures = 0
        while not self._stop.is_set():
            try:
                pause = step()
                failures = 0
            except OSError as error:  # a disk that is full or gone: all stays where it is
                pause = self._backoff(failures)
                if not failures:
                    log_event("disk", reason=f"{error.strerror or error}; tried again")
                failures += 1
            self._stop.wait(pause)

    def _backoff(self, failures: int) -> float:
        return float(min(self.settings.retry_seconds * 2 ** min(failures, 20), _MAX_PAUSE))

    def interpolate_next(self) -> float:
        """Interpolate the next series that is complete."""
        if time.monotonic() - self._forgotten > _FORGET_SECONDS:
            self.queue.forget(self.settings.keep_days)
            self._forgotten = time.monotonic()
        job = self.queue.take(self.settings.stable_seconds)
        if job is None:
            return _POLL_SECONDS
        verdict = judge(frozenset(job.instances), self.queue.known_instances(job.series))
        if verdict == "known":
            self.queue.discard(job)
            log_event("series", series=job.series, state="known", slices_in=len(job.files))
            return 0.0
        if verdict == "rest":
            reason = "instances came after the series was taken for complete; send it whole, or raise --stable-age"
            return self._finish(job, "failed", reason)
        if _is_own(job):
            return self._finish(job, "skipped", "is an interpolated series itself")
        if job.attempts > _MAX_ATTEMPTS:
            return self._finish(job, "failed", f"its interpolation was interrupted {_MAX_ATTEMPTS} times")
        out, begin = self.queue.scratch_path(), time.monotonic()
        try:
            outcome = self._interpolate(
                job.folder, out, self.settings.options, self.settings.timeout_seconds, self._stop
            )
            job = job.timed("interpolating", time.monotonic() - begin)
            if outcome.state == "stopped":
                job.begun(-1)
            elif outcome.state == "sending" and outcome.result is not None:
                self.queue.to_sending(job, outcome.result)
            elif outcome.state == "failed" and _NO_SPACE in (outcome.reason or "") and job.attempts < _MAX_ATTEMPTS:
                log_event("disk", series=job.series, reason=f"{_NO_SPACE}; tried again")
                return self._backoff(job.attempts - 1)
            else:
                return self._finish(job, outcome.state, outcome.reason)
        finally:
            shutil.rmtree(out, ignore_errors=True)
        return 0.0

    def send_next(self) -> float:
        """Send the series that wait for it, oldest first."""
        pause = _POLL_SECONDS
        for job in self.queue.sending():
            if self._stop.is_set():
                return 0.0
            begin, files = time.monotonic(), job.files
            try:
                send_series(files, self.settings.destination, self.settings.ae_title, self._stop)
            except UnreachableError as error:
                if self._destination != str(error) and not self._stop.is_set():
                    log_event("destination", reason=f"{error}; tried again")
                self._destination = str(error)
                self._unreachable += 1
                return self._backoff(self._unreachable - 1)
            except RefusedError as error:
                self._refusals[job.id] = refusals = self._refusals.get(job.id, 0) + 1
                if refusals < _MAX_ATTEMPTS:
                    pause = self._backoff(refusals - 1)
                else:
                    self._finish(job, "failed", str(error))
                continue
            self._destination, self._unreachable = "ok", 0
            self._finish(job.timed("sending", time.monotonic() - begin), "done", slices=len(files))
        return pause

    def _finish(self, job: Job, state: str, reason: str | None = None, slices: int | None = None) -> float:
        """Let a series end, with its line in the log; no time is to be lost until the next."""
        self.queue.finish(job, state, reason, slices)
        counts = {"slices_in": len(job.instances), "slices_out": slices}
        log_event("series", series=job.series, state=state, reason=reason, **counts, seconds=job.seconds or None)
        return 0.0


def _is_own(job: Job) -> bool:
    """Whether a series was written by this package: an archive may send back whatever it gets."""
    try:
        header = dcmread(job.files[0], stop_before_pixels=True, specific_tags=["ImageType"])
        values = list(header.get("ImageType") or ())
    except Exception:  # it fails where it is read whole
        return False
    return values[:1] == ["DERIVED"] and len(values) > 3 and values[3] in _KINDS


def serve(settings: NodeSettings) -> int:
    """Run the node until SIGTERM or Ctrl-C.

    Args:
        settings: its settings.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: with one line, if the folder or an address cannot be used.
    """
    os.umask(0o077)  # what is written shows patients
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    node = Node(settings)
    node.start()
    ended.wait()
    node.stop()
    return 0
