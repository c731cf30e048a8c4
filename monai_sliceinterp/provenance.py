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

"""Provenance of an interpolated volume: method, weights, grid and input, as one dictionary for a JSON sidecar."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from monai_sliceinterp.files import file_sha256, last_part
from monai_sliceinterp.geometry import GridMetadata, slice_geometry, spatial_affine

__all__ = ["SOFTWARE", "bundle_version", "describe_output", "input_sha256"]

SOFTWARE = "monai_sliceinterp"

_DETACHED = (".mhd", ".nhdr")
_DATA_FILES = re.compile(r"^\s*(?:ElementDataFile\s*=|data ?file:)(.*)", re.MULTILINE | re.IGNORECASE | re.DOTALL)


def input_sha256(path: str | Path, files: Sequence[str | Path] = ()) -> str:
    """Compute the SHA-256 of a scan, whether it is one file or several.

    The hash of several files is that of their sorted hashes, so that neither their names nor their order matter:
    ``sha256sum * | cut -c -64 | sort | sha256sum``. A MetaImage or NRRD header goes together with the data files it
    names.

    Args:
        path: the image file, or the folder of a DICOM series.
        files: the files of the series; empty: all files of the folder.

    Raises:
        ValueError: if a file is missing, or the folder holds none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = [(folder / name).write_bytes(b"abc") for name in ("1.dcm", "2.dcm")]
        >>> input_sha256(folder / "1.dcm")[:16], input_sha256(folder)[:16]
        ('ba7816bf8f01cfea', 'ed9453257140de25')
    """
    source = Path(path)
    parts = [Path(file) for file in files]
    if not parts and source.is_dir():
        parts = [file for file in source.iterdir() if file.is_file()]
        if not parts:
            raise ValueError(f"{path}: holds no file; expected the files of a scan.")
    elif not parts:
        parts = [source, *_data_files(source)]
    hashes = sorted(file_sha256(file) for file in parts)
    return (
        hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(f"{line}\n" for line in hashes).encode()).hexdigest()
    )


def _data_files(header: Path) -> list[Path]:
    """Files with the voxels of a detached header."""
    if header.suffix.lower() not in _DETACHED or not header.is_file():
        return []
    match = _DATA_FILES.search(header.read_text(errors="replace"))
    names = [line.strip() for line in match[1].splitlines()] if match else []
    return [header.parent / name for name in names if name and (header.parent / name).is_file()]


def bundle_version(bundle_root: str | Path) -> dict[str, str]:
    """Read name and version of a bundle from its metadata.

    Args:
        bundle_root: folder with ``metadata.json`` or ``configs/metadata.json``.

    Returns:
        "Name", that of the folder where the metadata has none, and "Version".

    Raises:
        ValueError: if there are no metadata, or they have no version.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = (root / "metadata.json").write_text('{"name": "ASI", "version": "0.1.0"}')
        >>> bundle_version(root)
        {'Name': 'ASI', 'Version': '0.1.0'}
    """
    root = Path(bundle_root)
    files = [file for file in (root / "metadata.json", root / "configs" / "metadata.json") if file.is_file()]
    if not files:
        raise ValueError(f"{root}: holds no metadata.json, nor configs/metadata.json; expected the folder of a bundle.")
    try:
        metadata = json.loads(files[0].read_text(encoding="utf-8"))
        return {"Name": str(metadata.get("name") or root.resolve().name), "Version": str(metadata["version"])}
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{files[0]}: tells no version; expected the metadata of a MONAI bundle.") from error


def describe_output(
    *,
    source: str | Path,
    source_sha256: str,
    method: str,
    record: GridMetadata,
    output_affine: ArrayLike | Tensor,
    weights_sha256: str | None = None,
    bundle: dict[str, str] | None = None,
    precision: str | None = None,
    desheared: bool = False,
    adaptation: Mapping[str, Any] | None = None,
    time: datetime | None = None,
) -> dict[str, Any]:
    """Describe how an output was made, with BIDS keys where BIDS has them.

    Nothing of the input's metadata goes in but its geometry, and of its path only the last part.

    Args:
        source: the input: an image file or a DICOM folder.
        source_sha256: its hash, see :func:`input_sha256`.
        method: name of the method.
        record: the output grid and where it comes from; its axis is that of the output's array.
        output_affine: 4x4 matrix of the output, in mm.
        weights_sha256: hash of the weights; None for a method that has none.
        bundle: name and version of the bundle, see :func:`bundle_version`.
        precision: type in which the network computed; None where that is not known.
        desheared: whether it was then resampled in the planes of its slices, see
            :func:`monai_sliceinterp.transforms.deshear`.
        adaptation: what came of adapting the network to the input, see
            :class:`monai_sliceinterp.engines.AdaptNetworkd`; None where it was not.
        time: when the output was made, with its time zone; None: now.

    Returns:
        A dictionary that JSON can hold.

    Raises:
        ValueError: if the affine is not usable.

    Example:
        >>> import numpy as np
        >>> from monai_sliceinterp.geometry import OutputGrid
        >>> record = GridMetadata(OutputGrid.from_factor(2, 2), keep_observed=True, source_spacing=4.0)
        >>> description = describe_output(
        ...     source="scans/a.nii.gz", source_sha256="", method="linear", record=record,
        ...     output_affine=np.diag([1, 1, 2, 1]),
        ... )  # fmt: skip
        >>> description["Sources"], description["SliceInterpolation"]["SliceSpacing"]
        (['a.nii.gz'], {'Input': 4.0, 'Output': 2.0})
    """
    from monai_sliceinterp import __version__  # known once the whole package is imported

    grid, axis = record.grid, record.axis
    output_spacing = slice_geometry(output_affine, axis=axis).slice_spacing
    observed = record.observed.nonzero()[:, 0].tolist()
    moment = (time or datetime.now(timezone.utc)).astimezone(timezone.utc)
    generated: list[dict[str, Any]] = [
        {"Name": SOFTWARE, "Version": __version__, "Description": f"slice interpolation, method {method}"}
    ]
    if bundle is not None:
        generated.append({**bundle, "Description": "MONAI bundle with the network's configuration and weights"})
    copied = f"{len(observed)} of them copied from the input" if record.keep_observed else "all of them synthesized"
    resampled = " All are then resampled in their planes onto an upright grid." if desheared else ""
    return {
        "Description": f"{len(grid)} slices interpolated from {grid.num_slices} along array axis {axis}, {copied}."
        + resampled,
        "GeneratedBy": generated,
        "Sources": [last_part(source)],
        "SliceInterpolation": {
            "Method": method,
            "WeightsSHA256": weights_sha256,
            "SourceSHA256": source_sha256,
            "Precision": precision,
            **({} if adaptation is None else {"Adaptation": dict(adaptation)}),
            "Axis": axis,
            "Factor": record.factor,
            "Spacing": record.spacing,
            "NumberOfSlices": {"Input": grid.num_slices, "Output": len(grid)},
            "SliceSpacing": {"Input": record.source_spacing, "Output": output_spacing},
            "KeepObserved": record.keep_observed,
            "ObservedSlices": observed,
            "Desheared": desheared,
            "ObservedSlicesInInput": grid.observed_source.tolist() if record.keep_observed else [],
            "Affine": spatial_affine(output_affine).tolist(),
            "DateTime": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    }
