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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_sliceinterp.checks import one_of, positive
from monai_sliceinterp.evaluation.cuts import PLANES, View
from monai_sliceinterp.evaluation.drawing import drawing, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = NDArray[np.float64]

__all__ = ["panel", "sweep_strip"]


def panel(
    views: Mapping[str, Mapping[str, View]],
    path: str | Path,
    title: str = "",
    window: tuple[float, float] | None = None,
    limit: float | None = None,
) -> None:
    """Draw planes of one volume as every method restores them, and their signed differences to the truth.

    Rows are planes, columns the input, the methods and the truth, in physical proportions. All images share one gray
    scale, all differences one diverging scale. "axial" is the plane of the slices, whichever that is in the body; the
    first row of an axial image is on top. "coronal" and "sagittal" images have the first slice at the bottom.

    Args:
        views: of "truth", "input" and methods, by plane ("axial", "coronal", "sagittal"); intensities in [0, 1].
        path: the file, see :func:`monai_sliceinterp.evaluation.charts.box_plots`.
        title: shown on top.
        window: intensities shown black and white; None takes the 0.5th and 99.5th percentile of the truth.
        limit: difference at the ends of the color scale; None takes the 99.5th percentile of the methods' absolute
            differences. Larger ones get the colors of the ends.

    Raises:
        ValueError: if there is no truth, if an image is missing, not finite or not of the truth's shape.
        ImportError: without matplotlib.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "panel.png"
        >>> ramp = {"axial": View(np.linspace(0, 1, 64).reshape(8, 8))}
        >>> panel({"truth": ramp, "input": ramp, "linear": {"axial": View(ramp["axial"].image ** 2)}}, file, "a ramp")
        >>> file.exists()
        True
    """
    images = _panel_images(views)
    truth = images["truth"]
    shown = [name for name in images if name != "truth"]
    aspects = {plane: _check_aspect(views["truth"][plane].aspect, plane) for plane in truth}
    errors = {name: {plane: images[name][plane] - truth[plane] for plane in truth} for name in shown}
    low, high = _check_window(window) or _robust_range(list(truth.values()))
    if limit is None:
        limit = _robust_limit([errors[name] for name in shown if name != "input"] or [errors["input"]])
    limit = positive("the limit of the differences", limit)

    columns = [*shown, "truth"]
    cell = float(np.clip(12 / len(columns), 1.2, 2.2))  # inches, as all that follows
    heights = {plane: cell * _height(image, aspects[plane]) for plane, image in truth.items()}
    gap, left, right, between = 0.05, 0.8, 0.85, 0.42
    width = left + len(columns) * (cell + gap) + right
    heading = wrap(title, int((width - left) / 0.1))
    heads = [wrap(name, int(cell / 0.09)) for name in columns]
    top = 0.1 + 0.2 * _lines([heading]) * bool(title) + 0.05 + 0.16 * _lines(heads)
    band = sum(heights.values()) + gap * (len(heights) - 1)
    height = top + band + between + band + 0.1
    with drawing(path, width, height, layout=None) as figure:
        sheet = _Sheet(figure, width, height)
        sheet.write(left, 0.1, heading, va="top", fontsize=11)
        sheet.write(left, top + band + 0.36, "minus truth, all on one scale (1 is the data range)", va="bottom")
        for names, scale, label, extend, start in (
            (columns, {"vmin": low, "vmax": high}, "intensity", "neither", top),
            (shown, {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}, "difference", "both", top + band + between),
        ):
            y, values = start, images if names is columns else errors
            for plane, row in heights.items():
                sheet.write(left - 0.1, y + row / 2, plane, ha="right", va="center")
                for k, name in enumerate(names):
                    axis = sheet.place(left + k * (cell + gap), y, cell, row)
                    drawn = _show(axis, values[name][plane], aspects[plane], plane, **scale)
                    if y == top:
                        axis.set_title(heads[k], fontsize=9, pad=4)
                y += row + gap
            bar = sheet.place(left + len(names) * (cell + gap) + 0.04, start, 0.12, band)
            figure.colorbar(drawn, cax=bar, extend=extend)
            bar.tick_params(labelsize=8)
            bar.set_ylabel(label, fontsize=8)


def sweep_strip(
    slices: Sequence[ArrayLike],
    fractions: Sequence[float],
    path: str | Path,
    title: str = "",
    aspect: float = 1.0,
    window: tuple[float, float] | None = None,
) -> None:
    """Draw slices from one observed slice to the next, each with the fraction of the gap it lies at.

    Args:
        slices: images ``(H, W)``, intensities in [0, 1].
        fractions: alpha of each slice, in [0, 1]; 0 and 1 are the places of the observed slices.
        path: the file, see :func:`monai_sliceinterp.evaluation.charts.box_plots`.
        title: shown on top.
        aspect: height of a pixel over its width.
        window: intensities shown black and white; None takes the 0.5th and 99.5th percentile of all slices.

    Raises:
        ValueError: if slices and fractions differ in number, or slices in shape.
        ImportError: without matplotlib.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "sweep.png"
        >>> first, second = np.eye(8), np.fliplr(np.eye(8))
        >>> fractions = [0, 0.25, 0.5, 0.75, 1]
        >>> sweep_strip([(1 - a) * first + a * second for a in fractions], fractions, file, "linear")
        >>> file.exists()
        True
    """
    images = [np.asarray(image, dtype=np.float64) for image in slices]
    if not images or len(images) != len(fractions):
        raise ValueError(f"expected one fraction for each slice, got {len(images)} slices, {len(fractions)} fractions.")
    for k, image in enumerate(images):
        _check_image(f"slice {k}", image, images[0].shape)
    low, high = _check_window(window) or _robust_range(images)
    aspect = _check_aspect(aspect, "the slices")
    per_row = min(len(images), 9)
    cell = float(np.clip(12 / per_row, 1.2, 2.2))  # inches, as all that follows
    row, gap, head = cell * _height(images[0], aspect), 0.05, 0.24
    width = per_row * (cell + gap) + gap
    heading = wrap(title, int(width / 0.1))
    top = 0.1 + 0.2 * _lines([heading]) * bool(title)
    height = top + -(-len(images) // per_row) * (head + row) + gap
    with drawing(path, width, height, layout=None) as figure:
        sheet = _Sheet(figure, width, height)
        sheet.write(gap, 0.1, heading, va="top", fontsize=11)
        for k, (image, fraction) in enumerate(zip(images, fractions, strict=True)):
            y = top + (k // per_row) * (head + row) + head
            axis = sheet.place(gap + (k % per_row) * (cell + gap), y, cell, row)
            _show(axis, image, aspect, "axial", vmin=low, vmax=high)
            axis.set_title(f"α = {fraction:.3g}", fontsize=8, pad=3)


class _Sheet(NamedTuple):
    """Figure on which things have their places in inches from the top left corner."""

    figure: Figure
    width: float
    height: float

    def place(self, x: float, y: float, width: float, height: float) -> Axes:
        """Add axes."""
        bottom = 1 - (y + height) / self.height
        return self.figure.add_axes((x / self.width, bottom, width / self.width, height / self.height))

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Add a text."""
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)


def _panel_images(views: Mapping[str, Mapping[str, View]]) -> dict[str, dict[str, Image]]:
    """Sort the images of a panel by what they show and by plane, "input" first, and check them."""
    names = [name for name in dict.fromkeys(["input", *views]) if name in views]
    if "truth" not in names or len(names) == 1:
        raise ValueError(f"a panel needs a 'truth' and something to compare with it, got {', '.join(names) or 'none'}.")
    for name in names:
        for plane in views[name]:
            one_of(f"plane of {name!r}", plane, PLANES)
    planes = [plane for plane in PLANES if plane in views["truth"]]
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


def _check_window(window: tuple[float, float] | None) -> tuple[float, float] | None:
    if window is not None and not window[0] < window[1]:
        raise ValueError(f"the window must be two ascending intensities, got {window!r}.")
    return window


def _robust_range(images: Sequence[Image]) -> tuple[float, float]:
    """Choose intensities to show black and white."""
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


def _show(axis: Axes, image: Image, aspect: float, plane: str, **scale: Any) -> Any:
    """Show an image in physical proportions, without axes."""
    axis.set_axis_off()
    return axis.imshow(image, aspect=aspect, origin="upper" if plane == "axial" else "lower", **scale)
