# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Hashes and the description of an output, and the transform that writes them beside it."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp import __version__
from monai_sliceinterp.files import file_sha256, file_stem
from monai_sliceinterp.geometry import GridMetadata, OutputGrid
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.provenance import bundle_version, describe_output, input_sha256
from monai_sliceinterp.transforms import SaveVolumed
from monai_sliceinterp.transforms import provenance as module
from monai_sliceinterp.transforms.dicom import SaveDicomSeriesd
from monai_sliceinterp.transforms.provenance import SaveProvenanced, provenance_labels
from tests.dicom_series import PATIENT_ID, PATIENT_NAME, write_series
from tests.volumes import interpolate, write_nifti

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4, of no bytes
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, of "abc"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class TestFileHash:
    @pytest.mark.parametrize(("content", "expected"), [(b"", EMPTY), (b"abc", ABC)])
    def test_published(self, tmp_path, content, expected):
        (tmp_path / "a").write_bytes(content)
        assert file_sha256(tmp_path / "a") == input_sha256(tmp_path / "a") == expected

    @pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 5 * 2**20 + 3])
    def test_chunks(self, tmp_path, size):
        content = np.random.default_rng(0).bytes(size)
        (tmp_path / "a").write_bytes(content)
        assert file_sha256(tmp_path / "a") == sha256(content)

    def test_memory_is_bounded(self, tmp_path):
        with (tmp_path / "a").open("wb") as file:
            file.truncate(64 * 2**20)
        tracemalloc.start()
        file_sha256(tmp_path / "a")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * 2**20


class TestInputHash:
    def test_folder(self, tmp_path):
        for name, content in (("b", b"1"), ("a", b"2"), ("c", b"abc")):
            (tmp_path / name).write_bytes(content)
        (tmp_path / "below").mkdir()
        hashes = sorted([sha256(b"1"), sha256(b"2"), ABC])
        expected = sha256("".join(line + "\n" for line in hashes).encode())
        assert input_sha256(tmp_path) == expected
        assert input_sha256(tmp_path, [tmp_path / name for name in "cab"]) == expected
        assert input_sha256(tmp_path, [tmp_path / name for name in "ab"]) != expected
        assert input_sha256(tmp_path, [str(tmp_path / "c")]) == ABC  # one file of frames

    def test_names_do_not_matter_but_voxels_do(self, tmp_path):
        hashes = []
        for folder, names, content in (("a", "xy", b"1"), ("b", "zw", b"1"), ("c", "xy", b"2")):
            (tmp_path / folder).mkdir()
            for name, part in zip(names, (content, b"3"), strict=True):
                (tmp_path / folder / name).write_bytes(part)
            hashes.append(input_sha256(tmp_path / folder))
        assert hashes[0] == hashes[1] != hashes[2]

    @pytest.mark.parametrize(
        ("name", "header"),
        [
            ("a.mhd", "NDims = 3\nElementDataFile = a.raw\n"),
            ("a.MHD", "ElementDataFile = LIST\na.raw\nb.raw\n"),
            ("a.nhdr", "NRRD0004\ndata file: a.raw\nencoding: raw\n"),
            ("a.nhdr", "NRRD0004\ndatafile: a.raw"),
        ],
    )
    def test_detached_header(self, tmp_path, name, header):
        (tmp_path / name).write_text(header)
        (tmp_path / "a.raw").write_bytes(b"1")
        (tmp_path / "b.raw").write_bytes(b"2")
        before = input_sha256(tmp_path / name)
        (tmp_path / "a.raw").write_bytes(b"3")
        assert input_sha256(tmp_path / name) != before
        (tmp_path / "a.raw").write_bytes(b"1")
        (tmp_path / "b.raw").write_bytes(b"3")
        assert (input_sha256(tmp_path / name) != before) == ("LIST" in header)

    @pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.mha"])
    def test_whole_header(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"ElementDataFile = LOCAL\n\xff\x00")
        assert input_sha256(tmp_path / name) == sha256(b"ElementDataFile = LOCAL\n\xff\x00")

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match="holds no file"):
            input_sha256(tmp_path)
        with pytest.raises(ValueError, match=r"a\.nii: cannot be read \(No such file or directory\)"):
            input_sha256(tmp_path / "a.nii")
        with pytest.raises(ValueError, match=r"b\.dcm: cannot be read"):
            input_sha256(tmp_path, [tmp_path / "b.dcm"])


class TestBundle:
    @pytest.mark.parametrize("place", ["metadata.json", "configs/metadata.json"])
    def test_layouts(self, tmp_path, place):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text('{"version": "0.2.0", "name": "Näme"}', encoding="utf-8")
        assert bundle_version(tmp_path) == {"Name": "Näme", "Version": "0.2.0"}

    def test_name_of_the_folder(self, tmp_path, monkeypatch):
        (tmp_path / "asi").mkdir()
        (tmp_path / "asi" / "metadata.json").write_text('{"version": "1"}')
        monkeypatch.chdir(tmp_path / "asi")
        assert bundle_version(".") == {"Name": "asi", "Version": "1"}

    @pytest.mark.parametrize("text", ["{", "{}", "[]", '"x"'])
    def test_unusable(self, tmp_path, text):
        with pytest.raises(ValueError, match=r"holds no metadata\.json, nor configs/metadata\.json"):
            bundle_version(tmp_path)
        (tmp_path / "metadata.json").write_text(text)
        with pytest.raises(ValueError, match=r"metadata\.json: tells no version"):
            bundle_version(tmp_path)


MOMENT = datetime(2026, 3, 4, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))


RECORD = GridMetadata(OutputGrid.from_factor(3, 4), keep_observed=True, source_spacing=6.0, axis=1, factor=4)


def describe(record=None, **changes):
    arguments = {
        "source": "/home/someone/scan.nii.gz",
        "source_sha256": ABC,
        "method": "asi",
        "output_affine": np.diag([1.0, -1.5, 1.0, 1.0]),
        "weights_sha256": EMPTY,
        "bundle": {"Name": "ASI", "Version": "0.1.0"},
        "time": MOMENT,
        **changes,
    }
    return describe_output(record=replace(RECORD, **(record or {})), **arguments)


class TestDescription:
    def test_all(self):
        found = describe()
        assert found == {
            "Description": "9 slices interpolated from 3 along array axis 1, 3 of them copied from the input.",
            "GeneratedBy": [
                {"Name": "monai_sliceinterp", "Version": __version__, "Description": "slice interpolation, method asi"},
                {
                    "Name": "ASI",
                    "Version": "0.1.0",
                    "Description": "MONAI bundle with the network's configuration and weights",
                },
            ],
            "Sources": ["scan.nii.gz"],
            "SliceInterpolation": {
                "Method": "asi",
                "WeightsSHA256": EMPTY,
                "SourceSHA256": ABC,
                "Precision": None,
                "Axis": 1,
                "Factor": 4,
                "Spacing": None,
                "NumberOfSlices": {"Input": 3, "Output": 9},
                "SliceSpacing": {"Input": 6.0, "Output": 1.5},
                "KeepObserved": True,
                "Desheared": False,
                "ObservedSlices": [0, 4, 8],
                "ObservedSlicesInInput": [0, 1, 2],
                "Affine": [[1, 0, 0, 0], [0, -1.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
                "DateTime": "2026-03-03T23:02:03Z",
            },
        }
        assert json.loads(json.dumps(found, allow_nan=False)) == found

    def test_deterministic_but_for_the_time(self):
        first, second = describe(), describe(time=None)
        now = datetime.strptime(second["SliceInterpolation"].pop("DateTime"), "%Y-%m-%dT%H:%M:%S%z")
        assert abs(datetime.now(timezone.utc) - now) < timedelta(minutes=1)
        del first["SliceInterpolation"]["DateTime"]
        assert json.dumps(first) == json.dumps(second)

    def test_spacing(self):
        """Observed slices of the output, and which of the input they are, where some are left out."""
        found = describe({"grid": OutputGrid.from_spacing(4, 5.0, 2.0), "factor": None, "spacing": 2.0})
        found = found["SliceInterpolation"]
        assert (found["ObservedSlices"], found["ObservedSlicesInInput"]) == ([0, 5], [0, 2])
        assert (found["Factor"], found["Spacing"]) == (None, 2.0)

    def test_nothing_kept(self):
        found = describe({"keep_observed": False}, weights_sha256=None, bundle=None)
        inner = found["SliceInterpolation"]
        assert inner["ObservedSlices"] == inner["ObservedSlicesInInput"] == [] and not inner["KeepObserved"]
        assert "all of them synthesized" in found["Description"]
        assert len(found["GeneratedBy"]) == 1 and inner["WeightsSHA256"] is None

    @pytest.mark.parametrize(
        ("source", "name"), [("a/b/", "b"), ("x.nii", "x.nii"), (".", "series"), ("below/..", "series")]
    )
    def test_only_the_name(self, tmp_path, monkeypatch, source, name):
        (tmp_path / "series" / "below").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "series")
        assert describe(source=source)["Sources"] == [name]

    def test_affine(self):
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        affine[1, 2] = 1.0  # the planes stay 2 mm apart
        assert describe({"axis": 2}, output_affine=affine)["SliceInterpolation"]["SliceSpacing"]["Output"] == 2.0
        with pytest.raises(ValueError, match="spacing is zero or missing"):
            describe(output_affine=np.zeros((4, 4)))


def run(source, output_dir, inferer, axis=None, save=None, **options):
    """Interpolate a file as the bundles do, and write its provenance."""
    provenance = SaveProvenanced("pred", **{"method": "cubic", **options})
    return interpolate(source, inferer, save or SaveVolumed("pred", output_dir), provenance, axis=axis)["pred"]


def volume(*shape):
    return np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)


def write(path, *shape, spacing=(1, 1, 4), origin=(0, 0, 0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return write_nifti(path, volume(*shape), affine)


@pytest.fixture
def outputs(tmp_path):
    """A scan and its interpolation, as they reach SaveProvenanced."""
    source = write(tmp_path / "a.nii", 4, 4, 3)
    scan = MetaTensor(torch.rand(1, 4, 4, 3), meta={"filename_or_obj": str(source)})
    return {"image": scan, "pred": SplineSliceInferer(factor=2)(scan[None])[0]}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labels_tell_copied_slices(tmp_path, axis):
    """In the input's axis order: slices of label 0 are the input's, bit for bit, the others are not."""
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 5.0
    source = write(tmp_path / "scan.nii.gz", 6, 7, 5, spacing=spacing, origin=(10, -20, 30))
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
    ("shape", "options", "axis", "labels"),
    [
        ((4, 6, 5), {"factor": 3}, 0, [0, 1, 1, 0, 1, 1, 0, 1, 1, 0]),  # the axis that was chosen
        ((4, 6, 5), {"factor": 2, "keep_observed": False}, 2, [1] * 9),
        ((4, 6, 5, 3), {"factor": 2}, 2, [0, 1, 0, 1, 0, 1, 0, 1, 0]),  # one label for all times
    ],
)
def test_labels_of_other_volumes(tmp_path, shape, options, axis, labels):
    run(write(tmp_path / "scan.nii", *shape), tmp_path / "out", SplineSliceInferer(**options), axis=axis)
    output, found = (nib.load(tmp_path / "out" / f"scan_interp{end}.nii.gz") for end in ("", "_provenance"))
    assert output.shape[axis] == len(labels) and found.shape == output.shape[:3]
    stack = np.moveaxis(np.asarray(found.dataobj), axis, -1)
    assert (stack == labels).all()


def test_description(tmp_path):
    source = write(tmp_path / "scan.nii", 4, 6, 5)
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
def test_dicom(tmp_path, multi_frame):
    """Beside a DICOM output; nothing of the patient is told, and other files of the folder do not count."""
    files = write_series(tmp_path / "scan", volume(6, 7, 4), np.diag([0.5, 0.5, 4, 1]), multi_frame=multi_frame)
    expected = input_sha256(tmp_path / "scan", files)
    (tmp_path / "scan" / "notes.txt").write_text("x")
    source = files[0] if multi_frame else tmp_path / "scan"
    run(source, None, SplineSliceInferer(factor=2), save=SaveDicomSeriesd("pred", tmp_path / "out", "cubic"))
    stem = f"{file_stem(source)}_interp"
    assert sorted(os.listdir(tmp_path / "out")) == [stem, f"{stem}.json", f"{stem}_provenance.nii.gz"]
    text = (tmp_path / "out" / f"{stem}.json").read_text()
    assert json.loads(text)["SliceInterpolation"]["SourceSHA256"] == expected
    for secret in (PATIENT_NAME, "Phantom", PATIENT_ID, "19000101", "ACC-001", "20200102", "Referrer", "1.2.826"):
        assert secret not in text
    labels = nib.load(tmp_path / "out" / f"{stem}_provenance.nii.gz")
    np.testing.assert_allclose(labels.affine[:3, :3], np.diag([0.5, 0.5, 2]), atol=1e-6)


def test_failure_leaves_the_older_file(tmp_path, monkeypatch):
    source = write(tmp_path / "scan.nii", 4, 6, 5)
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


def test_weights_are_read_once(tmp_path, outputs):
    (tmp_path / "model.pt").write_bytes(b"x")
    save = SaveProvenanced("pred", "m", weights=tmp_path / "model.pt")
    for name in ("one", "two"):
        outputs["pred"].meta["saved_to"] = str(tmp_path / f"{name}.nii.gz")
        found = save(outputs)["pred"].meta.pop("provenance")["SliceInterpolation"]
        (tmp_path / "model.pt").unlink(missing_ok=True)
    assert found["WeightsSHA256"] and (tmp_path / "two_provenance.nii.gz").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": "no.pt"}, r"no\.pt: cannot be read"),
        ({"bundle_root": "nowhere"}, r"nowhere: holds no metadata\.json"),
    ],
)
def test_errors(tmp_path, outputs, options, text):
    data = SaveVolumed("pred", tmp_path / "out")(outputs)
    with pytest.raises(ValueError, match=text):
        SaveProvenanced("pred", "m", **options)(data)
    assert os.listdir(tmp_path / "out") == ["a_interp.nii.gz"]
    assert SaveProvenanced("none", "m", allow_missing_keys=True)(data) == data


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_label_for_each_slice(axis):
    count = (3, 4, 5)[axis]
    named = f"expected one label for each of the {count} slices along axis {axis}, got {count - 1}"
    with pytest.raises(ValueError, match=named):
        provenance_labels(MetaTensor(torch.zeros(1, 3, 4, 5)), torch.zeros(count - 1, dtype=torch.uint8), axis)
