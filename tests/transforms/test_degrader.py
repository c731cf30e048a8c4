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

"""Thick slices against scipy, against slab integrals of a continuous phantom, and traced back by their affines."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Lambdad
from scipy import ndimage
from scipy.spatial.transform import Rotation

from monai_sliceinterp import transforms
from monai_sliceinterp.data.phantom import make_phantom
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms import Degradation, Degrader, Degraderd, RandDegrader, RandDegraderd, degrade
from monai_sliceinterp.transforms.degrader import PROFILES, thick_positions

SPACING = 1.5
FWHM = 2 * math.sqrt(2 * math.log(2))
INPUTS = ("factor", "fwhm", "profile", "phase", "noise", "seed")
# factor, phase: integer and real, and some that are not exact in binary
STEPS = [(1, 0), (2, 1), (4, 0), (4, 3), (2.5, 0), (2.5, 0.5), (3.3, 1.7), (1.1, 0), (6, 0.25), (math.pi, 1)]


def make_volume(num_slices=23, axis=2, dtype=torch.float32, channels=2, seed=0, **meta):
    """Random volume with an oblique affine: 0.8 mm in-plane, slices of 1.5 mm along ``axis``."""
    shape, spacing = [4, 3, 5], [0.8, 0.8, 0.8]
    shape[axis], spacing[axis] = num_slices, SPACING
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (-100, 20, 300)
    values = 100 * np.random.default_rng(seed).random((channels, *shape))
    return MetaTensor(torch.tensor(values).to(dtype), affine=torch.tensor(affine), meta=meta)


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
    centers = [(side + n) * parts + parts // 2 for n in range(values.shape[-1])]
    return np.stack([fine[..., c - half : c + half].mean(-1) for c in centers], axis=-1)


def check_error(named, call):
    with pytest.raises(ValueError, match=named) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(first, second, tolerance=1e-5):
    """Whether two degraded volumes are the same, values, places and thickness."""
    np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-9)
    assert first.meta.get("slice_thickness") == pytest.approx(second.meta.get("slice_thickness"))
    return True


class TestPositions:
    @pytest.mark.parametrize("num_slices", [5, 23, 100])
    @pytest.mark.parametrize(("factor", "phase"), [*STEPS, (1.1, 0.1), (0.1 + 0.2 + 2.7, 1), (1.7, 3)])
    def test_equal_exact_arithmetic(self, num_slices, factor, phase):
        expected = [float(p) for p in places(num_slices, factor, phase)]
        if len(expected) < 2:
            check_error("fewer than two", lambda: thick_positions(num_slices, factor, phase))
            return
        found = thick_positions(num_slices, factor, phase)
        assert len(found) == len(expected) and found[-1] <= num_slices - 1
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_last_slice_is_kept_in_spite_of_rounding(self):
        assert 3 * 1.1 > 3.3 and thick_positions(12, 1.1)[-1] == 11.0
        for count in range(3, 200):
            for factor in (1.1, 2.3, 3.7, 1 / 3 + 1):
                last = (count - 1) * factor
                if abs(last - round(last)) < 1e-9:
                    assert len(thick_positions(round(last) + 1, factor)) == count
                    assert thick_positions(round(last) + 1, factor)[-1] <= round(last)

    @pytest.mark.parametrize("factor", [0, 0.99, -4, True, math.nan, math.inf, "4", None])
    def test_factor(self, factor):
        for call in (
            lambda: thick_positions(20, factor),
            lambda: degrade(torch.rand(20), factor),
            lambda: Degrader(factor),
            lambda: RandDegrader(factors=(4, factor)),
            lambda: Degraderd("image", factor=factor),
        ):
            check_error(f"factor must be a number of 1 or more, got {factor!r}", call)

    @pytest.mark.parametrize("phase", [-1, 20, 19.5, True, math.nan, math.inf, "1"])
    def test_phase(self, phase):
        named = r"phase must be (a position within \[0, 19\]|zero or a positive number), got"
        check_error(named, lambda: thick_positions(20, 1, phase))
        check_error(named, lambda: degrade(torch.rand(20), 1, phase=phase))

    def test_fewer_than_two_slices_left(self):
        assert thick_positions(20, 19) == [0, 19] and thick_positions(20, 18.5, 0.5) == [0.5, 19]
        for factor, phase in ((20, 0), (19, 1), (19, 0.5), (19.01, 0), (1, 19), (1000, 0)):
            check_error(f"{factor:g} slices of 20 .* two", lambda: thick_positions(20, factor, phase))  # noqa: B023
            check_error(f"{factor:g} slices of 20 .* two", lambda: degrade(torch.rand(20), factor, 1.0, phase=phase))  # noqa: B023
            check_error("of 20 .* two", lambda: Degrader(factor, fwhm=1, phase=phase)(make_volume(20)))  # noqa: B023


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

    @pytest.mark.parametrize("width", [1, 3, 5])
    def test_odd_box_is_the_mean_of_so_many_slices(self, width):
        values = torch.arange(30.0) ** 2
        found = degrade(values, 4, width, "box", phase=6)
        reach = width // 2
        expected = [values[n - reach : n + reach + 1].mean() for n in (6, 10, 14, 18, 22, 26)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    @pytest.mark.parametrize(("factor", "phase"), STEPS)
    def test_none_takes_slices_as_they_are(self, factor, phase):
        values = make_volume().as_tensor()
        found = degrade(values, factor, 7.0, "none", phase)
        if factor % 1 == phase % 1 == 0:
            assert torch.equal(found, values[..., int(phase) :: int(factor)])
        np.testing.assert_allclose(found, at(values, places(23, factor, phase)), rtol=1e-4, atol=1e-3)
        for profile in ("gaussian", "box"):
            assert torch.equal(found, degrade(values, factor, 0.0, profile, phase))

    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize(("factor", "phase"), STEPS)
    @pytest.mark.parametrize("restore", [False, True])
    def test_constants_stay(self, profile, factor, phase, restore):
        for extrapolate in (False, True):
            found = degrade(torch.full((2, 23), 37.0), factor, 4.2, profile, phase, restore, extrapolate)
            np.testing.assert_allclose(found, 37.0, rtol=2e-6)

    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize(("factor", "phase"), STEPS)
    def test_ramps_stay_away_from_the_ends(self, profile, factor, phase):
        ramp = 3.0 * torch.arange(161.0, dtype=torch.float64) - 50
        thick = degrade(ramp, factor, 4.2, profile, phase)
        positions = np.array([float(p) for p in places(161, factor, phase)])
        # the slab reaches 8 slices; where it is interpolated, the spline's mirrored end is felt for 12 more
        inner = (positions > 21) & (positions < 139)
        assert inner.sum() > 15
        np.testing.assert_allclose(thick[torch.tensor(inner)], 3 * positions[inner] - 50, atol=1e-5)
        thin = degrade(ramp, factor, 4.2, profile, phase, restore_grid=True)
        begin = math.ceil(phase)
        inner = slice(75 - begin, 86 - begin)
        np.testing.assert_allclose(thin[inner], ramp[75:86], atol=1e-3)

    def test_nothing_to_do_is_identity(self):
        values = make_volume().as_tensor()
        for profile in PROFILES:
            for restore in (False, True):
                assert torch.equal(degrade(values, 1, 0.0, profile, restore_grid=restore), values)

    def test_only_slices_within_reach_matter(self):
        values = make_volume(80).as_tensor()
        changed = values.clone()
        changed[..., :30] += 1000
        for profile, reach in (("gaussian", 12), ("box", 3)):  # 4 standard deviations of 2.97, half of 7
            first, second = (degrade(v, 4, 7.0, profile) for v in (values, changed))
            near = math.ceil((29 + reach) / 4 + 1e-9)
            np.testing.assert_allclose(first[..., near:], second[..., near:], rtol=1e-6)
            assert (first[..., :near] != second[..., :near]).all()

    def test_only_kept_slices_are_computed(self):
        factors = []

        class Spy(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                result = super().__torch_function__(func, types, args, kwargs or {})
                if func is torch.Tensor.__rmatmul__ or func in (torch.matmul, torch.Tensor.matmul):
                    factors.append(result.shape[0])
                return result

        degrade(torch.rand(3, 161).as_subclass(Spy), 8, 8.0)
        assert sum(factors) == 21


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("factor", "phase"), STEPS)
class TestRestoredGrid:
    def test_spline_through_the_thick_slices(self, profile, factor, phase):
        values = make_volume().as_tensor().double()
        thick = degrade(values, factor, 2.4, profile, phase)
        found = degrade(values, factor, 2.4, profile, phase, restore_grid=True)
        positions = places(23, factor, phase)
        thin = range(math.ceil(phase), math.floor(positions[-1]) + 1)
        assert found.shape[-1] == len(thin)
        wanted = [(n - float(phase)) / float(factor) for n in thin]
        np.testing.assert_allclose(found, at(thick, wanted), rtol=1e-5, atol=1e-3)
        for index, position in enumerate(positions):  # thin slices at thick ones are these
            if position.denominator == 1:
                np.testing.assert_allclose(found[..., int(position) - thin[0]], thick[..., index], rtol=1e-9)

    def test_extrapolate_repeats_the_ends(self, profile, factor, phase):
        values = make_volume().as_tensor().double()
        thick = degrade(values, factor, 2.4, profile, phase)
        inner = degrade(values, factor, 2.4, profile, phase, restore_grid=True)
        found = degrade(values, factor, 2.4, profile, phase, restore_grid=True, extrapolate=True)
        assert found.shape == values.shape
        begin = math.ceil(phase)
        end = begin + inner.shape[-1]
        np.testing.assert_allclose(found[..., begin:end], inner, rtol=1e-12)
        np.testing.assert_allclose(found[..., :begin], thick[..., :1].expand(-1, -1, -1, begin), rtol=1e-9)
        np.testing.assert_allclose(found[..., end:], thick[..., -1:].expand(-1, -1, -1, 23 - end), rtol=1e-9)
        # without a grid to restore there is nothing to extrapolate
        assert torch.equal(degrade(values, factor, 2.4, profile, phase, extrapolate=True), thick)


class TestDegradeErrors:
    def test_profile(self):
        for call in (
            lambda: degrade(torch.rand(9), 2, profile="sinc"),
            lambda: Degrader(2, profile="sinc"),
            lambda: RandDegrader(profiles=("gaussian", "sinc")),
        ):
            check_error("unknown slab profile 'sinc'; expected one of gaussian, box, none", call)

    @pytest.mark.parametrize("fwhm", [-1.0, math.nan, math.inf])
    @pytest.mark.parametrize("profile", ["gaussian", "box"])
    def test_width(self, fwhm, profile):
        check_error(f"zero or positive, got {fwhm!r}", lambda: degrade(torch.rand(9), 2, fwhm, profile))


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
            truth = make_phantom(
                "torso", 3, thick.shape[1:], affine=matrix, slice_thickness=wider * width, profile=profile, noise=0
            )
            if shift == 0:
                np.testing.assert_allclose(thick.affine, truth.affine, atol=1e-9)
            return float((thick - truth)[..., inner].square().mean().sqrt())

        assert error() < self.TOLERANCE
        assert min(error(shift=0.5), error(shift=-0.5)) > self.MISTAKE  # half a thin slice
        assert error(shift=factor / 2) > 5 * self.MISTAKE  # half a thick slice
        assert min(error(wider=1.2), error(wider=0.8)) > self.MISTAKE

    def test_along_the_first_axis(self):
        affine = np.diag([9.0, 11.0, 1.0, 1.0])
        affine[:3, 3] = (-148, -105, -40)
        thin = make_phantom("torso", 1, (32, 20, 80), affine=affine, noise=0)
        turned = MetaTensor(thin.as_tensor().permute(0, 3, 1, 2), affine=torch.tensor(affine[:, [2, 0, 1, 3]]))
        thick = Degrader(4, fwhm=4, phase=2, axis=0)(turned).thick
        truth = make_phantom(
            "torso", 1, (32, 20, 20), affine=affine @ [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, 2], [0, 0, 0, 1]],
            slice_thickness=4, noise=0,
        )  # fmt: skip
        found = thick.as_tensor().permute(0, 2, 3, 1)
        np.testing.assert_allclose(thick.affine, truth.affine[:, [2, 0, 1, 3]], atol=1e-9)
        assert (found - truth.as_tensor())[..., 2:-2].square().mean().sqrt() < self.TOLERANCE


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
        degrader = Degrader(
            factor, fwhm=3.25, profile=profile, phase=phase, restore_grid=restore, extrapolate=extrapolate, axis=axis
        )
        thick, thin, parameters = degrader(volume)

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

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("restore", [False, True])
    def test_linear_fields_stay_in_the_world(self, axis, restore):
        """A value that is linear in world coordinates still tells them after slabs, away from the ends."""
        volume = make_volume(121, axis)
        index = np.stack(np.meshgrid(*map(np.arange, volume.shape[1:]), np.ones(1), indexing="ij"))[..., 0]
        direction = np.array([0.3, -0.8, 0.5])

        def field(affine, index):
            return np.einsum("w,wk,kxyz->xyz", direction, np.asarray(affine)[:3], index)

        values = np.stack([field(volume.affine, index)] * 2)
        volume = MetaTensor(torch.tensor(values), affine=volume.affine)
        thick = Degrader(2.5, fwhm=4.5, phase=1.75, axis=axis, restore_grid=restore)(volume).thick
        index = np.stack(np.meshgrid(*map(np.arange, thick.shape[1:]), np.ones(1), indexing="ij"))[..., 0]
        keep = [slice(None)] * 4
        keep[axis + 1] = slice(50, 60) if restore else slice(18, 29)
        np.testing.assert_allclose(
            thick[1].numpy()[tuple(keep[1:])], field(thick.affine, index)[tuple(keep[1:])], atol=1e-5
        )

    def test_nothing_to_extrapolate_without_the_thin_grid(self):
        volume = make_volume()
        found, expected = (Degrader(4, phase=3, extrapolate=value)(volume) for value in (True, False))
        assert same(found.thick, expected.thick) and same(found.thin, expected.thin)
        assert torch.equal(found.thin.as_tensor(), volume.as_tensor()[..., 3:20])

    def test_thickness_and_spacing_are_read_back(self):
        volume = make_volume(axis=0, **{"0018|0050": "1.0"})
        geometry = slice_geometry(Degrader(4, fwhm=4.5, axis=0)(volume).thick, axis=0)
        assert geometry.thickness == 4.5 and geometry.slice_spacing == 6.0
        thick, thin, _ = Degrader(4, profile="none", axis=0)(volume)
        assert slice_geometry(thick, axis=0).thickness == slice_geometry(thin, axis=0).thickness == 1.0
        assert slice_geometry(Degrader(4, axis=0)(volume).thick, axis=0).thickness == 6.0
        assert slice_geometry(Degrader(4, fwhm=4.5, axis=0, restore_grid=True)(volume).thick, axis=0).thickness == 4.5
        assert volume.meta["0018|0050"] == "1.0" and "slice_thickness" not in volume.meta

    @pytest.mark.parametrize("degrader", [Degrader(2, sigma=0), Degrader(1, profile="none"), RandDegrader(prob=0)])
    def test_results_are_no_views_of_the_input(self, degrader):
        volume = make_volume()
        before = volume.as_tensor().clone()
        thick, thin, _ = degrader(volume)
        thick += 1000
        assert torch.equal(volume.as_tensor(), before)
        thin += 1000
        assert torch.equal(volume.as_tensor(), before)


class TestWidths:
    @pytest.mark.parametrize("axis", [0, 2])
    @pytest.mark.parametrize("restore", [False, True])
    def test_three_ways_to_tell_the_same(self, axis, restore):
        volume = make_volume(axis=axis)
        settings = {"factor": 4, "phase": 1, "axis": axis, "restore_grid": restore}
        results = [
            Degrader(fwhm=4.5, **settings)(volume),
            Degrader(sigma=3.0 / FWHM, **settings)(volume),  # 4.5 mm are 3 voxels
            Degrader(gap=1.5, **settings)(volume),  # 6 mm less 1.5 mm
        ]
        for thick, _, parameters in results:
            assert same(thick, results[0].thick)
            assert parameters == pytest.approx(results[0].parameters)
            assert parameters["fwhm"] == thick.meta["slice_thickness"] == pytest.approx(4.5)
            assert parameters["sigma"] == pytest.approx(3.0 / FWHM) and parameters["slice_spacing"] == 6.0
        if not restore:
            expected = degrade(volume.as_tensor().movedim(axis + 1, -1), 4, 3.0, phase=1).movedim(-1, axis + 1)
            np.testing.assert_allclose(results[0].thick, expected, rtol=1e-6)

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

    def test_box_by_its_gap(self):
        volume = make_volume()
        found = Degrader(4, gap=1.5, profile="box")(volume).thick  # a mean of 3 slices, one is skipped
        np.testing.assert_allclose(found[..., 1], volume[..., 3:6].mean(-1), rtol=1e-6)
        assert found.meta["slice_thickness"] == 4.5

    def test_slab_width(self):
        assert Degrader(4).slab_width(1.5) == 6.0 and Degrader(2.5).slab_width(2.0) == 5.0
        assert Degrader(4, sigma=2).slab_width(1.5) == pytest.approx(3 * FWHM)
        assert Degrader(4, fwhm=7).slab_width(1.5) == 7.0
        assert Degrader(4, gap=1, profile="box").slab_width(1.5) == 5.0
        for width in ({}, {"sigma": 2}, {"fwhm": 2}, {"gap": 99}):
            assert Degrader(4, profile="none", **width).slab_width(1.5) == 0.0

    @pytest.mark.parametrize("width", [{"sigma": 0}, {"fwhm": 0.0}])
    def test_zero_is_slicing(self, width):
        volume = make_volume(slice_thickness=1.2)
        thick, _, parameters = Degrader(4, phase=3, **width)(volume)
        assert torch.equal(thick.as_tensor(), volume.as_tensor()[..., 3::4])
        assert thick.meta["slice_thickness"] == 1.2 and parameters["fwhm"] == parameters["sigma"] == 0

    def test_profile_none_has_no_width(self):
        thick, _, parameters = Degrader(4, sigma=3, profile="none")(make_volume())
        assert torch.equal(thick.as_tensor(), make_volume().as_tensor()[..., ::4])
        assert parameters["fwhm"] == parameters["sigma"] == 0 and parameters["profile"] == "none"

    def test_gap_must_fit(self):
        for gap in (6, 6.0, 7.5):
            check_error(f"gap of {gap:g} mm .* 6 mm; expected less", lambda: Degrader(4, gap=gap)(make_volume()))  # noqa: B023
        assert Degrader(4, gap=5.9)(make_volume()).parameters["fwhm"] == pytest.approx(0.1)

    def test_one_width_only(self):
        check_error("one of sigma, fwhm and gap, got sigma and fwhm", lambda: Degrader(4, sigma=1, fwhm=0))
        check_error("got fwhm and gap", lambda: Degrader(4, fwhm=1, gap=0, profile="box"))
        check_error("got sigma and gap", lambda: RandDegrader(sigma_range=(0, 1), gap_range=(0, 1)))
        check_error("got sigma and fwhm", lambda: RandDegrader(sigma_range=(0, 1), fwhm_range=(0, 1)))

    def test_box_has_no_sigma(self):
        for call in (
            lambda: Degrader(4, sigma=1, profile="box"),
            lambda: RandDegrader(profiles=("gaussian", "box")),
            lambda: RandDegrader(sigma_range=(0, 1), profiles=("box",)),
        ):
            check_error("box has no sigma: give its width as fwhm in mm, or the gap", call)

    @pytest.mark.parametrize("name", ["sigma", "fwhm", "gap", "noise", "phase"])
    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf, "1", [1]])
    def test_bad_numbers(self, name, value):
        check_error(f"^{name} must be zero or a positive number, got", lambda: Degrader(4, **{name: value}))

    @pytest.mark.parametrize("phase", [19, 20, 25.5])
    def test_phase_past_the_end(self, phase):
        check_error(r"phase .* within \[0, 19\]|fewer than two", lambda: Degrader(4, phase=phase)(make_volume(20)))

    @pytest.mark.parametrize("axis", [3, -4, True, "z"])
    def test_axis(self, axis):
        check_error(f"axis {axis!r} is not a spatial axis", lambda: Degrader(2, axis=axis)(make_volume()))

    def test_missing_channel(self):
        with pytest.raises(ValueError, match="shape|channel|dimension"):
            Degrader(2)(torch.rand(6, 6, 20))


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
        first = Degrader(4, noise=2.0, seed=5)
        torch.manual_seed(0)
        expected = first(volume).thick
        torch.manual_seed(1)
        state = torch.get_rng_state()
        assert torch.equal(first(volume).thick, expected)  # again, and whatever torch's own generator does
        assert torch.equal(Degrader(4, noise=2.0, seed=5)(volume).thick, expected)
        assert torch.equal(torch.get_rng_state(), state)
        for seed in (0, 6):
            assert (Degrader(4, noise=2.0, seed=seed)(volume).thick != expected).float().mean() > 0.99
        clean = Degrader(4)(volume).thick
        doubled = Degrader(4, noise=4.0, seed=5)(volume).thick
        np.testing.assert_allclose(doubled - clean, 2 * (expected - clean), atol=1e-4)
        assert torch.equal(Degrader(4, noise=0.0, seed=5)(volume).thick, clean)

    def test_thin_has_no_noise(self):
        volume = make_volume()
        assert torch.equal(Degrader(2, noise=9.0)(volume).thin.as_tensor(), volume.as_tensor())

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
    def test_channels_are_treated_alike(self):
        volume = make_volume(channels=4)
        for restore in (False, True):
            thick, thin, _ = Degrader(2.5, sigma=1.5, phase=1, restore_grid=restore)(volume)
            assert thick.shape[0] == thin.shape[0] == 4
            for channel in range(4):
                one = Degrader(2.5, sigma=1.5, phase=1, restore_grid=restore)(volume[channel : channel + 1])
                np.testing.assert_allclose(thick[channel], one.thick[0], rtol=1e-6)
                assert torch.equal(thin[channel], one.thin[0])
        noisy = Degrader(2.5, sigma=1.5, phase=1, noise=1.0, restore_grid=True)(volume).thick - thick
        assert abs(np.corrcoef(noisy.reshape(4, -1))[np.triu_indices(4, 1)]).max() < 0.3  # each channel its own noise

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
    def test_integers_are_averaged_in_float(self, dtype):
        volume = make_volume(dtype=dtype)
        thick, thin, _ = Degrader(4, sigma=1.5)(volume)
        assert thick.dtype == torch.float32
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
            np.testing.assert_allclose(
                degrade(volume.as_tensor(), 4, 1.5 * FWHM).double(),
                gaussian(volume.double().numpy(), 1.5)[..., ::4],
                rtol=2 * tolerance,
            )

    def test_plain_tensor_has_unit_spacing(self):
        volume = make_volume().as_tensor()
        thick, thin, parameters = Degrader(4, fwhm=1.5 * FWHM, phase=1)(volume)
        assert type(thick) is type(thin) is MetaTensor
        np.testing.assert_allclose(thick, gaussian(volume, 1.5)[..., 1::4], rtol=1e-5)
        np.testing.assert_array_equal(thick.affine, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, 1], [0, 0, 0, 1]])
        np.testing.assert_array_equal(thin.affine, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
        assert parameters["slice_spacing"] == 4.0

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_order_in_memory_does_not_matter(self, axis):
        volume = make_volume(axis=axis)
        turned = volume.as_tensor().permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        strided = torch.empty((2, *(2 * n for n in volume.shape[1:])))[:, ::2, ::2, ::2].copy_(volume.as_tensor())
        expected = Degrader(3, phase=2, noise=1.0, axis=axis, restore_grid=True)(volume)
        for other in (turned, strided):
            assert not other.is_contiguous() and torch.equal(other, volume.as_tensor())
            found = Degrader(3, phase=2, noise=1.0, axis=axis, restore_grid=True)(MetaTensor(other, volume.affine))
            np.testing.assert_allclose(found.thick, expected.thick, rtol=1e-5)
            assert torch.equal(found.thin.as_tensor(), expected.thin.as_tensor())

    def test_named_tuple_of_meta_tensors(self):
        found = Degrader(4)(make_volume(filename_or_obj="a.nii.gz"))
        assert type(found) is Degradation and found._fields == ("thick", "thin", "parameters")
        assert type(found.thick) is type(found.thin) is MetaTensor
        assert found.thick.meta["filename_or_obj"] == found.thin.meta["filename_or_obj"] == "a.nii.gz"
        assert found.thick.pixdim.tolist() == pytest.approx([0.8, 0.8, 6.0])

    def test_any_rank(self):
        values = make_volume().as_tensor()
        expected = degrade(values, 3, 2.0, phase=1)
        for index in ((0, 1, 2), 0, None):
            np.testing.assert_allclose(degrade(values[index], 3, 2.0, phase=1), expected[index], rtol=1e-5)

    def test_numpy_numbers(self):
        found = Degrader(np.int64(4), sigma=np.float32(1.5), phase=np.int32(1), noise=np.float64(2))(make_volume())
        assert same(found.thick, Degrader(4, sigma=1.5, phase=1, noise=2)(make_volume()).thick)


class TestRandDegrader:
    SETTINGS = {
        "factors": (2, 3, 5),
        "fwhm_range": (1.0, 4.0),
        "profiles": ("gaussian", "box", "none"),
        "noise_range": (0.5, 2.0),
        "axes": (0, -1),
    }

    def test_draws(self):
        degrader = RandDegrader(**self.SETTINGS).set_random_state(0)
        volume = MetaTensor(torch.rand(1, 16, 3, 17))
        seen: dict[str, Counter] = {name: Counter() for name in ("factor", "phase", "profile", "axis", "seed")}
        widths, noises = [], []
        for _ in range(600):
            thick, thin, parameters = degrader(volume)
            factor, phase = parameters["factor"], parameters["phase"]
            axis = 0 if thick.shape[1] < 16 else 2
            num_slices = volume.shape[axis + 1]
            assert thick.shape[axis + 1] == len(places(num_slices, factor, phase)) >= 2
            assert thick.shape[2] == 3 and thick.shape[3 - axis] == volume.shape[3 - axis]
            assert thin.shape[axis + 1] == factor * (thick.shape[axis + 1] - 1) + 1
            for name, value in (("factor", factor), ("phase", (factor, phase)), ("axis", axis)):
                seen[name][value] += 1
            seen["profile"][parameters["profile"]] += 1
            seen["seed"][parameters["seed"]] += 1
            if parameters["profile"] == "none":
                assert parameters["fwhm"] == 0
            else:
                widths.append(parameters["fwhm"])
                assert thick.meta["slice_thickness"] == parameters["fwhm"]
            noises.append(parameters["noise"])
        # uniform: each of k choices within 5 standard deviations of 600 / k
        for name, count in (("factor", 3), ("profile", 3), ("axis", 2)):
            share = 1 / count
            assert len(seen[name]) == count
            assert all(abs(n - 600 * share) < 5 * math.sqrt(600 * share) for n in seen[name].values())
        assert set(seen["phase"]) == {(f, p) for f in (2, 3, 5) for p in range(f)}
        assert len(seen["seed"]) == 600
        for drawn, low, high in ((widths, 1.0, 4.0), (noises, 0.5, 2.0)):
            span = high - low
            assert low <= min(drawn) < low + 0.05 * span and high - 0.05 * span < max(drawn) <= high
            assert np.mean(drawn) == pytest.approx((low + high) / 2, abs=0.08 * span)

    def test_defaults_are_the_papers(self):
        degrader = RandDegrader().set_random_state(1)
        drawn = [degrader(torch.rand(1, 2, 2, 33)).parameters for _ in range(200)]
        assert {p["factor"] for p in drawn} == {4, 8} and {p["profile"] for p in drawn} == {"gaussian"}
        assert {p["noise"] for p in drawn} == {0} and {p["phase"] for p in drawn} == set(range(8))
        sigmas = [p["sigma"] for p in drawn]
        assert 0 <= min(sigmas) < 0.16 and 3.04 < max(sigmas) <= 3.2

    def test_sigma_and_gap_ranges(self):
        volume = make_volume()
        degrader = RandDegrader(factors=(4,), sigma_range=(1.0, 1.5)).set_random_state(0)
        sigmas = [degrader(volume).parameters["sigma"] for _ in range(50)]
        assert 1 <= min(sigmas) < 1.1 and 1.4 < max(sigmas) <= 1.5
        degrader = RandDegrader(factors=(4,), gap_range=(1.0, 2.0), profiles=("box",)).set_random_state(0)
        widths = [degrader(volume).parameters["fwhm"] for _ in range(50)]
        assert 4 <= min(widths) < 4.1 and 4.9 < max(widths) <= 5.0

    def test_factor_range_is_real(self):
        degrader = RandDegrader(factor_range=(2.0, 3.5), random_phase=True).set_random_state(0)
        drawn = [degrader(torch.rand(1, 2, 2, 20)).parameters for _ in range(200)]
        factors = [p["factor"] for p in drawn]
        assert 2 <= min(factors) < 2.1 and 3.4 < max(factors) <= 3.5 and len(set(factors)) > 190
        assert all(p["slice_spacing"] == p["factor"] for p in drawn)
        assert {p["phase"] for p in drawn} == {0, 1, 2}
        assert all(p["phase"] < p["factor"] for p in drawn)

    def test_no_random_phase(self):
        degrader = RandDegrader(random_phase=False).set_random_state(0)
        assert {degrader(torch.rand(1, 2, 2, 33)).parameters["phase"] for _ in range(30)} == {0}

    def test_factors_written_twice_are_drawn_twice_as_often(self):
        degrader = RandDegrader(factors=(4, 4, 2)).set_random_state(0)
        drawn = Counter(degrader(torch.rand(1, 2, 2, 9)).parameters["factor"] for _ in range(300))
        assert 160 < drawn[4] < 240

    @pytest.mark.parametrize("num_slices", [5, 6, 8, 9, 10])
    def test_small_volumes_draw_what_fits(self, num_slices):
        degrader = RandDegrader().set_random_state(0)
        drawn = [degrader(torch.rand(1, 2, 2, num_slices)).parameters for _ in range(60)]
        assert {p["factor"] for p in drawn} == ({4} if num_slices < 9 else {4, 8})
        for factor in (4, 8):
            expected = {phase for phase in range(factor) if phase + factor <= num_slices - 1}
            assert {p["phase"] for p in drawn if p["factor"] == factor} == expected

    @pytest.mark.parametrize("num_slices", [5, 6, 7])
    def test_small_volumes_and_real_factors(self, num_slices):
        degrader = RandDegrader(factor_range=(3.2, 4.0)).set_random_state(0)
        drawn = [degrader(torch.rand(1, 2, 2, num_slices)).parameters for _ in range(60)]
        assert {p["phase"] for p in drawn} == set(range(num_slices - 4))

    def test_volume_too_small(self):
        degrader = RandDegrader().set_random_state(0)
        for num_slices in (1, 2, 4):
            check_error(f"4 slices of {num_slices} ", lambda: degrader(torch.rand(1, 2, 2, num_slices)))  # noqa: B023
        check_error("of 3 ", lambda: RandDegrader(factor_range=(3, 4))(torch.rand(1, 2, 2, 3)))

    def test_same_state_same_draws(self):
        volume = MetaTensor(torch.rand(1, 16, 16, 16))

        def run(seed):
            degrader = RandDegrader(**{**self.SETTINGS, "axes": (0, 1, 2)}).set_random_state(seed)
            return [degrader(volume) for _ in range(6)]

        for first, second in zip(run(3), run(3), strict=True):
            assert torch.equal(first.thick, second.thick) and torch.equal(first.thin, second.thin)
            assert first.parameters == second.parameters
        assert [f.parameters for f in run(3)] != [f.parameters for f in run(4)]
        assert len({f.parameters["seed"] for f in run(3)}) == 6

    def test_draws_are_the_degraders(self):
        volume = make_volume(18, axis=1)
        degrader = RandDegrader(**{**self.SETTINGS, "axes": (1,)}, restore_grid=True).set_random_state(0)
        for _ in range(10):
            thick, thin, parameters = degrader(volume)
            again = Degrader(**{name: parameters[name] for name in INPUTS}, restore_grid=True, axis=1)(volume)
            assert same(again.thick, thick) and torch.equal(again.thin, thin)
            assert thick.shape == thin.shape
            unchanged = degrader(volume, randomize=False)
            assert torch.equal(unchanged.thick, thick) and unchanged.parameters == parameters

    def test_extrapolate_keeps_the_shape(self):
        volume = make_volume(18, axis=0)
        degrader = RandDegrader((2, 5), axes=(0,), restore_grid=True, extrapolate=True).set_random_state(0)
        for _ in range(10):
            thick, thin, _ = degrader(volume)
            assert thick.shape == thin.shape == volume.shape and torch.equal(thin, volume)
            np.testing.assert_allclose(thick.affine, volume.affine, atol=1e-12)

    @pytest.mark.parametrize("restore", [False, True])
    @pytest.mark.parametrize("axes", [(0,), (-1,), (0, 1, 2)])
    def test_probability_zero_gives_the_input_back(self, restore, axes):
        volume = MetaTensor(100 * torch.rand(2, 6, 7, 8), meta={"slice_thickness": 0.7})
        settings = {"factors": (2,), "noise_range": (1, 2), "restore_grid": restore, "axes": axes, "prob": 0.0}
        thick, thin, parameters = RandDegrader(**settings)(volume)
        assert torch.equal(thick, volume) and torch.equal(thin, volume)
        assert thick.meta["slice_thickness"] == 0.7
        np.testing.assert_array_equal(thick.affine, volume.affine)
        expected = {"factor": 1, "fwhm": 0, "profile": "none", "phase": 0, "noise": 0, "sigma": 0, "slice_spacing": 1}
        assert {name: parameters[name] for name in expected} == expected

    def test_probability_zero_tells_the_drawn_axis(self):
        parameters = RandDegrader(axes=(0,), prob=0.0)(make_volume(axis=0)).parameters
        assert parameters["slice_spacing"] == SPACING

    def test_the_drawn_axis_tells_what_fits(self):
        degrader = RandDegrader(axes=(0, 2)).set_random_state(0)
        drawn = Counter()
        for _ in range(60):
            thick, _, parameters = degrader(torch.rand(1, 6, 2, 40))
            drawn[thick.shape[1] < 6, parameters["factor"]] += 1
            assert thick.shape[3] == 40 or thick.shape[1] == 6
        assert set(drawn) == {(True, 4), (False, 4), (False, 8)}

    def test_probability(self):
        degrader = RandDegrader(factors=(2,), prob=0.3).set_random_state(0)
        count = sum(degrader(torch.rand(1, 2, 2, 9)).parameters["factor"] == 2 for _ in range(400))
        assert abs(count - 120) < 5 * math.sqrt(400 * 0.3 * 0.7)

    @pytest.mark.parametrize("name", ["factor_range", "sigma_range", "fwhm_range", "gap_range", "noise_range"])
    @pytest.mark.parametrize("limits", [(4, 2), (-1, 4), (1, math.inf), (math.nan, 4), (1, math.nan), (2,), (2, 3, 4)])
    def test_bad_ranges(self, name, limits):
        named = f"{name} must be two ascending numbers that are not negative, got"
        check_error(named, lambda: RandDegrader(**{name: limits}))

    def test_equal_limits(self):
        degrader = RandDegrader(factor_range=(3, 3), fwhm_range=(2, 2), noise_range=(1, 1))
        parameters = degrader(torch.rand(1, 2, 2, 9)).parameters
        assert (parameters["factor"], parameters["fwhm"], parameters["noise"]) == (3, 2, 1)

    def test_nothing_to_draw_from(self):
        check_error("at least one factor, one profile and one axis", lambda: RandDegrader(factors=()))
        check_error("at least one factor, one profile and one axis", lambda: RandDegrader(axes=()))
        check_error("factor must be a number of 1 or more, got 0.5", lambda: RandDegrader(factor_range=(0.5, 2)))

    def test_no_profile_to_draw_from(self):
        check_error("profile", lambda: RandDegrader(profiles=())(torch.rand(1, 2, 2, 9)))

    @pytest.mark.parametrize("axis", [3, -4])
    def test_axis(self, axis):
        check_error("axis", lambda: RandDegrader(axes=(axis,))(torch.rand(1, 9, 9, 9)))


class TestDictionary:
    def test_keys_and_names(self):
        image, label = make_volume(seed=1), make_volume(seed=2)
        data = {"image": image, "label": label, "other": 1}
        found = Degraderd(["image", "label"], thin_keys=["a", "b"], factor=4, phase=1, noise=2.0)(data)
        assert set(found) == {"image", "label", "a", "b", "other", "degradation"} and found["other"] == 1
        assert set(data) == {"image", "label", "other"} and data["image"] is image
        for key, thin, source in (("image", "a", image), ("label", "b", label)):
            expected = Degrader(4, phase=1, noise=2.0)(source)
            assert same(found[key], expected.thick) and torch.equal(found[thin], expected.thin)
            assert type(found[key]) is type(found[thin]) is MetaTensor
            assert found["degradation"] == expected.parameters

    def test_names_are_optional(self):
        data = {"image": make_volume(), "label": make_volume()}
        assert set(Degraderd("image", parameters_key=None, factor=4)(data)) == {"image", "label"}
        found = Degraderd("image", thin_keys="label", parameters_key="how", factor=4)(data)
        assert set(found) == {"image", "label", "how"} and found["label"].shape[-1] == 21
        found = RandDegraderd("image", parameters_key=None, factors=(4,))(data)
        assert set(found) == {"image", "label"}
        found = RandDegraderd("image", thin_keys="thin", parameters_key="how", factors=(4,))(data)
        assert set(found) == {"image", "label", "thin", "how"}

    def test_parameters_are_the_first_keys(self):
        first, second = make_volume(axis=2), make_volume()
        second.affine = torch.diag(torch.tensor([1.0, 1, 7, 1]))
        for degrader in (Degraderd, RandDegraderd):
            factor = {"factor": 4} if degrader is Degraderd else {"factors": (4,)}
            found = degrader(["a", "b"], **factor)({"a": first, "b": second})
            assert found["degradation"]["slice_spacing"] == 6.0
            found = degrader(["gone", "b", "a"], allow_missing_keys=True, **factor)({"a": first, "b": second})
            assert found["degradation"]["slice_spacing"] == 28.0

    def test_all_keys_are_degraded_alike(self):
        first, second = make_volume(17, seed=1, channels=1), make_volume(17, seed=2, channels=3)
        settings = {**TestRandDegrader.SETTINGS, "axes": (-1,), "restore_grid": True}
        degrader = RandDegraderd(["image", "label"], thin_keys=["a", "b"], **settings).set_random_state(0)
        drawn = []
        for _ in range(12):
            found = degrader({"image": first, "label": second})
            parameters = found["degradation"]
            drawn.append((parameters["factor"], parameters["phase"], parameters["profile"]))
            rebuilt = Degrader(**{name: parameters[name] for name in INPUTS}, restore_grid=True)
            for key, thin, source in (("image", "a", first), ("label", "b", second)):
                expected = rebuilt(source)
                rebuilt.seed += 1  # each key has noise of its own
                assert same(found[key], expected.thick) and torch.equal(found[thin], expected.thin)
        assert len(set(drawn)) > 6

    def test_the_first_key_tells_what_fits(self):
        degrader = RandDegraderd(["a", "b"], random_phase=False).set_random_state(0)
        small, large = torch.rand(1, 2, 2, 6), torch.rand(1, 2, 2, 40)
        assert {degrader({"a": small, "b": large})["degradation"]["factor"] for _ in range(20)} == {4}
        assert {degrader({"a": large, "b": large})["degradation"]["factor"] for _ in range(20)} == {4, 8}

    def test_probability_counts_for_all_keys(self):
        degrader = RandDegraderd(["a", "b"], factors=(2,), prob=0.5).set_random_state(0)
        shapes = Counter()
        for _ in range(40):
            found = degrader({"a": torch.rand(1, 2, 2, 20), "b": torch.rand(1, 2, 2, 20)})
            assert found["a"].shape == found["b"].shape
            shapes[found["a"].shape[-1] == 20] += 1
        assert min(shapes.values()) > 8

    def test_missing_keys(self):
        data = {"image": make_volume(), "other": 1}
        for degrader in (Degraderd, RandDegraderd):
            factor = {"factor": 4} if degrader is Degraderd else {"factors": (4,)}
            found = degrader(["gone", "image"], thin_keys=["a", "b"], allow_missing_keys=True, **factor)(data)
            assert set(found) == {"image", "other", "b", "degradation"} and found["b"].shape[-1] > 16
            assert degrader("gone", allow_missing_keys=True, **factor)(data) == data
            with pytest.raises(KeyError, match="gone"):
                degrader(["image", "gone"], **factor)(data)

    def test_number_of_names(self):
        for degrader in (Degraderd, RandDegraderd):
            factor = {"factor": 4} if degrader is Degraderd else {}
            check_error("one name of thin_keys for each of 2 keys, got 1", lambda: degrader(["a", "b"], "c", **factor))  # noqa: B023
            check_error("each of 1 keys, got 2", lambda: degrader("a", ["c", "d"], **factor))  # noqa: B023

    def test_errors_name_the_file_or_the_key(self):
        named = make_volume(6, filename_or_obj="/data/patient_7.nii.gz")
        for degrader in (Degraderd("scan", factor=8), RandDegraderd("scan", factors=(8,))):
            told = check_error("^/data/patient_7.nii.gz: .*8 slices of 6", lambda: degrader({"scan": named}))  # noqa: B023
            assert "scan" not in told
            check_error("^scan: .*8 slices of 6", lambda: degrader({"scan": make_volume(6)}))  # noqa: B023
            check_error("^scan: .*8 slices of 6", lambda: degrader({"scan": torch.rand(1, 2, 2, 6)}))  # noqa: B023

    def test_second_key_that_fails_is_named(self):
        data = {"a": make_volume(20), "b": make_volume(4)}
        check_error("^b: ", lambda: RandDegraderd(["a", "b"], factors=(8,))(data))
        check_error("^b: ", lambda: Degraderd(["a", "b"], factor=8)(data))

    def test_aliases(self):
        for name in ("Degrader", "RandDegrader"):
            aliases = {getattr(transforms, name + ending) for ending in ("d", "D", "Dict")}
            assert len(aliases) == 1 and aliases.pop().__name__ == name + "d"

    def test_settings_are_the_degraders(self):
        volume = make_volume(axis=0)
        settings = {"factor": 2.5, "gap": 0.5, "profile": "box", "phase": 0.5, "noise": 1.0, "seed": 4, "axis": 0}
        found = Degraderd("image", restore_grid=True, extrapolate=True, **settings)({"image": volume})["image"]
        assert torch.equal(found, Degrader(restore_grid=True, extrapolate=True, **settings)(volume).thick)


class TestPipelines:
    SETTINGS = {"factors": (2, 3), "noise_range": (0, 1), "restore_grid": True, "extrapolate": True}

    def chain(self):
        return Compose(
            [
                Lambdad("image", lambda image: image + 1),
                RandDegraderd("image", thin_keys="thin", **self.SETTINGS),
                Lambdad("image", lambda image: image * 2),
            ]
        )

    def test_compose_with_a_random_state(self):
        volume = make_volume(12)

        def run(seed):
            chain = self.chain().set_random_state(seed)
            return [chain({"image": volume}) for _ in range(4)]

        for first, second in zip(run(1), run(1), strict=True):
            assert torch.equal(first["image"], second["image"]) and first["degradation"] == second["degradation"]
            assert torch.equal(first["thin"], volume + 1)
        assert len({found["degradation"]["seed"] for found in run(1) + run(2)}) == 8

    def test_random_state_can_be_shared(self):
        first = RandDegraderd("image", **self.SETTINGS).set_random_state(state=np.random.RandomState(5))
        second = RandDegraderd("image", **self.SETTINGS).set_random_state(state=np.random.RandomState(5))
        for _ in range(3):
            data = {"image": make_volume(12)}
            assert first(data)["degradation"] == second(data)["degradation"]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_data_loader(self, workers):
        items = [{"image": make_volume(12, seed=k, filename_or_obj=f"{k}.nii")} for k in range(4)]

        def run(seed):
            dataset = Dataset(items, Compose([RandDegraderd("image", thin_keys="thin", **self.SETTINGS)]))
            loader = DataLoader(
                dataset, batch_size=2, num_workers=workers, generator=torch.Generator().manual_seed(seed)
            )
            torch.manual_seed(seed)
            return list(loader)

        batches = run(0)
        assert len(batches) == 2
        for number, batch in enumerate(batches):
            assert batch["image"].shape == batch["thin"].shape == (2, 2, 4, 3, 12)
            assert isinstance(batch["image"], MetaTensor)
            drawn = batch["degradation"]
            assert drawn["profile"] == ["gaussian", "gaussian"]
            assert all(len(drawn[name]) == 2 for name in drawn)
            for k in range(2):
                assert torch.equal(batch["thin"][k].as_tensor(), items[2 * number + k]["image"].as_tensor())
                again = {name: drawn[name][k] if name == "profile" else drawn[name][k].item() for name in INPUTS}
                rebuilt = Degrader(**again, restore_grid=True, extrapolate=True)(items[2 * number + k]["image"])
                np.testing.assert_allclose(batch["image"][k], rebuilt.thick, rtol=1e-4, atol=1e-3)
        seeds = [seed for batch in batches for seed in batch["degradation"]["seed"].tolist()]
        assert len(set(seeds)) == 4
        assert seeds == [seed for batch in run(0) for seed in batch["degradation"]["seed"].tolist()]
        assert seeds != [seed for batch in run(1) for seed in batch["degradation"]["seed"].tolist()]

    def test_cache_dataset(self):
        items = [{"image": make_volume(24, seed=k)} for k in range(2)]
        fixed = Degraderd("image", thin_keys="truth", factor=2, sigma=1.0)
        random = RandDegraderd("image", thin_keys="thin", parameters_key="drawn", **self.SETTINGS)
        dataset = CacheDataset(items, Compose([fixed, random]), progress=False)
        dataset.transform.set_random_state(0)
        for k in range(2):
            halved = Degrader(2, sigma=1.0)(items[k]["image"])
            drawn = [dataset[k] for _ in range(3)]
            for found in drawn:  # drawn anew each time, from what is in the cache
                assert torch.equal(found["truth"].as_tensor(), halved.thin.as_tensor())
                assert torch.equal(found["thin"].as_tensor(), halved.thick.as_tensor())
                assert found["degradation"]["factor"] == 2.0
            assert len({found["drawn"]["seed"] for found in drawn}) == 3


def test_uneven_slices_are_refused():
    meta = {"slice_positions": (0.0, 1.0, 3.0, 4.0, 5.0), "slice_positions_axis": 2}
    volume = MetaTensor(torch.rand(1, 4, 4, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])), meta=meta)
    with pytest.raises(ValueError, match="the slices are unevenly spaced or some are missing; expected even gaps"):
        Degrader(factor=2)(volume)
