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

"""Evaluation of one volume: load, degrade, interpolate, score, and keep the scores in a file."""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop
from monai.utils import MONAIEnvVars

from monai_sliceinterp.command_line import INPUT_ERRORS, is_bug, one_line
from monai_sliceinterp.evaluation.cuts import add_views, holds_views, panel_cuts, panel_path
from monai_sliceinterp.evaluation.downstream import dice_on_slices, on_output_grid, segment
from monai_sliceinterp.evaluation.methods import Method, in_units, interpolate_unit
from monai_sliceinterp.evaluation.settings import HU_WINDOW, EvaluationSettings, VolumeItem
from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.metrics import METRICS, PerceptualMetric, Protocol, Trial, body_mask, score_reconstruction
from monai_sliceinterp.preview.windows import is_ct
from monai_sliceinterp.transforms import InvertibleScaleIntensityRange, LoadLabeld, LoadVolume, ThroughPlaneLast
from monai_sliceinterp.transforms.intensity import percentile_range, scale_to_unit

__all__ = [
    "ThinVolume",
    "VolumeRecord",
    "VolumeResult",
    "describe_failure",
    "evaluate_volume",
    "load_thin",
    "state_of",
]

_PERCENTILES = (1.0, 99.0)  # leave out the brightest vessels and noise, for all methods alike
_FORMAT = 2  # counts up whenever scores in files of older versions must not be used any more


@dataclass(frozen=True)
class ThinVolume:
    """Volume whose slices will be left out and synthesized.

    Attributes:
        image: ``(C, H, W, N)`` float32 in [0, 1], slices last, with its affine.
        window: intensities that became 0 and 1, in the scan's units.
        window_from: where the window comes from, in words.
        axis: axis along which the slices are stacked in the file.
        body: ``(C, H, W, N)`` bool, voxels of the body; None where none was asked for.
        label: ``(1, H, W, N)`` segmentation, the reference of those of results; None where none was asked for.
    """

    image: MetaTensor
    window: tuple[float, float]
    window_from: str
    axis: int
    body: torch.Tensor | None = None
    label: MetaTensor | None = None


@dataclass
class VolumeResult:
    """Results of the evaluation of a volume.

    Attributes:
        item: the volume.
        scores: a row for each protocol and method that could be scored, see
            :func:`monai_sliceinterp.evaluation.score_table`.
        window: intensities that became 0 and 1, and where they come from, in words.
        limits: the same in numbers; None where they are not known.
        axis: axis along which the slices are stacked in the file; None where it could not be read.
        failures: one line for each protocol and method that failed, or one for the volume.
        skipped: protocols for which the volume has too few slices.
    """

    item: VolumeItem
    scores: list[dict[str, Any]] = field(default_factory=list)
    window: str = ""
    limits: tuple[float, float] | None = None
    axis: int | None = None
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Kind of scan, whose intensities are not averaged with those of another: "CT", by its range, or "not CT"."""
        return "CT" if self.limits is not None and is_ct(np.asarray(self.limits)) else "not CT"


def state_of(item: VolumeItem, settings: EvaluationSettings) -> str:
    """Compute a short text that changes with the file of a volume and with how it is scored."""
    source = Path(item.path)
    files = [source] if source.is_file() else sorted(entry for entry in source.iterdir() if entry.is_file())
    state = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    depends_on = json.dumps([_FORMAT, list(METRICS), state, settings.scoring], sort_keys=True)
    return hashlib.sha256(depends_on.encode()).hexdigest()[:12]


class VolumeRecord:
    """Scores of a volume under the settings of a run, in ``volumes/<name>-<state>.json`` of the output folder.

    The file holds whatever was scored under these settings, also by methods and protocols that are not asked for now,
    so that a run that was cut off goes on where it was.

    Args:
        item: the volume.
        settings: how it is scored.

    Attributes:
        about: "path", number of "slices", their "axis", "window" of intensities in words; empty if not known yet.
    """

    def __init__(self, item: VolumeItem, settings: EvaluationSettings) -> None:
        self.item = item
        self.path = Path(settings.output_dir) / "volumes" / f"{item.name}-{state_of(item, settings)}.json"
        content = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        self.about: dict[str, Any] = content.get("about", {})
        self._entries: list[dict[str, Any]] = content.get("scores", [])

    def describe(self, thin: ThinVolume) -> None:
        """Record the properties of the volume."""
        low, high = thin.window
        window = f"{low:g} to {high:g} ({thin.window_from})"
        path = str(Path(self.item.path).resolve())
        about = {"path": path, "slices": thin.image.shape[-1], "axis": thin.axis, "window": window}
        self.about = {**about, "limits": [low, high]}
        self._write()

    def identity(self, method: Method, protocol: Protocol) -> dict[str, Any]:
        """Return what the scores of a method under a protocol depend on beside the volume, as JSON can hold it."""
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


def load_thin(path: str | Path, settings: EvaluationSettings) -> ThinVolume:
    """Load a volume, slices last, and scale the intensities that are scored to [0, 1], clipped.

    Raises:
        ValueError: with one line that names the file, if it cannot be read, holds NaN, or has one intensity only.
    """
    loaded = LoadVolume(for_training=True)(path)  # what is degraded has even slices
    axis = slice_geometry(loaded, axis=settings.axis).axis
    try:
        image = ThroughPlaneLast(axis)(loaded)
        if settings.window is not None:
            low, high, window_from = *settings.window, "as given"
        elif is_ct(image.as_tensor()):
            low, high, window_from = *HU_WINDOW, "HU"
        else:
            low, high, window_from = *percentile_range(image.as_tensor(), *_PERCENTILES), "1st to 99th percentile"
        if not low < high:
            raise ValueError(f"all voxels are {low:g}; expected an image.")
        thin = InvertibleScaleIntensityRange(low, high, clip=True)(image)
        crop = CenterSpatialCrop((settings.crop or -1, settings.crop or -1, -1))
        thin = cast(MetaTensor, crop(thin))
        label = None
        if settings.labels:
            known = LoadLabeld("image", settings.labels, "label")({"image": loaded})["label"]
            label = cast(MetaTensor, crop(ThroughPlaneLast(axis)(known)))
        elif settings.segment:
            label = segment(in_units(thin, (low, high)), settings.segment)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    body = None if settings.body is None else body_mask(thin, (settings.body - low) / (high - low))
    return ThinVolume(thin, (low, high), window_from, axis, body, label)


def evaluate_volume(
    item: VolumeItem,
    settings: EvaluationSettings,
    methods: Sequence[Method],
    perceptual: Mapping[str, PerceptualMetric] | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> VolumeResult:
    """Degrade a volume by every protocol, interpolate it by every method, and score the results.

    The volume is scaled and clipped first, so that input and truth are what the scores see; the methods get the thick
    volume in the scan's units. Scores that are recorded already, see :class:`VolumeRecord`, are not computed again.

    Failures are listed in the result, not raised.

    Args:
        item: the volume.
        settings: what is evaluated.
        methods: the methods.
        perceptual: optional scores by name.
        report: called with the name of each step.
    """
    result, thin = VolumeResult(item), None
    protocols = settings.make_protocols()
    try:
        report(item.name)
        record = VolumeRecord(item, settings)
        if "limits" not in record.about:  # or it was written by an older version
            thin = load_thin(item.path, settings)
            record.describe(thin)
        result.window, result.axis = record.about["window"], record.about["axis"]
        result.limits = tuple(record.about["limits"])
        for protocol in protocols:
            if not protocol.can_score(record.about["slices"]):
                result.skipped.append(protocol.title)
                continue
            shown = item.number < settings.panels
            panel = panel_path(settings.output_dir, item.name, protocol.title) if shown else None
            identities = {method.name: record.identity(method, protocol) for method in methods}
            missing = [
                method
                for method in methods
                if record.scores(identities[method.name]) is None
                or (panel is not None and not holds_views(panel, method.name, identities[method.name]))
            ]
            if missing:
                thin = thin or load_thin(item.path, settings)
                trial = protocol.trial(thin.image, item.number, thin.body)
                for method in missing:
                    step = f"{protocol.title}, {method.name}"
                    report(f"{item.name}: {step}")
                    try:
                        values, cuts = _solve(trial, method, thin, perceptual or {}, settings)
                        if panel is not None:
                            add_views(panel, cuts, method.name, identities[method.name])
                        record.add(identities[method.name], values)
                    except INPUT_ERRORS as error:
                        result.failures.append(describe_failure(error, item.path, step))
            names = {"volume": item.name, "group": item.group, "protocol": protocol.title}
            for name, identity in identities.items():
                scores = record.scores(identity)
                if scores is not None:
                    result.scores.append({**names, "method": name, **scores})
        if len(result.skipped) == len(protocols):
            raise ValueError(f"has {record.about['slices']} slices, too few for {', '.join(result.skipped)}.")
    except INPUT_ERRORS as error:
        result.failures.append(describe_failure(error, item.path))
    return result


def describe_failure(error: BaseException, path: str, step: str = "") -> str:
    """Describe an error in one line that names the file; that of a bug follows its traceback on stderr."""
    if MONAIEnvVars.debug() or is_bug(error):
        traceback.print_exception(error)
    reason = one_line(error)
    if step:
        return f"{path}: {step}: {reason}"
    return reason if path in reason else f"{path}: {reason}"


def _solve(
    trial: Trial,
    method: Method,
    thin: ThinVolume,
    perceptual: Mapping[str, PerceptualMetric],
    settings: EvaluationSettings,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Interpolate the thick volume of a trial; the scores of the result, and cuts through it."""
    pred, seconds, memory = interpolate_unit(method, trial.thick, trial.factor, thin.window)
    values = trial.score(pred, 1.0, not settings.quick)
    if settings.reconstruction and method.reconstruct is not None:
        again = method.reconstruct(in_units(trial.thick, thin.window))
        values |= score_reconstruction(
            scale_to_unit(again.as_tensor(), *thin.window, clip=True), trial.thick, detailed=not settings.quick
        )
    if thin.label is not None:
        fine = on_output_grid(pred, trial.thick, trial.factor)
        label = segment(in_units(fine, thin.window), settings.segment)
        values["dice"] = dice_on_slices(label, thin.label, trial.thick)
    for name, metric in perceptual.items():
        metric.reset()
        metric(*trial.pairs(pred))
        values[name] = float(metric.aggregate())
    return {**values, "seconds": seconds, "memory": memory}, panel_cuts(pred, trial.thick, trial.truth, trial.factor)
