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

"""Text headers of MetaImage and NRRD files, parsed and checked before a native reader gets to see the file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from isal import igzip_lib, isal_zlib

from monai_sliceinterp.formats.values import UnusableFile

__all__ = ["Header", "check_data", "meta_image_header", "nrrd_header"]

_LARGEST_HEADER = 1 << 16

_META_BYTES = {
    1: ("CHAR", "UCHAR"),
    2: ("SHORT", "USHORT"),
    4: ("INT", "UINT", "LONG", "ULONG", "FLOAT"),
    8: ("LONG_LONG", "ULONG_LONG", "DOUBLE"),
}
_NRRD_BYTES = {  # without "signed", "unsigned", "u", "_t" and a second "int"
    1: ("char", "int8"),
    2: ("short", "int16"),
    4: ("int", "int32", "float"),
    8: ("longlong", "long long", "int64", "double"),
}

_IN_MM = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "millimetre": 1.0, "millimetres": 1.0} | {
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "micrometre": 1e-3,
    "nm": 1e-6, "nanometer": 1e-6, "cm": 10.0, "centimeter": 10.0, "m": 1e3, "meter": 1e3, "metre": 1e3,
}  # fmt: skip

_COMPRESSED = ("gzip", "gz")


@dataclass(frozen=True)
class Header:
    """What a text header says.

    Attributes:
        has_spacing: whether it tells a spacing.
        in_mm: mm of its unit of length.
        frames_first: whether the first axis holds the frames of a time series.
        num_bytes: bytes of the voxels, None where it is not known.
        compressed: whether the voxels are compressed.
        data_start: where they begin in their file, None: they end with the file.
        data_size: how many bytes they take there, None where it is not said.
        data_file: the file with the voxels, None: the one with the header.
    """

    has_spacing: bool = False
    in_mm: float = 1.0
    frames_first: bool = False
    num_bytes: int | None = None
    compressed: bool = False
    data_start: int | None = None
    data_size: int | None = None
    data_file: Path | None = None


def meta_image_header(path: Path) -> Header:
    """Parse the header of a MetaImage (``.mha``, ``.mhd``).

    Raises:
        UnusableFile: if a field is missing, wrong, or asks for a file outside the header's own folder.
    """
    text, length = _begin(path, rb"^\s*ElementDataFile\s*=[^\n]*\n?", "line ElementDataFile")
    fields = {
        key.strip().lower(): value.strip()
        for key, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }
    sizes = _integers(fields, "dimsize", "DimSize")
    _check_sizes(sizes, "NDims", _integers(fields, "ndims", "NDims"))
    kind = fields.get("elementtype", "").upper().removeprefix("MET_").removesuffix("_ARRAY")
    item = next((size for size, kinds in _META_BYTES.items() if kind in kinds), None)
    if item is None:
        raise UnusableFile(
            f"its ElementType is {fields.get('elementtype', 'missing')}; expected one such as MET_SHORT."
        )
    channels = _integers(fields, "elementnumberofchannels", "ElementNumberOfChannels", "1")
    name = fields["elementdatafile"]
    compressed = fields.get("compresseddata", "").lower() == "true"
    spacing = fields.get("elementspacing", fields.get("elementsize"))
    if spacing is not None:
        _check_spacing(spacing.split(), len(sizes))
    size = _integers(fields, "compresseddatasize", "CompressedDataSize") if "compresseddatasize" in fields else None
    if compressed and size is None:
        raise UnusableFile("has compressed voxels without CompressedDataSize; expected it: write the file anew.")
    local = name.upper() == "LOCAL"
    skipped = _integers(fields, "headersize", "HeaderSize", "0")[0]
    return Header(
        has_spacing=spacing is not None,
        num_bytes=math.prod(sizes) * channels[0] * item,
        compressed=compressed,
        data_start=length if local else (None if skipped < 0 else skipped),
        data_size=None if size is None else size[0],
        data_file=None if local else _beside(path, name),
    )


def nrrd_header(path: Path) -> Header:
    """Parse the header of an NRRD file (``.nrrd``, ``.nhdr``).

    Raises:
        UnusableFile: if a field is missing, wrong, or asks for a file outside the header's own folder.
    """
    text, length = _begin(path, rb"\r?\n\r?\n|\Z", "empty line after the header")
    if not text.startswith("NRRD000"):
        raise UnusableFile("does not begin with NRRD000; expected an NRRD file.")
    fields = {
        key.strip().lower(): value.strip()
        for key, colon, value in (line.partition(":") for line in text.splitlines()[1:] if not line.startswith("#"))
        if colon and not value.startswith("=")
    }
    sizes = _integers(fields, "sizes", "sizes")
    _check_sizes(sizes, "dimension", _integers(fields, "dimension", "dimension"))
    kinds = fields.get("kinds", "").lower().split()
    directions = re.findall(r"none|\([^)]*\)", fields.get("space directions", "").lower())
    spacings = fields.get("spacings", "").lower().split()
    frames_first = len(kinds) == len(sizes) == 4 and kinds[0] in ("list", "time")
    inside = kinds[:1] in ([], ["domain"], ["space"], ["???"], ["none"]) and directions[:1] != ["none"]
    spatial = [axis for axis in range(len(sizes)) if axis != (3 if inside or len(sizes) < 4 else 0)]
    if directions:
        vectors = [re.split(r"[,\s]+", directions[axis].strip("() ")) for axis in spatial if axis < len(directions)]
        lengths = [str(np.linalg.norm([_number(part) for part in vector])) for vector in vectors]
        _check_spacing(lengths, len(spatial))
    elif spacings:
        _check_spacing([spacings[axis] for axis in spatial if axis < len(spacings)], len(spatial))
    units = re.findall(r'"([^"]*)"', fields.get("space units" if directions else "units", ""))
    known = {unit.strip().lower() for unit in (units if directions else [units[k] for k in spatial if k < len(units)])}
    if len({_IN_MM.get(unit, math.nan) for unit in known}) > 1 or not known <= _IN_MM.keys():
        raise UnusableFile(
            f"its units of length are {', '.join(sorted(known))}; expected mm, um, cm or m for all axes."
        )
    data_file = fields.get("data file", fields.get("datafile"))
    encoding = fields.get("encoding", "").lower()
    kind = re.sub(r"^(un)?signed |^u|_t$|(?<=.) int$", "", fields.get("type", "").lower())
    item = next((size for size, kinds in _NRRD_BYTES.items() if kind in kinds), 0)
    skips = any(fields.get(key, "0") != "0" for key in ("line skip", "byte skip", "lineskip", "byteskip"))
    known_size = item and encoding in ("raw", *_COMPRESSED) and not skips
    return Header(
        has_spacing=bool(directions or spacings),
        in_mm=_IN_MM[known.pop()] if known else 1.0,
        frames_first=frames_first,
        num_bytes=math.prod(sizes) * item if known_size else None,
        compressed=encoding in _COMPRESSED,
        data_start=length if data_file is None else 0,
        data_file=None if data_file is None else _beside(path, data_file),
    )


def check_data(path: Path, header: Header) -> None:
    """Check that a file holds as many bytes of voxels as its header claims; compressed ones are counted.

    Args:
        path: the file with the header.
        header: what it says.

    Raises:
        UnusableFile: if there are fewer, compressed data are damaged or hold another number, or a file is missing.
    """
    data = header.data_file or path
    if not data.is_file():
        raise UnusableFile(f"its voxels are said to be in {data.name}, which is missing.")
    if header.num_bytes is None:
        return
    start = header.data_start
    here = data.stat().st_size - (start or 0)
    if not header.compressed:
        if here < header.num_bytes:
            raise UnusableFile(f"holds {here} bytes of voxels and its header tells of {header.num_bytes}.")
        return
    if header.data_size is not None and header.data_size > here:
        raise UnusableFile(f"its compressed voxels end early: {here} bytes of {header.data_size}.")
    with data.open("rb") as file:
        file.seek(start or 0)
        found = _count(file, header.data_size, header.num_bytes)
    if found != header.num_bytes:
        more = "more" if found > header.num_bytes else str(found)
        raise UnusableFile(f"its compressed voxels are {more} bytes and its header tells of {header.num_bytes}.")


def _count(file: IO[bytes], size: int | None, limit: int) -> int:
    """Count the bytes that a compressed stream of ``size`` bytes holds, up to one more than a limit."""
    stream = isal_zlib.decompressobj(wbits=47)  # zlib or gzip
    found, left = 0, math.inf if size is None else size
    try:
        while not stream.eof and found <= limit:
            chunk = stream.unconsumed_tail
            if not chunk:
                chunk = file.read(int(min(left, 1 << 20)))
                left -= len(chunk)
            if not chunk:
                raise UnusableFile("its compressed voxels end early.")
            found += len(stream.decompress(chunk, 1 << 24))
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # no class in its stubs
        raise UnusableFile(f"its compressed voxels are damaged: {error}.") from error
    return found


def _begin(path: Path, end: bytes, what: str) -> tuple[str, int]:
    """Read a text header up to and with what ends it; returns the text and its length in the file."""
    with path.open("rb") as file:
        start = file.read(_LARGEST_HEADER)
    match = re.search(end, start, re.MULTILINE | re.IGNORECASE)
    if match is None:
        raise UnusableFile(f"has no {what} within its first {_LARGEST_HEADER} bytes.")
    return start[: match.end()].decode("utf-8", "replace").lstrip("\ufeff"), match.end()


def _beside(path: Path, name: str) -> Path:
    """Return the data file that a header names, which must be one file in its own folder."""
    if (
        not name
        or name.split()[0].upper().startswith("LIST")
        or re.search(r"%[0-9.]*[a-z]|[/\\\0]", name, re.IGNORECASE)
    ):
        raise UnusableFile(f"its voxels are said to be in {name!r}; expected the name of one file beside it.")
    return path.parent / name


def _integers(fields: dict[str, Any], key: str, name: str, default: str | None = None) -> list[int]:
    text = fields.get(key, default)
    if text is None:
        raise UnusableFile(f"its header has no {name}.")
    try:
        return [int(word) for word in text.split()] or [int("")]
    except ValueError:
        raise UnusableFile(f"its {name} is {text!r}; expected whole numbers.") from None


def _check_sizes(sizes: list[int], name: str, claimed: list[int]) -> None:
    if claimed != [len(sizes)] or not 2 <= len(sizes) <= 5:
        raise UnusableFile(f"its {name} is {claimed[0]} and it has {len(sizes)} sizes; expected 3, or 4 with time.")
    if min(sizes) < 1:
        raise UnusableFile(f"its size is {' x '.join(map(str, sizes))} voxels; expected positive numbers.")


def _check_spacing(words: list[str], count: int) -> None:
    lengths = [_number(word) for word in words]
    if len(lengths) < min(count, 3) or not all(0 < abs(length) < math.inf for length in lengths[:3]):
        raise UnusableFile(f"its spacing is {' x '.join(words) or 'missing'}; expected three positive numbers.")


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
