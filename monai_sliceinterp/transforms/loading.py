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

import gzip
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelReader
from monai.data.utils import orientation_ras_lps
from monai.transforms import Transform
from monai.utils import MetaKeys, SpaceKeys, TransformBackends

from monai_sliceinterp.files import IMAGE_SUFFIXES
from monai_sliceinterp.geometry import spatial_affine
from monai_sliceinterp.transforms.mapping import ApplyToKeys

__all__ = ["LoadVolume", "LoadVolumeD", "LoadVolumeDict", "LoadVolumed", "dicom_series"]

_SPACING_FIELDS = {
    (".mha", ".mhd"): rb"^\s*(ElementSpacing|ElementSize)\s*=",
    (".nrrd", ".nhdr"): rb"^\s*(spacings|space directions)\s*:",
}

_IN_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}
_IN_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}

_UNEVEN = 0.05
"""Gaps between DICOM slices may differ from their mean by this fraction; more means that slices are missing."""


class _Unusable(ValueError):
    """What is wrong with a file that was read, without its name."""


def dicom_series(folder: str | Path) -> dict[str, str]:
    """List the DICOM series of a folder: series instance UID to description.

    Args:
        folder: folder whose files are looked at, not those of folders below it.

    Example:
        >>> dicom_series(".")
        {}
    """
    series = {}
    with _no_itk_warnings():  # a folder without DICOM files is not worth one
        uids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    for uid in uids:
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        reader = sitk.ImageFileReader()
        reader.SetFileName(names[0])
        reader.ReadImageInformation()
        text = reader.GetMetaData("0008|103e").strip() if reader.HasMetaDataKey("0008|103e") else ""
        series[uid] = f"{text or 'no description'}, {len(names)} files"
    return series


class LoadVolume(Transform):
    """Load a volume with its affine, in the type it is stored in, and check that its slices can be interpolated.

    NIfTI files are read by MONAI's ``NibabelReader``, others by SimpleITK; a folder is read as one DICOM series, whose
    affine comes from the positions of its slices (also where a tilted gantry shears the stack). The affine is in mm
    (RAS), whatever the file's units. A 4D file is a time series: its frames become the channels. The metadata gets
    ``original_ndim``, ``stored_dtype`` and, where the file tells it, ``frame_spacing`` in seconds, with which
    :class:`monai_sliceinterp.transforms.SaveVolumed` writes the same kind of file. As torch computes with few unsigned
    types, uint16 and uint32 become the next larger signed type here.

    Raises:
        ValueError: with one line that names the file, if it is missing or not an image, not three-dimensional (or 4D
            with time), has a single slice along any axis, NaN or infinite voxels, no or zero spacing, or if the
            folder holds no DICOM series or more than one, or a series whose slices are not evenly spaced.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nib.save(nib.Nifti1Image(np.ones((8, 9, 4), np.int16), np.diag([1, 1, 5, 1])), file)
        >>> volume = LoadVolume()(file)
        >>> tuple(volume.shape), volume.dtype, volume.pixdim.tolist()
        ((1, 8, 9, 4), torch.int16, [1.0, 1.0, 5.0])
    """

    backend = [TransformBackends.NUMPY]

    def __call__(self, filename: str | Path) -> MetaTensor:
        """Load ``filename``: an image file or a DICOM folder; returns ``(C, X, Y, Z)``."""
        path = Path(filename)
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder.")
        if path.is_dir():
            series = dicom_series(path)
            if len(series) != 1:
                found = "; ".join(f"{uid} ({text})" for uid, text in series.items()) or "none"
                raise ValueError(f"{path}: expected a folder with one DICOM series, found {len(series)}: {found}.")
        try:
            tells_spacing = _tells_spacing(path)
            array, meta = _read(path) if tells_spacing else (np.zeros((2, 2, 2)), {})
        except _Unusable as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:  # every reader has exceptions of its own
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            reason = lines[-1].strip().rstrip(".") if lines else type(error).__name__
            known = ", ".join(IMAGE_SUFFIXES)
            raise ValueError(
                f"{path}: cannot be read as an image ({reason}); expected {known} or a DICOM folder."
            ) from error
        if not tells_spacing:
            raise ValueError(f"{path}: the spacing is zero or missing in the header; expected voxel sizes in mm.")
        shape = " x ".join(map(str, array.shape))
        if array.ndim not in (3, 4):
            raise ValueError(f"{path}: has {array.ndim} dimensions ({shape}); expected a 3D volume, or 4D with time.")
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{path}: voxels of type {array.dtype} are not grey values; expected integers or floats.")
        if min(array.shape[:3]) < 2:
            raise ValueError(f"{path}: has a single slice ({shape}); interpolation needs at least 2.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise ValueError(f"{path}: has {count} NaN or infinite voxels; expected finite intensities.")
        stored_dtype = str(array.dtype.newbyteorder("="))
        image = MetaTensor.ensure_torch_and_prune_meta(array.astype(stored_dtype, copy=False), meta)
        try:
            spatial_affine(image.affine)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        image.meta["filename_or_obj"] = str(path)
        image.meta["original_ndim"] = array.ndim
        image.meta["stored_dtype"] = stored_dtype
        moved = image.movedim(3, 0) if array.ndim == 4 else image[None]
        moved.meta["original_channel_dim"] = 0
        return moved


class LoadVolumed(ApplyToKeys):
    """Dictionary version of :class:`LoadVolume`.

    Args:
        keys: entries with an image file or a DICOM folder.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> LoadVolumed("image")({"image": "missing.nii.gz"})
        Traceback (most recent call last):
        ...
        ValueError: missing.nii.gz: no such file or folder.
    """

    backend = LoadVolume.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, LoadVolume(), allow_missing_keys)


def _read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Read voxels ``(X, Y, Z)`` or ``(X, Y, Z, frames)`` in the type they are stored in, and the metadata."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        with _no_itk_warnings():
            return _read_dicom(path) if path.is_dir() else _from_itk(sitk.ReadImage(str(path)))
    reader = NibabelReader()
    array, meta = reader.get_data(reader.read(str(path)))
    file: Any = nib.load(path)  # MONAI's reader alters header and affine where they contradict each other
    space_unit, time_unit = file.header.get_xyzt_units()
    affine = np.array(file.affine, dtype=np.float64)
    affine[:3] *= _IN_MM.get(space_unit, 1.0)
    meta[MetaKeys.AFFINE], meta[MetaKeys.ORIGINAL_AFFINE] = affine, affine.copy()
    if array.ndim == 4:
        meta["frame_spacing"] = float(file.header.get_zooms()[3]) * _IN_SECONDS.get(time_unit, 1.0)
    return np.asarray(array), dict(meta)


def _from_itk(image: sitk.Image) -> tuple[np.ndarray, dict[str, Any]]:
    """Convert an image in memory."""
    kind = image.GetPixelIDTypeAsString()
    if "vector" in kind or "complex" in kind:
        raise _Unusable(f"voxels of type {kind} are not grey values; expected integers or floats.")
    ndim = image.GetDimension()
    affine = np.eye(4)
    if ndim > 2:
        direction = np.reshape(image.GetDirection(), (ndim, ndim))[:3, :3]
        affine[:3, :3] = direction * image.GetSpacing()[:3]
        affine[:3, 3] = image.GetOrigin()[:3]
    meta: dict[str, Any] = {"frame_spacing": image.GetSpacing()[3]} if ndim == 4 else {}
    array = sitk.GetArrayFromImage(image).T
    return array, {
        **meta,
        MetaKeys.AFFINE: orientation_ras_lps(affine),
        MetaKeys.ORIGINAL_AFFINE: orientation_ras_lps(affine),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[:3]),
    }


def _read_dicom(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Read the one DICOM series of a folder, its affine from the positions of the slices."""
    (uid,) = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
    if len(names) == 1:  # one file of many frames, or a single slice
        return _from_itk(sitk.ReadImage(names[0]))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()

    def tags(tag: str) -> list[str]:
        return [reader.GetMetaData(k, tag).strip() if reader.HasMetaDataKey(k, tag) else "" for k in range(len(names))]

    if not all(tags("0020|0032")) or not all(tags("0028|0030")):
        raise _Unusable("slices without a position or pixel spacing; expected the DICOM tags (0020,0032), (0028,0030).")
    positions, directions = (
        np.array([text.split("\\") for text in tags(tag)], dtype=np.float64) for tag in ("0020|0032", "0020|0037")
    )
    if abs(directions - directions[0]).max() > 1e-3:
        raise _Unusable("the slices of the DICOM series are not parallel; expected one stack.")
    gaps = np.diff(positions @ np.cross(directions[0, :3], directions[0, 3:]))
    mean = gaps.mean()
    if not gaps.min() > 1e-3:
        raise _Unusable("the DICOM series has several images at one position; expected one volume, not time frames.")
    if abs(gaps - mean).max() > _UNEVEN * mean:
        found = f"{gaps.min():g} to {gaps.max():g} mm"
        raise _Unusable(f"the DICOM slices are {found} apart; expected even gaps, none missing.")
    array, meta = _from_itk(image)
    step = (positions[-1] - positions[0]) / (len(names) - 1)  # the reader takes it for perpendicular to the slices
    for key in (MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE):
        meta[key][:3, 2] = step * (-1, -1, 1) + 0.0  # LPS to RAS
    thickness = set(tags("0018|0050"))
    if len(thickness) == 1:
        meta["0018|0050"] = thickness.pop()
    return array, meta


@contextmanager
def _no_itk_warnings() -> Iterator[None]:
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _tells_spacing(path: Path) -> bool:
    """Whether the header holds a spacing. Readers silently take 1 mm where there is none."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            block = file.read(540)
        sizes = (*struct.unpack("<i", block[:4]), *struct.unpack(">i", block[:4]))
        kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
        header = kind(block[: kind.sizeof_hdr], check=False)
        return int(header["sform_code"]) > 0 or bool((header["pixdim"][1:4] != 0).all())
    for suffixes, pattern in _SPACING_FIELDS.items():
        if name.endswith(suffixes):
            with path.open("rb") as file:
                return re.search(pattern, file.read(65536), re.MULTILINE | re.IGNORECASE) is not None
    return True


LoadVolumeD = LoadVolumeDict = LoadVolumed
