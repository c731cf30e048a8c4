# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Views of a stack of slices, back and forth, and the neighbors of their images."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_sliceinterp.networks.blocks import from_view, neighbor_triples, to_view, view_spacing
from monai_sliceinterp.networks.blocks.views import EDGES, VIEW_DIRECTIONS
from tests.networks.helpers import check_error

DIRECTIONS = pytest.mark.parametrize("direction", VIEW_DIRECTIONS)
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


def marked(count, height, width):
    """Stack whose voxels contain their position: n * 10000 + h * 100 + w."""
    n, h, w = torch.meshgrid(torch.arange(count), torch.arange(height), torch.arange(width), indexing="ij")
    return n * 10000 + h * 100 + w


def pixel(direction, view, column, height, width):
    """Pixel (h, w) that a view's image ``view`` shows in its column ``column``."""
    if direction == "rows":
        return view, column
    if direction == "columns":
        return column, view
    w = min(max(column + view - (height - 1), 0), width - 1)
    return column, w if direction == "diagonal" else width - 1 - w


def view_size(direction, height, width):
    return {"rows": (height, width), "columns": (width, height)}.get(direction, (height + width - 1, height))


def test_directions_and_defaults():
    # the order is part of the interface: the first two are the paper's views
    assert VIEW_DIRECTIONS == ("rows", "columns", "diagonal", "antidiagonal")
    assert EDGES == ("replicate", "zero")
    stack, images = marked(2, 3, 4), torch.rand(3, 2, 2)
    assert torch.equal(to_view(stack), to_view(stack, "rows"))
    assert torch.equal(neighbor_triples(images), neighbor_triples(images, edge="replicate"))


class TestViews:
    @settings(max_examples=40, deadline=None)
    @given(direction=st.sampled_from(VIEW_DIRECTIONS), size=sizes, count=st.integers(1, 3))
    def test_content(self, direction, size, count):
        images = to_view(marked(count, *size), direction)
        views, columns = view_size(direction, *size)
        assert images.shape == (views, count, columns)
        for view in range(views):
            for column in range(columns):
                h, w = pixel(direction, view, column, *size)
                expected = [n * 10000 + h * 100 + w for n in range(count)]
                assert images[view, :, column].tolist() == expected

    @settings(max_examples=60, deadline=None)
    @given(
        direction=st.sampled_from(VIEW_DIRECTIONS),
        size=sizes,
        count=st.integers(1, 4),
        lead=st.lists(st.integers(1, 3), max_size=2),
    )
    def test_round_trip(self, direction, size, count, lead):
        stack = torch.randn(*lead, count, *size, generator=torch.Generator().manual_seed(0))
        images = to_view(stack, direction)
        views, columns = view_size(direction, *size)
        assert images.shape == (*lead, views, count, columns)
        back = from_view(images, direction, size)
        assert back.shape == stack.shape and torch.equal(back, stack)

    @pytest.mark.parametrize("wrong", ["row", "", "Rows", "sagittal", None])
    def test_unknown_direction(self, wrong):
        for call in (
            lambda: to_view(torch.zeros(2, 3, 4), wrong),
            lambda: from_view(torch.zeros(3, 2, 4), wrong, (3, 4)),
            lambda: view_spacing(wrong, (1.0, 1.0)),
        ):
            check_error("unknown view direction .*rows, columns, diagonal", call)


class TestSpacing:
    def test_numbers(self):
        """An image of the view "rows" runs along W, so W's spacing is its columns' distance."""
        found = [view_spacing(direction, (0.6, 0.8)) for direction in VIEW_DIRECTIONS]
        assert all(value.dtype == torch.float32 and value.ndim == 0 for value in found)
        assert [value.item() for value in found] == pytest.approx([0.8, 0.6, 1.0, 1.0])

    def test_tensors(self):
        first, second = torch.tensor([0.6, 3.0]), torch.tensor([0.8, 4.0], dtype=torch.float64)
        expected = {"rows": [0.8, 4.0], "columns": [0.6, 3.0], "diagonal": [1.0, 5.0], "antidiagonal": [1.0, 5.0]}
        for direction, values in expected.items():
            torch.testing.assert_close(view_spacing(direction, (first, second)), torch.tensor(values))
        torch.testing.assert_close(view_spacing("diagonal", (first, 4.0)), torch.tensor([math.hypot(0.6, 4.0), 5.0]))

    @DIRECTIONS
    @pytest.mark.parametrize("size", [(4, 4), (3, 6)])
    def test_agrees_with_the_pixels(self, direction, size):
        """Distance of the positions in mm that neighboring columns of an image show, on the line through a corner."""
        spacing = (0.6, 0.8)
        h, w = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
        positions = torch.stack([h * spacing[0], w * spacing[1]])[:, None]  # in mm, (2, 1, H, W)
        line = to_view(positions, direction)[:, size[0] - 1, 0, :3]
        steps = torch.linalg.norm(line.diff(dim=-1), dim=0)
        torch.testing.assert_close(steps, view_spacing(direction, spacing).expand_as(steps))


class TestNeighbors:
    @pytest.mark.parametrize("edge", EDGES)
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_content(self, edge, count):
        images = 1 + torch.arange(count * 6.0).reshape(count, 2, 3)
        found = neighbor_triples(images, edge=edge)
        assert found.shape == (count, 3, 2, 3)
        missing = torch.zeros(2, 3)
        for view in range(count):
            outside = images[view] if edge == "replicate" else missing
            assert torch.equal(found[view, 0], images[view - 1] if view > 0 else outside)
            assert torch.equal(found[view, 1], images[view])
            assert torch.equal(found[view, 2], images[view + 1] if view < count - 1 else outside)

    @settings(max_examples=40, deadline=None)
    @given(count=st.integers(1, 6), ends=st.tuples(st.integers(0, 6), st.integers(0, 6)), edge=st.sampled_from(EDGES))
    def test_parts_agree_with_the_whole(self, count, ends, edge):
        begin, end = sorted(min(value, count) for value in ends)
        images = 1 + torch.arange(count * 4.0).reshape(count, 2, 2)
        whole = neighbor_triples(images, edge=edge)
        assert torch.equal(neighbor_triples(images, begin, end, edge=edge), whole[begin:end])
        assert torch.equal(neighbor_triples(images, begin, edge=edge), whole[begin:])
        assert torch.equal(neighbor_triples(images, end=end, edge=edge), whole[:end])

    @pytest.mark.parametrize("edge", EDGES)
    def test_input_is_left_alone(self, edge):
        images = torch.ones(3, 2, 2)
        neighbor_triples(images, edge=edge).zero_()
        assert (images == 1).all()

    @pytest.mark.parametrize("wrong", ["", "reflect", "Zero", None])
    def test_unknown_edge(self, wrong):
        check_error("unknown edge .*replicate, zero", neighbor_triples, torch.rand(3, 2, 2), edge=wrong)
