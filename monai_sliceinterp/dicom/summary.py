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

"""The series of a DICOM study as a person chooses among them: number, description, size, spacing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from monai_sliceinterp.dicom.frames import DicomError, frames_of
from monai_sliceinterp.dicom.series import open_dicom, series_headers
from monai_sliceinterp.dicom.stack import group_by_position, main_plane

__all__ = ["SeriesSummary", "summarize_headers", "summarize_series"]


@dataclass(frozen=True)
class SeriesSummary:
    """A DICOM series in a few words.

    Attributes:
        number: its number, from 1, in the order of the UIDs, as :func:`monai_sliceinterp.dicom.read_dicom` takes it.
        uid: series instance UID.
        description: its description.
        modality: its modality.
        images: number of its images.
        size: columns, rows and slices.
        spacing: distance of columns, rows and slices in mm; None where there is no stack of slices.
    """

    number: int
    uid: str
    description: str
    modality: str
    images: int
    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | None

    def __str__(self) -> str:
        return f"{self.number:3}  {self.modality:2}  {self.shape}  {self.description}"

    @property
    def shape(self) -> str:
        """Size and spacing in words."""
        size = " x ".join(map(str, self.size))
        lengths = " x ".join(f"{length:.4g}" for length in self.spacing or ())
        if self.spacing is None:
            return f"{self.images} image{'s' if self.images > 1 else ''}, no stack of slices"
        return f"{size} voxels of {lengths} mm"

    @property
    def phrase(self) -> str:
        """The series as a part of a message, without its UID, which may lead to a patient."""
        return f"{self.number}: {self.description} ({self.modality}, {self.shape})"


def summarize_series(source: str | Path) -> list[SeriesSummary]:
    """List the series of a DICOM folder, the folders below it, or a file.

    Raises:
        ValueError: if a DICOM file is damaged.

    Example:
        >>> summarize_series("docs")
        []
    """
    return summarize_headers(series_headers(source))


def summarize_headers(series: Mapping[str, Sequence[tuple[Path, Dataset]]]) -> list[SeriesSummary]:
    """List series in the order of their UIDs.

    Args:
        series: files and headers by UID, see :func:`monai_sliceinterp.dicom.series.series_headers`.

    Raises:
        ValueError: if a DICOM file is damaged.

    Example:
        >>> summarize_headers({})
        []
    """
    summaries = []
    for number, (uid, headers) in enumerate(sorted(series.items()), 1):
        first = open_dicom(headers[0][0], stop_before_pixels=True, specific_tags=["Modality", "SeriesDescription"])
        size = (int(headers[0][1].Columns), int(headers[0][1].Rows), len(headers))
        spacing: tuple[float, float, float] | None = None
        try:
            frames = [frame for file, header in headers for frame in frames_of(header, file)]
            stack = [frame for frame in main_plane(frames) if not frame.is_localizer]
            groups = group_by_position(stack) if stack else []
            if len(groups) > 1:
                size = (*size[:2], len(groups))
                heights = [group[0].position @ groups[0][0].normal for group in groups]
                columns, rows = groups[0][0].spacing
                spacing = (float(columns), float(rows), float(np.median(np.diff(heights))))
        except DicomError:
            pass
        words = " ".join(str(first.get("SeriesDescription") or "no description").split())
        modality = str(first.get("Modality") or "?")
        summaries.append(SeriesSummary(number, uid, words, modality, len(headers), size, spacing))
    return summaries
