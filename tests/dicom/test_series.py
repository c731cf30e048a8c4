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

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, generate_uid

from monai_sliceinterp.dicom import read_dicom
from monai_sliceinterp.dicom.frames import HEADER_TAGS
from monai_sliceinterp.dicom.series import dicom_series, has_dicom, is_dicom, series_headers
from tests.dicom_series import write_series

AFFINE = np.diag([0.7, 0.9, 4.0, 1.0])
ARRAY = np.arange(4 * 5 * 3).reshape(4, 5, 3)


def write_report(path):
    """A DICOM object without an image."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.Modality = "1.2.9", "SR"
    data.save_as(path, enforce_file_format=True)


def test_two_series(tmp_path):
    """Their descriptions, and headers without the patient; hidden files are passed over."""
    paths = write_series(tmp_path, ARRAY, AFFINE, series_uid="1.2.3", description="T1  axial")
    hidden, *_ = write_series(tmp_path, ARRAY, AFFINE, series_uid="1.2.4", description="", prefix="B")
    hidden.rename(hidden.with_name(".part.dcm"))
    assert dicom_series(tmp_path) == {"1.2.4": "no description, 2 files", "1.2.3": "T1 axial, 3 files"}
    headers = series_headers(tmp_path)["1.2.3"]
    assert [path for path, _ in headers] == sorted(paths)
    for _, header in headers:
        assert {element.keyword for element in header} <= {*HEADER_TAGS, "SpecificCharacterSet"}
        assert "Phantom" not in str(header) and header.Rows == 5
    text = r"found 2: 1\.2\.4 \(no description, 2 files\); 1\.2\.3 \(T1 axial, 3 files\)\.$"
    with pytest.raises(ValueError, match=f"expected a folder with one DICOM series, {text}"):
        read_dicom(tmp_path)


def test_what_is_no_image(tmp_path):
    assert not has_dicom(tmp_path) and dicom_series(tmp_path) == {}
    contents = {
        "notes.txt": b"hello",
        "empty.dcm": b"",
        "values.raw": b"\x08\x00\x05\x00" * 99,  # begins as a DICOM file without preamble may
        "zeros.raw": b"\x08\x00\x05\x00" + bytes(4),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name)
    write_report(tmp_path / "report.dcm")
    paths = write_series(tmp_path / "below", ARRAY, AFFINE)
    assert is_dicom(tmp_path / "report.dcm") and has_dicom(tmp_path / "below")
    assert not has_dicom(tmp_path) and dicom_series(tmp_path) == {}
    disk = FileSet()
    for path in paths:
        disk.add(path)
    disk.write(tmp_path / "disk")
    assert is_dicom(tmp_path / "disk" / "DICOMDIR") and not has_dicom(tmp_path / "disk")


@pytest.mark.parametrize("length", [200, 500, 900])
def test_cut_off_header(tmp_path, length):
    """A slice is not lost because its file is cut off."""
    path, *_ = write_series(tmp_path, ARRAY, AFFINE)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"expected a whole one\.$") as caught:
        dicom_series(tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
