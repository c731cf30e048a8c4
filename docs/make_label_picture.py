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

"""Make the picture of docs/how_to/labels_back.md: ``python docs/make_label_picture.py SCAN THIN PNG``.

The labels are thresholds of the thin volume (fat, soft tissue, bone), cut across the slices in true proportions.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from monai.data import MetaTensor

from monai_sliceinterp.labels_back import label_on_slices
from monai_sliceinterp.preview.drawing import drawing
from monai_sliceinterp.preview.planes import plane_view
from monai_sliceinterp.preview.windows import BODY
from monai_sliceinterp.transforms import LoadVolume, ThroughPlaneLast

_COLORS = ListedColormap(["#e69f00", "#d55e00", "#56b4e9"])


def main(scan_path: str, thin_path: str, png_path: str) -> None:
    """Draw the labels on the thin volume and on the scan."""
    scan, thin = (ThroughPlaneLast()(LoadVolume()(path)) for path in (scan_path, thin_path))
    label = np.digitize(thin.numpy(), (-150, -20, 180)).astype(np.uint8)
    fine = MetaTensor(torch.from_numpy(label), affine=thin.affine)
    back = label_on_slices(fine, scan)
    row = scan.shape[2] // 2
    with drawing(png_path, 9.4, 3.1) as figure:
        for axes, image, labels in zip(figure.subplots(1, 2), (thin, scan), (fine, back), strict=True):
            view, marked = (plane_view(volume[0], volume.affine, 1, row) for volume in (image, labels))
            axes.imshow(view.image, vmin=BODY.low, vmax=BODY.high, aspect=view.aspect)
            shown = np.ma.masked_equal(marked.image, 0)
            axes.imshow(shown, cmap=_COLORS, vmin=1, vmax=3, alpha=0.45, aspect=view.aspect, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(f"{image.shape[-1]} slices every {image.pixdim[2]:.3g} mm", fontsize=9)


if __name__ == "__main__":
    main(*sys.argv[1:])
