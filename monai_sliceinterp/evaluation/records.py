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

"""Scores of a volume in a file, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from monai_sliceinterp.evaluation.methods import Method
from monai_sliceinterp.evaluation.settings import EvaluationSettings, VolumeItem
from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.metrics import METRICS, Protocol

__all__ = ["VolumeRecord", "state_of"]

_FORMAT = 2
"""Counts up whenever scores in files of older versions must not be used any more."""


def state_of(item: VolumeItem, settings: EvaluationSettings) -> str:
    """Compute a short text that changes with the file of a volume and with how it is scored."""
    source = Path(item.path)
    files = [source] if source.is_file() else sorted(entry for entry in source.iterdir() if entry.is_file())
    state = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    depends_on = json.dumps([_FORMAT, list(METRICS), state, settings.scoring], sort_keys=True)
    return hashlib.sha256(depends_on.encode()).hexdigest()[:12]


class VolumeRecord:
    """Scores of a volume under the settings of a run, in ``volumes/<name>-<state>.json`` of the output folder.

    The file holds whatever was scored under these settings, also by methods and protocols that are not asked for now.

    Args:
        item: the volume.
        settings: how it is scored.

    Attributes:
        about: number of slices, slice axis, window of intensities and where it comes from; empty if not known yet.
    """

    def __init__(self, item: VolumeItem, settings: EvaluationSettings) -> None:
        self.item = item
        self.path = Path(settings.output_dir) / "volumes" / f"{item.name}-{state_of(item, settings)}.json"
        self.about: dict[str, Any] = {}
        self._entries: list[dict[str, Any]] = []
        if self.path.is_file():
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.about, self._entries = content["about"], content["scores"]

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
        """Record the properties of the volume."""
        self.about = {
            "path": str(Path(self.item.path).resolve()),
            "slices": num_slices,
            "axis": axis,
            "window": list(window),
            "window_from": window_from,
        }
        self._write()

    def identity(self, method: Method, protocol: Protocol) -> dict[str, Any]:
        """Return what the score of a method under a protocol depends on beside the volume, as JSON can hold it."""
        settings = json.loads(json.dumps(protocol.identity(self.item.number)))
        return {"method": method.name, "fingerprint": method.fingerprint[:16], "protocol": settings}

    def scores(self, identity: dict[str, Any]) -> dict[str, float] | None:
        """Return the scores of a method under a protocol, see :meth:`identity`; None where there are none."""
        values = next((entry["values"] for entry in self._entries if entry["identity"] == identity), None)
        return None if values is None else {name: float(value) for name, value in values.items()}

    def add(self, identity: dict[str, Any], values: dict[str, float]) -> None:
        """Record scores, instead of older ones."""
        # JSON has neither infinity nor NaN: these become texts
        plain = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        others = [entry for entry in self._entries if entry["identity"] != identity]
        self._entries = [*others, {"identity": identity, "values": plain}]
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as part:
            part.write_text(json.dumps({"about": self.about, "scores": self._entries}, indent=1), encoding="utf-8")
