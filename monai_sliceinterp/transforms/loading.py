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

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, Transform

from monai_sliceinterp.geometry import spatial_affine

__all__ = ["IMAGE_SUFFIXES", "LoadVolume", "LoadVolumeD", "LoadVolumeDict", "LoadVolumed", "dicom_series"]

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")

_SPACING_FIELDS = {
    (".mha", ".mhd"): rb"^\s*(ElementSpacing|ElementSize)\s*=",
    (".nrrd", ".nhdr"): rb"^\s*(spacings|space directions)\s*:",
}


def dicom_series(folder: str | Path) -> dict[str, str]:
    """List the DICOM series of a folder: series instance UID to description.

    Args:
        folder: folder whose files are looked at, not those of folders below it.

    Example:
        >>> dicom_series(".")
        {}
    """
    series = {}
    for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        reader = sitk.ImageFileReader()
        reader.SetFileName(names[0])
        reader.ReadImageInformation()
        text = reader.GetMetaData("0008|103e").strip() if reader.HasMetaDataKey("0008|103e") else ""
        series[uid] = f"{text or 'no description'}, {len(names)} files"
    return series


class LoadVolume(Transform):
    """Load a volume with its affine, in the type it is stored in, and check that its slices can be interpolated.

    Files are read by MONAI's :class:`monai.transforms.LoadImage`; a folder is read as one DICOM series. A 4D file is a
    time series: its frames become the channels. The metadata gets ``original_ndim`` and, where the file tells it,
    ``frame_spacing``, with which :class:`monai_sliceinterp.transforms.SaveVolumed` writes the same kind of file.

    Raises:
        ValueError: with one line that names the file, if it is missing or not an image, not three-dimensional (or 4D
            with time), has a single slice along every axis, NaN or infinite voxels, no or zero spacing, or if the
            folder holds no DICOM series or more than one.

    Example:
        >>> import tempfile
        >>> import nibabel
        >>> file = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 4), np.int16), np.diag([1, 1, 5, 1])), file)
        >>> volume = LoadVolume()(file)
        >>> tuple(volume.shape), volume.dtype, volume.pixdim.tolist()
        ((1, 8, 9, 4), torch.int16, [1.0, 1.0, 5.0])
    """

    backend = ["numpy"]

    def __init__(self) -> None:
        # named readers: left to itself, LoadImage tries one after another and logs what each of them misses
        self.nifti_loader = LoadImage("NibabelReader", image_only=True, dtype=None, ensure_channel_first=True)
        self.itk_loader = LoadImage("ITKReader", image_only=True, dtype=None, ensure_channel_first=True)

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
        is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
        try:
            image = (self.nifti_loader if is_nifti else self.itk_loader)(str(path))
        except Exception as error:  # every reader has exceptions of its own
            reason = str(error).strip().splitlines()
            known = ", ".join(IMAGE_SUFFIXES)
            raise ValueError(
                f"{path}: cannot be read as an image ({reason[0].rstrip('.') if reason else type(error).__name__}); "
                f"expected {known} or a DICOM folder."
            ) from error
        return self._checked(image, path)

    def _checked(self, image: MetaTensor, path: Path) -> MetaTensor:
        ndim = len(np.atleast_1d(image.meta["spatial_shape"])) if "spatial_shape" in image.meta else image.ndim - 1
        spatial = tuple(image.shape[1:])
        if image.ndim > 4 and all(size == 1 for size in spatial[3:]):
            image = image.reshape(image.shape[:4])
            spatial = tuple(image.shape[1:])
        if image.ndim != 4:
            shape = " x ".join(map(str, spatial))
            raise ValueError(f"{path}: has {image.ndim - 1} dimensions ({shape}); expected a 3D volume, or 4D with time.")
        if min(spatial) < 2:
            shape = " x ".join(map(str, spatial))
            raise ValueError(f"{path}: has a single slice ({shape}); interpolation needs at least 2.")
        if not (image.dtype.is_floating_point or image.dtype in _INTEGERS):
            raise ValueError(f"{path}: voxels of type {image.dtype} are not grey values; expected integers or floats.")
        if image.is_floating_point() and not torch.isfinite(image.as_tensor()).all():
            count = int((~torch.isfinite(image.as_tensor())).sum())
            raise ValueError(f"{path}: has {count} NaN or infinite voxels; expected finite intensities.")
        if not _tells_spacing(path):
            raise ValueError(f"{path}: the header tells no voxel spacing; expected the spacing in mm.")
        try:
            spatial_affine(image.affine)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if image.ndim == 4 and image.shape[0] > 1 and len(image.meta.get("pixdim", ())) > 4:
            image.meta["frame_spacing"] = float(image.meta["pixdim"][4])
        image.meta["original_ndim"] = max(ndim, 3) if image.shape[0] == 1 else 4
        return image


class LoadVolumed(MapTransform):
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
        super().__init__(keys, allow_missing_keys)
        self.transform = LoadVolume()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.transform(result[key])
        return result


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32)


def _tells_spacing(path: Path) -> bool:
    """Whether the header holds a spacing; ITK silently takes 1 mm for MetaImage and NRRD files that have none."""
    for suffixes, pattern in _SPACING_FIELDS.items():
        if path.name.lower().endswith(suffixes):
            with path.open("rb") as file:
                return re.search(pattern, file.read(65536), re.MULTILINE | re.IGNORECASE) is not None
    return True


LoadVolumeD = LoadVolumeDict = LoadVolumed
