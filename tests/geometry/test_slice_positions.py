# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Where the output slices lie in mm, over many random geometries, against integer arithmetic in micrometers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.spatial.transform import Rotation

from monai_sliceinterp.geometry import GRID_TOLERANCE, OutputGrid, slice_geometry, slice_positions
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import RestoreVolumed, ThroughPlaneLastd, move_axis_last

TOLERANCE_MM = 1e-6
SUBDIVISIONS = 64  # uneven slices lie at multiples of the nominal gap divided by this

geometries = {
    "seed": st.integers(0, 2**32 - 1),
    "axis": st.integers(0, 2),
    "num_slices": st.integers(2, 48),
    "by_factor": st.booleans(),
    "layout": st.sampled_from(["even", "even", "missing", "uneven"]),
}


def random_case(seed, axis, num_slices, by_factor, layout):
    """Random affine with flips, rotation and shear; lengths are whole micrometers, so that the truth is exact.

    Returns:
        Affine; micrometers between the (nominal) slices; how to interpolate; micrometers between the output slices; and
        the places of the slices in units of 1/64 nominal gap.
    """
    rng = np.random.default_rng(seed)
    gap, *plane = (int(rng.integers(200, 20_000)) for _ in range(3))
    factor = int(rng.integers(1, 9))
    target = int(rng.integers(max(gap // 8, 50), gap + 1))
    ratio = gap / target
    if by_factor:
        how, distance = {"factor": factor}, Fraction(gap, factor)
    elif abs(ratio - round(ratio)) < 4 * GRID_TOLERANCE * ratio:  # near enough to a factor to mean it
        gap -= gap % factor
        how, distance = {"spacing": gap // factor / 1000.0}, Fraction(gap, factor)
    else:
        how, distance = {"spacing": target / 1000.0}, Fraction(target)
    step = np.array([*rng.uniform(-0.5, 0.5, 2) * rng.integers(0, 2), 1.0]) * gap / 1000.0  # tilted half of the time
    local = np.stack([[plane[0] / 1000.0, 0, 0], [0, plane[1] / 1000.0, 0], step], axis=1)
    order = [k for k in range(3) if k != axis] + [axis]
    affine = np.eye(4)
    rotation = Rotation.random(random_state=rng).as_matrix() if rng.integers(0, 3) else np.eye(3)[rng.permutation(3)]
    affine[:3, order] = rotation @ local * rng.choice([-1, 1], 3)
    affine[:3, 3] = rng.uniform(-500, 500, 3)
    gaps = np.full(num_slices - 1, SUBDIVISIONS)
    if layout == "missing":
        gaps = gaps * rng.choice([1, 1, 1, 2, 3], len(gaps))
    elif layout == "uneven":
        gaps = rng.integers(SUBDIVISIONS // 2, 2 * SUBDIVISIONS, len(gaps))
    places = np.concatenate([[0], np.cumsum(gaps)])
    return affine, gap, how, distance, places


def corners(affine, axis, along, plane=((0, 0), (1, 0), (7, 5))):
    """Positions in mm ``(P, M, 3)`` of voxels of slices at ``along``, by plain sums of the affine's columns."""
    first, second = (affine[:3, k] for k in range(3) if k != axis)
    base = np.array([affine[:3, 3] + row * first + column * second for row, column in plane])
    return base[:, None] + np.asarray(along, dtype=np.float64)[:, None] * affine[:3, axis]


@given(**geometries)
@settings(max_examples=4_000, deadline=None, derandomize=True, database=None)
def test_every_output_slice_in_mm(seed, axis, num_slices, by_factor, layout):
    affine, gap, how, distance, places = random_case(seed, axis, num_slices, by_factor, layout)
    geometry = slice_geometry(affine, axis=axis)
    assert geometry.slice_spacing == pytest.approx(gap / 1000, rel=1e-12)
    slices = tuple((places / SUBDIVISIONS).tolist())
    grid = OutputGrid.create(num_slices, geometry, **how, slice_positions=None if layout == "even" else slices)

    # the output slices are `distance` micrometers apart, from the first slice to the last and not beyond
    step = float(distance / gap)
    tolerance = min(GRID_TOLERANCE, step / 4)
    if layout == "even":
        assert len(grid) == (num_slices - 1) * gap // distance + 1
    assert (len(grid) - 1) * step <= slices[-1] + tolerance + 1e-9
    assert len(grid) * step > slices[-1] + 1e-9

    index = np.arange(len(grid))
    expected = corners(affine, axis, index * distance.numerator / (distance.denominator * gap))
    found = corners(grid.affine(affine, axis), axis, index)
    assert abs(found - expected).max() < TOLERANCE_MM

    # the same with the slice axis last, and back in the input's order of axes
    _, matrix = move_axis_last(torch.zeros(1, 1, 1, 1), axis)
    back = grid.affine(affine @ matrix.numpy(), 2) @ matrix.numpy().T
    assert abs(back - grid.affine(affine, axis)).max() < 1e-12

    # the neighbors are the slices on either side, and alpha tells the way between them in mm
    stack = corners(affine, axis, slices)
    lower, alpha, observed = grid.lower.numpy(), grid.alpha.numpy(), grid.is_observed.numpy()
    between = stack[:, lower] + alpha[:, None] * (stack[:, lower + 1] - stack[:, lower])
    error = np.linalg.norm(between - expected, axis=2).max(axis=0)
    assert error[~observed].max(initial=0) < TOLERANCE_MM
    rounding = 0 if layout == "even" else tolerance * np.linalg.norm(affine[:3, axis])
    assert error[observed].max() < rounding + TOLERANCE_MM
    assert alpha.min() >= 0 and alpha.max() <= 1 and (np.diff(grid.positions) > 0).all()
    assert abs(grid.gap_width.numpy() - np.diff(slices)[lower]).max() < 1e-12

    # an input slice is observed if and only if an output slice is on it
    off = abs(np.array(slices)[:, None] - index * step).min(axis=1)
    kept = np.isin(np.arange(num_slices), grid.observed_source.numpy())
    assert kept[off < 0.99 * (1e-9 if layout == "even" else tolerance)].all()
    assert not kept[off > 1.01 * max(tolerance, 1e-9)].any()


RAMP = np.array([0.03, -0.05, 0.07])


def ramp(places):
    return places @ RAMP


@given(**geometries)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_way_of_a_volume(seed, axis, num_slices, by_factor, layout):
    """Axis order and grid come back, and a ramp in space is one at the places that the new affine tells."""
    affine, gap, how, distance, places = random_case(seed, axis, num_slices, by_factor, layout)
    shape = [3, 2]
    shape.insert(axis, num_slices)
    slices = places / SUBDIVISIONS

    def in_space(affine, along):
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape[:axis]], along,
                                     *[np.arange(n) for n in shape[axis + 1:]], indexing="ij"), axis=-1)  # fmt: skip
        return torch.tensor(ramp(index @ affine[:3, :3].T + affine[:3, 3]))

    meta = {} if layout == "even" else {"slice_positions": tuple(slices.tolist()), "slice_positions_axis": axis}
    scan = MetaTensor(in_space(affine, slices)[None], affine=torch.tensor(affine), meta=meta)
    preprocessing = Compose([ThroughPlaneLastd("image", axis=axis)])
    inferer = SplineSliceInferer(**how, mode="linear")
    data = preprocessing({"image": scan, "original": scan})
    data["pred"] = inferer(data["image"][None])[0]
    grid = inferer.output_grid(data["image"][None])
    count = int(data["pred"].shape[-1])
    result = RestoreVolumed("pred", preprocessing)(data)["pred"]

    shape[axis] = count
    assert list(result.shape[1:]) == shape
    found = corners(result.affine.numpy(), axis, np.arange(count))
    expected = corners(affine, axis, np.arange(count) * distance.numerator / (distance.denominator * gap))
    assert abs(found - expected).max() < TOLERANCE_MM
    # slices that are observed for being within the tolerance may be off by as much
    drift = 0 if layout == "even" else GRID_TOLERANCE * abs(RAMP @ affine[:3, axis])
    error = abs(result.as_tensor()[0] - in_space(result.affine.numpy(), np.arange(count))).movedim(axis, -1)
    assert error.max() < drift + 1e-9
    assert error[..., ~grid.is_observed].numel() == 0 or error[..., ~grid.is_observed].max() < 1e-9
    kept = result.as_tensor()[0].movedim(axis, -1)[..., grid.is_observed]
    assert torch.equal(kept, scan.as_tensor()[0].movedim(axis, -1)[..., grid.observed_source])
    assert slice_positions(result, axis) is None
    # and the input itself comes back as it was
    back = preprocessing.inverse({"image": preprocessing({"image": scan})["image"]})["image"]
    assert torch.equal(back.as_tensor(), scan.as_tensor()) and torch.equal(back.affine, scan.affine)
    assert slice_positions(back, axis) == meta.get("slice_positions")
