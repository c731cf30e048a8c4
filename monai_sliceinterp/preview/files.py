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

"""The picture and the page of a result, made from one reading of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from monai.data import MetaTensor

from monai_sliceinterp.files import check_free, file_stem
from monai_sliceinterp.preview.drawing import require_matplotlib
from monai_sliceinterp.preview.pair import load_pair
from monai_sliceinterp.preview.picture import draw_preview
from monai_sliceinterp.preview.viewer import find_disagreement, write_page

__all__ = ["check_preview_files", "preview_files", "write_preview_files"]


def preview_files(input_path: str | Path, output_dir: str | Path) -> tuple[Path, Path]:
    """Return the picture and the page that are written of a scan.

    Example:
        >>> [file.name for file in preview_files("scans/scan.nii.gz", "out")]
        ['scan_preview.png', 'scan_viewer.html']
    """
    stem = file_stem(input_path)
    return Path(output_dir) / f"{stem}_preview.png", Path(output_dir) / f"{stem}_viewer.html"


def check_preview_files(input_path: str | Path, output_dir: str | Path, overwrite: bool = False) -> None:
    """Check that the picture and the page of a scan can be written, before the scan is interpolated.

    Args:
        input_path: image file or DICOM folder.
        output_dir: folder to write to.
        overwrite: replace files that exist.

    Raises:
        ValueError: if one of them exists and must not be replaced.
        ImportError: without matplotlib.

    Example:
        >>> check_preview_files("scan.nii.gz", "out")
    """
    require_matplotlib()
    for path in preview_files(input_path, output_dir):
        check_free(path, overwrite)


def write_preview_files(
    input_path: str | Path,
    output_path: str | Path,
    output_dir: str | Path,
    *,
    method: str = "",
    load: Callable[[str | Path], MetaTensor] | None = None,
    overwrite: bool = False,
) -> tuple[Path, Path]:
    """Write the picture and the page of a scan and of what was interpolated from it, see :func:`preview_files`.

    Args:
        input_path: image file or DICOM folder.
        output_path: the volume that was interpolated from it.
        output_dir: folder, made if missing.
        method: name of the method; empty: as the provenance beside the output tells.
        load: how the input is loaded, where that takes options; None: by
            :class:`monai_sliceinterp.transforms.LoadVolume`.
        overwrite: replace files that exist.

    Raises:
        ValueError: as :func:`monai_sliceinterp.preview.write_preview` and
            :func:`monai_sliceinterp.preview.write_viewer` do.
        ImportError: without matplotlib.

    Example:
        >>> write_preview_files("missing.nii.gz", "thin.nii.gz", "out")
        Traceback (most recent call last):
        ...
        ValueError: missing.nii.gz: no such file or folder.
    """
    check_preview_files(input_path, output_dir, overwrite)
    png_path, html_path = preview_files(input_path, output_dir)
    pair = load_pair(input_path, output_path, load, method)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    draw_preview(pair, png_path)
    write_page(pair, html_path, find_disagreement(output_path))
    return png_path, html_path
