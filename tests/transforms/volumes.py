# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Volumes and checks that tests of transforms share."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from tests.volumes import oblique

SPACING = 1.5


def make_volume(num_slices=23, axis=2, dtype=torch.float32, channels=2, seed=0, **meta):
    """Random volume with an oblique affine: 0.8 mm in-plane, slices of 1.5 mm along ``axis``."""
    shape, spacing = [4, 3, 5], [0.8, 0.8, 0.8]
    shape[axis], spacing[axis] = num_slices, SPACING
    values = 100 * np.random.default_rng(seed).random((channels, *shape))
    return MetaTensor(torch.tensor(values).to(dtype), affine=torch.tensor(oblique(spacing)), meta=meta)


def coded(height=9, width=12, num_slices=11, channels=1):
    """Volume whose value contains channel and place, each place below 64; float32 holds it exactly."""
    grid = np.meshgrid(*map(np.arange, (channels, height, width, num_slices)), indexing="ij")
    return torch.tensor(((grid[0] * 64 + grid[1]) * 64 + grid[2]) * 64 + grid[3], dtype=torch.float32)


def decode(values):
    """Channel and place along the three axes of the coded volume, of every value."""
    code = values.long()
    return code // 64**3, [code // 64**2 % 64, code // 64 % 64, code % 64]


def real_scans():
    """The smallest file of every folder of real scans; none where there are none."""
    root = os.environ.get("SLICEINTERP_DATA")
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir()) if root else []
    return [min(folder.glob("*.nii.gz"), key=lambda path: path.stat().st_size) for folder in folders]


def check_error(pattern, function, *args, **kwargs):
    """Check that a call ends in a ValueError of one line; return its message."""
    with pytest.raises(ValueError, match=pattern) as error:
        function(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)
