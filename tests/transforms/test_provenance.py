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

from __future__ import annotations

import json
import os

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.files import file_stem
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.provenance import file_sha256, input_sha256
from monai_sliceinterp.transforms import SaveVolumed
from monai_sliceinterp.transforms import provenance as module
from monai_sliceinterp.transforms.dicom import SaveDicomSeriesd
from monai_sliceinterp.transforms.provenance import SaveProvenanced, provenance_labels
from tests.dicom_series import PATIENT_ID, PATIENT_NAME, write_series
from tests.volumes import interpolate, write_nifti


def run(source, output_dir, inferer, axis=None, save=None, **options):
    """Interpolate a file as the bundles do, and write its provenance."""
    provenance = SaveProvenanced("pred", **{"method": "cubic", **options})
    return interpolate(source, inferer, save or SaveVolumed("pred", output_dir), provenance, axis=axis)["pred"]


def write(path, array, affine=None):
    return write_nifti(path, array, np.diag([1.0, 1, 4, 1]) if affine is None else affine)


def volume(*shape):
    return np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)


class TestLabels:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_axis(self, axis):
        shape = [3, 4, 5]
        mask = (torch.arange(shape[axis]) % 2).to(torch.uint8)
        image = MetaTensor(torch.zeros(2, *shape), affine=torch.diag(torch.tensor([1.0, 2, 3, 1])))
        labels = provenance_labels(image, mask, axis)
        assert labels.dtype == torch.uint8 and tuple(labels.shape) == (1, 3, 4, 5)
        expected = np.moveaxis(
            np.broadcast_to(mask, [shape[k] for k in range(3) if k != axis] + [shape[axis]]), 2, axis
        )
        np.testing.assert_array_equal(labels[0].numpy(), expected)
        assert torch.equal(labels.affine, image.affine)

    def test_other_count(self):
        with pytest.raises(ValueError, match="expected one label for each of the 5 slices along axis 2, got 4"):
            provenance_labels(MetaTensor(torch.zeros(1, 3, 4, 5)), torch.zeros(4, dtype=torch.uint8), 2)


class TestSave:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_labels_tell_copied_slices(self, tmp_path, axis):
        """In the input's axis order: slices of label 0 are the input's, bit for bit, the others are not."""
        spacing = [1.0, 1.0, 1.0]
        spacing[axis] = 5.0
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = (10, -20, 30)
        source = write(tmp_path / "scan.nii.gz", volume(6, 7, 5), affine)
        pred = run(source, tmp_path / "out", SplineSliceInferer(spacing=2.0))
        output, labels = (nib.load(tmp_path / "out" / f"scan_interp{end}.nii.gz") for end in ("", "_provenance"))
        assert labels.get_data_dtype() == np.uint8 and labels.shape == output.shape
        np.testing.assert_array_equal(labels.affine, output.affine)
        stack = np.moveaxis(np.asarray(labels.dataobj), axis, 0)
        assert (stack == stack[:, :1, :1]).all()
        count = (6, 7, 5)[axis]
        # 5 mm against 2 mm: every fifth output slice is every second input slice
        assert stack[:, 0, 0].tolist() == [0 if k % 5 == 0 else 1 for k in range(int((count - 1) * 2.5) + 1)]
        found = json.loads((tmp_path / "out" / "scan_interp.json").read_text())["SliceInterpolation"]
        assert found["Axis"] == axis and found["SliceSpacing"] == {"Input": 5.0, "Output": 2.0}
        thick, thin = (np.moveaxis(np.asarray(file.dataobj), axis, 0) for file in (nib.load(source), output))
        assert found["ObservedSlices"] == np.flatnonzero(stack[:, 0, 0] == 0).tolist()
        for k, n in zip(found["ObservedSlices"], found["ObservedSlicesInInput"], strict=True):
            np.testing.assert_array_equal(thin[k], thick[n])
        assert np.asarray(found["Affine"]).tolist() == output.affine.tolist()
        assert pred.meta["provenance"]["SliceInterpolation"] == found

    @pytest.mark.parametrize(
        ("shape", "axis", "options", "expected"),
        [
            ((4, 6, 5), 0, {"factor": 3}, [0, 1, 1, 0, 1, 1, 0, 1, 1, 0]),  # an axis that was chosen
            ((4, 6, 5), None, {"factor": 2, "keep_observed": False}, [1] * 9),  # nothing is kept
            ((4, 6, 5, 3), None, {"factor": 2}, [0, 1] * 4 + [0]),  # frames of a time series have one label
        ],
    )
    def test_labels(self, tmp_path, shape, axis, options, expected):
        run(write(tmp_path / "scan.nii", volume(*shape)), tmp_path / "out", SplineSliceInferer(**options), axis=axis)
        output, labels = (nib.load(tmp_path / "out" / f"scan_interp{end}.nii.gz") for end in ("", "_provenance"))
        assert output.shape[:3] == labels.shape and output.shape[3:] == shape[3:]
        stack = np.moveaxis(np.asarray(labels.dataobj), 2 if axis is None else axis, 0)
        assert stack[:, 0, 0].tolist() == expected and (stack == stack[:, :1, :1]).all()

    def test_description(self, tmp_path):
        source = write(tmp_path / "scan.nii", volume(4, 6, 5))
        (tmp_path / "model.pt").write_bytes(b"weights")
        (tmp_path / "metadata.json").write_text('{"name": "B", "version": "3"}')
        options = {"method": "mine", "weights": tmp_path / "model.pt", "bundle_root": tmp_path}
        run(source, tmp_path / "out", SplineSliceInferer(factor=2), **options)
        text = (tmp_path / "out" / "scan_interp.json").read_text()
        found = json.loads(text)
        inner = found["SliceInterpolation"]
        assert found["Sources"] == ["scan.nii"] and str(tmp_path) not in text
        assert inner["SourceSHA256"] == file_sha256(source)
        assert inner["WeightsSHA256"] == file_sha256(tmp_path / "model.pt")
        assert (inner["Method"], inner["Factor"], inner["Spacing"], inner["KeepObserved"]) == ("mine", 2, None, True)
        assert [(item["Name"], item["Version"]) for item in found["GeneratedBy"]][1:] == [("B", "3")]

    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_dicom(self, tmp_path, multi_frame):
        """Beside a DICOM output; nothing of the patient is told, and other files of the folder do not count."""
        affine = np.diag([0.5, 0.5, 4.0, 1.0])
        files = write_series(tmp_path / "scan", volume(6, 7, 4), affine, multi_frame=multi_frame)
        expected = input_sha256(tmp_path / "scan", files)
        (tmp_path / "scan" / "notes.txt").write_text("x")
        inferer = SplineSliceInferer(factor=2)
        save = SaveDicomSeriesd("pred", tmp_path / "out", "cubic")
        source = files[0] if multi_frame else tmp_path / "scan"
        run(source, None, inferer, save=save)
        stem = f"{file_stem(source)}_interp"
        assert sorted(os.listdir(tmp_path / "out")) == [stem, f"{stem}.json", f"{stem}_provenance.nii.gz"]
        text = (tmp_path / "out" / f"{stem}.json").read_text()
        assert json.loads(text)["SliceInterpolation"]["SourceSHA256"] == expected
        for secret in (PATIENT_NAME, "Phantom", PATIENT_ID, "19000101", "ACC-001", "20200102", "Referrer", "1.2.826"):
            assert secret not in text
        labels = nib.load(tmp_path / "out" / f"{stem}_provenance.nii.gz")
        np.testing.assert_allclose(labels.affine[:3, :3], np.diag([0.5, 0.5, 2]), atol=1e-6)

    def test_failure_leaves_the_older_file(self, tmp_path, monkeypatch):
        source = write(tmp_path / "scan.nii", volume(4, 6, 5))
        run(source, tmp_path / "out", SplineSliceInferer(factor=2))
        before = {name: (tmp_path / "out" / name).read_bytes() for name in os.listdir(tmp_path / "out")}

        def fail(*_, **__):
            raise OSError("disk full")

        monkeypatch.setattr(module.Path, "write_text", fail)
        save = SaveVolumed("pred", tmp_path / "out", overwrite=True)
        with pytest.raises(OSError, match="disk full"):
            run(source, None, SplineSliceInferer(factor=2), save=save, method="other")
        assert sorted(os.listdir(tmp_path / "out")) == sorted(before)
        assert (tmp_path / "out" / "scan_interp.json").read_bytes() == before["scan_interp.json"]

    def test_weights_are_read_once(self, tmp_path):
        source = write(tmp_path / "a.nii", volume(4, 4, 3))
        scan = MetaTensor(torch.rand(1, 4, 4, 3), meta={"filename_or_obj": str(source)})
        inferer = SplineSliceInferer(factor=2)
        (tmp_path / "model.pt").write_bytes(b"x")
        save = SaveProvenanced("pred", "m", weights=tmp_path / "model.pt")
        for name in ("one", "two"):
            pred = inferer(scan[None])[0]
            pred.meta["saved_to"] = str(tmp_path / f"{name}.nii.gz")
            found = save({"pred": pred})["pred"].meta["provenance"]["SliceInterpolation"]
            (tmp_path / "model.pt").unlink(missing_ok=True)
        assert found["WeightsSHA256"] and (tmp_path / "two_provenance.nii.gz").exists()

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"weights": "no.pt"}, r"no\.pt: cannot be read"),
            ({"bundle_root": "nowhere"}, r"nowhere: holds no metadata\.json"),
        ],
    )
    def test_errors(self, tmp_path, options, text):
        source = write(tmp_path / "a.nii", volume(4, 4, 3))
        scan = MetaTensor(torch.rand(1, 4, 4, 3), meta={"filename_or_obj": str(source)})
        inferer = SplineSliceInferer(factor=2)
        data = SaveVolumed("pred", tmp_path / "out")({"pred": inferer(scan[None])[0]})
        with pytest.raises(ValueError, match=text):
            SaveProvenanced("pred", "m", **options)(data)
        assert os.listdir(tmp_path / "out") == ["a_interp.nii.gz"]

    def test_missing_key(self):
        save = SaveProvenanced("pred", "m", allow_missing_keys=True)
        assert save({"image": 1}) == {"image": 1}
