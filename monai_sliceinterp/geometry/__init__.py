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

"""Image metadata as numbers: through-plane axis, slice spacing, positions and thickness, output grid, affine.

Conventions: an affine is a 4x4 matrix that takes voxel indices to millimeters; its column k is the step between
neighbors along array axis k. Positions along the through-plane axis are in units of the input gap, so that slice n
sits at position n. Everything here is a pure function of numbers; nothing else in the package derives spacing,
positions or affines. Affines as such are in ``affine``, the slices of an image in ``slices``, the output grid in
``grid``, and the metadata entries in which an interpolated volume carries its grid in ``metadata``.
"""

from __future__ import annotations

from monai_sliceinterp.geometry.affine import (
    AXIS_TIE,
    SPACING_TIE,
    axis_spacing,
    compose_affine,
    corner_distance,
    plane_names,
    scaled_affine,
    spatial_affine,
    through_plane_axis,
)
from monai_sliceinterp.geometry.alignment import SAME_PLACE, slice_indices, stack_axis
from monai_sliceinterp.geometry.grid import FLOAT32_TOLERANCE, GRID_TOLERANCE, OutputGrid, paste_observed
from monai_sliceinterp.geometry.metadata import (
    ADAPTATION,
    DISAGREEMENT,
    GRID_KEYS,
    GridMetadata,
    read_adaptation,
    read_grid,
    write_grid,
)
from monai_sliceinterp.geometry.shear import UprightGrid
from monai_sliceinterp.geometry.slices import (
    SLICE_DIRECTION,
    SLICE_POSITION_KEYS,
    SliceGeometry,
    check_slice_positions,
    known_slice_axis,
    nominal_positions,
    slice_geometry,
    slice_positions,
    slice_thickness,
)

__all__ = [
    "ADAPTATION",
    "AXIS_TIE",
    "DISAGREEMENT",
    "FLOAT32_TOLERANCE",
    "GRID_KEYS",
    "GRID_TOLERANCE",
    "SAME_PLACE",
    "SLICE_DIRECTION",
    "SLICE_POSITION_KEYS",
    "SPACING_TIE",
    "GridMetadata",
    "OutputGrid",
    "SliceGeometry",
    "UprightGrid",
    "axis_spacing",
    "check_slice_positions",
    "compose_affine",
    "corner_distance",
    "known_slice_axis",
    "nominal_positions",
    "paste_observed",
    "plane_names",
    "read_adaptation",
    "read_grid",
    "scaled_affine",
    "slice_geometry",
    "slice_indices",
    "slice_positions",
    "slice_thickness",
    "spatial_affine",
    "stack_axis",
    "through_plane_axis",
    "write_grid",
]
