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

"""Page that shows a scan and what was interpolated from it in a browser, without a network."""

from __future__ import annotations

import html
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from monai_sliceinterp.files import atomic_path, check_free, file_stem
from monai_sliceinterp.geometry import corner_distance
from monai_sliceinterp.preview.embedding import LARGEST, EmbeddedVolumes, embed_map, embed_pair
from monai_sliceinterp.preview.filling import as_script_data, fill_page
from monai_sliceinterp.preview.pair import ScanPair, beside, load_pair
from monai_sliceinterp.preview.windows import display_windows, is_ct
from monai_sliceinterp.transforms import LoadVolume, reorient_like

__all__ = ["find_disagreement", "write_page", "write_viewer"]

_PACKAGE = "monai_sliceinterp.preview"
_LICENSES = ("LICENSE", "LICENSES_OF_DEPENDENCIES", "LICENSES_OF_CODECS")
_POSTFIX = "_interp"
_PERCENTILE = 99.5
"""Disagreement from which on its color is that of the largest."""

_MAP_SHARE = 0.2
"""Part of the page's volumes that the map of the disagreement may take."""


def write_viewer(
    input_path: str | Path,
    output_path: str | Path,
    html_path: str | Path,
    *,
    disagreement_path: str | Path | None = None,
    method: str = "",
    load: Callable[[str | Path], MetaTensor] | None = None,
    overwrite: bool = False,
    largest: int = LARGEST,
) -> Path:
    """Write a page with which a scan and what was interpolated from it are looked at in a browser.

    The page is one file that needs no network: it holds the volumes and NiiVue, which draws them. It shows the slices
    of the input, and beside them linear interpolation and the output with a slider between the two; cross-hairs are
    linked. Synthesized slices and the disagreement of the network's views, where it was written, can be laid over.
    Large volumes are averaged in the plane until the page has less than 30 MB, and the page says so. It holds the
    scan's voxels and its file name: it is as confidential as the scan.

    Args:
        input_path: image file or DICOM folder.
        output_path: the volume that was interpolated from it.
        html_path: file to write, such as ``scan_viewer.html``; its folder must exist.
        disagreement_path: map of the disagreement on the output's grid; None: the one beside the output, if any.
        method: name of the method; empty: as the provenance beside the output tells.
        load: how the input is loaded, where that takes options; None: by
            :class:`monai_sliceinterp.transforms.LoadVolume`.
        overwrite: replace a file that exists.
        largest: bytes that the compressed volumes may take.

    Returns:
        The file.

    Raises:
        ValueError: if a file cannot be read, the volumes do not belong together, or the page exists already.

    Example:
        >>> write_viewer("missing.nii.gz", "thin.nii.gz", "missing_viewer.html")
        Traceback (most recent call last):
        ...
        ValueError: missing.nii.gz: no such file or folder.
    """
    path = Path(html_path)
    check_free(path, overwrite)
    found = find_disagreement(output_path) if disagreement_path is None else Path(disagreement_path)
    write_page(load_pair(input_path, output_path, load, method), path, found, largest)
    return path


def write_page(pair: ScanPair, path: str | Path, disagreement_path: Path | None = None, largest: int = LARGEST) -> None:
    """Write the page of :func:`write_viewer` of a scan that is loaded.

    Args:
        pair: the scan before and after.
        path: file to write.
        disagreement_path: map of the disagreement, if any.
        largest: bytes that the compressed volumes may take.
    """
    share = 1.0 if disagreement_path is None else 1.0 - _MAP_SHARE
    embedded = embed_pair(pair.thick, pair.thin, pair.grid, int(share * largest))
    limit, maps = 0.0, {}
    if disagreement_path is not None:
        disagreement = _load_disagreement(disagreement_path, pair)
        limit = float(np.nanpercentile(disagreement.numpy()[..., ::4], _PERCENTILE)) or 1.0
        maps = {"disagreement": embed_map(disagreement, limit, int(_MAP_SHARE * largest))}
    with atomic_path(path) as part:
        part.write_text(_page(pair, embedded, maps, limit), encoding="utf-8")


def find_disagreement(output_path: str | Path) -> Path | None:
    """Find the map of the disagreement that was written with an output.

    Example:
        >>> find_disagreement("nowhere/scan_interp.nii.gz")
    """
    stem = file_stem(output_path).removesuffix(_POSTFIX)
    path = beside(output_path, "").with_name(f"{stem}_disagreement.nii.gz")
    return path if path.is_file() else None


def _load_disagreement(path: Path, pair: ScanPair) -> MetaTensor:
    """Load the map, its axes as those of the output."""
    turned = reorient_like(
        LoadVolume(allow_nan=True)(path), MetaTensor(pair.thin.as_tensor()[None], affine=pair.thin.affine)
    )
    if turned.shape[1:] != pair.thin.shape or corner_distance(turned.affine, pair.thin.affine, pair.thin.shape) > 0.1:
        raise ValueError(f"{path}: has another grid than the output; expected the disagreement that belongs to it.")
    return MetaTensor(turned.as_tensor()[0], affine=turned.affine)


def _notes(pair: ScanPair, embedded: EmbeddedVolumes) -> list[str]:
    """Say what is shown, and what was done to it for the page."""
    before, after = pair.spacing
    count, observed = len(pair.grid), int(pair.observed.sum())
    notes = [
        f"{pair.thick.shape[2]} slices every {before:.4g} mm became {count} every {after:.4g} mm. "
        + (
            f"{observed} of them are copies of the scan's, the others are synthesized."
            if observed
            else "All of them are synthesized."
        ),
    ]
    if embedded.reduction > 1:
        size = embedded.reduction
        notes.append(
            f"Reduced for this page: blocks of {size} x {size} pixels of each slice are averaged, in the scan and the "
            "results alike. The slices are all there. Judge fine detail in the files, not here."
        )
    if embedded.rounded:
        notes.append(f"Intensities are rounded by up to {embedded.rounded:.2g} for this page.")
    if pair.frames > 1:
        notes.append(f"The first of {pair.frames} frames is shown.")
    return notes


def _page(pair: ScanPair, embedded: EmbeddedVolumes, maps: dict[str, str], limit: float) -> str:
    """Put the page together; no text of a file name is taken for HTML or a script."""
    voxels = pair.thick.as_tensor().numpy()
    data = {
        "name": pair.name,
        "method": pair.method or "output",
        "unit": "HU" if is_ct(voxels) else "",
        "notes": _notes(pair, embedded),
        "windows": [list(window) for window in display_windows(voxels)],
        "lower": pair.grid.lower.tolist(),
        "alpha": pair.grid.alpha.tolist(),
        "observed": pair.observed.int().tolist(),
        "gap": (pair.grid.gap_width * pair.spacing[0]).tolist(),
        "disagreement": limit,
        "volumes": {**embedded.texts, **maps},
    }
    niivue = resources.files(_PACKAGE) / "niivue"
    licenses = "\n".join((niivue / name).read_text(encoding="utf-8") for name in _LICENSES)
    parts = {
        "TITLE": html.escape(pair.name),
        "LICENSES": html.escape(licenses),
        "NIIVUE": (niivue / "niivue.umd.js").read_text(encoding="utf-8"),
        "DATA": as_script_data(data),
    }
    return fill_page(_PACKAGE, "viewer.html", parts)
