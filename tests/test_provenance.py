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

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from monai_sliceinterp import __version__, provenance
from monai_sliceinterp.geometry import GridMetadata, OutputGrid
from monai_sliceinterp.provenance import (
    bundle_version,
    describe_output,
    file_sha256,
    input_sha256,
)

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4, of no bytes
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, of "abc"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class TestFileHash:
    @pytest.mark.parametrize(("content", "expected"), [(b"", EMPTY), (b"abc", ABC)])
    def test_published(self, tmp_path, content, expected):
        (tmp_path / "a").write_bytes(content)
        assert file_sha256(tmp_path / "a") == expected

    @pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 5 * 2**20 + 3])
    def test_chunks(self, tmp_path, size):
        content = np.random.default_rng(0).bytes(size)
        (tmp_path / "a").write_bytes(content)
        assert file_sha256(tmp_path / "a") == sha256(content)

    def test_memory_is_bounded(self, tmp_path):
        import tracemalloc

        with (tmp_path / "a").open("wb") as file:
            file.truncate(64 * 2**20)
        tracemalloc.start()
        file_sha256(tmp_path / "a")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * 2**20

    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match=r"model\.pt: cannot be read \(No such file or directory\)"):
            file_sha256(tmp_path / "model.pt")


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
        assert input_sha256(tmp_path / "c") == ABC

    def test_names_do_not_matter_but_voxels_do(self, tmp_path):
        for folder, names, content in (("a", "xy", b"1"), ("b", "zw", b"1"), ("c", "xy", b"2")):
            (tmp_path / folder).mkdir()
            for name, part in zip(names, (content, b"3"), strict=True):
                (tmp_path / folder / name).write_bytes(part)
        first, second, third = (input_sha256(tmp_path / name) for name in "abc")
        assert first == second != third

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
        with pytest.raises(ValueError, match=r"a\.nii: cannot be read"):
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
        (tmp_path / "metadata.json").write_text(text)
        with pytest.raises(ValueError, match=r"metadata\.json: tells no version"):
            bundle_version(tmp_path)

    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match=r"holds no metadata\.json, nor configs/metadata\.json"):
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
                {
                    "Name": "monai_sliceinterp",
                    "Version": __version__,
                    "Description": "slice interpolation, method asi",
                },
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
                "Axis": 1,
                "Factor": 4,
                "Spacing": None,
                "NumberOfSlices": {"Input": 3, "Output": 9},
                "SliceSpacing": {"Input": 6.0, "Output": 1.5},
                "KeepObserved": True,
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

    def test_sheared(self):
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        affine[1, 2] = 1.0  # the planes stay 2 mm apart
        assert describe({"axis": 2}, output_affine=affine)["SliceInterpolation"]["SliceSpacing"]["Output"] == 2.0

    def test_bad_affine(self):
        with pytest.raises(ValueError, match="spacing is zero or missing"):
            describe(output_affine=np.zeros((4, 4)))

    def test_public_names(self):
        assert all(hasattr(provenance, name) for name in provenance.__all__)
