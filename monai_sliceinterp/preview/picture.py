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

"""Picture of a scan before and after interpolation, in three planes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import MetaTensor

from monai_sliceinterp.files import check_free
from monai_sliceinterp.geometry import axis_spacing
from monai_sliceinterp.preview.drawing import Sheet, drawing, wrap
from monai_sliceinterp.preview.pair import ALL, ScanPair, load_pair
from monai_sliceinterp.preview.planes import View, is_flipped, plane_axes, plane_view
from monai_sliceinterp.preview.windows import DisplayWindow, display_windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["central_voxel", "draw_preview", "write_preview"]

_WIDTH, _TALLEST = 12.0, 4.0
"""Width of the picture and largest height of a plane, in inches, as all lengths of the layout."""

_LEFT, _GAP, _MARK = 0.75, 0.12, 0.08
_OBSERVED = "#0a9e8a"


def write_preview(
    input_path: str | Path,
    output_path: str | Path,
    png_path: str | Path,
    *,
    method: str = "",
    load: Callable[[str | Path], MetaTensor] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a picture of a scan and of what was interpolated from it.

    Three planes, named by anatomy, in true proportions: above as a viewer shows the scan, interpolated linearly, below
    the output. CT is shown in the body window and, if it shows lungs, in the lung window as well; other scans from
    their 0.5th to their 99.5th percentile. Marks beside the planes across the slices are where slices were observed.

    Args:
        input_path: image file or DICOM folder.
        output_path: the volume that was interpolated from it.
        png_path: file to write, such as ``scan_preview.png``; its folder must exist.
        method: name of the method; empty: as the provenance beside the output tells.
        load: how the input is loaded, where that takes options; None: by
            :class:`monai_sliceinterp.transforms.LoadVolume`.
        overwrite: replace a file that exists.

    Returns:
        The file.

    Raises:
        ValueError: if a file cannot be read, the two do not belong together, or the picture exists already.
        ImportError: without matplotlib.

    Example:
        >>> write_preview("missing.nii.gz", "thin.nii.gz", "missing_preview.png")
        Traceback (most recent call last):
        ...
        ValueError: missing.nii.gz: no such file or folder.
    """
    path = Path(png_path)
    check_free(path, overwrite)
    draw_preview(load_pair(input_path, output_path, load, method), path)
    return path


def draw_preview(pair: ScanPair, path: str | Path) -> None:
    """Draw the picture of :func:`write_preview` of a scan that is loaded.

    Args:
        pair: the scan before and after.
        path: file to write.
    """
    windows = display_windows(pair.thick.as_tensor().numpy())
    center = central_voxel(pair, windows[0])
    planes = sorted(range(3), key=lambda k: k != 2)  # that of the slices first
    before, after = ({k: _cut(pair, k, center[k], linear) for k in planes} for linear in (True, False))
    sizes = {k: _size_mm(pair, k) for k in planes}
    scale = (_WIDTH - _LEFT - 3 * (_GAP + _MARK)) / sum(wide for wide, _ in sizes.values())
    scale = min(scale, _TALLEST / max(high for _, high in sizes.values()))  # inches per mm
    row = scale * max(high for _, high in sizes.values()) + _MARK
    width = _LEFT + scale * sum(wide for wide, _ in sizes.values()) + 3 * (_GAP + _MARK)
    heading = wrap(_heading(pair), int(width / 0.08))
    top = 0.25 + 0.19 * (heading.count("\n") + 1)
    block = 0.42 + 2 * (row + _GAP)
    with drawing(path, width, top + block * len(windows), layout=None) as figure:
        sheet = Sheet(figure, width, top + block * len(windows))
        sheet.write(0.12, 0.12, heading, va="top", fontsize=10)
        for number, window in enumerate(windows):
            y = top + number * block
            sheet.write(0.12, y + 0.15, f"{window.name}: {window.low:g} to {window.high:g}", va="bottom", fontsize=8)
            y += 0.38
            for name, views in {"linear": before, pair.method or "output": after}.items():
                sheet.write(_LEFT - 0.1, y + _MARK + row / 2, wrap(name, 8), ha="right", va="center", fontsize=9)
                x = _LEFT
                for k in planes:
                    wide, high = (scale * length for length in sizes[k])
                    if name == "linear":
                        sheet.write(x + _MARK, y - 0.02, _plane_title(pair, k, center), va="bottom", fontsize=8)
                    axes = sheet.place(x + _MARK, y + _MARK, wide, high)
                    _show(axes, views[k], window)
                    _mark_observed(axes, pair, k, (wide, high))
                    x += _MARK + wide + _GAP
                y += row + _GAP


def central_voxel(pair: ScanPair, window: DisplayWindow) -> tuple[int, int, int]:
    """Find the voxel of the output in the middle of what is bright, on a slice that is synthesized if there is one.

    Args:
        pair: the scan.
        window: intensities that are shown; those above its middle are bright.
    """
    bright = pair.thick.as_tensor().numpy() > (window.low + window.high) / 2
    middles = []
    for axis in range(3):
        weights = bright.sum(axis=tuple(k for k in range(3) if k != axis))
        middles.append(weights @ np.arange(len(weights)) / weights.sum() if weights.any() else (len(weights) - 1) / 2)
    places = [round(float(middle)) for middle in middles]
    places[2] = int(np.abs(np.asarray(pair.grid.positions) - middles[2]).argmin())
    synthesized = np.flatnonzero(~pair.observed.numpy())
    if len(synthesized):  # farthest from observed ones of those near the middle
        near = synthesized[np.abs(synthesized - places[2]) <= max(1, round(1 / pair.grid.step))]
        near = near if len(near) else synthesized[[np.abs(synthesized - places[2]).argmin()]]
        places[2] = int(near[np.abs(pair.grid.alpha.numpy()[near] - 0.5).argmin()])
    return places[0], places[1], places[2]


def _cut(pair: ScanPair, axis: int, index: int, linear: bool) -> View:
    """Cut the output, or the linear interpolation of what is cut, along a plane."""
    part = [slice(index, index + 1) if k == axis else ALL for k in range(3)]
    volume = pair.linear(*part) if linear else pair.thin.as_tensor()[tuple(part)]
    return plane_view(volume, pair.thin.affine, axis, 0)


def _heading(pair: ScanPair) -> str:
    """Say what was made of what."""
    before, after = pair.spacing
    slices = f"{pair.thick.shape[2]} slices every {before:.4g} mm → {pair.thin.shape[2]} every {after:.4g} mm"
    frames = f" (first of {pair.frames} frames)" if pair.frames > 1 else ""
    count = int(pair.observed.sum())
    marks = "marks: observed slices" if count else "all slices synthesized"
    return f"{pair.name}{frames}: {slices}; {marks}"


def _plane_title(pair: ScanPair, axis: int, center: tuple[int, int, int]) -> str:
    if axis != 2:
        return pair.planes[axis]
    return f"{pair.planes[2]}, {'observed' if pair.observed[center[2]] else 'synthesized'} slice {center[2] + 1}"


def _size_mm(pair: ScanPair, axis: int) -> tuple[float, float]:
    """Width and height of the image of a plane."""
    rows, columns = plane_axes(pair.thin.affine, axis)
    lengths = axis_spacing(pair.thin.affine) * pair.thin.shape
    return float(lengths[columns]), float(lengths[rows])


def _show(axes: Axes, view: View, window: DisplayWindow) -> None:
    axes.set_axis_off()
    axes.imshow(view.image, aspect="auto", vmin=window.low, vmax=window.high)  # the axes have the proportions


def _mark_observed(axes: Axes, pair: ScanPair, axis: int, size: tuple[float, float]) -> None:
    """Draw a tick outside an image at every observed slice that it cuts."""
    rows, columns = plane_axes(pair.thin.affine, axis)
    if axis == 2:
        return
    count = pair.thin.shape[2]
    places = np.flatnonzero(pair.observed.numpy())
    places = count - 1 - places if is_flipped(pair.thin.affine, 2) else places
    style: dict[str, Any] = {"color": _OBSERVED, "linewidth": 1.0, "clip_on": False}
    if rows == 2:
        length = 0.8 * _MARK / size[0]
        axes.hlines(places, -length, 0, transform=axes.get_yaxis_transform(), **style)
    elif columns == 2:
        length = 0.8 * _MARK / size[1]
        axes.vlines(places, 1, 1 + length, transform=axes.get_xaxis_transform(), **style)
