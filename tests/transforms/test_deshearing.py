# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Sheared stacks on upright grids: an analytic volume stays in its place in space, whatever the tilt."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from monai_sliceinterp.geometry import UprightGrid
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import LoadLabeld, SaveInterpolatedd, deshear
from tests.volumes import itk_affine, oblique, preprocess, write_nifti

SHEARS = {"slices": [[0, 0, 0.5], [0, 0, -0.3], [0, 0, 0]], "pixels": [[0, 0.2, 0.1], [0, 0, 0.4], [0, 0, 0]]}


def tilted(shear, turned=True, spacing=(0.8, 1.0, 4.0)):
    affine = oblique(spacing) if turned else np.diag([*spacing, 1.0])
    affine[:3, :3] = affine[:3, :3] / spacing @ (np.eye(3) + SHEARS[shear]) * spacing
    return affine


def blob(affine, shape, center):
    """A Gaussian in space, sampled at voxels."""
    voxels = np.stack([*np.indices(shape), np.ones(shape)], -1) @ affine.T
    return 1000 * np.exp(-((voxels[..., :3] - center[:3]) ** 2).sum(-1) / (2 * 5.0**2))


def inside(affine, shape, source, source_shape):
    """Voxels of a grid that lie within another one."""
    voxels = np.stack([*np.indices(shape), np.ones(shape)], -1) @ np.linalg.solve(source, affine).T
    return ((voxels[..., :3] > -1e-6) & (voxels[..., :3] < np.subtract(source_shape, 1) + 1e-6)).all(axis=-1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shear", SHEARS)
def test_analytic_volume(shear, axis):
    """Values, and every corner of the input is within the grid, no larger than needed."""
    affine, shape = tilted(shear), (30, 28, 9)
    order = [k for k in range(3) if k != 2]
    order.insert(axis, 2)
    affine, shape = affine[:, [*order, 3]], tuple(shape[k] for k in order)
    center = affine @ [*((length - 1) / 2 for length in shape), 1]
    image = MetaTensor(torch.from_numpy(blob(affine, shape, center)[None]), affine=affine)
    result = deshear(image, axis)
    found = result.affine.numpy()
    directions = found[:3, :3] / np.linalg.norm(found[:3, :3], axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    apart = np.abs(result[0].numpy() - blob(found, result.shape[1:], center))[
        inside(found, result.shape[1:], affine, shape)
    ]
    assert apart.max() < 10 and len(apart) > 0.9 * np.prod(shape)
    corners = np.array(list(np.ndindex(2, 2, 2))) * np.subtract(shape, 1)
    reached = np.linalg.solve(found, affine @ np.c_[corners, np.ones(8)].T)[:3]
    assert reached.min() > -1e-6 and (reached.max(axis=1) <= np.subtract(result.shape[1:], 1) + 1e-6).all()
    assert reached.min(axis=1).max() < 1 and (np.subtract(result.shape[1:], 1) - reached.max(axis=1) < 1).all()


def test_upright_and_types():
    """An upright volume stays itself; labels stay labels, integers keep their range, NaN stays."""
    image = MetaTensor(torch.rand(1, 6, 7, 4), affine=oblique())
    assert deshear(image) is image and UprightGrid.create(oblique(), 2, (6, 7, 4)) is None
    values = torch.randint(-900, 900, (1, 9, 8, 5), dtype=torch.int16)
    sheared = MetaTensor(values, affine=tilted("slices"))
    found = deshear(sheared)
    assert found.dtype == torch.int16 and found.min() == values.min() and found.max() <= values.max()
    low = np.round(np.linalg.solve(found.affine.numpy(), tilted("slices")[:, 3])[:2]).astype(int)
    assert torch.equal(found[0, low[0] : low[0] + 9, low[1] : low[1] + 8, 0].as_tensor(), values[0, ..., 0])
    labels = deshear(MetaTensor((values > 0).to(torch.uint8) * 7, affine=sheared.affine), mode="nearest")
    assert set(labels.unique().tolist()) == {0, 7}
    hole = values.float()
    hole[0, 4, 4] = torch.nan
    found = deshear(MetaTensor(hole, affine=sheared.affine))[0].isnan().sum(dim=(0, 1))
    assert found[0] == 1 and (found > 0).all() and (found <= 4).all()


def test_memory_is_asked_first(monkeypatch):
    monkeypatch.setattr("monai_sliceinterp.transforms.deshearing.free_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"an upright grid of 14 x 12 x 4 voxels takes .* GiB"):
        deshear(MetaTensor(torch.rand(1, 6, 8, 4), affine=tilted("slices")))


def test_saved_for_every_reader(tmp_path):
    """With its label and provenance; SimpleITK reads it, and puts it where nibabel does."""
    affine = tilted("slices")
    values = blob(affine, (24, 24, 6), affine @ [12, 12, 2.5, 1]).astype(np.int16)
    scan = write_nifti(tmp_path / "scan.nii.gz", values, affine)
    label = write_nifti(tmp_path / "label.nii.gz", (values > 500).astype(np.uint8), affine)
    load = preprocess(original=[LoadLabeld("original", label)])
    data = load({"image": str(scan)})
    inferer = SplineSliceInferer(factor=4)
    data["pred"] = inferer(data["image"][None])[0]
    options = {"label": True, "deshear": "true", "provenance": True}
    SaveInterpolatedd("pred", load, inferer, None, tmp_path / "out", **options)(data)
    for name in ("scan_interp.nii.gz", "scan_interp_label.nii.gz", "scan_interp_provenance.nii.gz"):
        image = nib.load(tmp_path / "out" / name)
        assert image.shape == (37, 30, 21)
        np.testing.assert_allclose(itk_affine(sitk.ReadImage(tmp_path / "out" / name)), image.affine, atol=1e-3)
    thin = nib.load(tmp_path / "out" / "scan_interp.nii.gz")
    expected = blob(thin.affine, thin.shape, affine @ [12, 12, 2.5, 1])
    whole = inside(thin.affine, thin.shape, affine, values.shape)
    assert np.abs(thin.get_fdata() - expected)[whole].max() < 60
    marked = np.asanyarray(nib.load(tmp_path / "out" / "scan_interp_label.nii.gz").dataobj) > 0
    assert expected[marked].min() > 350 and marked.sum() > 0.7 * (expected > 500).sum()
    described = json.loads((tmp_path / "out" / "scan_interp.json").read_text())
    assert described["SliceInterpolation"]["Desheared"] is True and "upright grid" in described["Description"]
