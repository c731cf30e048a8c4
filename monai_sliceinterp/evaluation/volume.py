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
from monai_sliceinterp.evaluation.cuts import add_arrays, holds_arrays, panel_cuts, panel_path
from monai_sliceinterp.evaluation.methods import Method
from monai_sliceinterp.evaluation.protocols import can_score, degrade_by_protocol
from monai_sliceinterp.evaluation.records import VolumeRecord
from monai_sliceinterp.evaluation.scores import Score, score_volume
from monai_sliceinterp.evaluation.settings import HU_WINDOW, EvaluationSettings, VolumeItem
from monai_sliceinterp.metrics import PerceptualMetric, body_mask, synthesized_pairs
from monai_sliceinterp.transforms import InvertibleScaleIntensityRange, LoadVolume, ThroughPlaneLast, moved_axis
from monai_sliceinterp.transforms.intensity import percentile_range, scale_to_unit, unscale_from_unit

__all__ = ["ThinVolume", "VolumeResult", "evaluate_volume", "interpolate_unit", "load_thin"]

_PERCENTILES = (1.0, 99.0)  # as bundle asi
_CT_BELOW = -200.0  # only CT has such intensities (HU)


@dataclass(frozen=True)
class ThinVolume:
    """A volume whose slices will be left out and synthesized.

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
    """What is known of a volume in the end.

    Attributes:
        item: the volume.
        scores: one for each protocol and method that could be scored.
        window: intensities that became 0 and 1, and where they come from, in words.
        axis: axis along which the slices are stacked in the file; None where it could not be read.
        failures: what went wrong, one line for each protocol and method, or one for the volume.
        skipped: protocols for which the volume has too few slices.
    """

    item: VolumeItem
    scores: list[Score] = field(default_factory=list)
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
    scan.applied_operations = []  # what was done to the thin volume is nothing a method has to undo
    fine, seconds, memory = measure_cost(lambda: method.interpolate(scan, factor), method.device)
    return scale_to_unit(fine.as_tensor(), *window, clip=True), seconds, memory


def evaluate_volume(
    item: VolumeItem,
    settings: EvaluationSettings,
    methods: Sequence[Method],
    perceptual: Mapping[str, PerceptualMetric] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> VolumeResult:
    """Degrade a volume by every protocol, interpolate it by every method, and score the results.

    The volume is scaled and clipped first, so that input and truth are what the scores see; the methods get the thick
    volume in the scan's units. Each score is kept, see :class:`monai_sliceinterp.evaluation.records.VolumeRecord`, and
    not computed another time.

    Args:
        item: the volume.
        settings: what is evaluated.
        methods: the methods.
        perceptual: optional scores by name.
        tell: called with what is done next.

    Returns:
        The scores. What went wrong is told in the result, not raised.

    Example:
        >>> import tempfile
        >>> from monai_sliceinterp.data import write_phantoms
        >>> from monai_sliceinterp.evaluation.methods import find_methods
        >>> folder = tempfile.mkdtemp()
        >>> path = write_phantoms(folder, "head", 0, shape=(24, 24, 7), spacing=(8, 8, 8))[0]
        >>> settings = EvaluationSettings([folder], ["linear", "cubic"], folder, factors=[2], quick=True, panels=0)
        >>> result = evaluate_volume(settings.volumes()[0], settings, find_methods(settings.methods))
        >>> [(score.volume, score.protocol, score.method) for score in result.scores]
        [('head_000', 'subsample x2', 'linear'), ('head_000', 'subsample x2', 'cubic')]
    """
    result = VolumeResult(item)
    try:
        tell(item.name)
        record, thin = VolumeRecord(item, settings), None
        if not record.about:
            thin = load_thin(item.path, settings)
            record.describe(thin.image.shape[-1], thin.axis, thin.window, thin.window_from)
        result.window, result.axis = record.window, record.axis
        for recipe, title in zip(settings.recipes, settings.titles, strict=True):
            if not can_score(record.num_slices, recipe):
                result.skipped.append(title)
                continue
            panel = panel_path(settings.output_dir, item.name, title) if item.number < settings.panels else None
            keys = {method.name: record.key(method, recipe) for method in methods}
            missing = [
                method
                for method in methods
                if (key := keys[method.name]) not in record.rows
                or (panel is not None and not holds_arrays(panel, method.name, key))
            ]
            if missing:
                thin = thin or load_thin(item.path, settings)
                problem = _Problem(thin, recipe, item.number)
            for method in missing:
                tell(f"{item.name}: {title}, {method.name}")
                try:
                    values, cuts = problem.solve(method, perceptual or {}, detailed=not settings.quick)
                    if panel is not None:
                        add_arrays(panel, cuts, method.name, keys[method.name])
                except INPUT_ERRORS as error:
                    result.failures.append(f"{item.path}: {title}, {method.name}: {one_line(error)}")
                    continue
                record.add(keys[method.name], Score(item.name, item.group, title, method.name, **values))
            result.scores += [record.rows[key] for key in keys.values() if key in record.rows]
        if len(result.skipped) == len(settings.recipes):
            raise ValueError(f"has {record.num_slices} slices, too few for {', '.join(result.skipped)}.")
    except INPUT_ERRORS as error:
        reason = one_line(error)
        result.failures.append(reason if item.path in reason else f"{item.path}: {reason}")
    return result


class _Problem:
    """A thick volume, and the thin one that methods should make of it."""

    def __init__(self, thin: ThinVolume, recipe: Mapping[str, Any], number: int) -> None:
        self.window, self.factor, self.observed = thin.window, int(recipe["factor"]), "random" in recipe
        self.thick, first = degrade_by_protocol(thin.image, recipe, number)
        self.truth = MetaTensor(thin.image.as_tensor()[..., first:], affine=thin.image.affine)
        self.body = None if thin.body is None else thin.body[..., first:]

    def solve(
        self, method: Method, perceptual: Mapping[str, PerceptualMetric], detailed: bool
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Score a method; its scores, and cuts through its result."""
        pred, seconds, memory = interpolate_unit(method, self.thick, self.factor, self.window)
        truth = self.truth.as_tensor()
        values = score_volume(pred, truth, self.factor, 1.0, self.body, self.observed, detailed)
        for name, metric in perceptual.items():
            metric.reset()
            metric(*synthesized_pairs(pred, truth, self.factor, self.observed))
            values[name] = float(metric.aggregate())
        values.update(seconds=seconds, memory=memory)
        return values, panel_cuts(pred, self.thick, self.truth, self.factor)
