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

"""What a scan is, as far as the choice of a method depends on it: modality, spacing, thickness, slice axis."""

from __future__ import annotations

from dataclasses import dataclass

from monai.data import MetaTensor

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.dicom.series import open_dicom
from monai_sliceinterp.geometry import (
    AXIS_TIE,
    OutputGrid,
    SliceGeometry,
    known_slice_axis,
    slice_geometry,
    slice_positions,
)

__all__ = ["CT_BELOW", "MODALITIES", "ScanFacts", "scan_facts"]

MODALITIES = ("CT", "MR")
"""Modalities that methods were trained on and scored for."""

CT_BELOW = -200.0
"""Only CT has intensities below this, in HU."""


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan.

    Attributes:
        modality: "CT", "MR", or what else DICOM says.
        modality_from: how that is known.
        shape: voxels along the array's axes.
        frames: frames of a time series, 1 without.
        geometry: slice axis, spacings in mm, and the thickness of the slices where it is known.
        axis_from: how the slice axis is known.
        positions: positions of uneven slices, None where they are even.
    """

    modality: str
    modality_from: str
    shape: tuple[int, ...]
    frames: int
    geometry: SliceGeometry
    axis_from: str
    positions: tuple[float, ...] | None = None

    @property
    def num_slices(self) -> int:
        """Number of slices."""
        return self.shape[self.geometry.axis]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size along the array's axes in mm."""
        lengths = list(self.geometry.in_plane_spacing)
        lengths.insert(self.geometry.axis, self.geometry.slice_spacing)
        return tuple(lengths)

    def grid(self, factor: int | None, spacing: float | None, default: float | None = None) -> OutputGrid:
        """Compute the output grid, see :meth:`monai_sliceinterp.geometry.OutputGrid.create`."""
        return OutputGrid.create(self.num_slices, self.geometry, factor, spacing, default, self.positions)

    def ratio(self, factor: int | None, spacing: float | None) -> float:
        """Compute how many times closer the slices will be."""
        if factor is not None:
            return float(factor)
        return self.geometry.slice_spacing / (spacing or min(self.geometry.in_plane_spacing))

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape)) + (f" x {self.frames} frames" if self.frames > 1 else "")
        lengths = " x ".join(f"{length:.4g}" for length in self.spacing)
        thickness = f", {self.geometry.thickness:g} mm thick" if self.geometry.thickness else ""
        gaps = ", unevenly spaced" if self.positions else ""
        return (
            f"{self.modality} ({self.modality_from}), {size} voxels of {lengths} mm, slices along axis "
            f"{self.geometry.axis} ({self.axis_from}){thickness}{gaps}"
        )


def scan_facts(volume: MetaTensor, axis: int | None = None, modality: str = "") -> ScanFacts:
    """Tell what a scan is from its metadata and intensities.

    Args:
        volume: ``(C, X, Y, Z)`` as :class:`monai_sliceinterp.transforms.LoadVolume` loads it.
        axis: slice axis that the user names.
        modality: modality that the user names, one of :data:`MODALITIES`; empty: DICOM's, else CT where there are
            intensities below :data:`CT_BELOW`, else MR.

    Raises:
        ValueError: if the axis is none, or the modality is unknown.

    Example:
        >>> import torch
        >>> volume = MetaTensor(torch.full((1, 8, 8, 4), -1000.0), affine=torch.diag(torch.tensor([1.0, 1, 5, 1])))
        >>> str(scan_facts(volume))
        'CT (values below -200), 8 x 8 x 4 voxels of 1 x 1 x 5 mm, slices along axis 2 (the largest spacing)'
    """
    geometry = slice_geometry(volume, axis=axis)
    if axis is not None:
        axis_from = "as you say"
    elif known_slice_axis(volume) is not None:
        axis_from = "as DICOM says" if volume.meta.get("dicom_files") else "as its header says"
    else:
        is_largest = geometry.slice_spacing > max(geometry.in_plane_spacing) * (1 + AXIS_TIE)
        axis_from = "the largest spacing" if is_largest else "the last one, as spacings tie"
    kind, kind_from = _modality(volume, modality)
    return ScanFacts(
        kind,
        kind_from,
        tuple(volume.shape[1:]),
        len(volume),
        geometry,
        axis_from,
        slice_positions(volume, geometry.axis),
    )


def _modality(volume: MetaTensor, modality: str) -> tuple[str, str]:
    if modality:
        return one_of("modality", modality.upper(), MODALITIES), "as you say"
    if files := volume.meta.get("dicom_files"):
        header = open_dicom(files[0], stop_before_pixels=True, specific_tags=["Modality"])
        if told := str(header.get("Modality") or "").strip():
            return told, "DICOM"
    lowest = float(volume.as_tensor().nan_to_num(nan=0.0).min()) if volume.is_floating_point() else int(volume.min())
    if lowest < CT_BELOW:
        return "CT", f"values below {CT_BELOW:g}"
    return "MR", f"no values below {CT_BELOW:g}"
