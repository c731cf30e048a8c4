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

"""A scan and what was interpolated from it, on one grid, with what is observed and what is synthesized."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.files import file_stem, last_part
from monai_sliceinterp.geometry import (
    SAME_PLACE,
    OutputGrid,
    axis_spacing,
    corner_distance,
    plane_names,
    slice_geometry,
    slice_positions,
    stack_axis,
)
from monai_sliceinterp.resampling import apply_weights, interpolation_weights
from monai_sliceinterp.transforms import LoadVolume, ThroughPlaneLast, reorient_like

__all__ = ["ALL", "ScanPair", "beside", "load_pair"]

ALL = slice(None)


@dataclass(frozen=True)
class ScanPair:
    """Scan before and after interpolation, slices last.

    Attributes:
        thick: the input ``(H, W, N)``, one frame, with its affine.
        thin: the output ``(H, W, M)``, with its affine.
        grid: where the M slices lie among the N.
        observed: which of the M slices are copies of the input's, ``(M,)`` bool.
        name: what the input is called.
        method: what the output was made by; empty where nothing tells.
        frames: number of frames of the input, the first of which is shown.
    """

    thick: MetaTensor
    thin: MetaTensor
    grid: OutputGrid
    observed: Tensor
    name: str
    method: str = ""
    frames: int = 1

    @property
    def spacing(self) -> tuple[float, float]:
        """Slice spacing before and after, in mm."""
        before, after = (slice_geometry(volume.affine, axis=2).slice_spacing for volume in (self.thick, self.thin))
        return before, after

    @property
    def planes(self) -> tuple[str, str, str]:
        """Anatomical name of the plane across each axis."""
        return plane_names(self.thin.affine)

    def linear(self, rows: slice = ALL, columns: slice = ALL, slices: slice = ALL) -> Tensor:
        """Interpolate a part of the input linearly onto the output's grid, as a viewer shows it.

        Args:
            rows: the part along the first axis.
            columns: the part along the second axis.
            slices: which slices of the output.

        Returns:
            ``(h, w, m)`` float32.
        """
        weights = interpolation_weights(self.grid.num_slices, self.grid.positions, "linear", self.grid.slice_positions)
        return apply_weights(self.thick.as_tensor()[rows, columns].float(), weights[:, slices])


def beside(path: str | Path, ending: str) -> Path:
    """Return the file of which an output's name without suffix and an ending make the name.

    Example:
        >>> beside("out/scan_interp.nii.gz", ".json").name
        'scan_interp.json'
    """
    return Path(path).with_name(f"{file_stem(path)}{ending}")


def load_pair(
    input_path: str | Path,
    output_path: str | Path,
    load: Callable[[str | Path], MetaTensor] | None = None,
    method: str = "",
) -> ScanPair:
    """Load a scan and what this package made of it.

    Observed slices are those that the provenance beside the output lists; without one those that lie where a slice of
    the input lies and equal it.

    Args:
        input_path: image file or DICOM folder.
        output_path: the volume interpolated from it, image file or DICOM folder.
        load: how the input is loaded; None: by :class:`monai_sliceinterp.transforms.LoadVolume`.
        method: name of the method; empty: as the provenance tells.

    Raises:
        ValueError: with one line that names the file, if one cannot be read, or the output does not lie on the slices
            of the input.

    Example:
        >>> import tempfile
        >>> from monai_sliceinterp.transforms import save_nifti
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, slices, spacing in (("scan", 3, 4.0), ("thin", 5, 2.0)):
        ...     affine = torch.diag(torch.tensor([1.0, 1.0, spacing, 1.0]))
        ...     save_nifti(MetaTensor(torch.ones(1, 8, 8, slices), affine=affine), folder / f"{name}.nii.gz")
        >>> pair = load_pair(folder / "scan.nii.gz", folder / "thin.nii.gz")
        >>> pair.spacing, pair.observed.tolist()
        ((4.0, 2.0), [True, False, True, False, True])
    """
    for path in map(Path, (input_path, output_path)):  # before anything is read
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder.")
    thick = (load or LoadVolume(allow_nan=True))(input_path)
    stored = LoadVolume(allow_nan=True)(output_path)
    thin = reorient_like(stored, thick)
    told = _provenance(output_path)
    try:
        axis = stack_axis(thick, thin)
    except ValueError as error:
        raise ValueError(f"{output_path}: {error}") from error
    before, after = (slice_geometry(volume, axis=axis).slice_spacing for volume in (thick, thin))
    try:
        grid = OutputGrid.from_spacing(thick.shape[axis + 1], before, after, slice_positions(thick, axis))
    except ValueError as error:
        raise ValueError(f"{output_path}: {error}") from error
    apart = corner_distance(grid.affine(thick.affine, axis), thin.affine, thin.shape[1:])
    if len(grid) != thin.shape[axis + 1] or not apart <= SAME_PLACE * axis_spacing(thin.affine).min():
        raise ValueError(
            f"{output_path}: {thin.shape[axis + 1]} slices, {after:g} mm apart, do not lie on those of {input_path}; "
            "expected the volume that was interpolated from it."
        )
    if told is not None and told["NumberOfSlices"]["Output"] != len(grid):
        raise ValueError(f"{beside(output_path, '.json')}: is about another number of slices than {output_path} has.")
    frames = thick.shape[0]
    before_last, after_last = (ThroughPlaneLast(axis)(volume[:1]) for volume in (thick, thin))
    source = MetaTensor(before_last.as_tensor()[0], affine=before_last.affine)
    result = MetaTensor(after_last.as_tensor()[0], affine=after_last.affine)
    observed = torch.zeros(len(grid), dtype=torch.bool)
    if told is None or thin is not stored:  # the slices of a volume that was turned are counted the other way
        observed = _equal_slices(source, result, grid)
    else:
        observed[told["ObservedSlices"]] = True
    if not method and told is not None:
        method = str(told.get("Method", ""))
    return ScanPair(source, result, grid, observed, last_part(input_path), method, frames)


def _provenance(output_path: str | Path) -> dict[str, Any] | None:
    """Read what the file beside an output tells; None where there is none."""
    path = beside(output_path, ".json")
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["SliceInterpolation"]
        count = int(told["NumberOfSlices"]["Output"])
        if not all(isinstance(k, int) and 0 <= k < count for k in told["ObservedSlices"]):
            raise ValueError("slices out of range")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: tells no observed slices; expected the provenance of {output_path}.") from error
    return told


def _equal_slices(thick: MetaTensor, thin: MetaTensor, grid: OutputGrid) -> Tensor:
    """Find the output slices that are copies of the input's."""
    observed = grid.is_observed.clone()
    for index, source in zip(observed.nonzero()[:, 0].tolist(), grid.observed_source.tolist(), strict=True):
        pair = (thin.as_tensor()[..., index].double().numpy(), thick.as_tensor()[..., source].double().numpy())
        observed[index] = bool(np.array_equal(*pair, equal_nan=True))
    return observed
