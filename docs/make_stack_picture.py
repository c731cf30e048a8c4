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
"""Make the picture of README.md on scans whose slices are missing: places of the slices, output, provenance, label.

    python docs/make_stack_picture.py SCAN OUTPUT [--position 0.5] [--window -160 240]

SCAN is what went into inference (a DICOM folder with missing slices, say), OUTPUT the NIfTI file that came out of it
with ``--provenance true`` and ``--label FILE``, whose files lie beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from monai_sliceinterp.files import file_stem
from monai_sliceinterp.geometry import slice_geometry, slice_positions
from monai_sliceinterp.transforms import LoadVolume


def main() -> None:
    """Read the arguments and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", help="the scan, slices along the last axis")
    parser.add_argument("output", type=Path, help="<stem>_interp.nii.gz")
    parser.add_argument("--position", type=float, default=0.5, help="place of the cut, 0 to 1")
    parser.add_argument("--window", type=float, nargs=2, default=(-160.0, 240.0), help="shown intensities")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/missing_slices.png"))
    arguments = parser.parse_args()
    stem = file_stem(arguments.output)
    scan = LoadVolume()(arguments.scan)
    result, provenance, label = (
        LoadVolume()(arguments.output.with_name(f"{stem}{postfix}.nii.gz")) for postfix in ("", "_provenance", "_label")
    )
    column = int(arguments.position * scan.shape[1])
    images = [np.asarray(image[0, column].T, dtype=float) for image in (scan, result, provenance, label)]
    geometry = slice_geometry(scan, axis=2)
    width = images[0].shape[1] * geometry.in_plane_spacing[1]
    half = geometry.slice_spacing / 2
    places = np.asarray(slice_positions(scan, axis=2) or range(scan.shape[-1])) * geometry.slice_spacing
    figure, panels = plt.subplots(1, 4, figsize=(12, 3.1), layout="constrained", sharey=True)
    gray = {"cmap": "gray", "vmin": arguments.window[0], "vmax": arguments.window[1], "origin": "lower"}
    for row, place in zip(images[0], places, strict=True):
        panels[0].imshow(row[None], extent=(0, width, place - half, place + half), **gray)
    below = slice_geometry(result, axis=2).slice_spacing / 2
    extent = (0, width, -below, places[-1] + below)
    for panel in panels[1:]:
        panel.imshow(images[1], extent=extent, **gray)
    for panel, colors, image in ((panels[2], "autumn", images[2]), (panels[3], "cool", images[3])):
        shown = np.ma.masked_equal(image, 0)
        panel.imshow(shown, cmap=colors, alpha=0.45, extent=extent, origin="lower", interpolation="nearest")
    titles = (f"{scan.shape[-1]} slices, some missing", f"{result.shape[-1]} slices", "synthesized", "label")
    for panel, title in zip(panels, titles, strict=True):
        panel.set(title=title, xlim=(0, width), ylim=(-half, places[-1] + half), facecolor="#4060a0", xticks=[])
    panels[0].set_ylabel("mm")
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, dpi=110, bbox_inches="tight")
    print(arguments.picture)


if __name__ == "__main__":
    main()
