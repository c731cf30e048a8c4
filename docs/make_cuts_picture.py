# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Make a picture of cuts across the slices of many scans, to look for seams, dotted rows and blocks.

    python docs/make_cuts_picture.py DATA --output bundles/mixture/docs/cuts.png

DATA is the folder of the scans that the bundles were scored on. Five scans of each kind are shown, test subjects where
there are so many: linear interpolation above, the method below, in true proportions. Thin scans are thinned first.
Only a band of pixels around the cut is interpolated, so that it takes a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from monai.data import MetaTensor

from monai_sliceinterp.evaluation import find_method
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import FWHMDownsample, LoadVolume, ThroughPlaneLast

SCANS = {  # by kind: the folder, the beginnings of five names, and by what they are thinned first (0: to 3 mm)
    "cardiac MR": ("cardiac_mr", "sc_hf_i_02 sc_hf_i_08 sc_hf_ni_07 sc_hyp_10 sc_n_02", 1),
    "clinical MR": ("clinical_mr", "ds000011_sub03 ds000011_sub05 ds000011_sub07 openms_long01 tcga_lihc_bc_4073", 1),
    "brain MR": ("brain_mr", "ds002748_sub03 ds002748_sub19 niivue_M2208 ds000011_sub03 ds002748_sub16", 4),
    "CT": ("ct", "lungfcp_01_0001 rider_pilot_0117 acrin_flt_breast_013 tcga_lihc_bc_a10x qin_lsc_0003", 0),
}
BAND = 48  # pixels around the cut
LONGEST = 220  # pixels along the cut
SPACING = 1.0  # mm, of the result


def load(folder: Path, name: str, thinned: int) -> MetaTensor:
    """Load the part of a scan that is interpolated: its first frame, with slices at most a few mm apart where thin."""
    # CT was averaged in the plane: its slices are closer than its pixels
    volume = ThroughPlaneLast(2 if folder.name == "ct" else None)(
        LoadVolume()(sorted(folder.glob(f"*{name}*"))[0])[:1].float()
    )
    spacing = slice_geometry(volume, axis=-1).slice_spacing
    factor = thinned or max(round(3.0 / spacing), 1)  # CT: about 3 mm
    center = [size // 2 for size in volume.shape[1:3]]
    rows, columns = (slice(max(c - n // 2, 0), c + n // 2) for c, n in zip(center, (LONGEST, BAND), strict=True))
    part = MetaTensor(volume.as_tensor()[:, rows, columns], affine=volume.affine)
    return FWHMDownsample(factor, fwhm=0)(part) if factor > 1 else part


def main() -> None:
    """Read the arguments and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the folders of scans")
    parser.add_argument("--method", default="mixture", help="method, as the evaluation command takes it")
    parser.add_argument("--output", default="cuts.png", help="file of the picture")
    parser.add_argument("--dpi", type=int, default=92, help="pixels per inch: 92 for the card, more to look closely")
    options = parser.parse_args()
    method = find_method(options.method)
    figure, panels = plt.subplots(2 * len(SCANS), 5, figsize=(11, 11), layout="constrained")
    for number, (kind, (folder, names, thinned)) in enumerate(SCANS.items()):
        for column, name in enumerate(names.split()):
            volume = load(options.data / folder, name, thinned)
            geometry = slice_geometry(volume, axis=-1)
            factor = max(round(geometry.slice_spacing / SPACING), 2)
            results = {
                "linear": SplineSliceInferer(factor=factor, mode="linear")(volume[None])[0],
                method.name: method.interpolate(volume, factor),
            }
            low, high = (-1000.0, 400.0) if kind == "CT" else np.percentile(volume, (1, 99))
            for row, result in enumerate(results.values()):
                panel, image = panels[2 * number + row, column], np.asarray(result[0, :, result.shape[2] // 2].T)
                aspect = geometry.slice_spacing / factor / geometry.in_plane_spacing[0]
                panel.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect)
                panel.set_axis_off()
            panels[2 * number, column].set_title(f"{kind}, {geometry.slice_spacing:.3g} mm by {factor}", fontsize=8)
            print(kind, name, flush=True)
    figure.savefig(options.output, dpi=options.dpi)
    print(options.output)


if __name__ == "__main__":
    main()
