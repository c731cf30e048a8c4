# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from monai_sliceinterp.geometry import (
    FLOAT32_TOLERANCE,
    GRID_TOLERANCE,
    OutputGrid,
    SliceGeometry,
    scaled_affine,
    slice_geometry,
    slice_thickness,
    spatial_affine,
    through_plane_axis,
)

many = settings(max_examples=80, deadline=None, derandomize=True)
lengths = st.floats(0.2, 20.0)
counts = st.integers(2, 200)
factors = st.integers(1, 12)
unit = st.floats(-1.0, 1.0)


def make_affine(spacing, quaternion=(0, 0, 0, 1), order=(0, 1, 2), signs=(1, 1, 1), origin=(0, 0, 0), shear=(0, 0)):
    """Affine of a rotated, permuted, flipped volume; ``shear`` tilts the last axis within the plane of the others."""
    steps = np.diag(np.asarray(spacing, dtype=float))
    steps[:2, 2] += np.asarray(shear) * spacing[2]
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_quat(quaternion).as_matrix()[list(order)] * np.asarray(signs)[:, None] @ steps
    affine[:3, 3] = origin
    return affine


@st.composite
def affines(draw, shear=True):
    quaternion = draw(st.tuples(unit, unit, unit, st.floats(0.1, 1.0)))
    return make_affine(
        draw(st.tuples(lengths, lengths, lengths)),
        draw(st.sampled_from([(0, 0, 0, 1), quaternion])),
        draw(st.permutations(range(3))),
        draw(st.tuples(*[st.sampled_from([-1, 1])] * 3)),
        draw(st.tuples(*[st.floats(-500, 500)] * 3)),
        draw(st.sampled_from([(0, 0), draw(st.tuples(unit, unit))])) if shear else (0, 0),
    )


def in_mm(affine, axis, index, row, column):
    """Physical position of voxels ``index`` along ``axis``, at row and column of the other two axes."""
    voxels = np.empty((len(index), 3))
    voxels[:, axis] = index
    voxels[:, [k for k in range(3) if k != axis]] = (row, column)
    return voxels @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]


class TestAffine:
    @given(affines(), st.integers(0, 2), st.floats(0.1, 5.0), st.floats(-10, 10))
    @many
    def test_scaled_affine(self, affine, axis, step, start):
        before = affine.copy()
        scaled = scaled_affine(affine, axis, step, start)
        index = np.arange(5)
        np.testing.assert_allclose(
            in_mm(scaled, axis, index, 2, 7), in_mm(affine, axis, start + step * index, 2, 7), rtol=0, atol=1e-6
        )
        np.testing.assert_array_equal(affine, before)

    @given(affines(), st.integers(0, 2))
    @many
    def test_spacings(self, affine, axis):
        geometry = slice_geometry(affine, axis=axis)
        others = [k for k in range(3) if k != axis]
        plane, step = affine[:3, others], affine[:3, axis]
        # distance of the planes: what is left of the step after the best fit within the plane (to seven digits)
        rest = step - plane @ np.linalg.lstsq(plane, step, rcond=None)[0]
        assert geometry.axis == axis
        assert geometry.slice_spacing == pytest.approx(np.linalg.norm(rest), rel=5.1e-7)
        assert geometry.in_plane_spacing == pytest.approx(np.sqrt((plane**2).sum(0)), rel=5.1e-7)

    @given(affines(shear=False))
    @many
    def test_axis_has_largest_spacing(self, affine):
        spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
        assert spacing[through_plane_axis(affine)] >= 0.9 * spacing.max() * (1 - 1e-12)
        assert slice_geometry(affine).axis == through_plane_axis(affine)

    @pytest.mark.parametrize(
        ("spacing", "axis"),
        [
            ((5, 1, 1), 0),
            ((1, 5, 1), 1),
            ((1, 1, 5), 2),
            ((1, 1, 1), 2),
            ((5, 4.6, 1), 1),  # within 10 %: the last of the tied ones
            ((5, 4.4, 1), 0),
            ((5, 1, 4.6), 2),
            ((5, 1, 4.4), 0),
            ((4.6, 5, 4.6), 2),
            ((5, 5.4, 1), 1),
        ],
    )
    def test_axis_ties(self, spacing, axis):
        quaternion = (0.1, -0.2, 0.3, 0.9)
        assert through_plane_axis(make_affine(spacing)) == axis
        assert through_plane_axis(torch.tensor(make_affine(spacing, quaternion, signs=(-1, 1, -1)))) == axis

    def test_overrides(self):
        affine = np.diag([0.7, 0.8, 5.0, 1.0])
        assert slice_geometry(affine, axis=-3) == SliceGeometry(0, (0.8, 5.0), 0.7)
        assert slice_geometry(affine, axis=np.int64(1)) == SliceGeometry(1, (0.7, 5.0), 0.8)
        assert slice_geometry(affine, spacing=3, thickness=4.0) == SliceGeometry(2, (0.7, 0.8), 3.0, 4.0)
        image = MetaTensor(torch.zeros(1, 4, 4, 3), affine=torch.tensor(affine), meta={"SliceThickness": 6})
        assert slice_geometry(image) == SliceGeometry(2, (0.7, 0.8), 5.0, 6.0)
        assert slice_geometry(image, thickness=2.5).thickness == 2.5

    def test_kinds_of_affines(self):
        """One of float32 reads as it was written, one of a batch as that of its volumes."""
        affine = np.diag([0.7, 0.9, 3.3, 1.0])
        assert slice_geometry(affine.astype(np.float32)) == SliceGeometry(2, (0.7, 0.9), 3.3)
        np.testing.assert_array_equal(spatial_affine(torch.tensor(affine).repeat(3, 1, 1)), affine)

    @pytest.mark.parametrize(
        ("affine", "named"),
        [
            (np.diag([1.0, 0.0, 2.0, 1.0]), "1 x 0 x 2 mm"),
            (np.diag([1.0, np.nan, 2.0, 1.0]), "NaN"),
            (np.diag([1.0, np.inf, 2.0, 1.0]), "infinite"),
            (np.array([[1, 2, 0, 0], [1, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]]), "singular"),
            (np.eye(3), r"\(3, 3\)"),
            (np.stack([np.eye(4), 2 * np.eye(4)]), r"\(2, 4, 4\)"),
            (np.zeros((0, 4, 4)), r"\(0, 4, 4\)"),
        ],
    )
    @pytest.mark.parametrize("function", [spatial_affine, through_plane_axis, slice_geometry])
    def test_bad_affine(self, function, affine, named):
        check_error(named, function, affine)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("axis", value) for value in (3, -4, 1.5, True, "z")),
            *(
                (name, value)
                for name in ("spacing", "thickness")
                for value in (0, -2.0, float("nan"), float("inf"), "3")
            ),
        ],
    )
    def test_bad_override(self, name, value):
        check_error(f"{name} .*{value!r}", slice_geometry, np.eye(4), **{name: value})


class TestThickness:
    @pytest.mark.parametrize(
        "meta",
        [
            {"slice_thickness": 5},
            {"SliceThickness": 5.0},
            {"0018|0050": "5.000000 "},
            {"00180050": {"vr": "DS", "Value": [5.0]}},
            {"0018|0050": ["5.0", "5.0"]},  # a collated batch
            {"slice_thickness": torch.tensor([5.0, 5.0])},
            {"slice_thickness": np.float32(5)},
            {"slice_thickness": None, "SliceThickness": "", "0018|0050": [], "00180050": {"vr": "DS", "Value": [5]}},
            {"slice_thickness": 5.0, "0018|0050": "1.0"},  # what a transform wrote goes before the file's
        ],
    )
    def test_found(self, meta):
        assert slice_thickness(meta) == 5.0
        assert isinstance(slice_thickness(meta), float)
        image = MetaTensor(torch.zeros(1, 2, 2, 2), affine=torch.eye(4), meta=meta)
        assert slice_geometry(image).thickness == 5.0

    @pytest.mark.parametrize(
        "meta",
        [
            {},
            {"00180050": {"vr": "DS"}},
            {"SliceThickness": 0},
            {"0018|0050": "  "},
            {"0018|0088": "3"},
            {"SliceThickness": [4.0, 5.0]},  # of a batch: not one thickness
            {"SliceThickness": torch.tensor([[4.0], [5.0]])},
        ],
    )
    def test_absent(self, meta):
        assert slice_thickness(meta) is None

    @pytest.mark.parametrize(
        "value",
        [-5.0, "thick", float("nan"), "inf", {"vr": "DS", "Value": [-1]}],
    )
    def test_not_a_thickness(self, value):
        check_error("SliceThickness", slice_thickness, {"SliceThickness": value})


class TestGrid:
    @given(counts, lengths, st.floats(1.0, 30.0))
    @many
    def test_from_spacing_fills_the_range(self, num_slices, gap, ratio):
        target = gap / ratio
        grid = OutputGrid.from_spacing(num_slices, gap, target)
        positions = np.asarray(grid.positions)
        drift = positions - np.arange(len(grid)) * target / gap
        assert positions[0] == 0 and positions[-1] <= num_slices - 1
        assert positions[-1] + target / gap > num_slices - 1 - 2 * GRID_TOLERANCE  # one more would lie outside
        assert (np.diff(positions) > 0).all()
        assert abs(drift).max() <= 1.01 * GRID_TOLERANCE
        if grid.step != 1 / round(ratio):
            # beyond the rounding of float32 affines, which is taken out
            moved = abs(drift) > 1e-8 + FLOAT32_TOLERANCE * positions
            np.testing.assert_array_equal(positions[moved], positions[moved].round())
            assert grid.step == pytest.approx(target / gap, rel=FLOAT32_TOLERANCE)

    @pytest.mark.parametrize(
        ("gap", "target", "cycle"),  # two input gaps are three output gaps, and so on
        [(0.9, 0.6, (2, 3)), (3.6, 2.4, (2, 3)), (7.0, 2.8, (2, 5)), (3.3, 1.2, (4, 11))],
    )
    def test_float32_rounding_keeps_the_observed_slices(self, gap, target, cycle):
        """Rounding neither loses the last slice nor moves a slice off the observed ones that it falls on."""
        for rounded in (np.float32(target), np.nextafter(np.float32(target), np.float32(np.inf)), target):
            grid = OutputGrid.from_spacing(201, gap, float(rounded))
            expected = np.arange(200 // cycle[0] * cycle[1] + 1) * cycle[0] / cycle[1]
            np.testing.assert_allclose(grid.positions, expected, rtol=0, atol=1e-4)
            assert grid.observed_source.tolist() == list(range(0, 201, cycle[0]))
            assert grid.is_observed.nonzero().ravel().tolist() == list(range(0, len(grid), cycle[1]))

    @pytest.mark.parametrize(("num_slices", "gap", "target", "observed"), [(60, 5.0, 0.51, 51), (40, 4.0, 0.975, 39)])
    def test_slices_that_rounding_just_misses_are_observed(self, num_slices, gap, target, observed):
        grid = OutputGrid.from_spacing(num_slices, gap, target)
        assert float(observed) in grid.positions and observed in grid.observed_source.tolist()
        assert all(p == round(p) or abs(p - round(p)) > 1e-6 for p in grid.positions)

    @given(counts, lengths, factors)
    @many
    def test_factor_and_spacing_agree(self, num_slices, gap, factor):
        expected = OutputGrid.from_factor(num_slices, factor)
        assert OutputGrid.from_spacing(num_slices, gap, gap / factor) == expected
        stored = np.diag([0.2, 0.2, gap + 1, 1.0]).astype(np.float32)
        geometry = slice_geometry(stored)
        target = np.float32(gap + 1) / np.float32(factor)
        assert OutputGrid.create(num_slices, geometry, spacing=float(target)) == expected
        assert OutputGrid.create(num_slices, geometry, spacing=target) == expected
        assert OutputGrid.create(num_slices, geometry, factor=np.int64(factor)) == expected

    @given(counts, lengths, st.one_of(factors, st.floats(1.0, 12.0)))
    @many
    def test_neighbors(self, num_slices, gap, ratio):
        grid = OutputGrid.from_spacing(num_slices, gap, gap / ratio)
        positions = torch.tensor(grid.positions, dtype=torch.float64)
        lower, alpha = grid.lower, grid.alpha
        assert lower.dtype == torch.int64 and alpha.dtype == torch.float64
        assert lower.min() >= 0 and lower.max() <= num_slices - 2
        assert alpha.min() >= 0 and alpha.max() <= 1
        assert torch.equal(lower + alpha, positions)
        assert (alpha[lower < num_slices - 2] < 1).all()  # only the last slice is the end of a gap
        assert grid.is_observed.tolist() == [float(position).is_integer() for position in grid.positions]
        assert grid.observed_source.tolist() == [int(p) for p in grid.positions if float(p).is_integer()]

    @pytest.mark.parametrize(
        ("spacing", "length"),
        [
            ((1.0, 1.0, 3.0), 13),
            ((0.75, 1.5, 3.0), 17),  # the smaller in-plane spacing
            ((0.8, 0.8, 2.0), 11),
            ((0.9, 0.9, 2.0), 9),  # 8.9 gaps of 0.9 mm in 8 mm
            ((1.0, 1.0, 1.009), 5),  # isotropic within 1 %
            ((1.0, 1.0, 1.02), 5),
            ((1.0, 1.0, 0.5), 5),  # finer than in-plane: kept
        ],
    )
    def test_isotropic_default(self, spacing, length):
        affine = make_affine(spacing, (0.1, 0.2, 0.3, 0.9))
        grid = OutputGrid.create(5, slice_geometry(affine, axis=2))
        assert len(grid) == length
        if spacing[2] > 1.01 * min(spacing[:2]):
            assert np.linalg.norm(grid.affine(affine)[:3, 2]) == pytest.approx(min(spacing), rel=1e-9)
        else:
            assert grid == OutputGrid.from_factor(5, 1) and grid.positions == (0, 1, 2, 3, 4)
            np.testing.assert_array_equal(grid.affine(affine), affine)

    @pytest.mark.parametrize("factor", [0, -2, 1.5, True, "2", None, float("nan"), float("inf"), np.float64(2.5)])
    def test_bad_factor(self, factor):
        check_error(repr(factor).replace("(", r"\(").replace(")", r"\)"), OutputGrid.from_factor, 5, factor)

    @pytest.mark.parametrize("spacing", [0, -1.0, float("nan"), float("inf"), True, "1"])
    def test_bad_spacing(self, spacing):
        check_error(f"target spacing .*{spacing!r}", OutputGrid.from_spacing, 5, 3.0, spacing)
        check_error(f"slice spacing .*{spacing!r}", OutputGrid.from_spacing, 5, spacing, 3.0)

    def test_refused(self):
        geometry = slice_geometry(np.diag([1.0, 1.0, 3.0, 1.0]))
        check_error(r"3\.1 mm is coarser than the input's 3 mm", OutputGrid.from_spacing, 5, 3.0, 3.1)
        check_error("factor 2, spacing 1.5", OutputGrid.create, 5, geometry, factor=2, spacing=1.5)
        for num_slices in (1, 0):
            for how in ({"factor": 2}, {"spacing": 1.5}, {}):
                check_error(f"2 slices, got {num_slices}", OutputGrid.create, num_slices, geometry, **how)


def check_error(named, function, *args, **kwargs):
    """Bad input raises a ValueError of one line that names what is wrong."""
    with pytest.raises(ValueError, match=named) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
