# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Thick slices against scipy, against slab integrals of a continuous phantom, and traced back by their affines."""

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy import ndimage
from scipy.spatial.transform import Rotation

from monai_sliceinterp.data.phantom import make_phantom
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms import (
    Degrader,
    Degraderd,
    FWHMDownsample,
    FWHMDownsampled,
    RandDegrader,
    RandDegraderd,
    degrade,
)
from monai_sliceinterp.transforms.degradation import PROFILES, thick_positions
from tests.transforms.volumes import SPACING, check_error, make_volume

FWHM = 2 * math.sqrt(2 * math.log(2))
INPUTS = ("factor", "fwhm", "profile", "phase", "noise", "seed")
# factor, phase: integer and real, and some that are not exact in binary
STEPS = [(1, 0), (2, 1), (4, 0), (4, 3), (2.5, 0), (2.5, 0.5), (3.3, 1.7), (1.1, 0), (6, 0.25), (math.pi, 1)]


def places(num_slices, factor, phase=0):
    """Where the thick slices are, in exact arithmetic."""
    factor, phase = (Fraction(value).limit_denominator(10**6) for value in (factor, phase))
    count = (num_slices - 1 - phase) // factor + 1
    return [phase + i * factor for i in range(count)]


def at(values, positions):
    """Values along the last axis at real positions, by scipy's cubic spline."""
    coefficients = ndimage.spline_filter1d(np.asarray(values, dtype=np.float64), 3, axis=-1, mode="mirror")
    rows = coefficients.reshape(-1, coefficients.shape[-1])
    wanted = [np.asarray([float(p) for p in positions])]
    found = [ndimage.map_coordinates(row, wanted, order=3, mode="mirror", prefilter=False) for row in rows]
    return np.reshape(found, (*coefficients.shape[:-1], -1))


def gaussian(values, sigma):
    """Every slice blurred; 4 sigma is a whole number in these tests, so that scipy's cut is the same."""
    assert 4 * sigma % 1 == 0
    return ndimage.gaussian_filter1d(np.asarray(values, dtype=np.float64), sigma, axis=-1, mode="nearest", truncate=4.0)


def box(values, width, parts=20):
    """Mean over a box around each slice; slices are constant over one gap and made of ``parts`` pieces."""
    values = np.asarray(values, dtype=np.float64)
    side = math.ceil(width)
    fine = np.repeat(np.pad(values, [(0, 0)] * (values.ndim - 1) + [(side, side)], mode="edge"), parts, axis=-1)
    half = round(width * parts / 2)
    assert half == pytest.approx(width * parts / 2)
    centres = [(side + n) * parts + parts // 2 for n in range(values.shape[-1])]
    return np.stack([fine[..., c - half : c + half].mean(-1) for c in centres], axis=-1)


def same(first, second, tolerance=1e-5):
    """Whether two degraded volumes are the same, values, places and thickness."""
    np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-9)
    assert first.meta.get("slice_thickness") == pytest.approx(second.meta.get("slice_thickness"))
    return True


class TestPositions:
    @pytest.mark.parametrize("num_slices", [5, 12, 23, 24, 38, 100])
    @pytest.mark.parametrize(
        ("factor", "phase"), [*STEPS, (1.1, 0.1), (0.1 + 0.2 + 2.7, 1), (1.7, 3), (2.3, 0), (3.7, 0), (4 / 3, 0)]
    )
    def test_equal_exact_arithmetic(self, num_slices, factor, phase):
        """The last slice is there in spite of rounding, as for 3 x 1.1 > 3.3."""
        expected = [float(p) for p in places(num_slices, factor, phase)]
        if len(expected) < 2:
            check_error("fewer than two", thick_positions, num_slices, factor, phase)
            return
        positions = thick_positions(num_slices, factor, phase)
        assert len(positions) == len(expected) and positions[-1] <= num_slices - 1
        np.testing.assert_allclose(positions, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("factor", [0, 0.99, -4, True, math.nan, math.inf, "4", None])
    def test_factor(self, factor):
        for call in (partial(thick_positions, 20), partial(degrade, torch.rand(20)), Degrader):
            check_error(f"factor must be a number of 1 or more, got {factor!r}", call, factor)
        check_error("factor must be a number of 1 or more", RandDegrader, factors=(4, factor))
        check_error("factor must be a number of 1 or more", Degraderd, "image", factor=factor)
        check_error(f"factor must be a positive integer, got {factor!r}", FWHMDownsample, factor)

    @pytest.mark.parametrize("phase", [-1, 20, 19.5, True, math.nan, math.inf, "1"])
    def test_phase(self, phase):
        pattern = r"phase must be (a position within \[0, 19\]|zero or a positive number), got"
        check_error(pattern, thick_positions, 20, 1, phase)
        check_error(pattern, degrade, torch.rand(20), 1, phase=phase)

    @pytest.mark.parametrize(("factor", "phase"), [(20, 0), (19, 1), (19, 0.5), (19.01, 0), (1, 19), (1000, 0)])
    def test_fewer_than_two_slices_left(self, factor, phase):
        assert thick_positions(20, 19) == [0, 19] and thick_positions(20, 18.5, 0.5) == [0.5, 19]
        pattern = f"{factor:g} slices of 20 .* two"
        check_error(pattern, thick_positions, 20, factor, phase)
        check_error(pattern, degrade, torch.rand(20), factor, 1.0, phase=phase)
        check_error(pattern, Degrader(factor, fwhm=1, phase=phase), make_volume(20))
        if factor % 1 == phase % 1 == 0:
            check_error(pattern, FWHMDownsample(factor, fwhm=0, phase=phase), make_volume(20))


class TestDegrade:
    @pytest.mark.parametrize(("factor", "phase"), STEPS)
    @pytest.mark.parametrize("sigma", [0.5, 1.25, 3.0])
    def test_gaussian_equals_scipy(self, factor, phase, sigma):
        values = make_volume().as_tensor().double()
        found = degrade(values, factor, sigma * FWHM, phase=phase)
        blurred = gaussian(values, sigma)
        if factor % 1 == phase % 1 == 0:
            np.testing.assert_allclose(found, blurred[..., int(phase) :: int(factor)], rtol=1e-9)
        np.testing.assert_allclose(found, at(blurred, places(23, factor, phase)), rtol=1e-5)
        assert torch.equal(found, degrade(values, factor, sigma * FWHM, "gaussian", phase))

    @pytest.mark.parametrize(("factor", "phase"), STEPS)
    @pytest.mark.parametrize("width", [0.5, 1, 2, 3, 3.5, 5, 8.3])
    def test_box_equals_means_of_slices(self, factor, phase, width):
        values = make_volume().as_tensor().double()
        found = degrade(values, factor, width, "box", phase)
        np.testing.assert_allclose(found, at(box(values, width), places(23, factor, phase)), rtol=1e-5)

    @pytest.mark.parametrize(("factor", "phase"), STEPS)
    def test_none_takes_slices_as_they_are(self, factor, phase):
        values = make_volume().as_tensor()
        found = degrade(values, factor, 7.0, "none", phase)
        if factor % 1 == phase % 1 == 0:
            assert torch.equal(found, values[..., int(phase) :: int(factor)])
        np.testing.assert_allclose(found, at(values, places(23, factor, phase)), rtol=1e-4, atol=1e-3)
        for profile in ("gaussian", "box"):
            assert torch.equal(found, degrade(values, factor, 0.0, profile, phase))


class TestRestoredGrid:
    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize(("factor", "phase"), STEPS)
    def test_spline_through_the_thick_slices(self, profile, factor, phase):
        values = make_volume().as_tensor().double()
        options = ((), (True,), (True, True))
        thick, found, whole = (degrade(values, factor, 2.4, profile, phase, *given) for given in options)
        positions = places(23, factor, phase)
        thin = range(math.ceil(phase), math.floor(positions[-1]) + 1)
        begin, end = thin[0], thin[-1] + 1
        assert found.shape[-1] == len(thin) and whole.shape == values.shape
        wanted = [(n - float(phase)) / float(factor) for n in thin]
        np.testing.assert_allclose(found, at(thick, wanted), rtol=1e-5, atol=1e-3)
        for index, position in enumerate(positions):  # thin slices at thick ones are these
            if position.denominator == 1:
                np.testing.assert_allclose(found[..., int(position) - begin], thick[..., index], rtol=1e-9)
        # extrapolation repeats the ends; without a grid to restore there is nothing to extrapolate
        np.testing.assert_allclose(whole[..., begin:end], found, rtol=1e-12)
        np.testing.assert_allclose(whole[..., :begin], thick[..., :1].expand(-1, -1, -1, begin), rtol=1e-9)
        np.testing.assert_allclose(whole[..., end:], thick[..., -1:].expand(-1, -1, -1, 23 - end), rtol=1e-9)
        assert torch.equal(degrade(values, factor, 2.4, profile, phase, extrapolate=True), thick)


class TestPhantom:
    """Degraded point samples against slab integrals of the continuous phantom.

    The two differ by the sum over point samples in place of the integral (edges are 1.6 mm wide), by where the Gaussian
    is cut (3.5 or 4 standard deviations), and by less than 0.2 HU of quadrature. This is at most 0.8 HU (root mean
    square) of a range of 2000 HU; the smallest mistakes tried here are 6.8 HU or more.
    """

    TOLERANCE, MISTAKE = 1.2, 5.0  # root mean square, in HU

    @pytest.mark.parametrize(
        ("thin_mm", "factor", "phase", "profile", "width"),
        [
            (1.0, 4, 0, "gaussian", 4.0),
            (1.0, 4, 3, "gaussian", 5.0),
            (1.0, 3.3, 1.7, "gaussian", 4.0),
            (0.5, 6.4, 2.3, "gaussian", 3.2),
            (0.5, 8, 3, "box", 4.0),
            (0.5, 8, 0, "box", 4.5),
            (0.5, 6.4, 2.3, "box", 4.0),
        ],
    )
    def test_slab_integrals(self, thin_mm, factor, phase, profile, width):
        count = 90
        affine = np.diag([9.0, 11.0, thin_mm, 1.0])
        affine[:3, 3] = (-148, -105, -thin_mm * (count - 1) / 2 + 3)
        thin = make_phantom("torso", 3, (32, 20, count), affine=affine, noise=0)
        thick, _, parameters = Degrader(factor, fwhm=width, profile=profile, phase=phase)(thin)
        positions = places(count, factor, phase)
        assert thick.shape == (1, 32, 20, len(positions))
        assert parameters["sigma"] == pytest.approx(width / thin_mm / FWHM)
        # the object goes on past the ends of the volume, which replicated slices do not know
        reach = 2 * width / thin_mm
        inner = [n for n, position in enumerate(positions) if reach <= position <= count - 1 - reach]
        assert len(inner) > 4

        def error(shift=0.0, wider=1.0):
            matrix = affine.copy()
            matrix[2, 2] = thin_mm * factor
            matrix[2, 3] += thin_mm * (phase + shift)
            slab = {"slice_thickness": wider * width, "profile": profile}
            truth = make_phantom("torso", 3, thick.shape[1:], affine=matrix, noise=0, **slab)
            if shift == 0:
                np.testing.assert_allclose(thick.affine, truth.affine, atol=1e-9)
            return float((thick - truth)[..., inner].square().mean().sqrt())

        assert error() < self.TOLERANCE
        assert min(error(shift=0.5), error(shift=-0.5)) > self.MISTAKE  # half a thin slice
        assert error(shift=factor / 2) > 5 * self.MISTAKE  # half a thick slice
        assert min(error(wider=1.2), error(wider=0.8)) > self.MISTAKE


@st.composite
def affines(draw):
    """Any affine: rotated, flipped, anisotropic, shifted, sometimes sheared."""
    turns = [draw(st.floats(-180, 180)) for _ in range(3)]
    spacing = [draw(st.sampled_from([0.4, 0.75, 1.0, 2.5, 6.0])) * draw(st.sampled_from([1, -1])) for _ in range(3)]
    shear = np.eye(3)
    shear[0, 2] = draw(st.sampled_from([0.0, 0.0, 0.3]))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", turns, degrees=True).as_matrix() @ shear @ np.diag(spacing)
    matrix[:3, 3] = [draw(st.integers(-300, 300)) for _ in range(3)]
    return matrix


class TestAffines:
    @settings(max_examples=120, deadline=None)
    @given(
        affine=affines(),
        axis=st.integers(-3, 2),
        factor=st.sampled_from([1, 2, 3, 5, 1.25, 1.1, 2.5, 3.3]),
        phase=st.sampled_from([0, 1, 2, 0.5, 0.1, 2.75]),
        profile=st.sampled_from(PROFILES),
        restore=st.booleans(),
        extrapolate=st.booleans(),
    )
    def test_every_slice_lies_where_it_was(self, affine, axis, factor, phase, profile, restore, extrapolate):
        shape = [4, 3, 5]
        shape[axis] = 14
        volume = MetaTensor(torch.rand(2, *shape), affine=torch.tensor(affine), meta={"note": "kept", "list": [1]})
        before, meta = volume.as_tensor().clone(), dict(volume.meta)
        steps = affine[:3, :3]
        others = [k for k in range(3) if k != axis % 3]
        normal = np.cross(steps[:, others[0]], steps[:, others[1]])
        gap = abs(steps[:, axis % 3] @ normal) / np.linalg.norm(normal)
        options = {"restore_grid": restore, "extrapolate": extrapolate, "axis": axis}
        thick, thin, parameters = Degrader(factor, fwhm=3.25, profile=profile, phase=phase, **options)(volume)

        positions = [float(p) for p in places(14, factor, phase)]
        inside = list(range(math.ceil(positions[0]), math.floor(places(14, factor, phase)[-1]) + 1))
        if restore and extrapolate:
            inside = list(range(14))
        if restore:
            positions = inside
        where = axis % 3
        for result, expected in ((thick, positions), (thin, inside)):
            assert type(result) is MetaTensor and result.affine.dtype == torch.float64
            shape[where] = len(expected)
            assert result.shape == (2, *shape)
            for n, position in enumerate(expected):
                for corner in ((0, 0, 0), (3, 1, 4)):
                    here, there = np.array([*corner, 1.0]), np.array([*corner, 1.0])
                    here[where], there[where] = n, position
                    np.testing.assert_allclose(result.affine.numpy() @ here, affine @ there, atol=1e-6)
            assert result.meta["note"] == "kept"
        chosen = before.movedim(where + 1, -1)[..., inside].movedim(-1, where + 1)
        assert torch.equal(thin.as_tensor(), chosen)
        assert "slice_thickness" not in thin.meta
        assert thick.meta.get("slice_thickness") == (None if profile == "none" else 3.25)
        assert parameters["slice_spacing"] == pytest.approx(factor * gap, rel=1e-6)
        # the values follow from the thin slices alone, whatever the affine
        plain = degrade(before.movedim(where + 1, -1), factor, 3.25 / gap, profile, phase, restore, extrapolate)
        np.testing.assert_allclose(thick.as_tensor(), plain.movedim(-1, where + 1), atol=1e-5)
        # the input is as it was
        assert torch.equal(volume.as_tensor(), before) and volume.meta.keys() == meta.keys()
        np.testing.assert_array_equal(volume.affine, affine)
        assert volume.meta["note"] == "kept" and volume.meta["list"] == [1]

    def test_thickness_and_spacing_are_read_back(self):
        volume = make_volume(axis=0, **{"0018|0050": "1.0"})
        for options, thickness in (
            ({"fwhm": 4.5}, 4.5),
            ({}, 6.0),
            ({"fwhm": 4.5, "restore_grid": True}, 4.5),
            ({"profile": "none"}, 1.0),
        ):
            thick, thin, _ = Degrader(4, axis=0, **options)(volume)
            assert slice_geometry(thick, axis=0).thickness == thickness
            assert slice_geometry(thick, axis=0).slice_spacing == (1.5 if "restore_grid" in options else 6.0)
            assert slice_geometry(thin, axis=0).thickness == 1.0
        assert volume.meta["0018|0050"] == "1.0" and "slice_thickness" not in volume.meta

    @pytest.mark.parametrize("degrader", [Degrader(2, sigma=0), Degrader(1, profile="none"), RandDegrader(prob=0)])
    def test_results_are_copies_of_the_input(self, degrader):
        volume = make_volume()
        before = volume.as_tensor().clone()
        thick, thin, _ = degrader(volume)
        thick += 1000
        assert torch.equal(volume.as_tensor(), before)
        thin += 1000
        assert torch.equal(volume.as_tensor(), before)

    def test_uneven_slices_are_refused(self):
        meta = {"slice_positions": (0.0, 1.0, 3.0, 4.0, 5.0), "slice_positions_axis": 2}
        volume = MetaTensor(torch.rand(1, 4, 4, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])), meta=meta)
        for transform in (Degrader(factor=2), FWHMDownsample(2)):
            check_error("the slices are unevenly spaced or some are missing; expected even gaps", transform, volume)


class TestWidths:
    @pytest.mark.parametrize("axis", [0, 2])
    @pytest.mark.parametrize("restore", [False, True])
    def test_three_ways_to_state_the_same(self, axis, restore):
        volume = make_volume(axis=axis)
        # 4.5 mm are 3 voxels, and 6 mm less 1.5 mm
        widths = ({"fwhm": 4.5}, {"sigma": 3.0 / FWHM}, {"gap": 1.5})
        results = [Degrader(4, phase=1, axis=axis, restore_grid=restore, **width)(volume) for width in widths]
        for thick, _, parameters in results:
            assert same(thick, results[0].thick)
            assert parameters == pytest.approx(results[0].parameters)
            assert parameters["fwhm"] == thick.meta["slice_thickness"] == pytest.approx(4.5)
            assert parameters["sigma"] == pytest.approx(3.0 / FWHM) and parameters["slice_spacing"] == 6.0
        expected = degrade(volume.as_tensor().movedim(axis + 1, -1), 4, 3.0, phase=1, restore_grid=restore)
        np.testing.assert_allclose(results[0].thick, expected.movedim(-1, axis + 1), rtol=1e-6)

    @pytest.mark.parametrize("profile", ["gaussian", "box"])
    @pytest.mark.parametrize("factor", [3, 2.5])
    def test_default_is_the_new_slice_spacing(self, factor, profile):
        volume = make_volume()
        found = Degrader(factor, profile=profile)(volume)
        assert found.parameters["fwhm"] == found.parameters["slice_spacing"] == SPACING * factor
        assert found.thick.meta["slice_thickness"] == SPACING * factor
        for other in ({"fwhm": SPACING * factor}, {"gap": 0}, {"gap": 0.0}):
            assert same(found.thick, Degrader(factor, profile=profile, **other)(volume).thick, 1e-6)
        np.testing.assert_allclose(found.thick, degrade(volume.as_tensor(), factor, factor, profile), rtol=1e-6)

    @pytest.mark.parametrize("width", [{"sigma": 0}, {"fwhm": 0.0}, {"sigma": 3, "profile": "none"}])
    def test_no_width_is_slicing(self, width):
        volume = make_volume(slice_thickness=1.2)
        thick, _, parameters = Degrader(4, phase=3, **width)(volume)
        assert torch.equal(thick.as_tensor(), volume.as_tensor()[..., 3::4])
        assert thick.meta["slice_thickness"] == 1.2 and parameters["fwhm"] == parameters["sigma"] == 0
        assert parameters["profile"] == width.get("profile", "gaussian")

    def test_gap_must_fit(self):
        for gap in (6, 6.0, 7.5):
            check_error(f"gap of {gap:g} mm .* 6 mm; expected less", Degrader(4, gap=gap), make_volume())
        assert Degrader(4, gap=5.9)(make_volume()).parameters["fwhm"] == pytest.approx(0.1)


NO_SIGMA = "box has no sigma: give its width as fwhm in mm, or the gap"


class TestErrors:
    @pytest.mark.parametrize(
        ("build", "arguments", "pattern"),
        [
            (Degrader, {"sigma": 1, "fwhm": 0}, "one of sigma, fwhm and gap, got sigma and fwhm"),
            (Degrader, {"fwhm": 1, "gap": 0, "profile": "box"}, "got fwhm and gap"),
            (Degrader, {"sigma": 1, "profile": "box"}, NO_SIGMA),
            (Degrader, {"seed": 1.5}, "seed must be an integer of at least 0, got 1.5"),
            (RandDegrader, {"sigma_range": (0, 1), "gap_range": (0, 1)}, "got sigma and gap"),
            (RandDegrader, {"sigma_range": (0, 1), "fwhm_range": (0, 1)}, "got sigma and fwhm"),
            (RandDegrader, {"profiles": ("gaussian", "box")}, NO_SIGMA),
            (RandDegrader, {"sigma_range": (0, 1), "profiles": ("box",)}, NO_SIGMA),
            (FWHMDownsample, {"phase": -1}, "phase must be an integer of at least 0, got -1"),
            (FWHMDownsample, {"phase": 0.5}, "phase must be an integer"),
            (FWHMDownsample, {"factor": 1.5}, "factor must be a positive integer, got 1.5"),
        ],
    )
    def test_arguments(self, build, arguments, pattern):
        check_error(pattern, build, **({} if build is RandDegrader else {"factor": 4}) | arguments)

    @pytest.mark.parametrize("name", ["sigma", "fwhm", "gap", "noise", "phase"])
    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf, "1", [1]])
    def test_numbers(self, name, value):
        check_error(f"^{name} must be zero or a positive number( of mm)?, got", Degrader, 4, **{name: value})
        if name == "fwhm":
            check_error("^fwhm must be zero or a positive number of mm, got", FWHMDownsample, 4, value)
            check_error("^fwhm must be zero or a positive number, got", degrade, torch.rand(9), 2, value, "box")

    def test_profile(self):
        pattern = "unknown slab profile 'sinc'; expected one of gaussian, box, none"
        check_error(pattern, degrade, torch.rand(9), 2, profile="sinc")
        check_error(pattern, Degrader, 2, profile="sinc")
        check_error(pattern, RandDegrader, profiles=("gaussian", "sinc"))

    @pytest.mark.parametrize("axis", [3, -4, True, "z"])
    def test_axis(self, axis):
        for build in (Degrader, FWHMDownsample):
            check_error(f"axis {axis!r} is not a spatial axis", build(2, axis=axis), make_volume())

    def test_missing_channel(self):
        check_error(r"expected a volume \(C, X, Y, Z\) with voxels, got shape", Degrader(2), torch.rand(6, 6, 20))


class TestNoise:
    @pytest.mark.parametrize("restore", [False, True])
    def test_white_with_the_right_deviation(self, restore):
        volume = MetaTensor(torch.full((2, 48, 48, 41), 100.0))
        thick = Degrader(4, noise=7.5, seed=3, restore_grid=restore)(volume).thick
        noise = (thick - 100.0).numpy() / 7.5
        n = noise.size
        assert abs(noise.mean()) < 4 / math.sqrt(n) and abs(noise.std() - 1) < 4 / math.sqrt(2 * n)
        assert abs((noise**4).mean() - 3) < 4 * math.sqrt(96 / n)  # a Gaussian's fourth moment
        for axis in range(4):  # added at the end: nothing smooths it
            first, second = np.split(np.moveaxis(noise, axis, 0)[: noise.shape[axis] // 2 * 2].copy(), 2)
            near = np.moveaxis(noise, axis, 0)
            assert abs((first * second).mean()) < 4 / math.sqrt(first.size)
            assert abs((near[1:] * near[:-1]).mean()) < 4 / math.sqrt(near[1:].size)

    def test_same_seed_same_result(self):
        volume = make_volume()
        degrader = Degrader(4, noise=2.0, seed=5)
        torch.manual_seed(0)
        expected, thin, _ = degrader(volume)
        assert torch.equal(thin.as_tensor(), volume.as_tensor()[..., :21])  # no noise there
        torch.manual_seed(1)
        state = torch.get_rng_state()
        assert torch.equal(degrader(volume).thick, expected)  # again, and whatever torch's own generator does
        assert torch.equal(torch.get_rng_state(), state)
        for seed in (0, 6):
            assert (Degrader(4, noise=2.0, seed=seed)(volume).thick != expected).float().mean() > 0.99
        clean, doubled = (Degrader(4, noise=noise, seed=5)(volume).thick for noise in (0.0, 4.0))
        np.testing.assert_allclose(doubled - clean, 2 * (expected - clean), atol=1e-4)

    @pytest.mark.parametrize("restore", [False, True])
    @pytest.mark.parametrize(
        "settings",
        [
            {"sigma": 1.3},
            {"fwhm": 3.7, "profile": "box", "phase": 2},
            {"gap": 0.5, "phase": 0.7, "factor": 2.5},
            {"profile": "none", "phase": 1, "sigma": 3},
            {"factor": 1},
            {},
        ],
    )
    def test_parameters_do_the_same_again(self, settings, restore):
        volume = make_volume(axis=1)
        settings = {"factor": 3, "noise": 2.5, "seed": 11, **settings}
        thick, thin, parameters = Degrader(**settings, restore_grid=restore, axis=1)(volume)
        assert set(parameters) == {*INPUTS, "axis", "sigma", "slice_spacing"} and parameters["axis"] == 1
        rebuilt = Degrader(**{name: parameters[name] for name in INPUTS}, restore_grid=restore, axis=1)
        again = rebuilt(volume)
        assert same(again.thick, thick) and torch.equal(again.thin, thin)
        assert again.parameters == pytest.approx(parameters)
        for name in ("factor", "phase", "noise", "seed", "profile"):
            assert parameters[name] == settings.get(name, {"phase": 0, "profile": "gaussian"}.get(name))
        assert {type(value) for name, value in parameters.items() if name not in ("seed", "profile", "axis")} == {float}


class TestInputs:
    @pytest.mark.parametrize("restore", [False, True])
    def test_channels_are_treated_alike(self, restore):
        volume, settings = make_volume(channels=4), {"sigma": 1.5, "phase": 1, "restore_grid": restore}
        thick, thin, _ = Degrader(2.5, **settings)(volume)
        for channel in range(4):
            one = Degrader(2.5, **settings)(volume[channel : channel + 1])
            np.testing.assert_allclose(thick[channel], one.thick[0], rtol=1e-6)
            assert torch.equal(thin[channel], one.thin[0])
        noise = Degrader(2.5, noise=1.0, **settings)(volume).thick - thick  # each channel its own noise
        assert abs(np.corrcoef(noise.reshape(4, -1))[np.triu_indices(4, 1)]).max() < 0.3

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
    def test_integers_are_averaged_in_float(self, dtype):
        volume = make_volume(dtype=dtype)
        thick, thin, _ = Degrader(4, sigma=1.5)(volume)
        assert thick.dtype == Degrader(4, sigma=0)(volume).thick.dtype == torch.float32
        np.testing.assert_allclose(thick, gaussian(volume.numpy(), 1.5)[..., ::4], rtol=1e-5)
        np.testing.assert_array_equal(thin, volume[..., :21])

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)],
    )
    @pytest.mark.parametrize("noise", [0.0, 2.0])
    def test_floating_types_are_kept(self, dtype, tolerance, noise):
        volume = make_volume(dtype=dtype)
        for restore in (False, True):
            thick, thin, _ = Degrader(4, sigma=1.5, noise=noise, restore_grid=restore)(volume)
            assert thick.dtype == thin.dtype == dtype
            exact = Degrader(4, sigma=1.5, noise=noise, restore_grid=restore)(volume.double()).thick
            np.testing.assert_allclose(thick.double(), exact, rtol=tolerance, atol=100 * tolerance)
        if not noise:
            found, exact = degrade(volume.as_tensor(), 4, 1.5 * FWHM), gaussian(volume.double().numpy(), 1.5)
            np.testing.assert_allclose(found.double(), exact[..., ::4], rtol=2 * tolerance)

    def test_plain_tensor_has_unit_spacing(self):
        volume = make_volume().as_tensor()
        thick, thin, parameters = Degrader(4, fwhm=1.5 * FWHM, phase=1)(volume)
        np.testing.assert_allclose(thick, gaussian(volume, 1.5)[..., 1::4], rtol=1e-5)
        np.testing.assert_array_equal(thick.affine, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, 1], [0, 0, 0, 1]])
        np.testing.assert_array_equal(thin.affine, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
        assert parameters["slice_spacing"] == 4.0

    def test_numpy_numbers(self):
        found = Degrader(np.int64(4), sigma=np.float32(1.5), phase=np.int32(1), noise=np.float64(2))(make_volume())
        assert same(found.thick, Degrader(4, sigma=1.5, phase=1, noise=2)(make_volume()).thick)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("factor", "phase"), [(1, 0), (2, 0), (4, 3), (6, 1), (19, 0)])
class TestFWHMDownsample:
    @pytest.mark.parametrize("fwhm", [0.5, 3.0, 7.5, None])
    @pytest.mark.parametrize("sheared", [False, True])
    def test_equals_blur_then_slice(self, axis, factor, phase, fwhm, sheared):
        """Every slice blurred, then every K-th one taken; of a tilted stack the slab is measured along the normal."""
        volume = make_volume(20, axis)
        if sheared:
            affine = volume.affine.clone()
            affine[:, axis] += affine[:, (axis + 1) % 3]
            volume.affine = affine
        found = FWHMDownsample(factor, fwhm=fwhm, phase=phase, axis=axis)(volume)
        width = SPACING * factor if fwhm is None else fwhm
        sigma = width / SPACING / FWHM
        options = {"axis": axis + 1, "mode": "nearest", "radius": math.ceil(4 * sigma)}
        blurred = ndimage.gaussian_filter1d(volume.numpy().astype(np.float64), sigma, **options)
        expected = np.take(blurred, range(phase, 20, factor), axis=axis + 1)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
        assert found.meta["slice_thickness"] == width
        geometry = slice_geometry(found, axis=axis)
        assert geometry.thickness == width and geometry.slice_spacing == pytest.approx(SPACING * factor)
        # the first slice lies where it was
        np.testing.assert_allclose(found.affine[:, 3], volume.affine[:, 3] + phase * volume.affine[:, axis], atol=1e-9)
        assert "slice_thickness" not in volume.meta

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
    def test_zero_width_is_slicing(self, axis, factor, phase, dtype):
        volume = make_volume(20, axis, dtype, slice_thickness=1.2)
        found = FWHMDownsample(factor, fwhm=0, phase=phase, axis=axis)(volume)
        index = [slice(None)] * 4
        index[axis + 1] = slice(phase, None, factor)
        assert found.dtype == dtype and torch.equal(found.as_tensor(), volume.as_tensor()[tuple(index)])
        assert found.meta["slice_thickness"] == 1.2  # as thick as before
        found += 1  # not a view of the input
        assert torch.equal(volume.as_tensor(), make_volume(20, axis, dtype).as_tensor())


def test_downsampling_in_compose():
    volume = make_volume()
    chain = Compose([FWHMDownsampled(["image", "gone"], factor=4, fwhm=0, phase=1, allow_missing_keys=True)])
    found = chain({"image": volume, "other": 1})
    assert torch.equal(found["image"].as_tensor(), volume.as_tensor()[..., 1::4]) and found["other"] == 1
    blurred = FWHMDownsampled("image", 2, axis=0)({"image": volume})["image"]
    assert torch.equal(blurred.as_tensor(), FWHMDownsample(2, axis=0)(volume).as_tensor())
    with pytest.raises(KeyError, match="gone"):
        FWHMDownsampled("gone", factor=4)({"image": volume})


@pytest.mark.parametrize("build", [partial(Degraderd, factor=8), partial(RandDegraderd, factors=(8,))])
class TestDictionary:
    def test_keys_and_names(self, build):
        image, label = make_volume(seed=1), make_volume(seed=2)
        data = {"image": image, "label": label, "other": 1}
        found = build(["image", "label"], ["a", "b"])(data)
        assert set(found) == {"image", "label", "a", "b", "other", "degradation"} and found["other"] == 1
        assert set(data) == {"image", "label", "other"} and data["image"] is image
        settings = {name: found["degradation"][name] for name in INPUTS}
        for key, thin, source in (("image", "a", image), ("label", "b", label)):
            expected = Degrader(**settings)(source)
            assert same(found[key], expected.thick) and torch.equal(found[thin], expected.thin)
            assert type(found[key]) is type(found[thin]) is MetaTensor
        assert set(build("image", parameters_key=None)(data)) == set(data)
        found = build("image", thin_keys="label", parameters_key="how")(data)
        assert set(found) == {*data, "how"} and found["label"].shape[-1] > 8

    def test_parameters_are_the_first_keys(self, build):
        first, second = make_volume(axis=2), make_volume()
        second.affine = torch.diag(torch.tensor([1.0, 1, 7, 1]))
        data = {"a": first, "b": second}
        assert build(["a", "b"])(data)["degradation"]["slice_spacing"] == 12.0
        assert build(["gone", "b", "a"], allow_missing_keys=True)(data)["degradation"]["slice_spacing"] == 56.0

    def test_missing_keys(self, build):
        data = {"image": make_volume(), "other": 1}
        found = build(["gone", "image"], thin_keys=["a", "b"], allow_missing_keys=True)(data)
        assert set(found) == {"image", "other", "b", "degradation"}
        assert build("gone", allow_missing_keys=True)(data) == data
        with pytest.raises(KeyError, match="gone"):
            build(["image", "gone"])(data)

    def test_number_of_names(self, build):
        check_error("one name of thin_keys for each of 2 keys, got 1", build, ["a", "b"], "c")
        check_error("each of 1 keys, got 2", build, "a", ["c", "d"])

    def test_errors_name_the_file_or_the_key(self, build):
        scan = make_volume(6, filename_or_obj="/data/patient_7.nii.gz")
        assert "scan" not in check_error("^/data/patient_7.nii.gz: .*8 slices of 6", build("scan"), {"scan": scan})
        for plain in (make_volume(6), torch.rand(1, 2, 2, 6)):
            check_error("^scan: .*8 slices of 6", build("scan"), {"scan": plain})
        check_error("^b: ", build(["a", "b"]), {"a": make_volume(20), "b": make_volume(4)})


def test_dictionary_settings_are_the_degraders():
    volume = make_volume(axis=0)
    settings = {"factor": 2.5, "gap": 0.5, "profile": "box", "phase": 0.5, "noise": 1.0, "seed": 4, "axis": 0}
    for options in ({**settings, "restore_grid": True, "extrapolate": True}, {"factor": 3, "sigma": 1.5, "fwhm": None}):
        found = Degraderd("image", **options)({"image": volume})["image"]
        assert torch.equal(found, Degrader(**options)(volume).thick)
