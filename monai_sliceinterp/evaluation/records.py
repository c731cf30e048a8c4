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

"""What is known of a volume, kept in a file, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monai_sliceinterp.evaluation.methods import Method
from monai_sliceinterp.evaluation.scores import METRICS, Score
from monai_sliceinterp.evaluation.settings import EvaluationSettings, VolumeItem
from monai_sliceinterp.files import atomic_path

__all__ = ["VolumeRecord", "state_of"]

_FORMAT = 1
"""Counts up whenever scores in files of older versions must not be used any more."""


def state_of(item: VolumeItem, settings: EvaluationSettings) -> str:
    """Return a short text that changes with the file of a volume and with how it is scored."""
    source = Path(item.path)
    files = [source] if source.is_file() else sorted(entry for entry in source.iterdir() if entry.is_file())
    state = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    depends_on = json.dumps([_FORMAT, METRICS, state, settings.scoring], sort_keys=True)
    return hashlib.sha256(depends_on.encode()).hexdigest()[:12]


class VolumeRecord:
    """Scores of a volume under the settings of a run, in ``volumes/<name>-<state>.json`` of the output folder.

    The file holds whatever was scored under these settings, also by methods and protocols that are not asked for now.

    Args:
        item: the volume.
        settings: how it is scored.

    Attributes:
        about: number of slices, slice axis, window of intensities and where it comes from; empty if not known yet.
        rows: scores by :meth:`key`.

    Example:
        See :func:`monai_sliceinterp.evaluation.volume.evaluate_volume`.
    """

    def __init__(self, item: VolumeItem, settings: EvaluationSettings) -> None:
        self.item = item
        self.path = Path(settings.output_dir) / "volumes" / f"{item.name}-{state_of(item, settings)}.json"
        self.about: dict[str, Any] = {}
        self.rows: dict[str, Score] = {}
        if self.path.is_file():
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.about = content["about"]
            for key, row in content["rows"].items():
                numbers = {name: float(row[name]) for name in METRICS}
                self.rows[key] = Score(item.name, item.group, row["protocol"], row["method"], **numbers)

    @property
    def num_slices(self) -> int:
        """Number of slices."""
        return int(self.about["slices"])

    @property
    def axis(self) -> int:
        """Axis along which its slices are stacked in the file."""
        return int(self.about["axis"])

    @property
    def window(self) -> str:
        """The intensities that are scored, in words."""
        low, high = (float(value) for value in self.about["window"])
        return f"{low:g} to {high:g} ({self.about['window_from']})"

    def describe(self, num_slices: int, axis: int, window: tuple[float, float], window_from: str) -> None:
        """Note what the volume is like."""
        self.about = {
            "path": str(Path(self.item.path).resolve()),
            "slices": num_slices,
            "axis": axis,
            "window": list(window),
            "window_from": window_from,
        }
        self._write()

    def key(self, method: Method, protocol: Mapping[str, Any]) -> str:
        """Return what the score of a method under a protocol is kept under."""
        # what is drawn at random for a volume depends on its number
        drawn = {"number": self.item.number} if "random" in protocol else {}
        return f"{method.name}, {method.fingerprint[:16]}, {json.dumps({**protocol, **drawn}, sort_keys=True)}"

    def add(self, key: str, row: Score) -> None:
        """Keep a score."""
        self.rows[key] = row
        self._write()

    def _write(self) -> None:
        rows = {key: {name: _plain(value) for name, value in asdict(row).items()} for key, row in self.rows.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as part:
            part.write_text(json.dumps({"about": self.about, "rows": rows}, indent=1), encoding="utf-8")


def _plain(value: float | str) -> float | str:
    """A value that JSON knows: infinity and NaN become texts."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
