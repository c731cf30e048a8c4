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

"""Panels with difference maps, and strips of the slices between two neighbors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import ArrayLike, NDArray

from monai_sliceinterp.checks import positive
from monai_sliceinterp.command_line import INPUT_ERRORS
from monai_sliceinterp.evaluation.cuts import add_views, holds_views, read_views, slice_view
from monai_sliceinterp.evaluation.methods import Method, interpolate_unit
from monai_sliceinterp.evaluation.settings import EvaluationSettings, VolumeItem
from monai_sliceinterp.evaluation.volume import describe_failure, load_thin, state_of
from monai_sliceinterp.geometry import scaled_affine
from monai_sliceinterp.preview.drawing import Sheet, drawing, wrap
from monai_sliceinterp.preview.planes import View
from monai_sliceinterp.preview.windows import DisplayWindow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Image = NDArray[np.float64]

__all__ = ["central_slices", "panel", "read_sweep", "sweep_strip", "write_sweeps"]


def panel(
    views: Mapping[str, Mapping[str, View]],
    path: str | Path,
    title: str = "",
    windows: Sequence[DisplayWindow] = (),
) -> None:
    """Draw planes of one volume as every method restores them, and their signed differences to the truth.

    Rows are planes, columns the input, the methods and the truth, in physical proportions. All images share one gray
    scale, from the 0.5th to the 99.5th percentile of the truth, or are shown in each of some windows; all differences
    share one diverging scale, up to the 99.5th percentile of the methods' absolute differences.

    Args:
        views: of "truth", "input" and methods, by plane, in the order of the truth's; intensities in [0, 1].
        path: the file.
        title: shown on top.
        windows: intensities to show, in the units of the views.
    """
    images = _panel_images(views)
    truth = images["truth"]
    shown = [name for name in images if name != "truth"]
    aspects = {plane: _check_aspect(views["truth"][plane].aspect, plane) for plane in truth}
    errors = {name: {plane: images[name][plane] - truth[plane] for plane in truth} for name in shown}
    windows = windows or [DisplayWindow("", *_robust_range(list(truth.values())))]
    limit = _robust_limit([errors[name] for name in shown if name != "input"] or [errors["input"]])
    columns = [*shown, "truth"]
    cell = float(np.clip(12 / len(columns), 1.2, 2.2))  # inches, as all that follows
    heights = {plane: cell * _height(image, aspects[plane]) for plane, image in truth.items()}
    gap, left, right, between = 0.05, 0.8, 0.85, 0.42
    width = left + len(columns) * (cell + gap) + right
    heading = wrap(title, int((width - left) / 0.1))
    heads = [wrap(name, int(cell / 0.09)) for name in columns]
    top = 0.1 + 0.2 * _lines([heading]) * bool(title) + 0.05 + 0.16 * _lines(heads) + 0.2 * bool(windows[0].name)
    band = sum(heights.values()) + gap * (len(heights) - 1)
    height = top + len(windows) * (band + between) + band + 0.1
    with drawing(path, width, height, layout=None) as figure:
        sheet = Sheet(figure, width, height)
        sheet.write(left, 0.1, heading, va="top", fontsize=11)
        errors_name = "minus truth, all on one scale (1 is the data range)"
        bands = [(columns, images, "intensity", "neither", "gray", window) for window in windows]
        bands += [(shown, errors, "difference", "both", "RdBu_r", DisplayWindow(errors_name, -limit, limit))]
        for number, (names, values, label, extend, colors, window) in enumerate(bands):
            start = y = top + number * (band + between)
            sheet.write(left, start - (0.06 if number else 0.1 + 0.16 * _lines(heads)), window.name, va="bottom")
            for plane, row in heights.items():
                sheet.write(left - 0.1, y + row / 2, wrap(plane, 10), ha="right", va="center")
                for k, name in enumerate(names):
                    axis = sheet.place(left + k * (cell + gap), y, cell, row)
                    style = {"vmin": window.low, "vmax": window.high, "cmap": colors}
                    picture = _show(axis, values[name][plane], aspects[plane], **style)
                    if y == top:
                        axis.set_title(heads[k], fontsize=9, pad=4)
                y += row + gap
            bar = sheet.place(left + len(names) * (cell + gap) + 0.04, start, 0.12, band)
            figure.colorbar(picture, cax=bar, extend=extend)
            bar.tick_params(labelsize=8)
            bar.set_ylabel(label, fontsize=8)


def sweep_strip(
    slices: Sequence[ArrayLike],
    fractions: Sequence[float],
    path: str | Path,
    title: str = "",
    aspect: float = 1.0,
) -> None:
    """Draw slices ``(H, W)`` in [0, 1] from one observed slice to the next, each with the fraction of the gap.

    ``aspect`` is the height of a pixel over its width.
    """
    images = [np.asarray(image, dtype=np.float64) for image in slices]
    if not images or len(images) != len(fractions):
        raise ValueError(f"expected one fraction for each slice, got {len(images)} slices, {len(fractions)} fractions.")
    for k, image in enumerate(images):
        _check_image(f"slice {k}", image, images[0].shape)
    low, high = _robust_range(images)
    aspect = _check_aspect(aspect, "the slices")
    per_row = min(len(images), 9)
    cell = float(np.clip(12 / per_row, 1.2, 2.2))  # inches, as all that follows
    row, gap, head = cell * _height(images[0], aspect), 0.05, 0.24
    width = per_row * (cell + gap) + gap
    heading = wrap(title, int(width / 0.1))
    top = 0.1 + 0.2 * _lines([heading]) * bool(title)
    height = top + -(-len(images) // per_row) * (head + row) + gap
    with drawing(path, width, height, layout=None) as figure:
        sheet = Sheet(figure, width, height)
        sheet.write(gap, 0.1, heading, va="top", fontsize=11)
        for k, (image, fraction) in enumerate(zip(images, fractions, strict=True)):
            y = top + (k // per_row) * (head + row) + head
            axis = sheet.place(gap + (k % per_row) * (cell + gap), y, cell, row)
            _show(axis, image, aspect, vmin=low, vmax=high)
            axis.set_title(f"α = {fraction:.3g}", fontsize=8, pad=3)


def central_slices(thick: MetaTensor) -> tuple[MetaTensor, int]:
    """Select the two slices in the middle of a volume ``(C, H, W, N)`` and one more on either side, where there is one.

    Returns:
        The volume of these slices, and the index of the first of the two among them.
    """
    first = (thick.shape[-1] - 2) // 2
    begin = max(first - 1, 0)
    part = MetaTensor(thick.as_tensor()[..., begin : first + 3]).copy_meta_from(thick)
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
        return path, [describe_failure(error, item.path)]
    truth = {str(k): slice_view(part[0, ..., first + k], part.affine) for k in (0, 1)}
    for method in missing:
        try:
            fine = interpolate_unit(method, part, settings.sweep, thin.window)[0]
        except INPUT_ERRORS as error:
            failures.append(describe_failure(error, item.path, f"sweep by {method.name}"))
            continue
        begin = first * settings.sweep
        views = {str(k): slice_view(fine[0, ..., begin + k], part.affine) for k in range(settings.sweep + 1)}
        add_views(path, {"truth": truth, "pred": views}, method.name, [*state, method.fingerprint])
    return path, failures


def read_sweep(path: Path, method: str) -> list[View]:
    """Read the slices of a method, from one neighbor to the other; none where the file has none."""
    views = read_views(path, [method]).get(method, {})
    return [views[str(k)] for k in range(len(views))]


def _panel_images(views: Mapping[str, Mapping[str, View]]) -> dict[str, dict[str, Image]]:
    """Sort the images of a panel by what they show and by plane, "input" first, and check them."""
    names = [name for name in dict.fromkeys(["input", *views]) if name in views]
    if "truth" not in names or len(names) == 1:
        raise ValueError(f"a panel needs a 'truth' and something to compare with it, got {', '.join(names) or 'none'}.")
    planes = list(views["truth"])
    images: dict[str, dict[str, Image]] = {}
    for name in names:
        if set(views[name]) != set(planes):
            raise ValueError(
                f"the truth has the planes {', '.join(planes)}, {name!r} has {', '.join(sorted(views[name]))}."
            )
        images[name] = {plane: np.asarray(views[name][plane].image, dtype=np.float64) for plane in planes}
        for plane in planes:
            _check_image(f"{plane} view of {name}", images[name][plane], np.shape(views["truth"][plane].image))
    return images


def _check_image(name: str, image: Image, shape: tuple[int, ...]) -> None:
    if image.ndim != 2 or image.shape != shape or not image.size:
        raise ValueError(f"expected 2D images of one shape {shape}, got {image.shape} for {name!r}.")
    if not np.isfinite(image).all():
        raise ValueError(f"{name!r} has values that are not finite.")


def _check_aspect(aspect: float, name: str) -> float:
    return positive(f"the height over the width of a pixel of {name}", float(aspect))


def _robust_range(images: Sequence[Image]) -> tuple[float, float]:
    """Choose intensities to show black and white, from the 0.5th to the 99.5th percentile."""
    low, high = np.percentile(np.concatenate([image.ravel() for image in images]), [0.5, 99.5])
    return (float(low), float(high)) if high > low else (0.0, 1.0)


def _robust_limit(errors: Sequence[Mapping[str, Image]]) -> float:
    """Choose the difference at the ends of a color scale; exact results have some, too."""
    values = np.concatenate([image.ravel() for planes in errors for image in planes.values()])
    return float(np.percentile(np.abs(values), 99.5)) or 1e-3


def _height(image: Image, aspect: float) -> float:
    """Compute the height of the place of an image over its width: the image's own, within limits."""
    return float(np.clip(aspect * image.shape[0] / image.shape[1], 0.12, 1.3))


def _lines(texts: Sequence[str]) -> int:
    return 1 + max(text.count("\n") for text in texts)


def _show(axis: Axes, image: Image, aspect: float, **scale: Any) -> Any:
    """Show an image in physical proportions, without axes."""
    axis.set_axis_off()
    return axis.imshow(image, aspect=aspect, **scale)
