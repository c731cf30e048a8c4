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

"""Find the DICOM images of a folder, and group them by series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from monai_sliceinterp.dicom.frames import HEADER_TAGS
from monai_sliceinterp.files import reason

__all__ = ["description", "dicom_series", "has_dicom", "is_dicom", "open_dicom", "series_headers"]

_BARE = tuple(bytes((8, 0, element, 0)) for element in (0x00, 0x01, 0x05, 0x08, 0x16))
"""Begin of data sets that were written without preamble."""


def is_dicom(path: str | Path) -> bool:
    """Check whether a file is DICOM: it has the preamble, or, as in old files, the tags of an image without one.

    Example:
        >>> is_dicom("setup.cfg")
        False
    """
    with Path(path).open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    if not start.startswith(_BARE):
        return False
    try:
        header = open_dicom(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SeriesInstanceUID", "Rows"])
        return len(header) >= 3
    except ValueError:  # other data may begin with the same bytes
        return False


def open_dicom(path: str | Path, **settings: Any) -> Dataset:
    """Read a DICOM file, also one without preamble.

    Args:
        path: a file for which :func:`is_dicom` is true.
        **settings: for :func:`pydicom.dcmread`.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        return pydicom.dcmread(path, force=True, **settings)
    except Exception as error:  # pydicom lets through whatever a damaged file leads to
        raise ValueError(f"{path}: cannot be read as a DICOM file ({reason(error)}); expected a whole one.") from error


def series_headers(source: str | Path) -> dict[str, list[tuple[Path, Dataset]]]:
    """Read the headers of all DICOM images of a folder, or of one file.

    Hidden files, files that are not DICOM and DICOM objects without an image (reports, structures, directories) are
    passed over.

    Args:
        source: folder whose files are looked at, not those of folders below it; or a DICOM file.

    Returns:
        By series instance UID, the paths of the files, sorted by name, with their headers, which hold only
        :data:`monai_sliceinterp.dicom.frames.HEADER_TAGS`.

    Raises:
        ValueError: if a DICOM file is damaged.

    Example:
        >>> series_headers(".")
        {}
    """
    series: dict[str, list[tuple[Path, Dataset]]] = {}
    for path, header in _images(Path(source)):
        series.setdefault(str(header.get("SeriesInstanceUID", "no UID")), []).append((path, header))
    return series


def has_dicom(folder: str | Path) -> bool:
    """Check whether a folder, without those below it, holds DICOM images.

    Example:
        >>> has_dicom(".")
        False
    """
    return any(True for _ in _images(Path(folder)))


def dicom_series(folder: str | Path) -> dict[str, str]:
    """List the DICOM series of a folder: series instance UID to description.

    Args:
        folder: folder whose files are looked at, not those of folders below it.

    Raises:
        ValueError: if a DICOM file is damaged.

    Example:
        >>> dicom_series(".")
        {}
    """
    return {uid: description(headers) for uid, headers in series_headers(folder).items()}


def description(headers: Sequence[tuple[Path, Dataset]]) -> str:
    """Describe a series in a few words.

    Args:
        headers: its files, see :func:`series_headers`.

    Example:
        >>> description([(Path("a.dcm"), Dataset())])
        'no description, 1 files'
    """
    text = " ".join(str(headers[0][1].get("SeriesDescription") or "no description").split())
    return f"{text}, {len(headers)} files"


def _images(source: Path) -> Iterator[tuple[Path, Dataset]]:
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    for path in files:
        if (source.is_dir() and path.name.startswith(".")) or not is_dicom(path):
            continue
        header = open_dicom(path, stop_before_pixels=True, specific_tags=list(HEADER_TAGS))
        if header.get("Rows") and header.get("Columns"):
            yield path, header
        elif (kind := UID(_storage(header)).name).endswith("Image Storage"):
            raise ValueError(f"{path}: a {kind} file without an image; expected a whole one.")


def _storage(header: Dataset) -> str:
    """Read the kind of object from the header of the file itself, which is there even where the rest is cut off."""
    return str(header.file_meta.get("MediaStorageSOPClassUID", header.get("SOPClassUID", "")))
