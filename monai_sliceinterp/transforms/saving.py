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

"""Write volumes as NIfTI, whole or not at all."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from monai_sliceinterp.checks import switch
from monai_sliceinterp.files import atomic_path, file_stem

__all__ = ["SaveVolumeD", "SaveVolumeDict", "SaveVolumed", "save_nifti"]


def save_nifti(image: MetaTensor, path: str | Path, ndim: int = 3) -> None:
    """Write a volume as NIfTI, under a temporary name first, so that a killed run leaves no half file.

    Args:
        image: ``(C, X, Y, Z)`` with its affine in mm (RAS); several channels are written as a fourth axis (time).
        path: file to write, ``.nii`` or ``.nii.gz``; its folder must exist.
        ndim: 4 writes the fourth axis also for one channel.

    Raises:
        OSError: if the file cannot be written.
    """
    array = np.moveaxis(image.detach().cpu().numpy(), 0, -1)
    if array.shape[-1] == 1 and ndim < 4:
        array = array[..., 0]
    stored = np.dtype(image.meta.get("stored_dtype", array.dtype))
    if array.dtype.kind == "i" and stored.kind == "u" and _fits(array, stored):
        array = array.astype(stored)  # torch computes with few unsigned types
    if array.dtype == np.int64:  # few readers take 64-bit integers; DICOM and NIfTI scans fit 32 bits
        array = array.astype(np.int32 if _fits(array, np.dtype(np.int32)) else np.float64)
    file = nib.Nifti1Image(array, np.asarray(image.affine.detach().cpu(), dtype=np.float64))
    file.header.set_xyzt_units("mm", "sec")
    file.set_sform(file.affine, code="scanner")
    file.set_qform(file.affine, code="scanner")
    if array.ndim == 4 and "frame_spacing" in image.meta:
        file.header["pixdim"][4] = float(image.meta["frame_spacing"])
    with atomic_path(path) as part:
        nib.save(file, part)


def _fits(array: np.ndarray, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return array.size == 0 or (array.min() >= limits.min and array.max() <= limits.max)


class SaveVolumed(MapTransform):
    """Transform that writes volumes to ``<output_dir>/<stem>_<postfix>.nii.gz``, the stem being that of their source.

    Args:
        keys: volumes ``(C, X, Y, Z)`` with their affine and ``filename_or_obj`` in the metadata.
        output_dir: folder, made if missing.
        postfix: end of the file name, one for all keys or one for each.
        overwrite: replace files that exist. The file that a volume came from is never replaced.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: if a file exists that must not be replaced, or two keys would get the same name.
        OSError: if the file cannot be written.

    Example:
        >>> import os
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> scan = MetaTensor(np.zeros((1, 4, 4, 3)), meta={"filename_or_obj": "scan.nii.gz"})
        >>> saved = SaveVolumed("pred", folder)({"pred": scan})
        >>> os.listdir(folder)
        ['scan_interp.nii.gz']
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        postfix: str | Sequence[str] = "interp",
        overwrite: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.overwrite = Path(output_dir), switch("overwrite", overwrite)
        self.postfix = ensure_tuple_rep(postfix, len(self.keys))
        if len(set(self.postfix)) < len(self.keys):
            raise ValueError(f"the keys {self.keys} have the postfixes {self.postfix}; expected one for each.")

    def check(self, source: str | Path) -> None:
        """Check that the outputs of a file can be written, before they are computed.

        Args:
            source: the file or DICOM folder that the volumes come from.

        Raises:
            ValueError: if an output exists that must not be replaced.
        """
        for path in self.output_files(source):
            self._check_free(path, source)

    def output_files(self, source: str | Path, before: Sequence[Path] = ()) -> list[Path]:
        """List the files that will be written for an input.

        Args:
            source: the file or DICOM folder that the volumes come from.
            before: what earlier steps write.
        """
        return [self.output_dir / f"{file_stem(source)}_{postfix}.nii.gz" for postfix in self.postfix]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key; ``saved_to`` in its metadata is the file."""
        result = dict(data)
        for key, postfix in self.key_iterator(result, self.postfix):
            image = result[key]
            source = image.meta["filename_or_obj"]
            path = self.output_files(source)[self.postfix.index(postfix)]
            self._check_free(path, source)
            self.output_dir.mkdir(parents=True, exist_ok=True)
            save_nifti(image, path, ndim=int(image.meta.get("original_ndim", 3)))
            image.meta["saved_to"] = str(path)
        return result

    def _check_free(self, path: Path, source: str | Path) -> None:
        if path.is_symlink() or path.exists():
            if path.exists() and Path(source).exists() and path.samefile(source):
                raise ValueError(f"{path}: is the input itself; expected another output_dir.")
            if not self.overwrite:
                raise ValueError(f"{path}: exists already; expected another output_dir, or --overwrite true.")


SaveVolumeD = SaveVolumeDict = SaveVolumed
