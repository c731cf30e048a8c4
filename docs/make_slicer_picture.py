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

"""Make the picture of docs/how_to/slicer.md: ``python docs/make_slicer_picture.py SCAN PNG [METHOD]``.

The module's own run of the command, without Slicer: its files are drawn as Slicer shows them, cut across the slices in
true proportions. The segmentation is a threshold of the scan (bone, contrast agent).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.colors import ListedColormap

from monai_sliceinterp.preview.drawing import drawing
from monai_sliceinterp.preview.planes import plane_view
from monai_sliceinterp.preview.windows import BODY
from monai_sliceinterp.transforms import LoadVolume, ThroughPlaneLast

COMMAND = [sys.executable, "-m", "monai_sliceinterp"]
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "integrations" / "slicer" / "SliceInterpolation"))

from SliceInterpolationLib.command import Settings  # noqa: E402
from SliceInterpolationLib.run import Run  # noqa: E402

_MARKED, _SYNTHESIZED = ListedColormap(["#56b4e9"]), ListedColormap(["#f29924"])
_HU = 180


def main(scan_path: str, png_path: str, method: str = "auto") -> None:
    """Run the command as the module does and draw what it would load."""

    def write(scan: str, label: str) -> bool:
        image = nib.load(scan_path)
        values = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(values, image.affine), scan)
        nib.save(nib.Nifti1Image((values > _HU).astype(np.uint8), image.affine), label)
        marks.append(read(label))
        return True

    def read(path: str) -> Any:
        return ThroughPlaneLast()(LoadVolume()(path))

    marks: list[Any] = []
    run = Run(COMMAND, Settings(method), write, os.environ)
    try:
        while not run.poll():
            time.sleep(0.2)
        print("\n".join(run.lines))
        files = run.results()
        thin, label, synthesized = (read(files[name]) for name in ("volume", "label", "synthesized"))
    finally:
        run.close()
    scan = read(scan_path)
    row = scan.shape[2] // 2
    panels = [
        (scan, marks[0], _MARKED, f"{scan.shape[-1]} slices every {scan.pixdim[2]:.3g} mm"),
        (thin, label, _MARKED, f"{thin.shape[-1]} slices every {thin.pixdim[2]:.3g} mm"),
        (thin, synthesized, _SYNTHESIZED, "what of it is synthesized"),
    ]
    with drawing(png_path, 12.0, 2.7) as figure:
        for axes, (image, mask, colors, title) in zip(figure.subplots(1, 3), panels, strict=True):
            view, marked = (plane_view(volume[0], volume.affine, 1, row) for volume in (image, mask))
            axes.imshow(view.image, vmin=BODY.low, vmax=BODY.high, aspect=view.aspect, interpolation="nearest")
            shown = np.ma.masked_less(marked.image, 0.5)
            axes.imshow(shown, cmap=colors, alpha=0.4, aspect=view.aspect, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(title, fontsize=9)


if __name__ == "__main__":
    main(*sys.argv[1:])
