# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""A scan before and after interpolation, as files."""

import json

import numpy as np
import pytest
from scipy import ndimage

from tests.volumes import oblique, write_nifti

FACTOR = 3


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """CT-like blobs: seven slices, 4 mm apart, and a cubic spline through them, rounded, with provenance."""
    folder = tmp_path_factory.mktemp("scan")
    rng = np.random.default_rng(0)
    thick = ndimage.gaussian_filter(rng.normal(size=(40, 36, 7)), (4, 4, 0.7))
    thick = (thick / thick.std() * 300 - 300).round()
    thin = ndimage.zoom(thick, (1, 1, (6 * FACTOR + 1) / 7), order=3, grid_mode=False).round()
    thin[..., ::FACTOR] = thick
    paths = write_nifti(folder / "scan.nii.gz", thick.astype(np.int16)), folder / "scan_interp.nii.gz"
    write_nifti(paths[1], thin.astype(np.int16), oblique((0.7, 0.9, 4.0 / FACTOR)))
    return paths


@pytest.fixture
def with_provenance(scan, tmp_path):
    """The same output with provenance beside it that tells of two observed slices alone."""
    output = tmp_path / scan[1].name
    output.write_bytes(scan[1].read_bytes())
    told = {"Method": "saint", "ObservedSlices": [0, 3], "NumberOfSlices": {"Output": 19}}
    (tmp_path / "scan_interp.json").write_text(json.dumps({"SliceInterpolation": told}))
    return output
