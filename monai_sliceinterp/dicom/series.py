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

import itertools
import re
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import UID, ParametricMapStorage, RTDoseStorage, SegmentationStorage

from monai_sliceinterp.dicom.frames import HEADER_TAGS
from monai_sliceinterp.files import reason

__all__ = ["description", "dicom_series", "has_dicom", "is_dicom", "open_dicom", "series_headers"]

_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Endings of names that promise a DICOM file."""

_NO_INTENSITIES = (SegmentationStorage, RTDoseStorage, ParametricMapStorage)
"""Objects with pixels that are not intensities of a scan."""

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
        with disable_value_validation():  # whose warnings show values, as the UIDs of a patient
            data = pydicom.dcmread(path, force=True, **settings)
            values = data.iterall() if settings.get("stop_before_pixels") else ()
            for _ in itertools.chain(getattr(data, "file_meta", ()), values):
                pass  # values are decoded here, where an error names the file
        return data
    except Exception as error:  # pydicom lets through whatever a damaged file leads to
        raise ValueError(f"{path}: cannot be read as a DICOM file ({reason(error)}); expected a whole one.") from error


def series_headers(source: str | Path) -> dict[str, list[tuple[Path, Dataset]]]:
    """Read the headers of all DICOM images of a folder, or of one file.

    Of a folder that holds no image itself, as the exports of archives do, the folders below it are looked through.
    Hidden files, files that are not DICOM and DICOM objects that are no images of intensities (reports, structures,
    segmentations, doses, directories) are passed over. A file that is named as the images are and is none is refused:
    it was one before its transfer went wrong.

    Args:
        source: folder, or a DICOM file.

    Returns:
        By series instance UID, the paths of the files, sorted by name, with their headers, which hold only
        :data:`monai_sliceinterp.dicom.frames.HEADER_TAGS`.

    Raises:
        ValueError: if a DICOM file is damaged or no DICOM file at all, or a single file is another kind of object.

    Example:
        >>> series_headers("docs")
        {}
    """
    series: dict[str, list[tuple[Path, Dataset]]] = {}
    for path, header in _images(Path(source), nested=True):
        series.setdefault(str(header.get("SeriesInstanceUID", "no UID")), []).append((path, header))
    return series


def has_dicom(folder: str | Path, nested: bool = False) -> bool:
    """Check whether a folder, without those below it or with them, holds DICOM images.

    Example:
        >>> has_dicom(".")
        False
    """
    return any(True for _ in _images(Path(folder), nested))


def dicom_series(folder: str | Path) -> dict[str, str]:
    """List the DICOM series of a folder: series instance UID to description.

    Args:
        folder: see :func:`series_headers`.

    Raises:
        ValueError: if a DICOM file is damaged.

    Example:
        >>> dicom_series("docs")
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


def _images(source: Path, nested: bool) -> Iterator[tuple[Path, Dataset]]:
    if not source.is_dir():
        yield from _image(source, alone=True)
        return
    found = False
    for image in _images_of(source):
        found = True
        yield image
    if nested and not found:
        for folder in sorted(path for path in source.rglob("*") if path.is_dir()):
            if not any(part.startswith(".") for part in folder.relative_to(source).parts):
                yield from _images_of(folder)


def _images_of(source: Path) -> Iterator[tuple[Path, Dataset]]:
    """Yield the images of a folder without those below it."""
    files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    others, names = [], set()
    for path in files:
        if not is_dicom(path):
            others.append(path)
            continue
        for image in _image(path, alone=False):
            names.add(_pattern(path))
            yield image
    for path in others if names else ():
        if path.suffix.lower() in _SUFFIXES or _pattern(path) in names:
            size = path.stat().st_size
            what = "is empty" if not size else f"is not a DICOM file ({size} bytes)"
            raise ValueError(f"{path}: {what}; expected an image of the series, as its name says: copy it again.")


def _image(path: Path, alone: bool) -> Iterator[tuple[Path, Dataset]]:
    """Yield an image of intensities with its header; nothing for another object."""
    header = open_dicom(path, stop_before_pixels=True, specific_tags=list(HEADER_TAGS))
    for name in ("Rows", "Columns", "NumberOfFrames"):
        if not isinstance(header.get(name) or 0, Integral):
            raise ValueError(f"{path}: its {name} is no number; expected a whole DICOM file.")
    storage = _storage(header)
    kind = UID(storage).name
    if not storage and not header.get("Rows"):
        raise ValueError(f"{path}: a DICOM file that ends in its header; expected a whole one.")
    if storage in _NO_INTENSITIES or not kind.endswith("Image Storage"):
        if alone and (storage in _NO_INTENSITIES or not header.get("Rows")):
            hint = "; a segmentation goes to --label" if storage == SegmentationStorage else ""
            raise ValueError(f"{path}: is a {kind or 'DICOM'} object; expected an image{hint}.")
        if storage in _NO_INTENSITIES:
            return
    if header.get("Rows") and header.get("Columns"):
        yield path, header
    elif kind.endswith("Image Storage"):
        raise ValueError(f"{path}: a {kind} file without an image; expected a whole one.")


def _pattern(path: Path) -> str:
    """Name of a file with # for its numbers: what the files of a series have in common."""
    return re.sub(r"\d+", "#", path.name)


def _storage(header: Dataset) -> str:
    """Read the kind of object from the header of the file itself, which is there even where the rest is cut off."""
    return str(header.file_meta.get("MediaStorageSOPClassUID", header.get("SOPClassUID", "")))
