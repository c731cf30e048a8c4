# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""One transform that restores and saves what is wanted of an interpolated volume."""

import json

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, CopyItemsd

from monai_sliceinterp.inferers import MultiViewSliceInferer, SplineSliceInferer
from monai_sliceinterp.transforms import (
    InvertibleScaleIntensityRanged,
    LoadLabeld,
    LoadVolumed,
    SaveInterpolatedd,
    ThroughPlaneLastd,
)
from tests.dicom_series import write_series

VALUES = np.random.default_rng(0).integers(0, 1000, (16, 5, 15)).astype(np.int16)
AFFINE = np.diag([1.0, 4.0, 1.0, 1.0])


def save(source, output_dir, label="", **options):
    """Interpolate a scan whose slices are stacked along its second axis; returns the transform and what it gives."""
    steps = [LoadVolumed("image"), CopyItemsd("image", names="original")]
    steps += [LoadLabeld("original", label)] if label else []
    transform = Compose([*steps, ThroughPlaneLastd("image"), InvertibleScaleIntensityRanged("image", 0, 1000)])
    inferer = SplineSliceInferer(factor=2)
    data = transform({"image": str(source)})
    data["pred"] = inferer(data["image"][None])[0]
    saving = SaveInterpolatedd("pred", transform, inferer, None, output_dir, label=label, **options)
    return saving, saving(data)


def write(path, values):
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


def test_everything_that_is_wanted(tmp_path):
    """Files that are foretold are files that are written."""
    source, out = write(tmp_path / "a.b.nii.gz", VALUES), tmp_path / "out"
    label = write(tmp_path / "label.nii.gz", (VALUES > 500).astype(np.uint8))
    saving, result = save(source, out, label, provenance="true", quality="true", method="cubic")
    ends = [".nii.gz", "_label.nii.gz", "_provenance.nii.gz", ".json", "_quality.json"]
    assert saving.output_files(source) == [out / f"a.b_interp{end}" for end in ends]
    assert sorted(saving.output_files(source)) == sorted(out.iterdir()) and saving.is_finished(source)
    assert result["pred"].meta["saved_to"] == str(out / "a.b_interp.nii.gz")
    for name, values in (("interp", VALUES), ("interp_label", (VALUES > 500).astype(np.uint8))):
        image = nib.load(out / f"a.b_{name}.nii.gz")
        assert image.shape == (16, 9, 15) and image.get_data_dtype() == values.dtype
        np.testing.assert_array_equal(np.asarray(image.dataobj)[:, ::2], values)
        np.testing.assert_allclose(image.affine, np.diag([1.0, 2.0, 1.0, 1.0]))
    assert json.loads((out / "a.b_interp.json").read_text())["SliceInterpolation"]["Method"] == "cubic"
    (out / "a.b_interp.json").unlink()
    assert not saving.is_finished(source)


def test_dicom_in_the_place_of_nifti(tmp_path):
    write_series(tmp_path / "series", VALUES.transpose(0, 2, 1), np.diag([-1.0, -1.0, 4.0, 1.0]))
    saving, _ = save(tmp_path / "series", tmp_path / "out", output_format="dicom", method="cubic")
    assert saving.output_files(tmp_path / "series") == [tmp_path / "out" / "series_interp"]
    assert len(list((tmp_path / "out" / "series_interp").iterdir())) == 9
    source = write(tmp_path / "a.nii", VALUES)
    with pytest.raises(ValueError, match=r"a\.nii: .*DICOM"):
        saving.check(source)


def test_what_is_there_is_not_replaced_unasked(tmp_path):
    source, out = write(tmp_path / "a.nii", VALUES), tmp_path / "out"
    saving, _ = save(source, out)
    with pytest.raises(ValueError, match="exists already"):
        saving.check(source)
    for name, option in (("a_interp.json", "provenance"), ("a_interp_quality.json", "quality")):  # a BIDS sidecar, say
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).touch()
        saving = SaveInterpolatedd("pred", Compose(), SplineSliceInferer(2), None, tmp_path / "other", **{option: True})
        with pytest.raises(ValueError, match=f"{name}: exists already; expected another output_dir, or --overwrite"):
            saving.check(source)
    for options in ({"overwrite": "true"}, {"resume": True}):
        saving, _ = save(source, out, **options)
        saving.check(source)
        assert saving.resume is ("resume" in options)


@pytest.mark.parametrize("name", ["provenance", "quality", "overwrite", "resume"])
def test_switches(name, tmp_path):
    with pytest.raises(ValueError, match=f"^{name} must be true or false, got 'maybe'"):
        SaveInterpolatedd("pred", Compose(), SplineSliceInferer(2), None, tmp_path, **{name: "maybe"})
    with pytest.raises(ValueError, match="output_format must be one or more of nifti, same, dicom, got 'png'"):
        SaveInterpolatedd("pred", Compose(), SplineSliceInferer(2), None, tmp_path, output_format="png")
    with pytest.raises(ValueError, match=r"^output_format is \['nifti', 'same'\]; expected nifti or same, not both\.$"):
        SaveInterpolatedd("pred", Compose(), SplineSliceInferer(2), None, tmp_path, output_format=["nifti", "same"])


@pytest.mark.parametrize("asked", [False, True])
def test_disagreement_is_written_where_the_inferer_tells_it(asked, tmp_path):
    inferer = MultiViewSliceInferer(factor=2, disagreement=asked)
    files = SaveInterpolatedd("pred", Compose(), inferer, None, tmp_path).output_files("a.nii")
    assert (tmp_path / "a_disagreement.nii.gz" in files) is asked
