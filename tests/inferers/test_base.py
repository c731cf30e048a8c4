# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What the base class owns: grid, loop, limits, and the copying of observed slices, with slices that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import SliceInterpolationInferer, SplineSliceInferer
from tests.inferers.common import check_error, oblique


class PositionInferer(SliceInterpolationInferer):
    """Every synthesized slice is ``start`` + its position; what was asked for is noted."""

    def __init__(self, *args, start=1000, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls, self.start, self.maps = [], start, ("index",)

    def synthesize(self, stack, network):
        self.calls.append((stack.slices.clone(), stack.wanted.tolist(), network))
        positions = torch.tensor(stack.grid.positions, dtype=torch.float64)[stack.wanted].to(stack.slices.dtype)
        images = (self.start + positions)[:, None, None].expand(-1, *stack.slices.shape[1:])
        order = torch.arange(len(stack.wanted)).flip(0)  # in any order, in several parts
        for part in order.split(3):
            stack.maps["index"][stack.wanted[part]] += stack.wanted[part, None, None]
            yield stack.wanted[part], images[part]


def make_volume(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make_scan(batch=1, channels=1, num_slices=5, size=(6, 7), **meta):
    values = make_volume(batch, channels, *size, num_slices)
    return MetaTensor(values, affine=oblique((0.7, 0.9, 4.0)), meta={"filename_or_obj": "scan.nii.gz", **meta})


HOWS = [
    ({"factor": 1}, [0, 1, 2, 3, 4]),
    ({"factor": 2}, [k / 2 for k in range(9)]),
    ({"factor": 5}, [k / 5 for k in range(21)]),
    ({"spacing": 1.0}, [k / 4 for k in range(17)]),
    ({"spacing": 1.6}, [0.4 * k for k in range(11)]),
    ({"spacing": 3.0}, [0, 0.75, 1.5, 2.25, 3, 3.75]),
    ({}, [0.175 * k for k in range(23)]),  # isotropic: 0.7 of 4 mm
]


class TestGrid:
    @pytest.mark.parametrize("keep", [True, False])
    @pytest.mark.parametrize(("how", "positions"), HOWS)
    def test_positions_and_affine(self, how, positions, keep):
        scan = make_scan(2, 3)
        result = PositionInferer(**how, keep_observed=keep)(scan)
        assert isinstance(result, MetaTensor) and result.dtype == scan.dtype
        assert tuple(result.shape) == (2, 3, 6, 7, len(positions))
        for index, position in enumerate(positions):
            if keep and abs(position - round(position)) < 1e-9:
                expected = scan[..., round(position)].as_tensor()
                assert torch.equal(result[..., index].as_tensor(), expected)
            else:
                torch.testing.assert_close(result[..., index].as_tensor(), torch.full((2, 3, 6, 7), 1000.0 + position))
            # and the voxel lies where the affine says
            found = np.asarray(result.affine) @ [2, 5, index, 1]
            np.testing.assert_allclose(found, np.asarray(scan.affine) @ [2, 5, position, 1], rtol=0, atol=1e-9)

    def test_half_precision(self):
        volume = make_volume(2, 2, 5, 4, 6, dtype=torch.float16) * 3.7e3
        result = PositionInferer(factor=3)(volume)
        assert result.dtype == torch.float16 and torch.equal(result[..., ::3], volume)

    def test_nothing_to_do(self):
        """Where every slice is observed, nothing is computed."""
        inferer = PositionInferer(factor=1)
        scan = make_scan()
        assert torch.equal(inferer(scan).as_tensor(), scan.as_tensor())
        assert inferer.calls == []

    def test_plain_tensor(self):
        volume = make_volume(1, 1, 4, 4, 3)
        result = PositionInferer(factor=2)(volume)
        assert not isinstance(result, MetaTensor) and result.shape == (1, 1, 4, 4, 5)

    def test_output_grid(self):
        scan = make_scan()
        assert PositionInferer(factor=3).output_grid(scan) == OutputGrid.from_factor(5, 3)
        assert PositionInferer(spacing=2.0).output_grid(scan) == OutputGrid.from_factor(5, 2)
        assert PositionInferer(factor=3).output_grid(scan.as_tensor()) == OutputGrid.from_factor(5, 3)


def test_memory(monkeypatch):
    """What does not fit is refused before it is allocated, with both sizes."""
    monkeypatch.setattr("monai_sliceinterp.inferers.base.free_memory", lambda: 7 * 8 * 9 * 4)
    inferer, volume = SplineSliceInferer(factor=4), torch.rand(1, 1, 8, 9, 2)
    assert inferer(volume).shape[-1] == 5
    with pytest.raises(ValueError, match=r"9 slices of 8 x 9 take .* GiB and .* are free, enough for 7; expected"):
        inferer(torch.rand(1, 1, 8, 9, 3))
    assert inferer(torch.rand(1, 1, 8, 9, 3, device="meta")).shape[-1] == 9  # of another device: nothing is known


class TestLoop:
    @pytest.mark.parametrize(("keep", "expected"), [(True, [1, 3, 5, 7]), (False, list(range(9)))])
    def test_each_channel_on_its_own(self, keep, expected):
        scan = make_scan(2, 3)
        inferer, network = PositionInferer(factor=2, keep_observed=keep), object()
        inferer(scan, network)
        assert len(inferer.calls) == 6
        for number, (slices, wanted, passed) in enumerate(inferer.calls):
            assert torch.equal(slices, scan.as_tensor()[number // 3, number % 3].permute(2, 0, 1))
            assert wanted == expected and passed is network

    def test_maps(self):
        """What a method puts into a voxelwise map travels in the metadata; the rest is zero."""
        found = PositionInferer(factor=2)(make_scan(2, 3)).meta["index"]
        assert type(found) is torch.Tensor
        assert torch.equal(found, torch.tensor([0.0, 1, 0, 3, 0, 5, 0, 7, 0]).expand(2, 3, 6, 7, 9))
        assert not PositionInferer(factor=1)(make_scan()).meta["index"].any()


class TestValueRange:
    def test_excess_is_interpolated_linearly(self):
        volume = 20 * make_volume(1, 2, 5, 4, 6, dtype=torch.float64)
        assert volume.min() < -15 and volume.max() > 20
        inferer = PositionInferer(factor=3, value_range=(-5.0, 6.0), start=0)
        result = inferer(volume)
        for slices, _, _ in inferer.calls:
            assert slices.min() == -5 and slices.max() == 6
        excess = volume - volume.clamp(-5, 6)
        for index in range(16):
            first, step = divmod(index, 3)
            if step:
                blend = (3 - step) / 3 * excess[..., first] + step / 3 * excess[..., first + 1]
                torch.testing.assert_close(result[..., index], index / 3 + blend, rtol=0, atol=1e-9)
            else:
                assert torch.equal(result[..., index], volume[..., first])

    def test_observed_slices_carry_it_too(self):
        volume = 2 * make_volume(1, 1, 5, 4, 3, dtype=torch.float64)
        result = PositionInferer(factor=2, value_range=(0, 2), start=0, keep_observed=False)(volume)
        expected = torch.arange(3.0) + (volume - volume.clamp(0, 2))
        torch.testing.assert_close(result[..., ::2], expected, rtol=0, atol=1e-9)

    def test_within_the_range_nothing_changes(self):
        volume = make_volume(1, 1, 5, 4, 3).sigmoid()
        limited = PositionInferer(factor=2, value_range=(0, 2), start=0)(volume)
        assert torch.equal(limited, PositionInferer(factor=2, start=0)(volume))

    @pytest.mark.parametrize(("start", "limit"), [(1000, 0.75), (-1000, 0.25)])
    @pytest.mark.parametrize("keep", [True, False])
    def test_results_are_limited(self, keep, start, limit):
        """A network that overshoots gives the end of the range; observed slices are copied all the same."""
        volume = make_volume(1, 2, 5, 4, 3).sigmoid() * 0.5 + 0.25
        result = PositionInferer(factor=3, value_range=(0.25, 0.75), start=start, keep_observed=keep)(volume)
        synthesized = [k for k in range(7) if k % 3 or not keep]
        assert (result[..., synthesized] == limit).all()
        assert not keep or torch.equal(result[..., ::3], volume)
        free = PositionInferer(factor=3, start=start, keep_observed=keep)(volume)
        assert (free[..., synthesized].abs() > 900).all()

    @pytest.mark.parametrize(("start", "limit"), [(1000, 0.5), (-1000, -0.5)])
    def test_excess_is_added_to_what_was_limited(self, start, limit):
        volume = 2 * make_volume(1, 1, 5, 4, 3, dtype=torch.float64)
        result = PositionInferer(factor=2, value_range=(-0.5, 0.5), start=start)(volume)
        excess = volume - volume.clamp(-0.5, 0.5)
        assert (excess != 0).any()
        expected = limit + 0.5 * (excess[..., :-1] + excess[..., 1:])
        torch.testing.assert_close(result[..., 1::2], expected, rtol=0, atol=1e-9)

    def test_each_voxel_is_limited_on_its_own(self):
        """Only what leaves the range changes: positions 0, 0.5, 1, ... against a range up to 1.2."""
        volume = torch.zeros(1, 1, 5, 4, 4)
        result = PositionInferer(factor=2, value_range=(0, 1.2), start=0, keep_observed=False)(volume)
        expected = torch.tensor([0, 0.5, 1, 1.2, 1.2, 1.2, 1.2])
        torch.testing.assert_close(result, expected.expand_as(result))


def test_different_spacings_in_a_batch():
    items = [{"image": make_scan()[0]}, {"image": make_scan()[0]}]
    items[1]["image"].affine = oblique((0.7, 0.9, 3.0))
    batch = list_data_collate(items)["image"]
    check_error(ValueError, r"one 4x4 matrix, got shape \(2, 4, 4\)", PositionInferer(factor=2), batch)


@pytest.mark.parametrize("spacing", [2, 2.0, np.float32(2), np.float64(2), 0.001, 400])
def test_any_positive_spacing_can_be_asked_for(spacing):
    assert PositionInferer(spacing=spacing).spacing == spacing


def test_large_channels_are_not_copied(monkeypatch):
    """The result is the same, whether slices are put first in memory or viewed so."""
    volume = torch.rand(1, 2, 20, 17, 6, generator=torch.Generator().manual_seed(0))
    results = []
    for limit in (2**26, 0):
        monkeypatch.setattr("monai_sliceinterp.inferers.base._COPIED", limit)
        results.append(SplineSliceInferer(factor=3)(volume))
    torch.testing.assert_close(*results)
