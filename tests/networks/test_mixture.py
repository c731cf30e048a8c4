# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Mixture network: where it starts, what it mixes, what depends on position and spacing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.networks.blocks import PositionFilters, SliceBlock
from monai_sliceinterp.networks.nets import MixtureNetwork
from monai_sliceinterp.networks.nets import mixture as module
from monai_sliceinterp.optical_flow import gap_motion, motion_compensated
from monai_sliceinterp.resampling import apply_weights, interpolation_weights
from tests.networks.helpers import EXACT, as_trained, check_error, count, rand, trained

SMALL = {"channels": 8, "num_blocks": 2}


def candidates(image, factor):
    """The interpolations of one volume ``(1, 1, H, W, N)`` at the positions between its slices, by name."""
    positions = [k / factor for k in range(factor * (image.shape[-1] - 1) + 1) if k % factor]
    result = {
        mode: apply_weights(image, interpolation_weights(image.shape[-1], positions, mode))
        for mode in ("linear", "cubic")
    }
    slices = image[0].movedim(-1, 0)
    moved = []
    for gap in range(len(slices) - 1):
        pair = slices[gap, None], slices[gap + 1, None]
        flow = gap_motion(*pair)
        moved += [
            motion_compensated(*pair, *flow, torch.tensor([k / factor], dtype=torch.float64))[0, 0]
            for k in range(1, factor)
        ]
    return {**result, "motion": torch.stack(moved, dim=-1)[None, None]}


def between(volume, factor):
    return volume[..., [k for k in range(volume.shape[-1]) if k % factor]]


class TestStart:
    @pytest.mark.parametrize("factor", [2, 5])
    def test_is_the_mean_of_the_interpolations(self, factor):
        image = rand(1, 1, 17, 20, 4)
        found = MixtureNetwork(**SMALL).double()(image, factor)
        expected = sum(candidates(image, factor).values()) / 3
        torch.testing.assert_close(between(found, factor), expected, **EXACT)

    @pytest.mark.parametrize("mixed", [["motion", "linear"], ["cubic", "motion"], ["linear", "cubic"]])
    def test_parts_can_be_left_out(self, mixed, monkeypatch):
        """A mixture alone stays between what it mixes, whatever the weights; what it does not mix is not computed."""
        if "motion" not in mixed:
            monkeypatch.setattr(module, "gap_motion", None)
        image = rand(1, 1, 17, 20, 4)
        network = MixtureNetwork(**SMALL, mixed=mixed, residual=False).double()
        parts = torch.cat([candidates(image, 3)[name] for name in mixed])
        torch.testing.assert_close(between(network(image, 3), 3)[0], parts.mean(dim=0), **EXACT)
        found = between(as_trained(network)(image, 3), 3)[0]
        least, most = parts.amin(dim=0), parts.amax(dim=0)
        assert ((found >= least - 1e-9) & (found <= most + 1e-9)).all()
        assert (found - parts.mean(dim=0)).abs().max() > 1e-3
        with pytest.raises(ValueError, match="mixed must be two or more of linear, cubic, motion"):
            MixtureNetwork(**SMALL, mixed=mixed[:1])

    def test_size(self):
        network = MixtureNetwork()
        assert count(network) < 500_000
        # multiplications of the convolutions per voxel of an observed and of a synthesized slice, at half resolution
        encoder = [network.stem, *(layer for layer in network.blocks.modules() if isinstance(layer, nn.Conv3d))]
        decoder = [network.join, network.head, network.last]
        per_slice, per_position = (sum(layer.weight.numel() for layer in part) / 4 for part in (encoder, decoder))
        assert per_slice / 3 + per_position < 170_000 / 4


class TestMixture:
    @pytest.mark.parametrize("count", [2, 3, 6])
    def test_observed_slices_are_copied(self, count):
        image = rand(2, 1, 9, 12, count)
        found = trained(MixtureNetwork, **SMALL)(image, 3)
        assert torch.equal(found[..., ::3], image)
        same = trained(MixtureNetwork, **SMALL)(image, 1)
        assert torch.equal(same, image) and same.data_ptr() != image.data_ptr()

    def test_residual_vanishes_at_the_observed_slices(self):
        network = trained(MixtureNetwork, **SMALL)
        mixed = rand(1, 1, 6, 8).expand(3, 3, 6, 8)  # all interpolations agree there
        alpha = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
        found = network.decode(rand(3, 16, 3, 4), mixed, rand(3, 1, 6, 8, seed=1), alpha)
        torch.testing.assert_close(found[[0, 2]], mixed[:2, :1], **EXACT)
        assert (found[1] - mixed[1, :1]).abs().max() > 1e-3

    def test_without_a_residual_it_stays_between_the_interpolations(self):
        network = trained(MixtureNetwork, **SMALL)
        with torch.no_grad():
            network.last.weight[12:].zero_()
            network.last.bias[12:].zero_()
        image = rand(1, 1, 12, 14, 5)
        stacked = torch.stack(list(candidates(image, 3).values()))
        found = between(network(image, 3), 3)
        assert (found >= stacked.amin(dim=0) - 1e-9).all() and (found <= stacked.amax(dim=0) + 1e-9).all()
        assert (found - stacked.mean(dim=0)).abs().max() > 1e-2

    def test_spacings_and_thickness_matter(self):
        network, image = trained(MixtureNetwork, **SMALL), rand(1, 1, 8, 8, 3)
        base = {"slice_spacing": 4.0, "in_plane_spacing": (1.0, 1.0), "slice_thickness": 0.0}
        changes = ({"slice_spacing": 8.0}, {"in_plane_spacing": (0.5, 0.5)}, {"slice_thickness": 4.0})
        expected = network(image, 2, **base)
        for change in changes:
            assert not torch.allclose(network(image, 2, **{**base, **change}), expected)
        both = network(image.repeat(2, 1, 1, 1, 1), 2, torch.tensor([4.0, 8.0]))
        torch.testing.assert_close(both[:1], expected, **EXACT)
        torch.testing.assert_close(both[1:], network(image, 2, 8.0), **EXACT)

    def test_training_reduces_the_error(self):
        """A few steps on slabs of a smooth field, beginning at the mean of the interpolations."""
        torch.manual_seed(0)
        network = MixtureNetwork(**SMALL)
        field = F.avg_pool3d(torch.rand(1, 1, 24, 24, 17), (5, 5, 3), 1, (2, 2, 1)) * 4
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        errors = []
        for _ in range(15):
            error = (network(field[..., ::4], 4) - field).abs().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.item())
        assert errors[-1] < 0.95 * errors[0]

    def test_bfloat16_is_near(self):
        image = rand(1, 1, 16, 16, 4).float()
        network = trained(MixtureNetwork, **SMALL).float()
        exact = network(image, 2)
        with torch.autocast("cpu"):
            reduced = network(image, 2)
        assert reduced.dtype == torch.float32
        assert 0 < (reduced - exact).abs().max() < 0.05

    def test_what_is_mixed_is_no_coarser_than_the_image(self):
        """The untrained network gives the mean of the interpolations, which bfloat16 would round to 1/512."""
        image = rand(1, 1, 16, 16, 4).float()
        network = MixtureNetwork(**SMALL)
        with torch.autocast("cpu"):
            reduced = network(image, 2)
        torch.testing.assert_close(reduced, network(image, 2), rtol=0, atol=1e-6)


class TestBlocks:
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_stream_equals_the_whole_stack(self, count):
        block, features = trained(SliceBlock, 4), rand(1, 4, count, 6, 7)
        streamed = torch.stack(list(block.stream(features.unbind(dim=2))), dim=2)
        torch.testing.assert_close(streamed, block(features), **EXACT)

    @torch.no_grad()
    def test_block_by_hand(self):
        block, features = trained(SliceBlock, 4), rand(1, 4, 3, 6, 7)
        within = [
            F.relu(F.conv2d(features[:, :, k], block.first.weight[:, :, 0], block.first.bias, padding=1))
            for k in range(3)
        ]
        taps = block.across.weight[..., 0, 0]
        for k in range(3):
            around = (within[max(k - 1, 0)], within[k], within[min(k + 1, 2)])
            mixed = sum(torch.einsum("oc,bchw->bohw", taps[..., tap], image) for tap, image in enumerate(around))
            hidden = F.relu(mixed + block.across.bias[:, None, None])
            expected = features[:, :, k] + F.conv2d(hidden, block.last.weight[:, :, 0], block.last.bias, padding=1)
            torch.testing.assert_close(block(features)[:, :, k], expected, **EXACT)

    def test_filters_start_as_mean_and_difference(self):
        weights = PositionFilters(4)(torch.tensor([0.5]), 4.0, 1.0, 0.0)[0]
        assert (weights[0] - torch.tensor([0, 0.5, 0.5, 0])).abs().max() < 0.2
        assert (weights[1] - torch.tensor([0, -0.5, 0.5, 0])).abs().max() < 0.2


class TestErrors:
    def test_settings(self):
        for name in ("channels", "num_blocks"):
            check_error(name, MixtureNetwork, **{name: 0})

    def test_images(self):
        network = MixtureNetwork(**SMALL)
        check_error("at least 2 slices", network, torch.zeros(1, 1, 8, 8, 1))
        check_error("expected volumes", network, torch.zeros(1, 2, 8, 8, 3))
        check_error("spacings", network, torch.zeros(1, 1, 8, 8, 3), 2, torch.ones(3))
        check_error("factor", network, torch.zeros(1, 1, 8, 8, 3), 0)
