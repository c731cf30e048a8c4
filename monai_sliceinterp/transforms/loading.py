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

"""Read a scan from a file or a DICOM folder, and refuse what cannot be interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import MetaKeys, TransformBackends
from monai.utils.type_conversion import UNSUPPORTED_TYPES
from numpy.typing import NDArray
from torch import Tensor

from monai_sliceinterp.checks import positive, switch
from monai_sliceinterp.dicom.reading import read_dicom
from monai_sliceinterp.dicom.series import dicom_series, is_dicom
from monai_sliceinterp.files import IMAGE_SUFFIXES, reason
from monai_sliceinterp.formats import NIFTI_HEADER, SPACELESS_SUFFIXES, read_itk_image, read_nifti
from monai_sliceinterp.formats.values import UnusableFile
from monai_sliceinterp.geometry import axis_spacing
from monai_sliceinterp.transforms.mapping import ApplyToKeys

__all__ = ["LoadVolume", "LoadVolumeD", "LoadVolumeDict", "LoadVolumed", "dicom_series"]

_NIFTI = (".nii", ".nii.gz")

_OF_ONE_SCAN = ("dicom_files", NIFTI_HEADER)
"""Entries of the metadata that are of no use for training: they differ in length, and nothing is written."""

_HEADROOM, _LEVELS = 1e6, 100
"""Factor below the largest float32 that filters may need; fewest steps of float32 between the smallest and the largest
value of a scan."""

_SPACINGS = (1e-5, 1e4)
"""Smallest and largest distance in mm of voxels that are taken for a scan's."""


class LoadVolume(Transform):
    """Transform that loads a volume with its affine, in its stored type, and checks that it can be interpolated.

    NIfTI files are read by MONAI's ``NibabelReader``, MetaImage, NRRD and TIFF files by SimpleITK; a folder is read as
    one DICOM series and a multi-frame DICOM file as one volume, see :func:`monai_sliceinterp.dicom.read_dicom`. The
    affine is in mm (RAS), whatever the file's units. A 4D file is a time series: its frames become the channels;
    further axes of length 1 do not count. The metadata gets ``original_ndim``, ``stored_dtype`` and, where the file has
    it, ``frame_spacing`` in seconds, ``slice_direction`` where it tells the axis of its slices, and its header, with
    which :class:`monai_sliceinterp.transforms.SaveVolumed` writes the same kind of file. As torch computes with few
    unsigned types, uint16 and uint32 become the next larger signed type here.

    Args:
        spacing: voxel size in mm of files that have none: one number for all axes, or three in the order of the array's
            axes. A file with a spacing of its own is refused then. TIFF files have none.
        allow_nan: take NaN voxels (outside the field of view, say). Infinite ones are refused in any case.
        for_training: refuse unevenly spaced slices, which samples cut out of the volume would take for even ones, and
            keep nothing in the metadata that has the length of the stack, which batches of several volumes cannot hold.
        series: which DICOM series of a folder with several, see :func:`monai_sliceinterp.dicom.read_dicom`.
        max_gap_mm: largest gap of a DICOM series in mm; None: three times the nominal one.

    Raises:
        ValueError: with one line that names the file, if it is missing, empty or not an image, not three-dimensional
            (or 4D with time), has a single slice along any axis, voxels that are NaN, infinite or nothing that float32
            can tell apart, no spacing, one that is not of a scan or contradicts itself, or if a folder or DICOM file
            does not hold one stack of slices.

    Example:
        >>> import tempfile
        >>> import nibabel as nib
        >>> file = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nib.save(nib.Nifti1Image(np.ones((8, 9, 4), np.int16), np.diag([1, 1, 5, 1])), file)
        >>> volume = LoadVolume()(file)
        >>> tuple(volume.shape), volume.dtype, volume.pixdim.tolist()
        ((1, 8, 9, 4), torch.int16, [1.0, 1.0, 5.0])
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        spacing: float | Sequence[float] | None = None,
        allow_nan: bool = False,
        for_training: bool = False,
        series: str | int | None = None,
        max_gap_mm: float | None = None,
    ) -> None:
        self.spacing = None if spacing is None else _three_lengths(spacing)
        self.allow_nan = switch("allow_nan", allow_nan)
        self.for_training = switch("for_training", for_training)
        self.series = None if series in (None, "") else str(series)
        self.max_gap_mm = None if max_gap_mm is None else positive("max_gap_mm", max_gap_mm, "mm")

    def __call__(self, filename: str | Path) -> MetaTensor:
        """Load ``filename``: an image file, a DICOM folder or a multi-frame DICOM file; returns ``(C, X, Y, Z)``."""
        path = Path(filename)
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder.")
        if path.is_dir() or _is_dicom(path):
            array, meta = read_dicom(path, self.series, self.max_gap_mm)
            has_spacing = True
        else:
            array, meta, has_spacing = _read_file(path, self.spacing)
        if self.for_training:
            if "slice_positions" in meta:
                raise ValueError(f"{path}: its slices are unevenly spaced or some are missing; expected even gaps.")
            for entry in _OF_ONE_SCAN:
                meta.pop(entry, None)
        shape = " x ".join(map(str, array.shape))
        ndim = array.ndim
        while array.ndim > 4 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim not in (3, 4):
            raise ValueError(f"{path}: has {ndim} dimensions ({shape}); expected a 3D volume, or 4D with time.")
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{path}: voxels of type {array.dtype} are not gray values; expected integers or floats.")
        if not min(array.shape[:3]):
            raise ValueError(f"{path}: has no voxels ({shape}); expected a volume.")
        if min(array.shape[:3]) < 2:
            raise ValueError(f"{path}: has a single slice ({shape}); interpolation needs at least 2.")
        if not array.size:
            raise ValueError(f"{path}: has no frame ({shape}); expected one at least.")
        _check_finite(path, array, self.allow_nan)
        _check_precision(path, array)
        if array.dtype.itemsize > 8:  # extended precision, which torch does not compute with
            array = array.astype(np.float64)
        stored_dtype = str(array.dtype.newbyteorder("="))
        channels_first = np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]
        meta["original_channel_dim"] = 0  # MONAI takes the number of spatial axes from here
        image = MetaTensor(_tensor(channels_first.astype(stored_dtype, copy=False)), meta=meta)
        image.affine = meta[MetaKeys.AFFINE]
        try:
            _check_spacing(axis_spacing(image.affine))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if has_spacing and self.spacing is not None:
            lengths = " x ".join(f"{length:g}" for length in image.pixdim.tolist())
            raise ValueError(f"{path}: has a spacing of its own ({lengths} mm); expected no other one (spacing_in).")
        image.meta["filename_or_obj"] = str(path)
        image.meta["original_ndim"] = ndim
        image.meta["stored_dtype"] = stored_dtype
        return image


class LoadVolumed(ApplyToKeys):
    """Dictionary version of :class:`LoadVolume`.

    Args:
        keys: entries with an image file or a DICOM folder.
        allow_missing_keys: do not raise for keys that are not there.
        spacing: voxel size in mm of files that have none, see :class:`LoadVolume`.
        allow_nan: take NaN voxels.
        for_training: refuse unevenly spaced slices, and keep only metadata that batches can hold.
        series: which DICOM series of a folder with several.
        max_gap_mm: largest gap of a DICOM series in mm.

    Example:
        >>> LoadVolumed("image")({"image": "missing.nii.gz"})
        Traceback (most recent call last):
        ...
        ValueError: missing.nii.gz: no such file or folder.
    """

    backend = LoadVolume.backend

    def __init__(
        self,
        keys: KeysCollection,
        allow_missing_keys: bool = False,
        spacing: float | Sequence[float] | None = None,
        allow_nan: bool = False,
        for_training: bool = False,
        series: str | int | None = None,
        max_gap_mm: float | None = None,
    ) -> None:
        load = LoadVolume(spacing, allow_nan, for_training, series, max_gap_mm)
        super().__init__(keys, load, allow_missing_keys)


def _is_dicom(path: Path) -> bool:
    try:
        return is_dicom(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); expected a readable image file.") from error


def _three_lengths(spacing: float | Sequence[float]) -> tuple[float, ...]:
    try:
        lengths = np.asarray(spacing, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        lengths = np.zeros(0)
    if lengths.size not in (1, 3) or not (np.isfinite(lengths).all() and lengths.min() > 0):
        raise ValueError(
            f"the spacing is {spacing!r}; expected one positive number of mm, or three in the array's order."
        )
    return tuple(np.broadcast_to(lengths, 3).tolist())


def _tensor(array: NDArray) -> Tensor:
    """Make a tensor of the voxels in their order in memory: another order takes as long as reading them."""
    array = array.astype(UNSUPPORTED_TYPES.get(array.dtype, array.dtype), copy=False)
    return torch.from_numpy(array if min(array.strides) >= 0 else np.ascontiguousarray(array))


def _check_finite(path: Path, array: np.ndarray, allow_nan: bool) -> None:
    if array.dtype.kind == "f":
        if allow_nan and (count := int(np.isinf(array).sum())):
            raise ValueError(f"{path}: has {count} infinite voxels; expected finite intensities or NaN.")
        if not allow_nan and (count := int((~np.isfinite(array)).sum())):
            raise ValueError(f"{path}: has {count} NaN or infinite voxels; expected finite intensities.")


def _check_precision(path: Path, array: np.ndarray) -> None:
    """Check that float32, in which networks compute, holds the values and tells them apart."""
    if array.dtype.itemsize < 4 or array.dtype == np.float32:
        return
    low, high = float(np.nanmin(array)), float(np.nanmax(array))
    largest, limits = max(abs(low), abs(high)), np.finfo(np.float32)
    if largest > float(limits.max) / _HEADROOM or 0 < (high - low) < _LEVELS * float(limits.eps) * largest:
        raise ValueError(
            f"{path}: has values from {low:g} to {high:g}, which 32-bit floats cannot compute with; expected another "
            "unit, or an offset taken off."
        )


def _check_spacing(lengths: NDArray[np.float64]) -> None:
    low, high = _SPACINGS
    if lengths.min() < low or lengths.max() > high:
        shown = " x ".join(f"{length:g}" for length in lengths)
        raise ValueError(
            f"the spacing is {shown} mm; expected {low:g} to {high:g} mm: correct the header or its units."
        )


def _read_file(path: Path, spacing: tuple[float, ...] | None) -> tuple[np.ndarray, dict[str, Any], bool]:
    """Read a file that is not DICOM: voxels ``(X, Y, Z[, frames])``, metadata, and whether it has a spacing.

    Args:
        path: the file.
        spacing: voxel size in mm that stands in for the one that the header lacks.
    """
    known = ", ".join(IMAGE_SUFFIXES)
    if not path.stat().st_size:
        raise ValueError(f"{path}: is empty; expected {known} or a DICOM folder.")
    if not path.name.lower().endswith((*IMAGE_SUFFIXES, *SPACELESS_SUFFIXES)):
        raise ValueError(f"{path}: is none of the files that are read; expected {known} or a DICOM folder.")
    read = read_nifti if path.name.lower().endswith(_NIFTI) else read_itk_image
    try:
        return read(path, spacing)
    except UnusableFile as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # every reader has exceptions of its own
        raise ValueError(
            f"{path}: cannot be read as an image ({reason(error)}); expected {known} or a DICOM folder."
        ) from error


LoadVolumeD = LoadVolumeDict = LoadVolumed
