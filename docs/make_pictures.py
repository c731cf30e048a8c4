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

    python docs/make_pictures.py SCAN [SCAN ...] --factor 5 [--ckpt bundles/asi/models/model.pt]

Each scan gives one row: the observed slices, linear interpolation, ASI, and the difference of the two on a signed
colour scale. The view is a cut along the first in-plane axis through the middle of the volume, in true proportions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from monai_sliceinterp.engines import load_weights
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.inferers import LatentSliceInferer, SplineSliceInferer
from monai_sliceinterp.networks.nets import ASIAutoencoder
from monai_sliceinterp.transforms import InvertibleScaleIntensityRangePercentiles, LoadVolume, ThroughPlaneLast


def draw_row(axes: np.ndarray, scan: str, factor: int, network: torch.nn.Module, position: float) -> None:
    """Interpolate the first frame of a scan and draw one row of panels."""
    volume = ThroughPlaneLast()(LoadVolume()(scan)[:1])
    volume = InvertibleScaleIntensityRangePercentiles()(volume)[None]
    linear = SplineSliceInferer(factor=factor, mode="linear")(volume)
    asi = LatentSliceInferer(factor=factor, value_range=(0.0, 1.0))(volume, network)
    geometry = slice_geometry(volume, axis=-1)
    column = int(position * volume.shape[2])
    cuts = [np.asarray(image[0, 0, column].T) for image in (volume, linear, asi)]
    extent = (0, cuts[0].shape[1] * geometry.in_plane_spacing[1], 0, volume.shape[-1] * geometry.slice_spacing)
    titles = (
        f"{volume.shape[-1]} slices, {geometry.slice_spacing:.3g} mm",
        f"linear, {linear.shape[-1]} slices",
        f"ASI, {geometry.slice_spacing / factor:.3g} mm",
        "ASI - linear",
    )
    limit = 0.25
    for axis, image, title in zip(axes, (*cuts, cuts[2] - cuts[1]), titles, strict=True):
        signed = title == titles[-1]
        axis.imshow(
            image,
            cmap="RdBu_r" if signed else "gray",
            vmin=-limit if signed else 0,
            vmax=limit if signed else 1,
            extent=extent,
            origin="lower",
            interpolation="nearest",
        )
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()


def main() -> None:
    """Read the arguments and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", help="volumes, one row each")
    parser.add_argument("--factor", type=int, nargs="+", default=[4], help="one factor, or one for each scan")
    parser.add_argument("--position", type=float, nargs="+", default=[0.5], help="place of the cut, 0 to 1")
    parser.add_argument("--ckpt", default="bundles/asi/models/model.pt")
    parser.add_argument("--output", default="docs/images/asi.png")
    arguments = parser.parse_args()
    count = len(arguments.scans)
    factors = arguments.factor * (count if len(arguments.factor) == 1 else 1)
    positions = arguments.position * (count if len(arguments.position) == 1 else 1)
    network = load_weights(ASIAutoencoder(), arguments.ckpt).eval()
    figure, panels = plt.subplots(count, 4, figsize=(11, 2.6 * count), squeeze=False, layout="constrained")
    for row, scan, factor, position in zip(panels, arguments.scans, factors, positions, strict=True):
        draw_row(row, scan, factor, network, position)
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=110)
    print(arguments.output)


if __name__ == "__main__":
    main()
