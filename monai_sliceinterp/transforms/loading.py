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

import contextlib
import gzip
import io
import math
import re
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelReader
from monai.data.utils import correct_nifti_header_if_necessary, orientation_ras_lps
from monai.transforms import Transform
from monai.utils import MetaKeys, SpaceKeys, TransformBackends

from monai_sliceinterp.checks import switch
from monai_sliceinterp.dicom.reading import read_dicom
from monai_sliceinterp.dicom.series import dicom_series, is_dicom
from monai_sliceinterp.files import IMAGE_SUFFIXES, reason
from monai_sliceinterp.geometry import compose_affine, spatial_affine
from monai_sliceinterp.transforms.mapping import ApplyToKeys

__all__ = ["LoadVolume", "LoadVolumeD", "LoadVolumeDict", "LoadVolumed", "dicom_series"]

_NIFTI = (".nii", ".nii.gz")
_NO_SPACING = "the spacing is zero or missing in the header; expected voxel sizes in mm, in the file or given."

_SPACING_FIELDS = {
    (".mha", ".mhd"): rb"^\s*(ElementSpacing|ElementSize)\s*=",
    (".nrrd", ".nhdr"): rb"^\s*(spacings|space directions)\s*:",
}

_IN_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}
_IN_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


class _Unusable(ValueError):
    """Fault of a file that was read, without its name."""


class LoadVolume(Transform):
    """Transform that loads a volume with its affine, in its stored type, and checks that it can be interpolated.

    NIfTI files are read by MONAI's ``NibabelReader``, others by SimpleITK; a folder is read as one DICOM series and a
    multi-frame DICOM file as one volume, see :func:`monai_sliceinterp.dicom.read_dicom`. The affine is in mm (RAS),
    whatever the file's units. A 4D file is a time series: its frames become the channels. The metadata gets
    ``original_ndim``, ``stored_dtype`` and, where the file has it, ``frame_spacing`` in seconds, with which
    :class:`monai_sliceinterp.transforms.SaveVolumed` writes the same kind of file. As torch computes with few unsigned
    types, uint16 and uint32 become the next larger signed type here.

    Args:
        spacing: voxel size in mm of files that have none: one number for all axes, or three in the order of the array's
            axes. A file with a spacing of its own is refused then.
        allow_nan: take NaN voxels (outside the field of view, say). Infinite ones are refused in any case.
        for_training: refuse unevenly spaced slices, which samples cut out of the volume would take for even ones, and
            keep nothing in the metadata that has the length of the stack, which batches of several volumes cannot hold.

    Raises:
        ValueError: with one line that names the file, if it is missing or not an image, not three-dimensional (or 4D
            with time), has a single slice along any axis, NaN or infinite voxels, no or zero spacing, or if a folder
            or DICOM file does not hold one stack of slices.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nib.save(nib.Nifti1Image(np.ones((8, 9, 4), np.int16), np.diag([1, 1, 5, 1])), file)
        >>> volume = LoadVolume()(file)
        >>> tuple(volume.shape), volume.dtype, volume.pixdim.tolist()
        ((1, 8, 9, 4), torch.int16, [1.0, 1.0, 5.0])
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self, spacing: float | Sequence[float] | None = None, allow_nan: bool = False, for_training: bool = False
    ) -> None:
        self.spacing = None if spacing is None else _three_lengths(spacing)
        self.allow_nan = switch("allow_nan", allow_nan)
        self.for_training = switch("for_training", for_training)

    def __call__(self, filename: str | Path) -> MetaTensor:
        """Load ``filename``: an image file, a DICOM folder or a multi-frame DICOM file; returns ``(C, X, Y, Z)``."""
        path = Path(filename)
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder.")
        if path.is_dir() or _is_dicom(path):
            array, meta = read_dicom(path)
            has_spacing = True
        else:
            array, meta, has_spacing = _read_file(path, self.spacing)
        if self.for_training:
            if "slice_positions" in meta:
                raise ValueError(f"{path}: its slices are unevenly spaced or some are missing; expected even gaps.")
            meta.pop("dicom_files", None)
        shape = " x ".join(map(str, array.shape))
        if array.ndim not in (3, 4):
            raise ValueError(f"{path}: has {array.ndim} dimensions ({shape}); expected a 3D volume, or 4D with time.")
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{path}: voxels of type {array.dtype} are not gray values; expected integers or floats.")
        if min(array.shape[:3]) < 2:
            raise ValueError(f"{path}: has a single slice ({shape}); interpolation needs at least 2.")
        if not array.size:
            raise ValueError(f"{path}: has no frame ({shape}); expected one at least.")
        _check_finite(path, array, self.allow_nan)
        stored_dtype = str(array.dtype.newbyteorder("="))
        channels_first = np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]
        meta["original_channel_dim"] = 0  # MONAI takes the number of spatial axes from here
        image = MetaTensor.ensure_torch_and_prune_meta(channels_first.astype(stored_dtype, copy=False), meta)
        try:
            spatial_affine(image.affine)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if has_spacing and self.spacing is not None:
            lengths = " x ".join(f"{length:g}" for length in image.pixdim.tolist())
            raise ValueError(f"{path}: has a spacing of its own ({lengths} mm); expected none to be given.")
        image.meta["filename_or_obj"] = str(path)
        image.meta["original_ndim"] = array.ndim
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
    ) -> None:
        super().__init__(keys, LoadVolume(spacing, allow_nan, for_training), allow_missing_keys)


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


def _check_finite(path: Path, array: np.ndarray, allow_nan: bool) -> None:
    if array.dtype.kind == "f":
        if allow_nan and (count := int(np.isinf(array).sum())):
            raise ValueError(f"{path}: has {count} infinite voxels; expected finite intensities or NaN.")
        if not allow_nan and (count := int((~np.isfinite(array)).sum())):
            raise ValueError(f"{path}: has {count} NaN or infinite voxels; expected finite intensities.")


def _read_file(path: Path, spacing: tuple[float, ...] | None) -> tuple[np.ndarray, dict[str, Any], bool]:
    """Read a file that is not DICOM: voxels ``(X, Y, Z[, frames])``, metadata, and whether it has a spacing.

    Args:
        path: the file.
        spacing: voxel size in mm that stands in for the one that the header lacks.
    """
    read = _read_nifti if path.name.lower().endswith(_NIFTI) else _read_with_itk
    try:
        return read(path, spacing)
    except _Unusable as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # every reader has exceptions of its own
        known = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(
            f"{path}: cannot be read as an image ({reason(error)}); expected {known} or a DICOM folder."
        ) from error


def _read_nifti(path: Path, spacing: tuple[float, ...] | None) -> tuple[np.ndarray, dict[str, Any], bool]:
    """Read with MONAI, which needs to open and decompress the file only once."""
    stream = _decompressed(path) if path.name.lower().endswith(".gz") else None
    size = path.stat().st_size if stream is None else stream.getbuffer().nbytes
    with path.open("rb") if stream is None else contextlib.nullcontext(stream) as file:
        block = file.read(540)
    sizes = (*struct.unpack("<i", block[:4]), *struct.unpack(">i", block[:4]))
    kind: Any = nib.Nifti2Image if 540 in sizes else nib.Nifti1Image
    start = kind.header_class(block[: kind.header_class.sizeof_hdr], check=False)
    has_spacing = int(start["sform_code"]) > 0 or bool((start["pixdim"][1:4] != 0).all())
    if not has_spacing and spacing is None:
        raise _Unusable(_NO_SPACING)
    if stream is not None:
        stream.seek(0)
    image: Any = nib.load(path) if stream is None else kind.from_stream(stream)
    claimed = image.dataobj.offset + math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize
    if size < claimed:  # known before memory is taken for it
        raise ValueError(f"it holds {size} bytes and its header tells of {claimed}")
    header, affine = image.header.copy(), np.array(image.affine, dtype=np.float64)
    space_unit, time_unit = header.get_xyzt_units()
    unit = _IN_MM.get(space_unit, 1.0)
    if spacing is not None and not has_spacing:
        header["pixdim"][1:4] = np.divide(spacing, unit)
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= unit
    reader = NibabelReader()
    reader.filenames = (str(path),)
    # MONAI's reader alters header and affine where they contradict each other
    array, meta = reader.get_data(correct_nifti_header_if_necessary(image))
    if array.ndim == 4:
        meta["frame_spacing"] = float(header.get_zooms()[3]) * _IN_SECONDS.get(time_unit, 1.0)
    meta = {**meta, MetaKeys.AFFINE: affine, MetaKeys.ORIGINAL_AFFINE: affine.copy()}
    return np.asarray(array), meta, has_spacing


def _decompressed(path: Path) -> io.BytesIO:
    """Decompress a file, to its end and with its sum checked, which the reader of NIfTI files does not do."""
    stream = io.BytesIO()
    with gzip.open(path) as file:
        shutil.copyfileobj(file, stream, 1 << 20)
    stream.seek(0)
    return stream


def _read_with_itk(path: Path, spacing: tuple[float, ...] | None) -> tuple[np.ndarray, dict[str, Any], bool]:
    """Read with SimpleITK, which silently takes 1 mm where the header has no spacing."""
    pattern = next(
        (pattern for suffixes, pattern in _SPACING_FIELDS.items() if path.name.lower().endswith(suffixes)), b""
    )
    with path.open("rb") as file:
        has_spacing = re.search(pattern, file.read(65536), re.MULTILINE | re.IGNORECASE) is not None
    if not has_spacing and spacing is None:
        raise _Unusable(_NO_SPACING)
    _check_compressed(path)
    with _no_itk_warnings():
        array, meta = _from_itk(sitk.ReadImage(str(path)))
    if spacing is not None and not has_spacing:
        meta[MetaKeys.AFFINE][:3, :3] *= spacing
        meta[MetaKeys.ORIGINAL_AFFINE] = meta[MetaKeys.AFFINE].copy()
    return array, meta, has_spacing


def _check_compressed(path: Path) -> None:
    """Check the compressed voxels of a MetaImage, whose reader takes damaged ones for an image."""
    if not path.name.lower().endswith((".mha", ".mhd")):
        return
    with path.open("rb") as file:
        start = file.read(65536)
    head = re.match(rb"(.*?^\s*ElementDataFile\s*=\s*(\S*)[^\n]*\n?)", start, re.DOTALL | re.MULTILINE | re.IGNORECASE)
    if head is None or not re.search(rb"^\s*CompressedData\s*=\s*True", head[1], re.MULTILINE | re.IGNORECASE):
        return
    is_local = head[2].upper() == b"LOCAL"
    stream = zlib.decompressobj(wbits=47)  # zlib or gzip
    with (path if is_local else path.parent / head[2].decode()).open("rb") as file:
        file.seek(len(head[1]) if is_local else 0)
        try:
            while not stream.eof and (chunk := file.read(1 << 20)):
                stream.decompress(chunk)
        except zlib.error as error:
            raise ValueError(f"its compressed voxels are damaged: {error}") from error
    if not stream.eof:
        raise ValueError("its compressed voxels end early")


def _from_itk(image: sitk.Image) -> tuple[np.ndarray, dict[str, Any]]:
    """Convert an image in memory."""
    kind = image.GetPixelIDTypeAsString()
    if "vector" in kind or "complex" in kind:
        raise _Unusable(f"voxels of type {kind} are not gray values; expected integers or floats.")
    ndim = image.GetDimension()
    affine = np.eye(4)
    if ndim > 2:
        direction = np.reshape(image.GetDirection(), (ndim, ndim))[:3, :3]
        affine = compose_affine(direction, image.GetSpacing()[:3], image.GetOrigin()[:3])
    meta: dict[str, Any] = {"frame_spacing": image.GetSpacing()[3]} if ndim == 4 else {}
    array = sitk.GetArrayFromImage(image).T
    return array, {
        **meta,
        MetaKeys.AFFINE: orientation_ras_lps(affine),
        MetaKeys.ORIGINAL_AFFINE: orientation_ras_lps(affine),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[:3]),
    }


@contextlib.contextmanager
def _no_itk_warnings() -> Iterator[None]:
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


LoadVolumeD = LoadVolumeDict = LoadVolumed
