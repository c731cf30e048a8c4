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

SCORES: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "CT": (
        "3 scans",
        {
            "saint": (41.66, 36.09),
            "saint,small": (41.59, 35.97),
            "cubic": (41.32, 34.50),
            "motion": (40.29, 35.15),
            "linear": (40.02, 34.51),
            "vts": (39.25, 34.71),
            "asi,residual": (39.80, 34.88),
            "hrinet": (33.50, 32.51),
        },
    ),
    "thin MR": (
        "1 scan",
        {
            "saint": (33.91, 27.10),
            "saint,small": (33.62, 27.03),
            "cubic": (33.18, 26.51),
            "motion": (32.06, 26.31),
            "asi,residual": (31.71, 26.19),
            "linear": (31.73, 26.09),
            "vts": (30.17, 25.95),
            "hrinet": (26.35, 24.47),
        },
    ),
    "thick MR": (
        "4 scans",
        {
            "asi": (20.44, 17.85),
            "asi,residual": (20.39, 17.87),
            "saint": (20.38, 17.50),
            "saint,small": (20.29, 17.22),
            "motion": (19.99, 17.68),
            "linear": (19.06, 16.69),
            "hrinet": (19.32, 17.12),
            "cubic": (18.79, 16.39),
        },
    ),
}
"""By the kind of a scan: how many held-out scans were scored, and the PSNR (dB) of the synthesized slices where every
second and where every fourth slice was kept, by method. ``docs/comparison.md`` has the scans and the commands;
"thick MR" is the mean of its groups of cardiac and clinical scans. A method that is not here is taken only by name."""

_THIN_MR = 3.0
"""MR slices closer than this in mm are those of a 3D acquisition; 2D acquisitions have thicker ones."""

_SMALL = ",small"
"""A bundle's small network stands in for the full one without a GPU: SAINT's takes a ninth of its time."""


@dataclass(frozen=True)
class Choice:
    """Method that is chosen for a scan.

    Attributes:
        method: its name, as :func:`monai_sliceinterp.bundles.parse_method` reads it.
        reason: why, in one line.
        missing: a better method that is not there; empty where the best one is taken.
    """

    method: str
    reason: str
    missing: str = ""


def kind_of(scan: ScanFacts) -> str:
    """Tell the kind of a scan: a key of :data:`SCORES`, or its modality where nothing was scored for it.

    Example:
        >>> from monai_sliceinterp.geometry import SliceGeometry
        >>> kind_of(ScanFacts("MR", "", (64, 64, 9), 1, SliceGeometry(2, (1.0, 1.0), 5.0), ""))
        'thick MR'
    """
    if scan.modality != "MR":
        return scan.modality
    return "thin MR" if scan.geometry.slice_spacing < _THIN_MR else "thick MR"


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
        Choice(method='motion', reason='best on CT here: 35.15 dB against 34.51 dB of linear (3 scans, x4)', ...)
    """
    kind = kind_of(scan)
    if kind not in SCORES:
        return Choice("cubic", f"no method was scored on {kind or 'an unknown modality'}")
    scans, scores = SCORES[kind]
    column = 0 if ratio < 3 else 1
    ranked = sorted(scores, key=lambda name: -scores[name][column])
    if not gpu:
        ranked = [name for name in ranked if f"{name}{_SMALL}" not in scores]
    if scan.positions is not None:
        ranked = [name for name in ranked if name != "lanczos"]
    best = next(name for name in ranked if name in CLASSICAL or name.split(",")[0] in bundles)
    missing = ranked[0].split(",")[0] if best != ranked[0] else ""
    numbers = f"{scores[best][column]:.2f} dB against {scores['linear'][column]:.2f} dB of linear"
    where = "best on" if not missing else f"best on {kind} here:"
    lead = f"{where} {kind}:" if not missing else where
    return Choice(best, f"{lead} {numbers} ({scans}, x{2 if column == 0 else 4})", missing)
