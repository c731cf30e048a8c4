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
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, generate_uid

from monai_sliceinterp.dicom.frames import HEADER_TAGS
from monai_sliceinterp.dicom.series import dicom_series, has_dicom, is_dicom, series_headers
from tests.dicom_series import write_series

AFFINE = np.diag([0.7, 0.9, 4.0, 1.0])
ARRAY = np.arange(4 * 5 * 3).reshape(4, 5, 3)


def write_report(folder):
    """A DICOM object without an image."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.Modality = "1.2.9", "SR"
    data.save_as(folder / "report.dcm", enforce_file_format=True)


def bare(path):
    """The file without preamble and meta information, as old writers leave it."""
    data = pydicom.dcmread(path)
    content = path.read_bytes()
    path.write_bytes(content[144 + data.file_meta.FileMetaInformationGroupLength :])
    assert path.read_bytes()[:4] == b"\x08\x00\x08\x00"


def test_two_series(tmp_path):
    write_series(tmp_path, ARRAY, AFFINE, series_uid="1.2.3", description="T1  axial")
    write_series(tmp_path, ARRAY, AFFINE, series_uid="1.2.4", description="", prefix="B", drop=[1])
    assert dicom_series(tmp_path) == {"1.2.4": "no description, 2 files", "1.2.3": "T1 axial, 3 files"}


def test_headers_hold_no_patient(tmp_path):
    paths = write_series(tmp_path, ARRAY, AFFINE, series_uid="1.2.3")
    (headers,) = series_headers(tmp_path).values()
    assert [path for path, _ in headers] == sorted(paths)
    for _, header in headers:
        assert {element.keyword for element in header} <= {*HEADER_TAGS, "SpecificCharacterSet"}
        assert "Phantom" not in str(header) and header.Rows == 5


def test_what_is_no_image(tmp_path):
    assert not has_dicom(tmp_path) and dicom_series(tmp_path) == {}
    write_report(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "values.raw").write_bytes(b"\x08\x00\x05\x00" * 99)  # begins as a DICOM file without preamble may
    (tmp_path / "zeros.raw").write_bytes(b"\x08\x00\x05\x00" + bytes(4))
    (tmp_path / "below").mkdir()
    write_series(tmp_path / "below", ARRAY, AFFINE)
    assert is_dicom(tmp_path / "report.dcm") and not is_dicom(tmp_path / "values.raw")
    assert not is_dicom(tmp_path / "zeros.raw") and not is_dicom(tmp_path / "empty.dcm")
    assert not has_dicom(tmp_path) and dicom_series(tmp_path) == {}
    assert has_dicom(tmp_path / "below")


def test_directory_file(tmp_path):
    """The DICOMDIR of a disk is no image."""
    paths = write_series(tmp_path / "source", ARRAY, AFFINE)
    disk = FileSet()
    for path in paths:
        disk.add(path)
    disk.write(tmp_path / "disk")
    assert is_dicom(tmp_path / "disk" / "DICOMDIR") and not has_dicom(tmp_path / "disk")


def test_hidden_files(tmp_path):
    path, *_ = write_series(tmp_path, ARRAY, AFFINE, series_uid="1.2.3")
    path.rename(path.with_name(".part.dcm"))
    assert dicom_series(tmp_path) == {"1.2.3": "phantom, 2 files"}


def test_without_preamble(tmp_path):
    for path in write_series(tmp_path, ARRAY, AFFINE, series_uid="1.2.3"):
        bare(path)
    assert dicom_series(tmp_path) == {"1.2.3": "phantom, 3 files"}


@pytest.mark.parametrize("kept", [200, 500, 900])
def test_cut_off_header(tmp_path, kept):
    """A slice is not lost because its file is cut off."""
    path, *_ = write_series(tmp_path, ARRAY, AFFINE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"expected a whole one\.$") as caught:
        dicom_series(tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
