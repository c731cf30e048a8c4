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

"""Volumes, files and scans that the tests of loading and saving share."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation


def oblique(spacing=(0.7, 0.9, 4.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (-100, 20, 300)
    return affine


def full_range(dtype, shape):
    """Values over the whole range of a type, its ends included."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 6, shape)).astype(dtype)
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    values.flat[:2] = limits.min, limits.max
    return values


def write_nifti(path, values, affine, kind=nib.Nifti1Image, units=("mm", "sec"), frame_spacing=None):
    image = kind(values, affine, dtype=values.dtype)
    image.header.set_xyzt_units(*units)
    if frame_spacing:
        image.header["pixdim"][4] = frame_spacing
    nib.save(image, path)
    return path


def real_scans(key=None):
    """The smallest file by a key, or the first by name, of every folder of real scans; none where there are none."""
    root = os.environ.get("SLICEINTERP_DATA")
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir()) if root else []
    return [min(folder.glob("*.nii.gz"), key=key) for folder in folders]
