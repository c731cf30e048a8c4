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

"""Make the pictures of README.md: a view across the slices before and after interpolation.

    python docs/make_pictures.py SCAN [SCAN ...] --method asi --factor 5 [--window -160 240] [--limit 200]

Each scan gives one row: the observed slices, linear interpolation, the method, and the difference of the two on a
signed color scale. The view is a cut along the first in-plane axis through the volume, in true proportions. With
``--thinned`` only every factor-th slice of the scan is used (with ``--slabs`` averaged over a slab), and the true
slices are shown too. A method is what the evaluation command takes: the name of a bundle, its folder, overlays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from monai.data import MetaTensor

from monai_sliceinterp.evaluation import Method, find_method
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import FWHMDownsample, LoadVolume, ThroughPlaneLast


def cut(volume: MetaTensor, position: float) -> np.ndarray:
    """Cut the first frame of a volume ``(C, H, W, N)`` across its slices; returns ``(N, H)``."""
    return np.asarray(volume[0, :, int(position * volume.shape[2])].T)


def draw_row(
    axes: np.ndarray, scan: str, factor: int, method: Method, position: float, options: argparse.Namespace
) -> None:
    """Interpolate the first frame of a scan and draw one row of panels."""
    volume = truth = ThroughPlaneLast(options.axis)(LoadVolume()(scan)[:1].float())
    if options.thinned:
        volume = FWHMDownsample(factor, fwhm=None if options.slabs else 0)(volume)
    linear = SplineSliceInferer(factor=factor, mode="linear")(volume[None])[0]
    result = method.interpolate(volume, factor)
    before, between, after = (cut(image, position) for image in (volume, linear, result))
    geometry = slice_geometry(volume, axis=-1)
    extent = (0, before.shape[1] * geometry.in_plane_spacing[0], 0, before.shape[0] * geometry.slice_spacing)
    panels = [
        (f"{volume.shape[-1]} slices, {geometry.slice_spacing:.3g} mm", before, False),
        (f"linear, {linear.shape[-1]} slices", between, False),
        (f"{options.title}, {geometry.slice_spacing / factor:.3g} mm", after, False),
    ]
    if options.thinned:
        true_cut = cut(truth, position)[: len(after)]
        panels.append(("true slices", true_cut, False))
        panels.append(("linear - true", between - true_cut, True))
        panels.append((f"{options.title} - true", after - true_cut, True))
    else:
        panels.append((f"{options.title} - linear", after - between, True))
    low, high = options.window or np.percentile(before, (1, 99))
    limit = options.limit or (high - low) / 4
    for panel, (title, image, signed) in zip(axes, panels, strict=True):
        panel.imshow(
            image,
            cmap="RdBu_r" if signed else "gray",
            vmin=-limit if signed else low,
            vmax=limit if signed else high,
            extent=extent,
            origin="lower",
            interpolation="nearest",
        )
        panel.set_title(title, fontsize=9)
        panel.set_axis_off()


def main() -> None:
    """Read the arguments and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", help="volumes, one row each")
    parser.add_argument("--factor", type=int, nargs="+", default=[4], help="one factor, or one for each scan")
    parser.add_argument("--position", type=float, nargs="+", default=[0.5], help="place of the cut, 0 to 1")
    parser.add_argument("--method", default="asi", help="method, as the evaluation command takes it")
    parser.add_argument("--title", help="name of the method in the picture; by default in capitals")
    parser.add_argument(
        "--window", type=float, nargs=2, help="intensities shown; by default the 1st to 99th percentile"
    )
    parser.add_argument("--limit", type=float, help="largest difference shown; by default a quarter of the window")
    parser.add_argument("--axis", type=int, help="slice axis; by default the one with the largest spacing")
    parser.add_argument("--thinned", action="store_true", help="leave slices out and compare with them")
    parser.add_argument("--slabs", action="store_true", help="thinned slices are slabs as thick as their spacing")
    parser.add_argument("--output", default="", help="bundles/<method>/docs/<method>.png by default")
    options = parser.parse_args()
    count = len(options.scans)
    factors = options.factor * (count if len(options.factor) == 1 else 1)
    positions = options.position * (count if len(options.position) == 1 else 1)
    method = find_method(options.method)
    options.title = options.title or method.name.upper()
    output = Path(options.output or f"bundles/{method.name}/docs/{method.name}.png")
    columns = 6 if options.thinned else 4
    size = (2.75 * columns, 2.6 * count)
    figure, panels = plt.subplots(count, columns, figsize=size, squeeze=False, layout="constrained")
    for row, scan, factor, position in zip(panels, options.scans, factors, positions, strict=True):
        draw_row(row, scan, factor, method, position, options)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110, bbox_inches="tight")
    print(output)


if __name__ == "__main__":
    main()
