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

"""What the PACS node writes down of a series, and files that are on the disk when it says so."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from monai_sliceinterp.dicom_node.journal import now
from monai_sliceinterp.files import atomic_path

__all__ = ["JOB_FILE", "Job", "Record", "sync_folder", "write_durably"]

JOB_FILE = ".job.json"
"""File in the folder of a series in work; hidden, so that it is no image to anyone."""


def sync_folder(path: Path) -> None:
    """Have the names in a folder, or the content of a file, on the disk before going on.

    Example:
        >>> sync_folder(Path("."))
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, which is on the disk when this returns.

    Args:
        path: the file.
        content: what to write.

    Raises:
        OSError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "record.json"
        >>> write_durably(file, b"{}")
        >>> file.read_bytes()
        b'{}'
    """
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


@dataclass(frozen=True)
class Job:
    """A series in work.

    Attributes:
        folder: where its files are; the name of the folder above is its state.
        id: of this work on it; a series that comes again gets another one.
        instances: names of its instances.
        received: when it was complete, in UTC.
        attempts: how often its interpolation was begun.
        seconds: how long its steps took.
    """

    folder: Path
    id: str
    instances: tuple[str, ...]
    received: str
    attempts: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def series(self) -> str:
        """Name of the series."""
        return self.folder.name

    @property
    def state(self) -> str:
        """State of the series: "working" or "sending"."""
        return self.folder.parent.name

    @property
    def files(self) -> list[Path]:
        """Its DICOM files, sorted by name."""
        return sorted(self.folder.glob("*.dcm"))

    @classmethod
    def start(cls, folder: Path) -> None:
        """Begin to work on the files of a folder."""
        names = tuple(path.stem for path in sorted(folder.glob("*.dcm")))
        cls(folder, uuid4().hex, names, now()).write(folder)

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Read what is written in the folder of a series."""
        content: dict[str, Any] = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
        return cls(folder, **{**content, "instances": tuple(content["instances"])})

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        content = {name: value for name, value in asdict(self).items() if name != "folder"}
        write_durably(folder / JOB_FILE, json.dumps(content).encode())

    def begun(self, attempts: int = 1) -> Job:
        """Count an attempt; -1 takes one back."""
        job = replace(self, attempts=self.attempts + attempts)
        job.write(job.folder)
        return job

    def timed(self, step: str, seconds: float) -> Job:
        """Note how long a step took."""
        return replace(self, seconds={**self.seconds, step: round(seconds, 1)})


@dataclass(frozen=True)
class Record:
    """What is left of a series that is not in work any more: nothing that tells the patient.

    Attributes:
        series: its name.
        id: of the work on it.
        state: "done", "failed" or "skipped".
        reason: why it failed or was skipped.
        instances: names of its instances.
        slices: how many were written.
        received: when it was complete, in UTC.
        ended: when it ended, in UTC.
        seconds: how long its steps took.
    """

    series: str
    id: str
    state: str
    reason: str | None
    instances: tuple[str, ...]
    slices: int | None
    received: str
    ended: str
    seconds: dict[str, float]

    @classmethod
    def of(cls, job: Job, state: str, reason: str | None, slices: int | None) -> Record:
        """Make the record of a job."""
        return cls(job.series, job.id, state, reason, job.instances, slices, job.received, now(), job.seconds)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**content, "instances": tuple(content["instances"])})

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))
