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

"""Views of a stack of slices, back and forth, and the neighbors of their images."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_sliceinterp.networks.blocks.views import (
    EDGES,
    VIEW_DIRECTIONS,
    from_view,
    neighbor_triples,
    to_view,
    view_spacing,
)

DIRECTIONS = pytest.mark.parametrize("direction", VIEW_DIRECTIONS)
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


def marked(count: int, height: int, width: int):
    """Stack in which every voxel tells where it is: n * 10000 + h * 100 + w."""
    n, h, w = torch.meshgrid(torch.arange(count), torch.arange(height), torch.arange(width), indexing="ij")
    return n * 10000 + h * 100 + w


def place(direction: str, view: int, column: int, height: int, width: int) -> tuple[int, int]:
    """Pixel (h, w) that a view's image ``view`` shows in its column ``column``."""
    if direction == "rows":
        return view, column
    if direction == "columns":
        return column, view
    w = min(max(column + view - (height - 1), 0), width - 1)
    return column, w if direction == "diagonal" else width - 1 - w


def view_size(direction: str, height: int, width: int) -> tuple[int, int]:
    return {"rows": (height, width), "columns": (width, height)}.get(direction, (height + width - 1, height))


def test_directions():
    # the order is part of the interface: the first two are the paper's views
    assert VIEW_DIRECTIONS == ("rows", "columns", "diagonal", "antidiagonal")
    assert EDGES == ("replicate", "zero")


class TestViews:
    @settings(max_examples=40, deadline=None)
    @given(direction=st.sampled_from(VIEW_DIRECTIONS), size=sizes, count=st.integers(1, 3))
    def test_content(self, direction, size, count):
        images = to_view(marked(count, *size), direction)
        views, columns = view_size(direction, *size)
        assert images.shape == (views, count, columns)
        for view in range(views):
            for column in range(columns):
                h, w = place(direction, view, column, *size)
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

    @DIRECTIONS
    @pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (2, 1), (1, 2), (5, 5)])
    def test_thin_slices(self, direction, size):
        stack = marked(3, *size)
        assert torch.equal(from_view(to_view(stack, direction), direction, size), stack)

    @DIRECTIONS
    @pytest.mark.parametrize("size", [(4, 6), (6, 4)])
    def test_slice_count_may_change(self, direction, size):
        """The inferer puts images together that have more rows than the stack they were cut from."""
        stack = marked(5, *size)
        images = to_view(stack, direction)
        assert torch.equal(from_view(images[:, 1:4], direction, size), stack[1:4])
        doubled = images.repeat_interleave(2, dim=-2)
        assert torch.equal(from_view(doubled, direction, size), stack.repeat_interleave(2, dim=0))

    @DIRECTIONS
    def test_leading_dimensions(self, direction):
        stack = torch.stack([marked(2, 4, 3), marked(2, 4, 3) + 1_000_000])
        images = to_view(stack, direction)
        for sample in range(2):
            assert torch.equal(images[sample], to_view(stack[sample], direction))
        assert torch.equal(to_view(stack[:, None], direction)[:, 0], images)

    @pytest.mark.parametrize("size", [(5, 5), (4, 7), (7, 4)])
    def test_diagonals(self, size):
        """Inside the slice an image runs along (h, h + d); the next image is one pixel to the right."""
        height, width = size
        for direction, step in (("diagonal", 1), ("antidiagonal", -1)):
            images = to_view(marked(1, *size), direction)[:, 0]
            h, w = images // 100, images % 100
            assert torch.equal(h, torch.arange(height).expand_as(h))
            inside = (w[:, 1:] - w[:, :-1]) == step
            # every pixel of the slice is inside one line, so H W of the entries are, less those that repeat the border
            line = torch.arange(1 - height, width)[:, None] + torch.arange(height)
            kept = (line >= 0) & (line < width)
            assert kept.sum() == height * width
            assert sorted(images[kept].tolist()) == sorted(marked(1, *size).flatten().tolist())
            assert inside[kept[:, 1:] & kept[:, :-1]].all()
            assert (w[1:] - w[:-1])[kept[1:] & kept[:-1]].unique().tolist() == [step]

    @pytest.mark.parametrize("size", [(6, 6), (5, 8), (8, 5)])
    def test_ramps(self, size):
        """h - w is constant along diagonals and h + w along antidiagonals; across them they rise by 2 a column."""
        height, width = size
        h, w = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        main, length = height - 1, min(height, width)  # the line that starts in a corner of the slice
        for direction, flat, steep in (("diagonal", h - w, h + w), ("antidiagonal", h + w, h - w)):
            line = to_view(flat[None], direction)[main, 0, :length]
            assert line.unique().numel() == 1
            line = to_view(steep[None], direction)[main, 0, :length]
            assert (line.diff() == 2).all()
        assert to_view(h[None], "columns")[:, 0].diff(dim=-1).unique().tolist() == [1]
        assert to_view(w[None], "columns")[:, 0].diff(dim=-1).unique().tolist() == [0]
        assert to_view(w[None], "rows")[:, 0].diff(dim=-1).unique().tolist() == [1]
        assert to_view(h[None], "rows")[:, 0].diff(dim=-1).unique().tolist() == [0]

    def test_antidiagonals_are_diagonals_of_the_mirrored_stack(self):
        stack = marked(2, 5, 3)
        assert torch.equal(to_view(stack, "antidiagonal"), to_view(stack.flip(-1), "diagonal"))
        assert not torch.equal(to_view(stack, "antidiagonal"), to_view(stack, "diagonal"))

    def test_default_is_rows(self):
        assert torch.equal(to_view(marked(2, 3, 4)), to_view(marked(2, 3, 4), "rows"))

    @DIRECTIONS
    def test_gradients(self, direction):
        """Every voxel's gradient returns once: repeated borders of diagonal lines are dropped on the way back."""
        stack = torch.zeros(2, 4, 3, requires_grad=True)
        weights = torch.rand(2, 4, 3)
        (from_view(to_view(stack, direction), direction, (4, 3)) * weights).sum().backward()
        torch.testing.assert_close(stack.grad, weights)

    @pytest.mark.parametrize("wrong", ["row", "", "Rows", "sagittal", None])
    def test_unknown_direction(self, wrong):
        for call in (
            lambda: to_view(torch.zeros(2, 3, 4), wrong),
            lambda: from_view(torch.zeros(3, 2, 4), wrong, (3, 4)),
            lambda: view_spacing(wrong, (1.0, 1.0)),
        ):
            with pytest.raises(ValueError, match="unknown view direction .*rows, columns, diagonal") as caught:
                call()
            assert "\n" not in str(caught.value)


class TestSpacing:
    def test_numbers(self):
        """An image of the view "rows" runs along W, so W's spacing is its columns' distance."""
        found = [view_spacing(direction, (0.6, 0.8)) for direction in VIEW_DIRECTIONS]
        assert all(value.dtype == torch.float32 and value.ndim == 0 for value in found)
        assert [value.item() for value in found] == pytest.approx([0.8, 0.6, 1.0, 1.0])

    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.1, 9.0), st.floats(0.1, 9.0))
    def test_diagonal(self, first, second):
        for direction in ("diagonal", "antidiagonal"):
            assert view_spacing(direction, (first, second)).item() == pytest.approx(math.hypot(first, second), rel=1e-5)

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
        place_mm = torch.stack([h * spacing[0], w * spacing[1]])[:, None]  # (2, 1, H, W)
        line = to_view(place_mm, direction)[:, size[0] - 1, 0, :3]
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

    def test_default_is_replicate(self):
        images = torch.rand(3, 2, 2)
        assert torch.equal(neighbor_triples(images), neighbor_triples(images, edge="replicate"))

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

    def test_gradients(self):
        """Each image is used three times; the repeated border once more, unless it is zero."""
        for edge, expected in (("replicate", [3.0, 3.0, 3.0]), ("zero", [2.0, 3.0, 2.0])):
            images = torch.rand(3, 1, 1, requires_grad=True)
            neighbor_triples(images, edge=edge).sum().backward()
            assert images.grad.flatten().tolist() == expected

    @pytest.mark.parametrize("wrong", ["", "reflect", "Zero", None])
    def test_unknown_edge(self, wrong):
        with pytest.raises(ValueError, match="unknown edge .*replicate, zero") as caught:
            neighbor_triples(torch.rand(3, 2, 2), edge=wrong)
        assert "\n" not in str(caught.value)
