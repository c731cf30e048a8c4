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

"""NIfTI files: voxels in their stored type, and every fact of the header that still holds after interpolation."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import struct
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from monai.data import NibabelReader
from monai.utils import MetaKeys
from numpy.typing import NDArray

from monai_sliceinterp.formats.values import NO_SPACING, UnusableFile, whole_values
from monai_sliceinterp.geometry import SLICE_DIRECTION, corner_distance, spatial_affine

__all__ = ["NIFTI_HEADER", "nifti_image", "read_nifti", "write_nifti"]

NIFTI_HEADER = "nifti_header"
"""Entry of the metadata with the header block of the source and its extensions, as Latin-1 text: batches carry text."""

_IN_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}
_IN_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}

_KEPT_FIELDS = (
    "descrip",
    "aux_file",
    "intent_code",
    "intent_p1",
    "intent_p2",
    "intent_p3",
    "intent_name",
    "cal_min",
    "cal_max",
    "toffset",
    "dim_info",
)
"""Header fields that hold for the interpolated volume as well. Those on slice timing do not."""

_GRID_EXTENSIONS = ("afni", "cifti")
"""Kinds of header extensions that describe the grid of the source, and hold no longer."""

_ROUNDED_QUATERNION = 1e-5
"""A quaternion longer than 1 by less than this has been rounded, which others who read NIfTI files take as well."""

_SAME_SPACING, _SAME_SPACING_REGISTERED = 0.05, 1.0
"""Relative difference of two spacings of one header; a transform to a template may scale."""

_SAME_PLACE_MM, _SAME_PLACE = 5e-3, 1e-3
"""Two transforms put a voxel at one place within this distance, and this fraction of the smallest voxel edge."""

_LARGEST_HEADER = 1 << 26


def read_nifti(path: Path, spacing: tuple[float, ...] | None) -> tuple[NDArray[Any], dict[str, Any], bool]:
    """Read a NIfTI file, single file (``.nii``, ``.nii.gz``), version 1 or 2.

    Integers with a slope and an offset become values as :func:`monai_sliceinterp.formats.values.whole_values` says.

    Args:
        path: the file.
        spacing: voxel size in mm of a file that has none.

    Returns:
        Voxels ``(X, Y, Z, ...)``; metadata with the affine in mm (RAS), ``frame_spacing`` in seconds of a time series,
        ``slice_direction`` where the header names the slice axis, the stored type where it is another one than that of
        the voxels, and :data:`NIFTI_HEADER`; and whether the file has a spacing.

    Raises:
        UnusableFile: if the header does not tell one spacing.
        ValueError: if the file is shorter than its header claims.
    """
    stream = _decompressed(path) if path.name.lower().endswith(".gz") else None
    size = path.stat().st_size if stream is None else stream.getbuffer().nbytes
    with path.open("rb") if stream is None else contextlib.nullcontext(stream) as file:
        block = bytearray(file.read(540))
        kind = _kind(block)
        start = kind.header_class(bytes(block[: kind.header_class.sizeof_hdr]), check=False)
        rest = int(np.clip(np.nan_to_num(float(start["vox_offset"])), 0, _LARGEST_HEADER)) - len(block)
        block += file.read(max(rest, 0))
    has_spacing = int(start["sform_code"]) > 0 or bool((start["pixdim"][1:4] != 0).all())
    if not has_spacing and spacing is None:
        raise UnusableFile(NO_SPACING)
    block[: len(start.binaryblock)] = _without_rounding(start).binaryblock
    header = kind.header_class.from_fileobj(io.BytesIO(bytes(block)))
    source = nib.arrayproxy.ArrayProxy(str(path.absolute()) if stream is None else stream, header.copy(), mmap="c")
    claimed = source.offset + math.prod(map(int, source.shape)) * header.get_data_dtype().itemsize
    if size < claimed:  # known before memory is taken for it
        raise ValueError(f"it holds {size} bytes and its header tells of {claimed}")
    space_unit, time_unit = header.get_xyzt_units()
    unit = _IN_MM.get(space_unit, 1.0)
    if spacing is not None and not has_spacing:
        header["pixdim"][1:4] = np.divide(spacing, unit)
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    try:
        spatial_affine(affine)
    except ValueError as error:
        raise UnusableFile(str(error)) from error
    _check_one_spacing(header, unit)
    image = kind(source.get_unscaled(), affine, header)
    affine[:3] *= unit
    reader = NibabelReader()
    reader.filenames = (str(path),)
    array, meta = reader.get_data(image)
    array, stored = whole_values(np.asarray(array), source.slope, source.inter)
    if array.ndim > 3:
        meta["frame_spacing"] = float(header.get_zooms()[3]) * _IN_SECONDS.get(time_unit, 1.0)
    slice_axis = header.get_dim_info()[2]
    if slice_axis is not None:
        meta[SLICE_DIRECTION] = affine[:3, slice_axis] / np.linalg.norm(affine[:3, slice_axis])
    meta = {
        **meta,
        **stored,
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        NIFTI_HEADER: bytes(block).decode("latin-1"),
    }
    return array, meta, has_spacing


def nifti_image(array: NDArray[Any], affine: NDArray[np.float64], meta: Mapping[str, Any]) -> nib.Nifti1Image:
    """Make a NIfTI image of an interpolated volume, with the facts that the header of its source states.

    Kept are the codes of qform and sform (a source of another format counts as "scanner"), description, auxiliary file,
    intent, display range, time offset and unit, slice dimension, and extensions, but for those that describe the grid
    of the source. A qform can hold no shear, and there is one position for each voxel: where qform and sform would
    differ, the qform is left out (code 0), and a warning says so.

    Args:
        array: voxels ``(X, Y, Z)`` or ``(X, Y, Z, frames)``, in the type to be stored.
        affine: 4x4, RAS, mm.
        meta: metadata from :func:`read_nifti` or another reader.

    Example:
        >>> nifti_image(np.zeros((4, 4, 3), np.int16), np.diag([1.0, 1.0, 5.0, 1.0]), {}).header["sform_code"].item()
        1
    """
    source = _source_header(meta)
    kind: Any = nib.Nifti2Image if isinstance(source, nib.Nifti2Header) or max(array.shape) > 32767 else nib.Nifti1Image
    image = kind(array, affine, dtype=array.dtype)
    header = image.header
    header.set_xyzt_units("mm", "sec")
    codes = (1, 1)
    differ = ""
    if source is not None:
        for field in _KEPT_FIELDS:
            header[field] = source[field]
        header["pixdim"][4:] = source["pixdim"][4:]
        time_unit = source.get_xyzt_units()[1]
        header.set_xyzt_units("mm", time_unit)
        header.extensions.extend(_lasting(source.extensions))
        codes = (int(source["qform_code"]), int(source["sform_code"]))
        if min(codes) > 0 and not _same_places(source.get_qform(), source.get_sform(), source.get_data_shape()[:3]):
            codes, differ = (0, codes[1]), "whose qform puts it at another place than its sform, is"
    if array.ndim > 3 and source is None and "frame_spacing" not in meta:
        header.set_xyzt_units("mm")  # frames that are no times
    if array.ndim > 3 and "frame_spacing" in meta:
        unit = 1.0 if source is None else _IN_SECONDS.get(source.get_xyzt_units()[1], 1.0)
        header["pixdim"][4] = float(meta["frame_spacing"]) / unit
    image.set_sform(affine, code=codes[1])
    image.set_qform(affine, code=codes[0])
    if not _same_places(header.get_qform(), affine, array.shape[:3]):
        image.set_qform(affine, code=0)
        image.set_sform(affine, code=codes[1] or codes[0])
        differ = "whose slices are sheared (a tilted gantry), is"
    if differ:
        name = meta.get("filename_or_obj", "a volume")
        warnings.warn(
            f"{name}: a volume {differ} written with its sform alone; readers that know only right angles, as "
            "ITK's, refuse or resample it.",
            stacklevel=2,
        )
    return image


def write_nifti(image: nib.Nifti1Image, path: Path) -> None:
    """Write an image, compressed where the name ends in ``.gz``: as small as by zlib in less than half of the time.

    Args:
        image: the image.
        path: ``.nii`` or ``.nii.gz``.

    Raises:
        OSError: if the file cannot be written.
    """
    with path.open("wb") as file:
        if not path.name.lower().endswith(".gz"):
            image.to_stream(file)
            return
        # neither name nor time: the same volume makes the same file
        with igzip.IGzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
            image.to_stream(stream)


def _kind(block: bytes | bytearray) -> Any:
    """Class of images, by the size that begins a header, in either order of bytes."""
    sizes = (*struct.unpack("<i", block[:4]), *struct.unpack(">i", block[:4]))
    return nib.Nifti2Image if 540 in sizes else nib.Nifti1Image


def _without_rounding(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """Shorten a quaternion that is longer than 1 by rounding."""
    parts = np.array([float(header[f"quatern_{letter}"]) for letter in "bcd"])
    length = float(np.linalg.norm(parts))
    if 1.0 < length < 1.0 + _ROUNDED_QUATERNION:
        for letter, part in zip("bcd", np.nextafter((parts / length).astype(np.float32), np.float32(0)), strict=True):
            header[f"quatern_{letter}"] = part
    return header


def _check_one_spacing(header: nib.Nifti1Header, unit: float) -> None:
    """Check that sform and pixdim, where both are there, tell one spacing."""
    steps = np.linalg.norm(header.get_sform()[:3, :3], axis=0) * unit
    lengths = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)) * unit
    code = int(header["sform_code"])
    unset = not (lengths > 0).all() or (lengths == unit).all()  # all ones stand where nothing was known
    if code == 0 or unset or not (steps > 0).all() or not np.isfinite([steps, lengths]).all():
        return
    tolerance = _SAME_SPACING if code == 1 else _SAME_SPACING_REGISTERED
    ratios = steps / lengths
    if not (ratios < 1 + tolerance).all() or not (ratios > 1 / (1 + tolerance)).all():
        shown = [" x ".join(f"{value:g}" for value in values) for values in (steps, lengths)]
        raise UnusableFile(
            f"its sform tells a spacing of {shown[0]} mm and its pixdim one of {shown[1]} mm; expected one spacing: "
            "correct the header."
        )


def _same_places(one: NDArray[Any], other: NDArray[Any], shape: Iterable[int]) -> bool:
    """Whether two affines put the corners of an array at the same places."""
    return corner_distance(one, other, shape) <= min(
        _SAME_PLACE_MM, _SAME_PLACE * float(np.linalg.norm(other[:3, :3], axis=0).min())
    )


def _source_header(meta: Mapping[str, Any]) -> nib.Nifti1Header | None:
    """Read the header of the source from the metadata, None where it was no NIfTI file."""
    text = meta.get(NIFTI_HEADER)
    if text is None:
        return None
    block = (text if isinstance(text, str) else text[0]).encode("latin-1")
    return _kind(block).header_class.from_fileobj(io.BytesIO(block))


def _lasting(extensions: Iterable[Any]) -> list[Any]:
    """Return the extensions that do not describe the grid of the source."""
    names = nib.nifti1.extension_codes.label
    return [
        extension
        for extension in extensions
        if not str(names.get(extension.get_code(), "")).startswith(_GRID_EXTENSIONS)
        and b"dcmmeta_shape" not in bytes(extension.text if hasattr(extension, "text") else str(extension), "utf-8")
    ]


def _decompressed(path: Path) -> io.BytesIO:
    """Decompress a file, to its end and with its sum checked, which the reader of NIfTI files does not do."""
    stream = io.BytesIO()
    with igzip.open(path) as file:
        shutil.copyfileobj(file, stream, 1 << 20)
    stream.seek(0)
    return stream
