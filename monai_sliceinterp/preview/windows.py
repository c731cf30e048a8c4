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

"""Windows of intensities that show a scan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from monai.config import NdarrayOrTensor
from scipy import ndimage

__all__ = ["BODY", "LUNG", "DisplayWindow", "display_windows", "is_ct"]

_CT_BELOW = -200.0
"""Only CT has such intensities (HU)."""

_LUNG_TISSUE = (-950.0, -600.0)
"""Range of aerated lung in HU: above air, below fat."""

_SOFT_TISSUE = -300.0

_LUNGS_SHOWN = 0.005
"""Where a scan shows lungs, there are as many voxels inside regions of lung tissue as this fraction of other tissue. Of
scans without lungs it is less by far: voxels at the edges of a body in air have such values, but no region."""

_COARSE = 48
"""Voxels along an axis among which lungs are looked for."""

_PERCENTILES = (0.5, 99.5)
_SAMPLE = 2_000_000


class DisplayWindow(NamedTuple):
    """Intensities that are shown black and white."""

    name: str
    low: float
    high: float


BODY = DisplayWindow("body window", -160.0, 240.0)
LUNG = DisplayWindow("lung window", -1350.0, 150.0)


def is_ct(volume: NdarrayOrTensor) -> bool:
    """Check whether a volume is CT: no other scan has values below -200.

    Args:
        volume: voxels in the scan's units, any shape.

    Example:
        >>> is_ct(np.array([-1000, 40])), is_ct(np.array([0, 900]))
        (True, False)
    """
    return bool(np.nanmin(np.asarray(volume)) < _CT_BELOW)


def display_windows(volume: NdarrayOrTensor) -> list[DisplayWindow]:
    """Choose windows that show a scan: those of soft tissue and, where there are lungs, of lungs for CT.

    Scans other than CT are shown from their 0.5th to their 99.5th percentile.

    Args:
        volume: image or volume in the scan's units; NaN does not count.

    Example:
        >>> [window.name for window in display_windows(np.repeat([-1000.0, -800.0, 40.0], 9))]
        ['body window', 'lung window']
        >>> display_windows(np.array([0.0, 0.0, 7.0]))[0].low
        0.0
    """
    image = np.asarray(volume)
    if is_ct(image):
        coarse = image[tuple(slice(None, None, max(1, size // _COARSE)) for size in image.shape)]
        lung = ndimage.binary_erosion((coarse > _LUNG_TISSUE[0]) & (coarse < _LUNG_TISSUE[1]))
        return [BODY, LUNG] if lung.sum() > _LUNGS_SHOWN * (coarse > _SOFT_TISSUE).sum() else [BODY]
    voxels = image.ravel()[:: max(1, image.size // _SAMPLE)]
    low, high = (float(value) for value in np.nanpercentile(voxels, _PERCENTILES))
    if not low < high:
        low, high = float(np.nanmin(voxels)), float(np.nanmax(voxels))
    return [DisplayWindow("0.5th to 99.5th percentile", low, high if high > low else low + 1.0)]
