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

"""Find volumes on disk, split them by subject, and note which part of the body they show."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.data.phantom import PHANTOM_KINDS, write_phantoms
from monai_sliceinterp.dicom.series import has_dicom
from monai_sliceinterp.files import IMAGE_SUFFIXES, file_stem, last_part, typed_path

__all__ = ["BODY_PARTS", "find_volumes", "training_volumes", "volumes_per_batch", "with_body_parts"]

BODY_PARTS = ("head", "chest", "abdomen", "leg")
"""Parts of the body that a volume can show, in the order of Virtual Thin Slice's condition."""

RESULT_ENDINGS = ("_interp", "_interp_label", "_interp_provenance", "_disagreement")
"""Endings of the names of images that are written for a scan."""


def find_volumes(
    source: str | Path | Sequence[str | Path],
    recursive: bool = False,
    distinct: bool = True,
    output_dir: str | Path | None = None,
) -> list[str]:
    """List the volumes a user means by a path.

    Args:
        source: an image file or a multi-frame DICOM file; a folder of image files; a folder with DICOM files, in it or
            in folders below it (one series, read as one volume); a text file (``.txt``) with one of these on every
            line, from the current directory, where empty lines and lines that begin with # do not count; or several of
            these. Image files go before DICOM files beside them.
        recursive: also look into the folders below; each one with DICOM files is a volume.
        distinct: refuse files whose outputs would get the same name.
        output_dir: folder that results are written to. Where that is a folder of scans itself, the results of its scans
            are not taken for scans.

    Returns:
        Paths of image files and DICOM folders, sorted within each folder. A missing entry of a list is kept as it is,
        so that one of a thousand scans does not keep the others from being read.

    Raises:
        ValueError: if a path is missing, a folder holds no image, or, with ``distinct``, two files would give the same
            output name.

    Example:
        >>> find_volumes("nowhere")
        Traceback (most recent call last):
        ...
        ValueError: nowhere: no such file or folder.
    """
    if isinstance(source, int | float) or (isinstance(source, tuple) and Path(typed_path(source)).exists()):
        source = typed_path(source)
    if not isinstance(source, str | Path):
        if not source:
            raise ValueError("no input is given; expected an image file, a folder of images, or a DICOM folder.")
        volumes = [path for item in source for path in find_volumes(item, recursive, distinct, output_dir)]
        return _distinct(volumes) if distinct else volumes
    path = Path(typed_path(source))
    if not str(source).strip():
        raise ValueError("no input is given; expected an image file, a folder of images, or a DICOM folder.")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder.")
    if path.is_file():
        volumes = _listed_volumes(path, recursive, output_dir) if path.suffix.lower() == ".txt" else [str(path)]
        return _distinct(volumes) if distinct else volumes
    entries = sorted(_below(path) if recursive else path.iterdir())
    files = [e for e in entries if e.is_file() and e.name.lower().endswith(IMAGE_SUFFIXES) and e.name[0] != "."]
    if output_dir is not None and Path(typed_path(output_dir)).resolve() == path.resolve():
        scans = {file_stem(file) for file in files} | {last_part(path)}
        files = [file for file in files if _without_ending(file_stem(file)) not in scans]
    folders = [path, *(e for e in entries if recursive and e.is_dir())]
    with_files = {file.parent for file in files}
    series = [folder for folder in folders if folder not in with_files and has_dicom(folder)]
    volumes = [str(volume) for volume in sorted([*files, *series])]
    if not volumes and not recursive and has_dicom(path, nested=True):  # the export of an archive
        volumes = [str(path)]
    if not volumes:
        raise ValueError(f"{path}: no image in this folder; expected {', '.join(IMAGE_SUFFIXES)} or one DICOM series.")
    return _distinct(volumes) if distinct else volumes


def _below(folder: Path) -> Iterator[Path]:
    """All files and folders below a folder, also through links, but no folder twice."""
    seen = {folder.resolve()}
    for parent, folders, files in os.walk(folder, followlinks=True):
        places = {Path(parent, name).resolve(): name for name in sorted(folders, reverse=True)}
        folders[:] = sorted(name for place, name in places.items() if place not in seen)
        seen |= set(places)
        yield from (Path(parent, name) for name in (*folders, *files))


def _without_ending(stem: str) -> str:
    """Name of the scan that a file would be a result of; nothing where it is none."""
    return next((stem.removesuffix(ending) for ending in RESULT_ENDINGS if stem.endswith(ending)), "")


def _listed_volumes(path: Path, recursive: bool, output_dir: str | Path | None) -> list[str]:
    """Read a list of volumes."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not a text file; expected one path on every line.") from error
    items = [line for line in lines if line and not line.startswith("#")]
    if not items:
        raise ValueError(f"{path}: lists nothing; expected one path on every line.")
    volumes = []
    for item in items:
        try:
            volumes += [item] if item.lower().endswith(".txt") else find_volumes(item, recursive, False, output_dir)
        except ValueError:  # the reader reports what is wrong with it
            volumes.append(item)
    return list(dict.fromkeys(volumes))  # each scan once


def training_volumes(
    dataset_dir: str | Path | Sequence[str | Path],
    phantom_dir: str | Path,
    phantom_kinds: Sequence[str] = PHANTOM_KINDS,
    num_phantoms: int = 8,
    seed: int = 0,
    **phantom_settings: object,
) -> list[str]:
    """List the volumes to train on: those of a dataset, or the embedded phantoms where none is given.

    Args:
        dataset_dir: folder of volumes, looked through recursively, or several of them; empty for the phantoms.
        phantom_dir: folder the phantoms are written to.
        phantom_kinds: kinds of phantoms, see :func:`monai_sliceinterp.data.phantom.make_phantom`.
        num_phantoms: number of phantoms of each kind.
        seed: seed of the first phantom; the others count up from it.
        **phantom_settings: shape, spacing and so on for :func:`monai_sliceinterp.data.phantom.write_phantoms`.

    Raises:
        ValueError: if the folder is missing or holds no image.

    Example:
        >>> import tempfile
        >>> files = training_volumes("", tempfile.mkdtemp(), ("heart",), num_phantoms=1, shape=(16, 16, 5))
        >>> Path(files[0]).name
        'heart_000.nii.gz'
    """
    if dataset_dir:
        return find_volumes(dataset_dir, recursive=True, distinct=False)
    seeds = range(seed, seed + num_phantoms)
    return [str(path) for path in write_phantoms(phantom_dir, phantom_kinds, seeds, **phantom_settings)]  # type: ignore[arg-type]


def volumes_per_batch(batch_size: int, samples_per_volume: int) -> int:
    """Compute the number of volumes whose samples make up a batch.

    Args:
        batch_size: samples in a batch.
        samples_per_volume: samples that are drawn from a volume at a time.

    Raises:
        ValueError: if the batch is not made of whole volumes.

    Example:
        >>> volumes_per_batch(12, 4)
        3
    """
    if samples_per_volume < 1 or batch_size < 1 or batch_size % samples_per_volume:
        raise ValueError(
            f"batch_size {batch_size} must be a positive multiple of samples_per_volume {samples_per_volume}."
        )
    return batch_size // samples_per_volume


def with_body_parts(items: Iterable[Mapping[str, str]], body_parts: Mapping[str, str]) -> list[dict[str, str]]:
    """Add the body part of each volume to a data list.

    Args:
        items: data list, see :func:`split_volumes`.
        body_parts: body part by the beginning of file names; the longest one that fits counts.

    Returns:
        The items with a "body_part", empty where nothing fits.

    Raises:
        ValueError: for an unknown body part.

    Example:
        >>> with_body_parts([{"image": "scans/lidc_1.nii"}], {"lidc": "chest"})
        [{'image': 'scans/lidc_1.nii', 'body_part': 'chest'}]
    """
    for part in body_parts.values():
        one_of("body part", part, BODY_PARTS)
    result = []
    for item in items:
        fitting = [start for start in body_parts if Path(item["image"]).name.startswith(start)]
        result.append({**item, "body_part": body_parts[max(fitting, key=len)] if fitting else ""})
    return result


def _distinct(files: list[str]) -> list[str]:
    """Check that no two files give outputs of the same name."""
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(file_stem(file), file)
        if other != file:
            raise ValueError(f"{file}: would get the same output name as {other}; expected distinct names.")
    return files
