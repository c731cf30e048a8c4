# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import hashlib
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp import __version__
from monai_sliceinterp.dicom import read_dicom
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms.dicom import SaveDicomSeriesd
from tests.dicom_series import write_series
from tests.volumes import interpolate

AFFINE = np.array([[-0.5, 0, 0, 100], [0, -0.75, 0, 80], [0, 0, 4, -30], [0, 0, 0, 1.0]])


def volume(*shape):
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)


def run(source, output_dir, inferer=None, axis=None, **options):
    """Interpolate a series as the bundles do."""
    save = SaveDicomSeriesd("pred", output_dir, **{"method": "cubic", **options})
    pred = interpolate(source, inferer or SplineSliceInferer(factor=2), save, axis=axis)["pred"]
    return pred, [pydicom.dcmread(path) for path in sorted(Path(pred.meta["saved_to"]).iterdir())]


@pytest.fixture
def scan(tmp_path):
    write_series(tmp_path / "scan", volume(6, 7, 4), AFFINE, thickness=5.0)
    return tmp_path / "scan"


@pytest.mark.parametrize("axis", [None, 0])
def test_there_and_back(tmp_path, scan, axis):
    """DICOM to DICOM: observed slices are the source's, bit for bit, at their places."""
    pred, data = run(scan, tmp_path / "a" / "out", axis=axis)
    assert pred.meta["saved_to"] == str(tmp_path / "a" / "out" / "scan_interp")
    assert os.listdir(tmp_path / "a" / "out") == ["scan_interp"]
    assert [item.InstanceNumber for item in data] == list(range(1, len(data) + 1))
    assert [item.ImageType[3] for item in data] == ["OBSERVED", "SYNTHESIZED"] * (len(data) // 2) + ["OBSERVED"]
    if axis is None:
        assert len(data) == 7
        array, meta = read_dicom(tmp_path / "a" / "out" / "scan_interp")
        source, source_meta = read_dicom(scan)
        np.testing.assert_array_equal(array[..., ::2], source)
        np.testing.assert_array_equal(array, pred[0].numpy())
        np.testing.assert_allclose(meta["affine"], source_meta["affine"] @ np.diag([1, 1, 0.5, 1]), atol=1e-6)
    else:
        assert len(data) == 11 and {(item.Rows, item.Columns) for item in data} == {(4, 7)}


def test_derivation(tmp_path, scan):
    (tmp_path / "model.pt").write_bytes(b"weights")
    _, data = run(scan, tmp_path, method="asi", weights=tmp_path / "model.pt", postfix="thin")
    digest = hashlib.sha256(b"weights").hexdigest()[:16]
    start = f"slice interpolation by asi of monai_sliceinterp {__version__}, weights SHA-256 {digest}; "
    assert {item.DerivationDescription[: len(start)] for item in data} == {start}
    assert data[0].SeriesDescription == "phantom thin" and (tmp_path / "scan_thin").is_dir()
    _, data = run(scan, tmp_path)
    assert "SHA" not in data[0].DerivationDescription


@pytest.mark.parametrize(
    ("keep_observed", "thin", "thickness"),
    [(True, None, 5.0), (False, None, 2.0), (True, True, 2.0), (False, False, 5.0)],
)
def test_thickness(tmp_path, scan, keep_observed, thin, thickness):
    inferer = SplineSliceInferer(factor=2, keep_observed=keep_observed)
    _, data = run(scan, tmp_path, inferer, thin=thin)
    assert {float(item.SliceThickness) for item in data} == {thickness}
    assert {item.SpacingBetweenSlices for item in data} == {2}
    expected = {"OBSERVED", "SYNTHESIZED"} if keep_observed else {"SYNTHESIZED"}
    assert {item.ImageType[3] for item in data} == expected


def test_missing_slices(tmp_path):
    """A slice that is missing is synthesized between those that are there."""
    files = write_series(tmp_path / "scan", volume(6, 7, 5), AFFINE, drop=[2])
    pred, data = run(tmp_path / "scan", tmp_path / "out", SplineSliceInferer(spacing=4.0, mode="linear"))
    assert [float(item.ImagePositionPatient[2]) for item in data] == [-30, -26, -22, -18, -14]
    assert [item.ImageType[3] == "OBSERVED" for item in data] == [True, True, False, True, True]
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in files]
    assert [item.ReferencedSOPInstanceUID for item in data[2].SourceImageSequence] == uids[1:3]


@pytest.mark.parametrize(
    ("channels", "is_dicom", "named"),
    [
        (1, False, r"scan: is not DICOM; expected a DICOM input for output_format dicom"),
        (2, True, r"scan: has shape \(2, 4, 4, 5\); expected one 3D volume"),
    ],
)
def test_unfit(tmp_path, scan, channels, is_dicom, named):
    meta = {"filename_or_obj": str(scan), "dicom_files": [str(path) for path in scan.iterdir()] if is_dicom else []}
    image = MetaTensor(torch.rand(channels, 4, 4, 3), meta=meta)
    data = {"pred": SplineSliceInferer(factor=2)(image[None])[0]}
    with pytest.raises(ValueError, match=named):
        SaveDicomSeriesd("pred", tmp_path / "out", "cubic")(data)
    assert os.listdir(tmp_path / "out") == []


def test_arguments(tmp_path):
    save = SaveDicomSeriesd("pred", tmp_path, "cubic", allow_missing_keys=True)
    assert save({"image": 1}) == {"image": 1}
    with pytest.raises(KeyError):
        SaveDicomSeriesd("pred", tmp_path, "cubic")({"image": 1})
    for name in ("thin", "overwrite"):
        assert getattr(SaveDicomSeriesd("pred", tmp_path, "cubic", **{name: "true"}), name) is True
        with pytest.raises(ValueError, match=f"{name} must be true or false, got 'x'"):
            SaveDicomSeriesd("pred", tmp_path, "cubic", **{name: "x"})


def test_check_before_anything_is_computed(tmp_path, scan):
    save = SaveDicomSeriesd("pred", tmp_path, "cubic")
    save.check(scan)
    (tmp_path / f"{scan.name}_interp").mkdir()
    with pytest.raises(ValueError, match="_interp: exists already; expected another output_dir, or --overwrite true"):
        save.check(scan)
    SaveDicomSeriesd("pred", tmp_path, "cubic", overwrite=True).check(scan)
    (tmp_path / "a.nii.gz").write_bytes(b"0" * 200)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: is not DICOM; expected a DICOM input for output_format dicom"):
        save.check(tmp_path / "a.nii.gz")
