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

"""Slices between two neighbors, as each method synthesizes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from monai.data import MetaTensor

from monai_sliceinterp.command_line import INPUT_ERRORS, one_line
from monai_sliceinterp.evaluation.cuts import View, add_views, holds_views, read_views, slice_view
from monai_sliceinterp.evaluation.methods import Method
from monai_sliceinterp.evaluation.records import state_of
from monai_sliceinterp.evaluation.settings import EvaluationSettings, VolumeItem
from monai_sliceinterp.evaluation.volume import interpolate_unit, load_thin
from monai_sliceinterp.geometry import scaled_affine

__all__ = ["central_slices", "read_sweep", "write_sweeps"]

_CONTEXT = 1  # thick slices before and after the two


def central_slices(thick: MetaTensor, context: int = _CONTEXT) -> tuple[MetaTensor, int]:
    """Select the two slices in the middle of a volume and some around them.

    Args:
        thick: ``(C, H, W, N)``, slices last.
        context: slices before and after the two, where there are so many.

    Returns:
        The volume of these slices, and the place of the first of the two among them.

    Example:
        >>> import torch
        >>> part, first = central_slices(MetaTensor(torch.arange(9.0).expand(1, 4, 4, 9)))
        >>> part[0, 0, 0].tolist(), first
        ([2.0, 3.0, 4.0, 5.0], 1)
    """
    first = (thick.shape[-1] - 2) // 2
    begin = max(first - context, 0)
    part = MetaTensor(thick.as_tensor()[..., begin : first + 2 + context]).copy_meta_from(thick)
    part.affine = scaled_affine(thick.affine, 2, 1, start=begin)
    return part, first - begin


def write_sweeps(item: VolumeItem, settings: EvaluationSettings, methods: Sequence[Method]) -> tuple[Path, list[str]]:
    """Interpolate between the two thick slices in the middle of a volume by every method, and keep the slices.

    The methods see these two slices and one more on either side, of the first protocol that the volume has enough
    slices for.

    Returns:
        The file, and a line for each method that failed.
    """
    path, failures = Path(settings.output_dir) / "sweeps" / f"{item.name}.npz", []
    protocols = settings.make_protocols()
    try:
        settled = [protocol.identity(item.number) for protocol in protocols]
        state = [state_of(item, settings), json.loads(json.dumps(settled)), settings.sweep]
        missing = [one for one in methods if not holds_views(path, one.name, [*state, one.fingerprint])]
        if not missing:
            return path, []
        thin = load_thin(item.path, settings)
        fitting = [protocol for protocol in protocols if protocol.can_score(thin.image.shape[-1])]
        part, first = central_slices((fitting or protocols)[0].degrade(thin.image, item.number)[0])
    except INPUT_ERRORS as error:
        return path, [f"{item.path}: {one_line(error)}"]
    truth = {str(k): slice_view(part[0, ..., first + k], part.affine) for k in (0, 1)}
    for method in missing:
        try:
            fine = interpolate_unit(method, part, settings.sweep, thin.window)[0]
        except INPUT_ERRORS as error:
            failures.append(f"{item.path}: sweep by {method.name}: {one_line(error)}")
            continue
        begin = first * settings.sweep
        views = {str(k): slice_view(fine[0, ..., begin + k], part.affine) for k in range(settings.sweep + 1)}
        add_views(path, {"truth": truth, "pred": views}, method.name, [*state, method.fingerprint])
    return path, failures


def read_sweep(path: Path, method: str) -> list[View]:
    """Read the slices of a method, from one neighbor to the other; none where the file has none."""
    views = read_views(path, [method]).get(method, {})
    return [views[str(k)] for k in range(len(views))]
