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

"""UIDs of a derived series that follow from what it is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydicom import config, dcmread
from pydicom.uid import generate_uid

__all__ = ["with_derived_uids"]


def with_derived_uids(files: Sequence[Path], sources: Sequence[Path], folder: Path) -> None:
    """Write a derived series anew, with UIDs that follow from what it is made of.

    The UIDs are a hash of the source's instances, the derivations, the positions and the pixels: the same series
    interpolated in the same way is the same to an archive, and one that differs in a voxel is another.

    Args:
        files: the derived instances.
        sources: instances of the source.
        folder: folder to write to; it has to be there.

    Raises:
        OSError: if a file cannot be written.
    """
    with config.disable_value_validation():  # values of the source may be odd
        digest = hashlib.sha256()
        headers = [dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]) for path in sources]
        digest.update("\n".join(sorted(str(header.SOPInstanceUID) for header in headers)).encode())
        for path in files:
            data = dcmread(path)
            digest.update(f"{data.DerivationDescription}\n{data.ImagePositionPatient}\n".encode())
            digest.update(data.PixelData)
        series = digest.hexdigest()
        for number, path in enumerate(files, 1):
            data = dcmread(path)
            data.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
            data.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
            data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
            data.save_as(folder / path.name, enforce_file_format=True)
