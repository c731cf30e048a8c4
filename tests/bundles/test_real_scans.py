# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0
"""What all bundles do with clinical series: DICOM in and out, missing slices, labels, provenance, overwriting."""

import json

import nibabel as nib
import numpy as np
import pydicom
import pytest

from monai_sliceinterp.transforms import LoadVolume
from tests.bundles.bundle_cases import CASES
from tests.bundles.bundle_commands import body, bundle_command, run_forked, voxels
from tests.dicom_series import write_series

AFFINE = np.diag([-1.2, -1.2, 5.0, 1.0])
SHAPE, MISSING = (40, 36, 7), 2
# shipped weights; the small networks where there are some
ALL = {"output_format": "['nifti','dicom']", "provenance": "true"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A series of which a slice is missing, a label of it, and what every bundle made of them."""
    root = tmp_path_factory.mktemp("real")
    write_series(root / "series", body(SHAPE, seed=3), AFFINE, drop=[MISSING], thickness=5.0)
    with pytest.warns(UserWarning, match="5 to 10 mm apart"):
        loaded = LoadVolume()(root / "series")
    # a ball, which grows and shrinks in its place: what moves is left to ITK, whose import takes 10 s in each process
    label = (np.linalg.norm(np.mgrid[-1:1:40j, -1:1:36j, -1.2:1.2:6j], axis=0) < 0.9).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, loaded.affine.numpy()), root / "label.nii.gz")
    commands = {}
    for name, case in CASES.items():
        options = {"input": root / "series", "output_dir": root / name, "spacing": 2.5, "label": root / "label.nii.gz"}
        commands[name] = bundle_command(name, "inference", case.overlays, {**options, **ALL})
    return root, run_forked(commands)


@pytest.mark.parametrize("name", CASES)
def test_both_formats_agree(name, outputs):
    root, results = outputs
    results[name].check_success()
    assert "5 to 10 mm apart; each is taken at its own position" in results[name].stderr
    written = nib.load(root / name / "series_interp.nii.gz")
    assert written.shape == (*SHAPE[:2], 2 * (SHAPE[2] - 1) + 1)
    np.testing.assert_allclose(written.affine, np.diag([-1.2, -1.2, 2.5, 1.0]), atol=1e-6)
    series = LoadVolume()(root / name / "series_interp")
    np.testing.assert_allclose(series.affine.numpy(), written.affine, atol=1e-4)
    np.testing.assert_array_equal(series[0].numpy(), np.asanyarray(written.dataobj))


@pytest.mark.parametrize("name", CASES)
def test_observed_slices_at_their_true_places(name, outputs):
    root, _ = outputs
    source = LoadVolume()(root / "series")[0].numpy()
    found = voxels(root / name / "series_interp.nii.gz")
    places = [2 * k for k in range(SHAPE[2]) if k != MISSING]
    restored = not CASES[name].keeps_observed  # it restores the blurred slices, too
    labels = voxels(root / name / "series_interp_provenance.nii.gz")
    expected = np.ones(found.shape, np.uint8)
    if not restored:
        expected[..., places] = 0
        np.testing.assert_array_equal(found[..., places], source)
    np.testing.assert_array_equal(labels, expected)
    told = json.loads((root / name / "series_interp.json").read_text())["SliceInterpolation"]
    assert told["KeepObserved"] is not restored and told["NumberOfSlices"] == {"Input": 6, "Output": 13}
    kinds = {}
    for path in sorted((root / name / "series_interp").iterdir()):
        data = pydicom.dcmread(path, stop_before_pixels=True)
        kinds[round(float(data.ImagePositionPatient[2]) / 2.5)] = data.ImageType[3]
    synthesized = {place: "SYNTHESIZED" if expected[0, 0, place] else "OBSERVED" for place in range(13)}
    assert kinds == synthesized


@pytest.mark.parametrize("name", CASES)
def test_label_on_the_same_grid(name, outputs):
    root, _ = outputs
    label = nib.load(root / name / "series_interp_label.nii.gz")
    assert label.shape == nib.load(root / name / "series_interp.nii.gz").shape and label.get_data_dtype() == np.uint8
    values = np.asanyarray(label.dataobj)
    places = [2 * k for k in range(SHAPE[2]) if k != MISSING]
    np.testing.assert_array_equal(values[..., places], voxels(root / "label.nii.gz"))
    assert set(np.unique(values)) == {0, 1}
