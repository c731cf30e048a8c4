# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Filter-distance matrices, the filter generator and the application of generated filters."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.networks.blocks import FilterGenerator, apply_generated_filters, filter_distance_matrix
from tests.networks.helpers import EXACT, check_error, conv_count, count, rand

spacings = st.floats(0.1, 20.0)
offsets_in_gap = st.floats(0.0, 0.999)


def distance(row, column, offset, across, along, size):
    """Algorithm 1 in Python floats: from the voxel under tap (row, column) to the synthesized one, in mm."""
    center = size // 2
    return math.sqrt(((row - center - offset) * across) ** 2 + ((column - center) * along) ** 2)


def unfolded(features, filters):
    """Equation 5 as the authors compute it: patches times filters, column padding zero and no row padding."""
    batch, channels, _, columns = features.shape
    size = filters.shape[-1]
    patches = F.unfold(features, (size, size), padding=(0, size // 2))  # (B, C k k, N L)
    results = []
    for sample in range(batch):
        bank = filters[sample if len(filters) > 1 else 0].reshape(-1, channels * size * size)
        results.append((bank @ patches[sample]).reshape(len(bank), -1, columns))
    return torch.stack(results)


class TestDistances:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(offsets_in_gap, min_size=1, max_size=4), spacings, spacings, st.sampled_from([1, 3, 5]))
    def test_entries(self, offsets, across, along, size):
        found = filter_distance_matrix(offsets, across, along, size)
        assert found.shape == (1, len(offsets), size, size)
        for number, offset in enumerate(offsets):
            for row in range(size):
                for column in range(size):
                    expected = distance(row, column, offset, across, along, size)
                    assert found[0, number, row, column].item() == pytest.approx(expected, rel=1e-5, abs=1e-4)

    @pytest.mark.parametrize("across", [4.0, [3.0], [5.0, 2.5, 3.0]])
    @pytest.mark.parametrize("along", [0.8, [0.7, 0.9, 1.1]])
    def test_one_spacing_per_sample(self, across, along):
        offsets = torch.tensor([0.2, 0.37])
        found = filter_distance_matrix(offsets, torch.tensor(across), torch.tensor(along))
        first, second = torch.broadcast_tensors(torch.tensor(across).reshape(-1), torch.tensor(along).reshape(-1))
        alone = [filter_distance_matrix(offsets, a.item(), b.item()) for a, b in zip(first, second, strict=True)]
        torch.testing.assert_close(found, torch.cat(alone))

    def test_kinds_of_input(self):
        reference = filter_distance_matrix([0.25, 0.5], 4.0, 1.0)
        for dtype in (torch.float32, torch.float64):
            numbers = torch.tensor([0.25, 0.5], dtype=dtype)
            spacing = torch.tensor(4.0, dtype=dtype)
            assert torch.equal(filter_distance_matrix(numbers, spacing, torch.tensor([1])), reference)
        assert torch.equal(filter_distance_matrix((0.25, 0.5), 4, 1), reference)
        assert filter_distance_matrix([], 4.0, 1.0).shape == (1, 0, 3, 3)

        # integer tensors are spacings too; the entries must not become integers
        assert filter_distance_matrix([0.5], torch.tensor([3]), torch.tensor([1]))[0, 0, 1, 1].item() == 1.5

    @pytest.mark.parametrize("size", [0, 2, 4, -1, -2])
    def test_wrong_kernel_size(self, size):
        check_error(f"kernel_size must be .*, got {size}", filter_distance_matrix, [0.5], 4.0, 1.0, size)

    @pytest.mark.parametrize("wrong", [[1.0], [0.5, 1.0], [-0.01], [0.2, 1.5], [math.nan], [0.5, math.nan], [math.inf]])
    def test_wrong_offsets(self, wrong):
        check_error(r"within \[0, 1\)", filter_distance_matrix, wrong, 4.0, 1.0)

    @pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, [2.0, 0.0], [math.nan, 2.0], [2.0, math.inf]])
    def test_wrong_spacing(self, wrong):
        wrong = torch.tensor(wrong)
        check_error("slice spacing must be a positive number of mm", filter_distance_matrix, [0.5], wrong, 1.0)
        check_error("in-plane spacing must be a positive number of mm", filter_distance_matrix, [0.5], 4.0, wrong)


class TestGenerator:
    def test_layers(self):
        """Five 3x3 convolutions 1-32-64-64-64-64 with ReLU between them, none at the end."""
        layers = list(FilterGenerator().layers)
        convs, activations = layers[::2], layers[1::2]
        assert all(isinstance(layer, nn.ReLU) for layer in activations) and len(activations) == 4
        sizes = [(1, 32), (32, 64), (64, 64), (64, 64), (64, 64)]
        assert [(conv.in_channels, conv.out_channels) for conv in convs] == sizes
        assert count(FilterGenerator()) == conv_count(sizes, 9) == 129_600

    def test_by_hand(self):
        torch.manual_seed(0)
        generator = FilterGenerator(5, (4, 6)).double()
        distances = 4 * rand(2, 3, 5, 5)
        found = generator(distances)
        assert found.shape == (2, 3, 5, 5, 5)
        convs = generator.layers[::2]
        assert len(convs) == 3
        for sample in range(2):
            for index in range(3):
                values = distances[sample, index][None, None]
                for number, conv in enumerate(convs):
                    values = F.conv2d(values, conv.weight, conv.bias, padding=1)
                    values = values.clamp(min=0) if number < 2 else values
                torch.testing.assert_close(found[sample, index], values[0], **EXACT)
        assert found.min() < 0  # no activation at the end

    def test_no_hidden_layer(self):
        generator = FilterGenerator(4, ())
        assert count(generator) == 40
        assert generator(torch.ones(1, 2, 3, 3)).shape == (1, 2, 4, 3, 3)

    @pytest.mark.parametrize("gain", [0.1, 2.0])
    def test_gain(self, gain):
        """Scales the initial filters, bias included, and nothing else."""
        torch.manual_seed(0)
        plain = FilterGenerator(6, (4, 4))
        torch.manual_seed(0)
        scaled = FilterGenerator(6, (4, 4), gain=gain)
        distances = rand(1, 2, 3, 3).float()
        torch.testing.assert_close(scaled(distances), gain * plain(distances))
        weights = scaled.state_dict()
        names = [name for name, value in plain.state_dict().items() if not torch.equal(value, weights[name])]
        assert names == ["layers.4.weight", "layers.4.bias"]


class TestApplication:
    @settings(max_examples=30, deadline=None)
    @given(
        batch=st.integers(1, 3),
        offsets=st.integers(1, 3),
        channels=st.integers(1, 4),
        rows=st.integers(1, 4),
        columns=st.integers(1, 6),
        size=st.sampled_from([1, 3, 5]),
        shared=st.booleans(),
        last=st.booleans(),
    )
    def test_unfold_and_matmul(self, batch, offsets, channels, rows, columns, size, shared, last):
        features = rand(batch, channels, rows + size - 1, columns) - 0.5
        filters = rand(1 if shared else batch, offsets, channels, size, size, seed=1) - 0.5
        expected = unfolded(features, filters)
        if last:  # AMI's features have their channels innermost
            features = features.contiguous(memory_format=torch.channels_last)
        found = apply_generated_filters(features, filters)
        assert found.shape == (batch, offsets, rows, columns)
        torch.testing.assert_close(found, expected, **EXACT)

    @pytest.mark.parametrize(("batch", "banks"), [(1, 3), (2, 4), (2, 3), (3, 2)])
    def test_wrong_number_of_banks(self, batch, banks):
        """Filters of other samples must not be applied, nor their results appear as rows."""
        with pytest.raises((ValueError, RuntimeError)):
            apply_generated_filters(rand(batch, 4, 5, 6), rand(banks, 2, 4, 3, 3))
