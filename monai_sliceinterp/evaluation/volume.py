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

"""Evaluate one volume: load, degrade, interpolate, score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop

from monai_sliceinterp.command_line import INPUT_ERRORS, one_line
from monai_sliceinterp.evaluation.cost import measure_cost
from monai_sliceinterp.evaluation.cuts import add_views, holds_views, panel_cuts, panel_path
from monai_sliceinterp.evaluation.methods import Method
from monai_sliceinterp.evaluation.records import VolumeRecord
from monai_sliceinterp.evaluation.settings import HU_WINDOW, EvaluationSettings, VolumeItem
from monai_sliceinterp.metrics import PerceptualMetric, Trial, body_mask
from monai_sliceinterp.transforms import InvertibleScaleIntensityRange, LoadVolume, ThroughPlaneLast, moved_axis
from monai_sliceinterp.transforms.intensity import percentile_range, scale_to_unit, unscale_from_unit

__all__ = ["ThinVolume", "VolumeResult", "evaluate_volume", "interpolate_unit", "load_thin"]

_PERCENTILES = (1.0, 99.0)  # leave out the brightest vessels and noise, for all methods alike
_CT_BELOW = -200.0  # only CT has such intensities (HU)


@dataclass(frozen=True)
class ThinVolume:
    """Volume whose slices will be left out and synthesized.

    Attributes:
        image: ``(C, H, W, N)`` float32 in [0, 1], slices last, with its affine.
        window: intensities that became 0 and 1, in the scan's units.
        window_from: where the window comes from, in words.
        axis: axis along which the slices are stacked in the file.
        body: ``(C, H, W, N)`` bool, voxels of the body; None where none was asked for.
    """

    image: MetaTensor
    window: tuple[float, float]
    window_from: str
    axis: int
    body: torch.Tensor | None = None


@dataclass
class VolumeResult:
    """Results of the evaluation of a volume.

    Attributes:
        item: the volume.
        scores: a row for each protocol and method that could be scored, see
            :func:`monai_sliceinterp.evaluation.score_table`.
        window: intensities that became 0 and 1, and where they come from, in words.
        axis: axis along which the slices are stacked in the file; None where it could not be read.
        failures: one line for each protocol and method that failed, or one for the volume.
        skipped: protocols for which the volume has too few slices.
    """

    item: VolumeItem
    scores: list[dict[str, Any]] = field(default_factory=list)
    window: str = ""
    axis: int | None = None
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def load_thin(path: str | Path, settings: EvaluationSettings) -> ThinVolume:
    """Load a volume, slices last, and scale the intensities that are scored to [0, 1], clipped.

    Raises:
        ValueError: with one line that names the file, if it cannot be read, holds NaN, or has one intensity only.

    Example:
        >>> import tempfile
        >>> from monai_sliceinterp.data import write_phantoms
        >>> path = write_phantoms(tempfile.mkdtemp(), "torso", 0, shape=(16, 16, 4), spacing=(24, 24, 24))[0]
        >>> thin = load_thin(path, EvaluationSettings([str(path)], ["linear"], "out", crop=12))
        >>> thin.window, thin.window_from, thin.axis, tuple(thin.image.shape)
        ((-1024.0, 2976.0), 'HU', 2, (1, 12, 12, 4))
    """
    loaded = LoadVolume(for_training=True)(path)  # what is degraded has even slices
    try:
        image = ThroughPlaneLast(settings.axis)(loaded)
        if settings.window is not None:
            low, high, window_from = *settings.window, "as given"
        elif float(image.min()) < _CT_BELOW:
            low, high, window_from = *HU_WINDOW, "HU"
        else:
            low, high, window_from = *percentile_range(image.as_tensor(), *_PERCENTILES), "1st to 99th percentile"
        if not low < high:
            raise ValueError(f"all voxels are {low:g}; expected an image.")
        thin = InvertibleScaleIntensityRange(low, high, clip=True)(image)
        if settings.crop:
            thin = cast(MetaTensor, CenterSpatialCrop((settings.crop, settings.crop, -1))(thin))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    body = None if settings.body is None else body_mask(thin, (settings.body - low) / (high - low))
    return ThinVolume(thin, (low, high), window_from, moved_axis(image), body)


def interpolate_unit(
    method: Method, thick: MetaTensor, factor: int, window: tuple[float, float]
) -> tuple[torch.Tensor, float, float]:
    """Interpolate a thick volume that is scaled to [0, 1], in the units of the scan.

    Args:
        method: the method.
        thick: ``(C, H, W, N)`` in [0, 1].
        factor: upsampling factor.
        window: intensities that became 0 and 1.

    Returns:
        The result in [0, 1], seconds, and MiB, see :func:`monai_sliceinterp.evaluation.cost.measure_cost`.
    """
    scan = MetaTensor(unscale_from_unit(thick.as_tensor(), *window)).copy_meta_from(thick)
    scan.applied_operations = []  # a method must not undo the preprocessing of the thin volume
    fine, seconds, memory = measure_cost(lambda: method.interpolate(scan, factor), method.device)
    return scale_to_unit(fine.as_tensor(), *window, clip=True), seconds, memory


def evaluate_volume(
    item: VolumeItem,
    settings: EvaluationSettings,
    methods: Sequence[Method],
    perceptual: Mapping[str, PerceptualMetric] | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> VolumeResult:
    """Degrade a volume by every protocol, interpolate it by every method, and score the results.

    The volume is scaled and clipped first, so that input and truth are what the scores see; the methods get the thick
    volume in the scan's units. Each score is recorded, see
    :class:`monai_sliceinterp.evaluation.records.VolumeRecord`, and not computed another time.

    Args:
        item: the volume.
        settings: what is evaluated.
        methods: the methods.
        perceptual: optional scores by name.
        report: called with the name of each step.

    Returns:
        The scores. Failures are listed in the result, not raised.

    Example:
        >>> import tempfile
        >>> from monai_sliceinterp.data import write_phantoms
        >>> from monai_sliceinterp.evaluation.methods import find_methods
        >>> folder = tempfile.mkdtemp()
        >>> path = write_phantoms(folder, "head", 0, shape=(24, 24, 7), spacing=(8, 8, 8))[0]
        >>> settings = EvaluationSettings([folder], ["linear", "cubic"], folder, factors=[2], quick=True, panels=0)
        >>> result = evaluate_volume(settings.volumes()[0], settings, find_methods(settings.methods))
        >>> [(score["volume"], score["protocol"], score["method"]) for score in result.scores]
        [('head_000', 'subsample x2', 'linear'), ('head_000', 'subsample x2', 'cubic')]
    """
    result = VolumeResult(item)
    protocols = settings.make_protocols()
    try:
        report(item.name)
        record, thin = VolumeRecord(item, settings), None
        if not record.about:
            thin = load_thin(item.path, settings)
            record.describe(thin.image.shape[-1], thin.axis, thin.window, thin.window_from)
        result.window, result.axis = record.window, record.axis
        for protocol in protocols:
            if not protocol.can_score(record.num_slices):
                result.skipped.append(protocol.title)
                continue
            panel = (
                panel_path(settings.output_dir, item.name, protocol.title) if item.number < settings.panels else None
            )
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
                report(f"{item.name}: {protocol.title}, {method.name}")
                try:
                    values, cuts = _solve(trial, method, thin.window, perceptual or {}, not settings.quick)
                    if panel is not None:
                        add_views(panel, cuts, method.name, identities[method.name])
                except INPUT_ERRORS as error:
                    result.failures.append(f"{item.path}: {protocol.title}, {method.name}: {one_line(error)}")
                    continue
                record.add(identities[method.name], values)
            for method in methods:
                scores = record.scores(identities[method.name])
                if scores is not None:
                    names = {
                        "volume": item.name,
                        "group": item.group,
                        "protocol": protocol.title,
                        "method": method.name,
                    }
                    result.scores.append({**names, **scores})
        if len(result.skipped) == len(protocols):
            raise ValueError(f"has {record.num_slices} slices, too few for {', '.join(result.skipped)}.")
    except INPUT_ERRORS as error:
        reason = one_line(error)
        result.failures.append(reason if item.path in reason else f"{item.path}: {reason}")
    return result


def _solve(
    trial: Trial,
    method: Method,
    window: tuple[float, float],
    perceptual: Mapping[str, PerceptualMetric],
    detailed: bool,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Interpolate the thick volume of a trial; the scores of the result, and cuts through it."""
    pred, seconds, memory = interpolate_unit(method, trial.thick, trial.factor, window)
    values = trial.score(pred, 1.0, detailed)
    for name, metric in perceptual.items():
        metric.reset()
        metric(*trial.pairs(pred))
        values[name] = float(metric.aggregate())
    return {**values, "seconds": seconds, "memory": memory}, panel_cuts(pred, trial.thick, trial.truth, trial.factor)
