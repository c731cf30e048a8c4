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

"""The scans that a user means: files, folders, zip files, and the series of a DICOM study."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from monai_sliceinterp.archives import unpack_zip
from monai_sliceinterp.data import find_volumes
from monai_sliceinterp.dicom.series import is_dicom
from monai_sliceinterp.dicom.summary import SeriesSummary, summarize_series

__all__ = ["Source", "open_sources"]

_EVERY = "all"


@dataclass(frozen=True)
class Source:
    """A scan to read, and where its results go.

    Attributes:
        path: a file or a DICOM folder.
        output: folder for the results.
        series: UID of a DICOM series, None where the folder has but one.
    """

    path: str
    output: Path
    series: str | None = None


@contextmanager
def open_sources(inputs: Sequence[str], output: str | Path, series: str | None = None) -> Iterator[list[Source]]:
    """Find the scans of paths; zip files stay unpacked while the context lasts.

    Args:
        inputs: image files, folders of them, DICOM folders, DICOMDIR files, zip files of these, lists (``.txt``).
        output: folder for the results.
        series: number or UID of a DICOM series; "all": each stack of slices, into a folder of its own.

    Raises:
        ValueError: with one line, if a path is missing or holds no scan, or it has several series and none is chosen:
            they are printed then.

    Example:
        >>> with open_sources(["nowhere.nii"], "out") as sources:
        ...     pass
        Traceback (most recent call last):
        ...
        ValueError: nowhere.nii: no such file or folder.
    """
    with ExitStack() as stack:
        paths = []
        for given in inputs:
            path = Path(given)
            if path.name.upper() == "DICOMDIR" and path.is_file():
                path = path.parent
            elif path.suffix.lower() == ".zip" and zipfile.is_zipfile(path):
                root = stack.enter_context(tempfile.TemporaryDirectory(prefix="sliceinterp-"))
                path = Path(root, path.stem)
                unpack_zip(given, path)
            paths.append(str(path))
        yield [source for path in find_volumes(paths) for source in _series_of(path, Path(output), series)]


def _series_of(path: str, output: Path, series: str | None) -> list[Source]:
    """The series of a DICOM folder that are meant; a file as it is."""
    if not Path(path).is_dir():
        if series is not None and not is_dicom(path):
            raise ValueError(f"{path}: is not DICOM; expected DICOM inputs with --series.")
        return [Source(path, output)]
    if series not in (None, _EVERY):
        return [Source(path, output, series)]
    summaries = summarize_series(path)
    stacks = [summary for summary in summaries if summary.spacing is not None]
    if series == _EVERY and stacks:
        folders = {summary.uid: f"series_{summary.number}" for summary in stacks}
        for summary in summaries:
            _tell(summary, folders.get(summary.uid, "left out"))
        return [Source(path, output / folder, uid) for uid, folder in folders.items()]
    if len(stacks) > 1:
        for summary in summaries:
            _tell(summary)
        raise ValueError(f"{path}: has {len(stacks)} DICOM series, see above; expected --series NUMBER, UID or all.")
    return [Source(path, output)]


def _tell(summary: SeriesSummary, folder: str = "") -> None:
    print(f"{summary}{f'  -> {folder}' if folder else ''}")
