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

"""The choice of a method for a scan, and the scores it rests on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from monai_sliceinterp.bundles import CLASSICAL
from monai_sliceinterp.interpolation.scan import ScanFacts

__all__ = ["SCORES", "Choice", "choose_method", "kind_of"]

SCORES: dict[str, tuple[int, dict[str, tuple[float, float]]]] = {
    "CT of slices": (
        2,
        {
            "saint": (45.34, 39.13),
            "saint,small": (45.25, 38.95),
            "mixture": (45.24, 38.99),
            "motion": (43.51, 37.99),
            "cubic": (44.74, 37.27),
            "linear": (42.96, 37.14),
        },
    ),
    "CT of thick slabs": (
        2,
        {
            "vts": (43.07, 39.76),
            "mixture": (45.32, 39.39),
            "saint,small": (44.53, 39.20),
            "cubic": (44.70, 38.68),
            "linear": (42.25, 37.46),
        },
    ),
    "thin MR": (
        4,
        {
            "mixture": (30.49, 25.13),
            "motion": (29.11, 24.20),
            "cubic": (29.03, 23.45),
            "linear": (28.19, 23.42),
        },
    ),
    "thick MR": (
        13,
        {
            "mixture": (21.64, 19.20),
            "asi": (21.30, 18.37),
            "motion": (20.94, 18.20),
            "linear": (19.54, 17.16),
            "cubic": (19.28, 16.88),
        },
    ),
}
"""By the kind of a scan: how many held-out scans were scored, and by method the PSNR (dB) of the synthesized slices
where every second and where every fourth slice was kept. The cards of the bundles ``mixture`` and ``saint`` have the
scans and the commands, ``docs/comparison.md`` those of slabs (protocol ``fwhm``). "thick MR" is the mean of the cardiac
and the clinical scans. A method that is not here is taken only by its name."""

_THIN_MR = 2.5
"""MR slices closer than this in mm are those of a 3D acquisition. Those of the clinical scans that were scored as thick
are 3 mm apart and more."""

_SLAB = 0.75
"""CT slices whose thickness is at least this share of their distance are slabs, as nearly all clinical ones are. Where
the thickness is not known, which NIfTI does not tell, they are taken for thin ones: that costs 0.4 dB where it is
wrong, and the other way round 1.3 dB; and observed slices stay as they are."""

_SMALL = ",small"
"""A bundle's small network stands in for the full one without a GPU: SAINT's takes a ninth of its time."""


@dataclass(frozen=True)
class Choice:
    """Method that is chosen for a scan.

    Attributes:
        method: its name, as :func:`monai_sliceinterp.bundles.parse_method` reads it.
        reason: why, in one line.
        missing: bundles of methods that scored better and are not here.
    """

    method: str
    reason: str
    missing: tuple[str, ...] = ()


def kind_of(scan: ScanFacts) -> str:
    """Tell the kind of a scan: a key of :data:`SCORES`, or its modality where nothing was scored for it.

    Example:
        >>> from monai_sliceinterp.geometry import SliceGeometry
        >>> kind_of(ScanFacts("MR", "", (64, 64, 9), 1, SliceGeometry(2, (1.0, 1.0), 5.0), ""))
        'thick MR'
    """
    if scan.modality == "MR":
        return "thin MR" if scan.geometry.slice_spacing < _THIN_MR else "thick MR"
    if scan.modality != "CT":
        return scan.modality
    slabs = (scan.geometry.thickness or 0.0) >= _SLAB * scan.geometry.slice_spacing
    return "CT of thick slabs" if slabs else "CT of slices"


def choose_method(scan: ScanFacts, bundles: Collection[str], gpu: bool, ratio: float) -> Choice:
    """Choose the method that scored best on scans of the kind, among those that are here.

    Args:
        scan: the scan.
        bundles: names of the bundles that are here.
        gpu: whether a GPU computes. Without one, a bundle's small network is taken instead of its full one.
        ratio: how many times closer slices shall be; scores for 2 count below 3, those for 4 from there on.

    Example:
        >>> from monai_sliceinterp.geometry import SliceGeometry
        >>> scan = ScanFacts("CT", "", (64, 64, 9), 1, SliceGeometry(2, (1.0, 1.0), 5.0), "")
        >>> choose_method(scan, ["saint", "vts"], gpu=False, ratio=4).method
        'saint,small'
        >>> choose_method(scan, [], gpu=False, ratio=4)
        Choice(method='motion', reason='the best that is here on CT of slices: +0.85 dB ...', missing=('mixture', ...))
    """
    kind = kind_of(scan)
    if kind not in SCORES:
        return Choice("cubic", f"as no method was scored on {kind or 'an unknown modality'}")
    count, scores = SCORES[kind]
    column, kept = (0, "second") if ratio < 3 else (1, "fourth")
    ranked = sorted(scores, key=lambda name: -scores[name][column])
    if not gpu:
        ranked = [name for name in ranked if f"{name}{_SMALL}" not in scores]
    best = next(name for name in ranked if name in CLASSICAL or _bundle(name) in bundles)
    missing = list(dict.fromkeys(_bundle(name) for name in ranked[: ranked.index(best)]))
    gain = scores[best][column] - scores["linear"][column]
    scans = "1 scan" if count == 1 else f"{count} scans"
    where = "the best that is here" if missing else "the best"
    reason = f"{where} on {kind}: {gain:+.2f} dB to linear interpolation ({scans}, every {kept} slice kept)"
    return Choice(best, reason, tuple(missing))


def _bundle(method: str) -> str:
    return method.split(",")[0]
