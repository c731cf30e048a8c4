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

    python docs/make_pictures.py SCAN [SCAN ...] --method asi --factor 5 [--ckpt bundles/asi/models/model.pt]

Each scan gives one row: the observed slices, linear interpolation, the method, and the difference of the two on a
signed color scale. The view is a cut along the first in-plane axis through the volume, in true proportions. With
``--thinned`` only every factor-th slice of the scan is used (for VTS averaged over a slab), and the true slices are
shown too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch

from monai_sliceinterp.engines import load_weights
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.inferers import (
    LatentSliceInferer,
    MultiViewSliceInferer,
    SplineSliceInferer,
    VolumetricSliceInferer,
)
from monai_sliceinterp.networks.nets import SAINT, ASIAutoencoder, HRINetAutoencoder, VTSGenerator
from monai_sliceinterp.transforms import (
    FWHMDownsample,
    InvertibleScaleIntensityRange,
    InvertibleScaleIntensityRangePercentiles,
    LoadVolume,
    ThroughPlaneLast,
)


class Method(NamedTuple):
    """How a method is run and shown."""

    title: str
    network: Callable[[], torch.nn.Module]
    inferer: Callable[..., Callable[..., torch.Tensor]]
    scaling: Callable[[torch.Tensor], torch.Tensor]
    window: tuple[float, float]
    limit: float
    slabs: bool = False  # thinned scans get slabs as thick as their spacing


METHODS = {
    "asi": Method(
        "ASI", ASIAutoencoder, LatentSliceInferer, InvertibleScaleIntensityRangePercentiles(), (0.0, 1.0), 0.25
    ),
    # 400 HU around 40 HU, and differences up to 200 HU
    "saint": Method(
        "SAINT", SAINT, MultiViewSliceInferer, InvertibleScaleIntensityRange(-1024, 2976), (0.216, 0.316), 0.05
    ),
    "hrinet": Method(
        "HRINet",
        lambda: HRINetAutoencoder(channels=(32, 64, 64), stem=2, shortcut=True),
        LatentSliceInferer,
        InvertibleScaleIntensityRange(-1024, 2976),
        (0.216, 0.316),
        0.05,
    ),
    "vts": Method(
        "VTS",
        lambda: VTSGenerator((16, 32, 64, 128), stem_channels=12),
        VolumetricSliceInferer,
        InvertibleScaleIntensityRange(-2048, 2048),
        (0.461, 0.559),
        0.0488,
        slabs=True,
    ),
}


def draw_row(
    axes: np.ndarray,
    scan: str,
    factor: int,
    method: Method,
    network: torch.nn.Module,
    position: float,
    thinned: bool,
    axis: int | None,
) -> None:
    """Interpolate the first frame of a scan and draw one row of panels."""
    volume = method.scaling(ThroughPlaneLast(axis)(LoadVolume()(scan)[:1]))
    truth = volume[None]
    if thinned:
        volume = FWHMDownsample(factor, fwhm=None if method.slabs else 0)(volume)
    volume = volume[None]
    linear = SplineSliceInferer(factor=factor, mode="linear")(volume)
    result = method.inferer(factor=factor, value_range=(0.0, 1.0))(volume, network)
    geometry = slice_geometry(volume, axis=-1)
    column = int(position * volume.shape[2])
    cuts = [np.asarray(image[0, 0, column].T) for image in (volume, linear, result)]
    extent = (0, cuts[0].shape[1] * geometry.in_plane_spacing[1], 0, volume.shape[-1] * geometry.slice_spacing)
    panels = [
        (f"{volume.shape[-1]} slices, {geometry.slice_spacing:.3g} mm", cuts[0], False),
        (f"linear, {linear.shape[-1]} slices", cuts[1], False),
        (f"{method.title}, {geometry.slice_spacing / factor:.3g} mm", cuts[2], False),
    ]
    if thinned:
        true_cut = np.asarray(truth[0, 0, column, :, : result.shape[-1]].T)
        panels.append(("true slices", true_cut, False))
        panels.append(("linear - true", cuts[1] - true_cut, True))
        panels.append((f"{method.title} - true", cuts[2] - true_cut, True))
    else:
        panels.append((f"{method.title} - linear", cuts[2] - cuts[1], True))
    for panel, (title, image, signed) in zip(axes, panels, strict=True):
        low, high = (-method.limit, method.limit) if signed else method.window
        panel.imshow(
            image,
            cmap="RdBu_r" if signed else "gray",
            vmin=low,
            vmax=high,
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
    parser.add_argument("--method", choices=sorted(METHODS), default="asi")
    parser.add_argument("--axis", type=int, help="slice axis; by default the one with the largest spacing")
    parser.add_argument("--thinned", action="store_true", help="leave slices out and compare with them")
    parser.add_argument("--ckpt", default="", help="weights; the bundle's by default")
    parser.add_argument("--output", default="", help="bundles/<method>/docs/<method>.png by default")
    arguments = parser.parse_args()
    count = len(arguments.scans)
    factors = arguments.factor * (count if len(arguments.factor) == 1 else 1)
    positions = arguments.position * (count if len(arguments.position) == 1 else 1)
    method = METHODS[arguments.method]
    network = load_weights(method.network(), arguments.ckpt or f"bundles/{arguments.method}/models/model.pt").eval()
    output = Path(arguments.output or f"bundles/{arguments.method}/docs/{arguments.method}.png")
    columns = 6 if arguments.thinned else 4
    size = (2.75 * columns, 2.6 * count)
    figure, panels = plt.subplots(count, columns, figsize=size, squeeze=False, layout="constrained")
    for row, scan, factor, position in zip(panels, arguments.scans, factors, positions, strict=True):
        draw_row(row, scan, factor, method, network, position, arguments.thinned, arguments.axis)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110, bbox_inches="tight")
    print(output)


if __name__ == "__main__":
    main()
