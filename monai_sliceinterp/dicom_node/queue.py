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

"""The queue of the PACS node: a folder, in which the place of a series is its state."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
import uuid
from pathlib import Path

from monai_sliceinterp.dicom_node.journal import pseudonym
from monai_sliceinterp.dicom_node.records import Job, Record, sync_folder, write_durably

__all__ = ["QueueFullError", "SeriesQueue"]

_OPEN = ("receiving", "working", "sending")
"""States of a series that is in work: a folder of that name holds a folder for each."""

_FINAL = ("done", "failed", "skipped")
"""States of a series of which only a record is left."""

_SCRATCH = "scratch"
"""Folder for what is not whole yet, and what is on its way out; it is emptied at the start."""


class QueueFullError(Exception):
    """The queue takes no further series, or the disk has no room."""


class SeriesQueue:
    """Queue of series on disk, which a kill at any moment leaves whole.

    ``receiving/NAME/`` holds the instances of a series that is coming, ``working/NAME/`` those of the one that is being
    interpolated, ``sending/NAME/`` an interpolated series, and ``done/NAME.json``, ``failed/NAME.json`` or
    ``skipped/NAME.json`` what is remembered of it, without patient data. Each change of state is one rename, and a
    record is written before the files go. Names are those of :func:`monai_sliceinterp.dicom_node.journal.pseudonym`.

    Args:
        folder: made if missing, for nobody but its owner.
        max_series: series in work at once.
        min_free: free bytes of the disk below which nothing is taken.

    Raises:
        ValueError: if the folder cannot be used, or another node uses it.

    Example:
        >>> import tempfile
        >>> queue = SeriesQueue(tempfile.mkdtemp(), max_series=2, min_free=0)
        >>> queue.add("1.2.3", "1.2.3.1", b"an instance")
        >>> queue.take(stable_seconds=60) is None, queue.counts()["receiving"]
        (True, 1)
        >>> job = queue.take(stable_seconds=0)
        >>> job.state, len(job.instances), job.attempts
        ('working', 1, 1)
        >>> queue.finish(job, "failed", "is an example")
        >>> queue.counts()["failed"]
        1
    """

    def __init__(self, folder: str | Path, max_series: int, min_free: int) -> None:
        self.folder, self.max_series, self.min_free = Path(folder).resolve(), max_series, min_free
        self._lock = threading.RLock()
        self._seen: dict[str, float] = {}
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in (*_OPEN, *_FINAL, _SCRATCH):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)
            self._lock_file = (self.folder / ".lock").open("w")
        except OSError as error:
            raise ValueError(
                f"{folder}: cannot be used ({error.strerror}); expected a folder for the queue."
            ) from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{folder}: is the queue of a node that runs; expected another --folder.") from error
        self._recover()

    def close(self) -> None:
        """Let another node use the folder."""
        self._lock_file.close()

    def _recover(self) -> None:
        """Remove what a kill has left behind a change of state; series that were coming get their whole time again."""
        for path in (self.folder / _SCRATCH).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in ("sending", "working"):
            for folder in self._folders(name):
                ended = any(record.id == Job.read(folder).id for record in self._records(folder.name))
                if ended or (name == "working" and (self.folder / "sending" / folder.name).exists()):
                    self._discard(folder)
        for folder in self._folders("receiving"):
            self._seen[folder.name] = time.monotonic()

    def add(self, series_uid: str, instance_uid: str, content: bytes) -> None:
        """Take an instance; when this returns, it is on the disk. One that is there already is replaced.

        Args:
            series_uid: SeriesInstanceUID.
            instance_uid: SOPInstanceUID.
            content: the DICOM file.

        Raises:
            QueueFullError: if too many series are in work already, or too little of the disk is free.
            OSError: if it cannot be written.
        """
        series, name = pseudonym(series_uid), f"{pseudonym(instance_uid)}.dcm"
        folder, part = self.folder / "receiving" / series, self.scratch_path()
        self._check_room(folder)
        try:
            write_durably(part, content)
            with self._lock:
                self._check_room(folder)
                folder.mkdir(mode=0o700, exist_ok=True)
                os.replace(part, folder / name)
                self._seen[series] = time.monotonic()
            with contextlib.suppress(FileNotFoundError):  # it has become the series in work
                sync_folder(folder)
            sync_folder(folder.parent)
        finally:
            part.unlink(missing_ok=True)

    def _check_room(self, folder: Path) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < self.min_free:
            raise QueueFullError(f"{free / 2**30:.1f} GiB of the disk are free, {self.min_free / 2**30:.1f} have to be")
        with self._lock:
            if not folder.exists() and sum(len(self._folders(name)) for name in _OPEN) >= self.max_series:
                raise QueueFullError(f"{self.max_series} series are in work already")

    def take(self, stable_seconds: float) -> Job | None:
        """Take the next series to interpolate: one that an earlier node was at, else the first that is complete.

        A series of which an earlier part is still in work waits for that.

        Args:
            stable_seconds: a series is complete when this long nothing has come for it.
        """
        with self._lock:
            left = self._folders("working")
            if left:
                return Job.read(left[0]).begun()
            ages = {name: time.monotonic() - seen for name, seen in self._seen.items()}
            for name in sorted(ages, key=lambda name: -ages[name]):
                folder = self.folder / "receiving" / name
                if ages[name] < stable_seconds or (self.folder / "sending" / name).exists():
                    continue
                Job.start(folder)
                target = self.folder / "working" / name
                os.replace(folder, target)
                del self._seen[name]
                return Job.read(target).begun()
        return None

    def known_instances(self, series: str) -> dict[str, frozenset[str]]:
        """Return of which instances a series consisted that has been here, by the state in which it ended."""
        return {record.state: frozenset(record.instances) for record in self._records(series)}

    def scratch_path(self) -> Path:
        """Make up a path for what is not whole yet."""
        return self.folder / _SCRATCH / uuid.uuid4().hex

    def to_sending(self, job: Job, result: Path) -> None:
        """Put a folder of interpolated files in place of those they were made from.

        Args:
            job: the series in work.
            result: folder with nothing but the files, on the same disk.
        """
        job.write(result)
        for path in result.iterdir():
            sync_folder(path)
        sync_folder(result)
        os.replace(result, self.folder / "sending" / job.series)
        sync_folder(self.folder / "sending")
        self._discard(job.folder)

    def sending(self) -> list[Job]:
        """List the series to send, oldest first."""
        return sorted(map(Job.read, self._folders("sending")), key=lambda job: job.received)

    def finish(self, job: Job, state: str, reason: str | None = None, slices: int | None = None) -> None:
        """Remember how a series ended, and remove its files.

        Args:
            job: the series.
            state: "done", "failed" or "skipped".
            reason: why, for the latter two.
            slices: how many were written.
        """
        name = f"{job.series}.json"
        write_durably(self.folder / state / name, Record.of(job, state, reason, slices).text().encode())
        for other in _FINAL if state == "done" else ():  # what had failed before is done now
            if other != state:
                (self.folder / other / name).unlink(missing_ok=True)
        self._discard(job.folder)

    def discard(self, job: Job) -> None:
        """Remove the files of a series that has ended before."""
        self._discard(job.folder)

    def counts(self) -> dict[str, int]:
        """Count the series by their states."""
        return {name: len(os.listdir(self.folder / name)) for name in (*_OPEN, *_FINAL)}

    def forget(self, days: float) -> None:
        """Remove the records that are older than some days."""
        for name in _FINAL:
            for path in (self.folder / name).iterdir():
                if time.time() - path.stat().st_mtime > days * 86400:
                    path.unlink()

    def _records(self, series: str) -> list[Record]:
        paths = [self.folder / name / f"{series}.json" for name in _FINAL]
        return [Record.read(path) for path in paths if path.exists()]

    def _folders(self, name: str) -> list[Path]:
        return sorted((self.folder / name).iterdir())

    def _discard(self, folder: Path) -> None:
        """Remove a folder: at once from its place, then from the disk."""
        target = self.scratch_path()
        os.replace(folder, target)
        shutil.rmtree(target, ignore_errors=True)
