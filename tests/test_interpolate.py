# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""``monai_sliceinterp.interpolate`` gives what the command writes, of images of any form."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

import monai_sliceinterp
from monai_sliceinterp.cli import main
from monai_sliceinterp.geometry import SliceGeometry
from monai_sliceinterp.interpolation import SCORES, ScanFacts, choose_method

VALUES = np.random.default_rng(0).integers(-1000, 900, (4, 12, 10)).astype(np.int16)
AFFINE = np.diag([4.0, 1.0, 1.0, 1.0])


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(VALUES, AFFINE), path)
    nib.save(nib.Nifti1Image((VALUES > 0).astype(np.uint8), AFFINE), tmp_path / "label.nii.gz")
    return path


@pytest.mark.parametrize("method", ["auto", "cubic", "asi"])
def test_is_what_the_command_writes(method, scan, tmp_path):
    label = str(tmp_path / "label.nii.gz")
    assert main([str(scan), "-m", method, "-s", "2", "--label", label, "-o", str(tmp_path / "out")]) == 0
    thin, organs = monai_sliceinterp.interpolate(scan, method, spacing=2.0, label=label)
    written = nib.load(tmp_path / "out" / "scan_interp.nii.gz")
    np.testing.assert_array_equal(thin[0].numpy(), np.asarray(written.dataobj))
    np.testing.assert_array_equal(thin.affine, written.affine)
    label_file = nib.load(tmp_path / "out" / "scan_interp_label.nii.gz")
    np.testing.assert_array_equal(organs[0].numpy(), np.asarray(label_file.dataobj))
    assert thin.meta["observed_slices"].tolist() == [True, False] * 3 + [True] and thin.dtype == torch.int16


def test_thickness_of_slices_is_what_the_image_or_the_user_says(scan, tmp_path):
    """The mixture network takes it, from the metadata as DICOM fills them, too."""
    told = MetaTensor(torch.from_numpy(VALUES), affine=torch.from_numpy(AFFINE), meta={"SliceThickness": 4.0})
    plain, known = (monai_sliceinterp.interpolate(image, "mixture", factor=2) for image in (scan, told))
    assert (plain.as_tensor() - known.as_tensor()).abs().max() > 50
    given = monai_sliceinterp.interpolate(scan, "mixture", factor=2, slice_thickness=4.0)
    assert torch.equal(given.as_tensor(), known.as_tensor())
    assert main([str(scan), "-m", "mixture", "-f", "2", "--slice-thickness", "4", "-o", str(tmp_path / "out")]) == 0
    written = nib.load(tmp_path / "out" / "scan_interp.nii.gz")
    np.testing.assert_array_equal(given[0].numpy(), np.asarray(written.dataobj))
    with pytest.raises(ValueError, match="slice_thickness must be a positive number of mm, got 0"):
        monai_sliceinterp.interpolate(scan, "mixture", slice_thickness=0)


def test_forms_of_an_image(scan):
    expected = monai_sliceinterp.interpolate(scan, "linear", factor=3)
    tensor = MetaTensor(torch.from_numpy(VALUES), affine=torch.from_numpy(AFFINE))
    label = MetaTensor(torch.from_numpy(VALUES > 0)[None].to(torch.uint8), affine=tensor.affine)
    for image in (str(scan), tensor, tensor[None], nib.load(scan), sitk.ReadImage(str(scan))):
        result, organs = monai_sliceinterp.interpolate(image, "linear", factor=3, label=label)
        assert torch.equal(result.as_tensor(), expected.as_tensor()) and organs.shape == expected.shape
        torch.testing.assert_close(result.affine, expected.affine, check_dtype=False)
    assert torch.equal(tensor.as_tensor(), torch.from_numpy(VALUES)) and not tensor.applied_operations


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (VALUES, {}, "an array has no spacing"),
        (None, {}, "cannot take a NoneType for an image"),
        (
            nib.Nifti1Image(VALUES[0], AFFINE),
            {},
            r"^the image has shape \(12, 10\); expected \(X, Y, Z\) or \(C, X, Y, Z\)\.$",
        ),
        ("nowhere.nii", {}, "no such file"),
        (nib.Nifti1Image(VALUES, AFFINE), {"factor": 2, "spacing": 1.0}, "give a factor or a spacing"),
        (nib.Nifti1Image(VALUES, AFFINE), {"label": nib.Nifti1Image(VALUES[:2], AFFINE)}, "the label has shape"),
        (nib.Nifti1Image(VALUES, AFFINE), {"method": "cubik"}, "did you mean 'cubic'"),
    ],
)
def test_misuse(image, options, message):
    with pytest.raises(ValueError, match=message):
        monai_sliceinterp.interpolate(image, **{"method": "linear", **options})


EVERY = ["asi", "saint", "vts", "hrinet"]


@pytest.mark.parametrize(
    ("modality", "spacing", "thickness", "ratio", "bundles", "gpu", "method"),
    [
        ("CT", 5.0, None, 7, EVERY, False, "saint,small"),
        ("CT", 5.0, None, 7, EVERY, True, "saint"),
        ("CT", 5.0, 1.0, 7, EVERY, True, "saint"),
        ("CT", 5.0, 5.0, 7, EVERY, False, "vts"),
        ("CT", 5.0, 5.0, 7, ["saint"], False, "saint,small"),
        ("CT", 2.0, 2.0, 2, EVERY, False, "cubic"),
        ("CT", 5.0, None, 7, [*EVERY, "mixture"], False, "mixture"),
        ("CT", 5.0, None, 2, [*EVERY, "mixture"], False, "saint,small"),
        ("CT", 5.0, 5.0, 2, [*EVERY, "mixture"], True, "mixture"),
        ("MR", 5.0, 5.0, 7, EVERY, False, "asi"),
        ("MR", 2.99999, None, 4, EVERY, True, "asi"),
        ("MR", 5.0, 5.0, 7, ["vts"], False, "motion"),
        ("MR", 1.5, None, 2, EVERY, True, "motion"),
        ("MR", 1.5, None, 2, [*EVERY, "mixture"], True, "mixture"),
        ("MR", 5.0, None, 2, [*EVERY, "mixture"], False, "mixture"),
        ("MR", 1.5, None, 2, [], True, "motion"),
        ("PT", 5.0, None, 2, EVERY, True, "cubic"),
    ],
)
def test_choice(modality, spacing, thickness, ratio, bundles, gpu, method):
    scan = ScanFacts(modality, "", (64, 64, 9), 1, SliceGeometry(2, (0.7, 0.7), spacing, thickness), "")
    choice = choose_method(scan, bundles, gpu, ratio)
    assert choice.method == method and set(choice.missing).isdisjoint(bundles)


@pytest.mark.parametrize(
    ("kind", "file", "group", "protocol"),
    [
        ("CT of thick slabs", "docs/comparison.md", "CT", "fwhm"),
        ("thin MR", "bundles/mixture/docs/README.md", "brain MR", "subsample"),
    ],
)
def test_scores_are_those_of_the_documentation(kind, file, group, protocol):
    columns: list[str] = []
    rows = {}
    for line in (Path(__file__).parents[1] / file).read_text().splitlines():
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        if cells[0] == "group":
            columns = [cell.lower().replace(", ", ",") for cell in cells]
        elif len(cells) == len(columns) and cells[0] == group:
            rows.setdefault(cells[1], {}).update(zip(columns, cells, strict=True))
    count, scores = SCORES[kind]
    for method, found in scores.items():
        expected = (rows[f"{protocol} x{factor}"][method].split(" / ")[0] for factor in (2, 4))
        assert found == tuple(map(float, expected)) and int(rows[f"{protocol} x2"]["n"]) == count
