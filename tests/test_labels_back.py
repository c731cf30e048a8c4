# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Labels of the interpolated volume, back on the slices of the scan."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.labels_back import label_on_slices, main, write_label_back
from monai_sliceinterp.transforms import LoadVolume, ThroughPlaneLast, interpolate_labels
from tests.dicom_series import write_series
from tests.volumes import itk_affine, oblique, write_nifti

DATA = os.environ.get("SLICEINTERP_DATA")
REAL = [
    ("ct/tcga_lihc_bc_a10x.nii.gz", (-500, 150)),
    ("ct/tcga_lihc_bc_a3kf.nii.gz", (-500, 150)),
    ("ct/cptac_pda_c3l_00189.nii.gz", (-500, 150)),
    ("clinical_mr/tcga_lihc_bc_4073_haste_cor.nii.gz", (100, 300)),
    ("cardiac_mr/sunnybrook_sc_n_02_ph20.nii.gz", (60, 150)),
]


def dice(first, second, value):
    first, second = first == value, second == value
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def thin_label(label, like, factor=None, spacing=None):
    """A label on the slices, interpolated by its shape, slices last."""
    step = float(np.linalg.norm(like.affine[:3, 2]))
    count = label.shape[-1]
    grid = OutputGrid.from_factor(count, factor) if factor else OutputGrid.from_spacing(count, step, spacing)
    voxels = interpolate_labels(torch.as_tensor(label), grid, (1.0, 1.0))
    return MetaTensor(voxels[None], affine=torch.as_tensor(grid.affine(like.affine)))


@pytest.mark.parametrize("case", range(5))
def test_round_trip(case):
    """From the slices to thin ones and back: every label of five maps is what it was, Dice 1."""
    if DATA:
        file, limits = REAL[case]
        scan = ThroughPlaneLast()(LoadVolume()(Path(DATA, file)))[:1]
        label = np.digitize(scan[0, ::4, ::4].numpy(), limits).astype(np.int16)
        scan = MetaTensor(scan.as_tensor()[:, ::4, ::4], affine=scan.affine @ np.diag([4.0, 4, 1, 1]))
    else:
        rng = np.random.default_rng(case)
        smooth = np.cumsum(rng.normal(size=(40, 36, 9)), axis=case % 3)
        label = np.digitize(smooth, (-1, 1)).astype(np.int16)
        scan = MetaTensor(torch.as_tensor(smooth)[None], affine=torch.as_tensor(oblique((1.0, 1.0, 5.0))))
    back = label_on_slices(thin_label(label, scan, factor=3), scan)
    assert [dice(back[0].numpy(), label, value) for value in np.unique(label)] == [1.0] * len(np.unique(label))
    assert back.dtype == torch.int16 and torch.equal(torch.as_tensor(back.affine), torch.as_tensor(scan.affine))


@pytest.fixture
def scan(tmp_path):
    """A scan of 6 slices, 5 mm apart, and its path."""
    path = write_nifti(tmp_path / "scan.nii.gz", np.zeros((8, 7, 6), np.int16), oblique((1.0, 1.2, 5.0)))
    return path, LoadVolume()(path)


@pytest.mark.parametrize(
    ("spacing", "nearest"), [(2.5, [0, 2, 4, 6, 8, 10]), (2.0, [0, 2, 5, 7, 10, 12]), (3.5, [0, 1, 3, 4, 6, 7])]
)
def test_nearest_in_mm(scan, spacing, nearest):
    """Also where no thin slice lies on a slice of the scan, and where the last thin one ends before it."""
    affine = oblique((1.0, 1.2, spacing))
    count = int(25 / spacing) + 1
    label = MetaTensor(torch.arange(count).expand(1, 8, 7, count), affine=torch.as_tensor(affine))
    assert label_on_slices(label, scan[1])[0, 0, 0].tolist() == nearest


@pytest.mark.parametrize(
    ("thickness", "expected"), [(None, [1, 1, 3]), (1.0, [1, 1, 3]), (4.5, [1, 2, 3]), (3.0, [1, 1, 3])]
)
def test_most_of_the_slab(thickness, expected):
    """Slices 4 mm apart, thin ones 2 mm: a slab of 3 mm has 2 mm of the thin slice at its center."""
    thin = MetaTensor(torch.tensor([1, 2, 1, 2, 3]).expand(1, 4, 4, 5), affine=torch.diag(torch.tensor([1.0, 1, 2, 1])))
    like = MetaTensor(torch.zeros(1, 4, 4, 3), affine=torch.diag(torch.tensor([1.0, 1, 4, 1])))
    assert label_on_slices(thin, like, thickness)[0, 0, 0].tolist() == expected
    like.meta["slice_thickness"] = thickness
    if thickness:
        assert label_on_slices(thin, like, "auto")[0, 0, 0].tolist() == expected


def test_missing_slice():
    """The label lies on the slices that are there, and tells where they are, as the scan does."""
    uneven = {"slice_positions": (0.0, 1.0, 3.0), "slice_positions_axis": 2}
    like = MetaTensor(torch.zeros(1, 4, 4, 3), affine=torch.diag(torch.tensor([1.0, 1, 2, 1])), meta={**uneven})
    back = label_on_slices(MetaTensor(torch.arange(7).expand(1, 4, 4, 7), affine=torch.eye(4)), like)
    assert back[0, 0, 0].tolist() == [0, 2, 6] and {key: back.meta[key] for key in uneven} == uneven


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_files(scan, tmp_path, suffix):
    """A turned label of unsigned integers, in the header of its own file; what other readers find lies on the scan."""
    label = np.random.default_rng(0).integers(0, 60000, (8, 7, 11)).astype(np.uint16)
    image = nib.Nifti1Image(label, oblique((1.0, 1.2, 2.5)))
    image.header["descrip"] = b"organs"
    nib.save(image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])), tmp_path / "thin.nii.gz")
    path = write_label_back(tmp_path / "thin.nii.gz", scan[0], tmp_path / f"back{suffix}")
    read = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, label[..., ::2])
    assert read.GetPixelIDTypeAsString() == "16-bit unsigned integer"
    np.testing.assert_allclose(itk_affine(read), nib.load(scan[0]).affine, atol=1e-4)
    with pytest.raises(ValueError, match=f"back{suffix}: exists already"):
        write_label_back(tmp_path / "thin.nii.gz", scan[0], path)


def test_header_stays(scan, tmp_path):
    image = nib.Nifti1Image(np.ones((8, 7, 11), np.uint8), oblique((1.0, 1.2, 2.5)))
    image.header["descrip"], image.header["intent_code"] = b"organs", 1002
    nib.save(image, tmp_path / "thin.nii.gz")
    header = nib.load(write_label_back(tmp_path / "thin.nii.gz", scan[0], tmp_path / "back.nii.gz")).header
    assert (header["descrip"].item(), int(header["intent_code"]), header.get_data_dtype()) == (
        b"organs",
        1002,
        np.uint8,
    )


def test_dicom_series(tmp_path, capsys):
    """The thickness comes from the series; a series with missing slices has no place in a NIfTI file."""
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    for name, drop in (("even", []), ("uneven", [1])):
        write_series(tmp_path / name, np.zeros((8, 8, 4), np.int16), affine, thickness=4.0, drop=drop)
    thin = LoadVolume()(tmp_path / "even").affine.numpy() @ np.diag([1, 1, 0.5, 1])
    write_nifti(tmp_path / "thin.nii.gz", np.ones((8, 8, 7), np.uint8) * np.arange(7, dtype=np.uint8), thin)
    where = [
        "--label",
        str(tmp_path / "thin.nii.gz"),
        "--slice_thickness",
        "auto",
        "--output",
        str(tmp_path / "b.nii.gz"),
    ]
    assert main([*where, "--like", str(tmp_path / "even")]) == 0
    assert nib.load(tmp_path / "b.nii.gz").get_fdata()[0, 0].tolist() == [0, 2, 4, 6]
    assert main([*where, "--like", str(tmp_path / "uneven"), "--overwrite"]) == 1
    assert "uneven: its slices are unevenly spaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "spacing", "how", "message"),
    [
        ((8, 7, 9), (1.0, 1.2, 2.5), {}, "slice 6 of the scan lies 5 mm from its nearest slice"),
        ((8, 7, 11), (1.0, 1.3, 2.5), {}, "its planes lie up to 0.6 mm beside"),
        ((9, 7, 11), (1.0, 1.2, 2.5), {}, "is 9 x 7 x 11 voxels large; expected 8 x 7 x 6"),
        ((8, 7, 11, 2), (1.0, 1.2, 2.5), {}, "has 2 frames"),
        ((8, 7, 11), (1.0, 1.2, 2.5), {"slice_thickness": "auto"}, "tells no slice thickness"),
        ((8, 7, 11), (1.0, 1.2, 2.5), {"slice_thickness": -1.0}, "slice thickness must be a positive"),
    ],
)
def test_refused(scan, tmp_path, shape, spacing, how, message):
    write_nifti(tmp_path / "thin.nii.gz", np.ones(shape, np.uint8), oblique(spacing))
    with pytest.raises(ValueError, match=f"thin.nii.gz: .*{message}"):
        write_label_back(tmp_path / "thin.nii.gz", scan[0], tmp_path / "back.nii.gz", **how)
    with pytest.raises(ValueError, match="back.png: cannot be written as that"):
        write_label_back(tmp_path / "thin.nii.gz", scan[0], tmp_path / "back.png")
    assert not (tmp_path / "back.nii.gz").exists()
