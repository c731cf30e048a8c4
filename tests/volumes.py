# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Volumes and their files for tests, and the way that a volume goes through a bundle."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from monai.data import decollate_batch, list_data_collate
from monai.transforms import Compose, CopyItemsd
from scipy.spatial.transform import Rotation

from monai_sliceinterp.transforms import (
    InvertibleScaleIntensityRangePercentilesd,
    LoadVolumed,
    RestoreVolumed,
    ThroughPlaneLastd,
)


def oblique(spacing=(0.7, 0.9, 4.0)):
    """Affine of a volume that is turned and shifted in space."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (-100, 20, 300)
    return affine


LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def itk_affine(image):
    """Affine of a SimpleITK image in RAS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (image.GetDimension(), -1))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


def whole_range(dtype, shape, seed=0):
    """Values over the whole range of a type, its ends included."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 6, shape)).astype(dtype)
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    values.flat[:2] = limits.min, limits.max
    return values


def write_nifti(path, values, affine=None, kind=nib.Nifti1Image, units=("mm", "sec"), frame_spacing=None):
    """Write an array as NIfTI; returns the path."""
    image = kind(values, oblique() if affine is None else affine, dtype=values.dtype)
    image.header.set_xyzt_units(*units)
    if frame_spacing is not None:
        image.header["pixdim"][4] = frame_spacing
    nib.save(image, path)
    return path


def preprocess(*steps, axis=None, original=()):
    """The preprocessing of a bundle: load, keep the original, slices last; with further steps, scale intensities."""
    return Compose(
        [
            LoadVolumed("image"),
            CopyItemsd("image", names="original"),
            *original,
            ThroughPlaneLastd("image", axis=axis),
            *(steps or [InvertibleScaleIntensityRangePercentilesd("image", lower=1, upper=99)]),
        ]
    )


def interpolate(source, inferer, *after, network=None, preprocessing=None, axis=None):
    """Let a file or DICOM folder go the way through a bundle, to restored intensities and the steps ``after``."""
    preprocessing = preprocessing or preprocess(axis=axis)
    batch = list_data_collate([preprocessing({"image": str(source)})])  # as an engine does
    batch["pred"] = inferer(batch["image"], network)
    data = decollate_batch(batch)[0]
    for step in (RestoreVolumed("pred", preprocessing), *after):  # no Compose, which hides what goes wrong
        data = step(data)
    return data
