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

"""Images that SimpleITK reads: MetaImage, NRRD, and TIFF stacks, whose headers are checked before it sees them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.data.utils import orientation_ras_lps
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from monai_sliceinterp.formats.headers import Header, check_data, meta_image_header, nrrd_header
from monai_sliceinterp.formats.values import NO_SPACING, UnusableFile, whole_values
from monai_sliceinterp.geometry import compose_affine

__all__ = ["SPACELESS_SUFFIXES", "itk_volume", "read_itk_image", "write_itk_image"]

SPACELESS_SUFFIXES = (".tif", ".tiff")
"""Files without a spacing, which are read only where one is given."""

_PARSERS = {".mha": meta_image_header, ".mhd": meta_image_header, ".nrrd": nrrd_header, ".nhdr": nrrd_header}


def read_itk_image(path: Path, spacing: tuple[float, ...] | None) -> tuple[NDArray[Any], dict[str, Any], bool]:
    """Read a MetaImage, NRRD or TIFF file.

    Args:
        path: the file.
        spacing: voxel size in mm of a file that has none; SimpleITK silently takes 1 mm then.

    Returns:
        Voxels ``(X, Y, Z[, frames])``, metadata with the affine in mm (RAS), and whether the file has a spacing.

    Raises:
        UnusableFile: if the header contradicts the data, tells no spacing, or asks for what is not read.
    """
    parse = _PARSERS.get(path.suffix.lower())
    header = Header() if parse is None else parse(path)
    if not header.has_spacing and spacing is None:
        raise UnusableFile(NO_SPACING)
    check_data(path, header)
    with _no_itk_warnings():
        image = sitk.ReadImage(str(path))
    array, meta = itk_volume(image, header)
    if spacing is not None and not header.has_spacing:
        meta[MetaKeys.AFFINE][:3, :3] *= spacing
        meta[MetaKeys.ORIGINAL_AFFINE] = meta[MetaKeys.AFFINE].copy()
    return array, meta, header.has_spacing


def write_itk_image(array: NDArray[Any], affine: NDArray[np.float64], meta: Mapping[str, Any], path: Path) -> None:
    """Write a volume as MetaImage or NRRD, whichever the name says, compressed.

    Args:
        array: voxels ``(X, Y, Z)`` or ``(X, Y, Z, frames)``.
        affine: 4x4, RAS, mm.
        meta: its metadata, with ``frame_spacing`` in seconds where it is a time series.
        path: the file.

    Raises:
        ValueError: if the affine is sheared, which these formats' readers do not take.
        RuntimeError: if the file cannot be written.
    """
    lps = orientation_ras_lps(np.asarray(affine, dtype=np.float64))
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / lengths
    if abs(directions.T @ directions - np.eye(3)).max() > 1e-5:
        raise ValueError("the slices are sheared (a tilted gantry); expected NIfTI for them.")
    frames = array.ndim - 3
    image = sitk.GetImageFromArray(array.T, isVector=False)
    image.SetSpacing([*lengths.tolist(), *[float(meta.get("frame_spacing", 1.0))] * frames])
    image.SetOrigin([*lps[:3, 3].tolist(), *[0.0] * frames])
    direction = np.eye(array.ndim)
    direction[:3, :3] = directions
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def itk_volume(image: sitk.Image, header: Header | None = None) -> tuple[NDArray[Any], dict[str, Any]]:
    """Convert an image of SimpleITK in memory.

    Args:
        image: the image.
        header: what its file says beyond that, if it comes from one.

    Returns:
        Voxels ``(X, Y, Z[, frames])``, and metadata with the affine in mm (RAS).

    Raises:
        UnusableFile: if its voxels are no gray values.

    Example:
        >>> array, meta = itk_volume(sitk.Image(4, 5, 6, sitk.sitkInt16))
        >>> array.shape, meta["affine"].diagonal().tolist()
        ((4, 5, 6), [-1.0, -1.0, 1.0, 1.0])
    """
    header = header or Header()
    kind = image.GetPixelIDTypeAsString()
    array = sitk.GetArrayViewFromImage(image)
    if "complex" in kind or ("vector" in kind and not header.frames_first):
        raise UnusableFile(f"voxels of type {kind} are not gray values; expected integers or floats.")
    ndim = image.GetDimension()
    affine = np.eye(4)
    if ndim > 2:
        direction = np.reshape(image.GetDirection(), (ndim, ndim))[:3, :3]
        affine = compose_affine(direction, image.GetSpacing()[:3], image.GetOrigin()[:3])
        affine[:3] *= header.in_mm
    meta: dict[str, Any] = {"frame_spacing": image.GetSpacing()[3]} if ndim == 4 else {}
    voxels = np.moveaxis(array, -1, 0).T.copy(order="F") if "vector" in kind else array.T.copy(order="F")
    voxels, packed = whole_values(voxels)
    return voxels, {
        **meta,
        **packed,
        MetaKeys.AFFINE: orientation_ras_lps(affine),
        MetaKeys.ORIGINAL_AFFINE: orientation_ras_lps(affine),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(voxels.shape[:3]),
    }


@contextlib.contextmanager
def _no_itk_warnings() -> Iterator[None]:
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
