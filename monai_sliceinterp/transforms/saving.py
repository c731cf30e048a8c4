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

"""Write volumes as NIfTI, or in the format they came in, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep
from numpy.typing import NDArray

from monai_sliceinterp.checks import switch
from monai_sliceinterp.files import atomic_path, check_free, file_stem
from monai_sliceinterp.formats import nifti_image, write_itk_image, write_nifti
from monai_sliceinterp.formats.values import stored_values

__all__ = ["SaveVolumeD", "SaveVolumeDict", "SaveVolumed", "save_like", "save_nifti"]


_LONGEST_NAME = 255
"""Bytes that the name of a file has at most on most file systems."""

_SAME = {".mha": ".mha", ".mhd": ".mha", ".nrrd": ".nrrd", ".nhdr": ".nrrd"}
"""The format, as one file, in which inputs other than NIfTI may be written back."""


def save_nifti(image: MetaTensor, path: str | Path, ndim: int = 3) -> None:
    """Write a volume as NIfTI, under a temporary name first, so that a killed run leaves no half file.

    The type of the voxels, slope and offset, and what the header states beside the grid are those of the source, see
    :func:`monai_sliceinterp.formats.nifti_image`.

    Args:
        image: ``(C, X, Y, Z)`` with its affine in mm (RAS); several channels are written as a fourth axis (time).
        path: file to write, ``.nii`` or ``.nii.gz``; its folder must exist.
        ndim: number of axes to write at least; 4 writes the fourth axis also for one channel.

    Raises:
        OSError: if the file cannot be written.
    """
    array, slope, offset = _array(image, ndim)
    file = nifti_image(array, np.asarray(image.affine.detach().cpu(), dtype=np.float64), image.meta)
    file.header.set_slope_inter(slope, offset)
    with atomic_path(path) as part:
        write_nifti(file, part)


def save_like(image: MetaTensor, path: str | Path, ndim: int = 3) -> None:
    """Write a volume in the format that the file's name tells: NIfTI, MetaImage (``.mha``) or NRRD (``.nrrd``).

    Args:
        image: see :func:`save_nifti`.
        path: file to write; its folder must exist.
        ndim: see :func:`save_nifti`.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if the format cannot hold the volume.
    """
    if str(path).lower().endswith((".nii", ".nii.gz")):
        save_nifti(image, path, ndim)
        return
    array, slope, offset = _array(image, min(ndim, 4))
    if (slope, offset) != (1.0, 0.0):
        raise ValueError(f"{path}: values with a slope of {slope:g}; expected NIfTI for them.")
    try:
        with atomic_path(path) as part:
            write_itk_image(array, np.asarray(image.affine.detach().cpu(), dtype=np.float64), image.meta, part)
    except ValueError as error:  # which does not know this name
        raise ValueError(f"{path}: {error}") from error


def _array(image: MetaTensor, ndim: int) -> tuple[NDArray[Any], float, float]:
    """Voxels ``(X, Y, Z, ...)`` in the type to be stored, slope and offset."""
    array = np.moveaxis(image.detach().cpu().numpy(), 0, -1)
    if array.shape[-1] == 1 and ndim < 4:
        array = array[..., 0]
    array = array.reshape(*array.shape, *[1] * (ndim - array.ndim))
    array, slope, offset = stored_values(array, image.meta)
    stored = np.dtype(image.meta.get("stored_dtype", array.dtype))
    if (slope, offset) == (1.0, 0.0) and array.dtype.kind == "i" and stored.kind == "u" and _fits(array, stored):
        array = array.astype(stored)  # torch computes with few unsigned types
    if array.dtype == np.int64:  # few readers take 64-bit integers; DICOM and NIfTI scans fit 32 bits
        array = array.astype(np.int32 if _fits(array, np.dtype(np.int32)) else np.float64)
    return array, slope, offset


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
        same_format: write MetaImage for MetaImage and NRRD for NRRD (each as one file) instead of NIfTI.
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
        same_format: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.overwrite = Path(output_dir), switch("overwrite", overwrite)
        self.same_format = switch("same_format", same_format)
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
        suffix = _SAME.get(Path(source).suffix.lower(), ".nii.gz") if self.same_format else ".nii.gz"
        return [self.output_dir / f"{file_stem(source)}_{postfix}{suffix}" for postfix in self.postfix]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key; ``saved_to`` in its metadata is the file."""
        result = dict(data)
        for key, postfix in self.key_iterator(result, self.postfix):
            image = result[key]
            source = image.meta["filename_or_obj"]
            path = self.output_files(source)[self.postfix.index(postfix)]
            self._check_free(path, source)
            self.output_dir.mkdir(parents=True, exist_ok=True)
            save_like(image, path, ndim=int(image.meta.get("original_ndim", 3)))
            image.meta["saved_to"] = str(path)
        return result

    def _check_free(self, path: Path, source: str | Path) -> None:
        if len(os.fsencode(path.name)) > _LONGEST_NAME:
            raise ValueError(
                f"{path.name}: is a name of more than {_LONGEST_NAME} bytes; expected a shorter input name."
            )
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise ValueError(f"{path}: is the input itself; expected another output_dir.")
        check_free(path, self.overwrite)


SaveVolumeD = SaveVolumeDict = SaveVolumed
