# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.metrics import body_mask
from monai_sliceinterp.metrics.body import BODY_THRESHOLD

AIR, TISSUE, LUNG = -1000.0, 40.0, -850.0


def draw(*rows):
    """A slice from text: # tissue, o lung, . air."""
    values = {"#": TISSUE, "o": LUNG, ".": AIR}
    return torch.tensor([[values[letter] for letter in row] for row in rows])


def stack(*slices):
    return torch.stack(slices, dim=-1)[None]


def as_text(mask):
    """The slices of a mask as text, # inside."""
    return [["".join("#" if inside else "." for inside in row) for row in plane] for plane in mask[0].movedim(-1, 0)]


BODY = draw(
    ".......",
    ".#####.",
    ".#o#o#.",
    ".#o#o#.",
    ".#####.",
    ".......",
)
SOLID = [".......", ".#####.", ".#####.", ".#####.", ".#####.", "......."]


class TestByHand:
    def test_lungs_are_filled(self):
        mask = body_mask(stack(BODY, BODY))
        assert mask.dtype == torch.bool and mask.shape == (1, 6, 7, 2)
        assert as_text(mask) == [SOLID, SOLID]

    def test_filled_slice_by_slice(self):
        """Cavities of the first slice, open along the slice axis, are inside its outline all the same."""
        outline = draw(".......", ".#####.", ".#...#.", ".#...#.", ".#####.", ".......")
        assert as_text(body_mask(stack(outline, BODY, BODY))) == [SOLID] * 3
        # an airway to the outside within the slice is not, though closed above and below
        airway = draw(".......", ".##.##.", ".#o.o#.", ".#o.o#.", ".#####.", ".......")
        mask = as_text(body_mask(stack(draw(*SOLID), airway, draw(*SOLID))))
        assert mask == [SOLID, [".......", ".##.##.", ".#...#.", ".#...#.", ".#####.", "......."], SOLID]

    def test_largest_part_only(self):
        """The table and other things beside the body do not count, whatever their number."""
        plane = draw(
            "#.###..",
            "#.#o#.#",
            "#.###.#",
            "#......",
            ".######",
            ".......",
        )
        expected = ["..###..", "..###..", "..###..", ".......", ".......", "......."]
        assert as_text(body_mask(stack(plane))) == [expected]

    def test_parts_are_joined_across_slices(self):
        """Two parts of a slice belong together where another slice joins them: legs, arms."""
        legs = draw("##..##", "##..##", "......")
        hips = draw("######", "######", "......")
        table = draw("......", "......", "######")
        nothing = draw("......", "......", "......")
        mask = as_text(body_mask(stack(legs, hips, nothing, table, table)))
        assert mask[0] == ["##..##", "##..##", "......"] and mask[1] == ["######", "######", "......"]
        assert not any("#" in row for plane in mask[2:] for row in plane)

    def test_corners_do_not_join(self):
        plane = draw("##..", "##..", "..##", "..#.")
        assert as_text(body_mask(stack(plane))) == [["##..", "##..", "....", "...."]]

    @pytest.mark.parametrize(
        ("value", "body"),
        [(AIR, False), (BODY_THRESHOLD, False), (TISSUE, True), (-100.0, True), (-499.0, True), (-700.0, False)],
    )
    def test_one_intensity(self, value, body):
        mask = body_mask(torch.full((1, 5, 6, 3), value))
        assert mask.shape == (1, 5, 6, 3) and mask.dtype == torch.bool and (mask == body).all()


class TestInputs:
    def test_scaled_intensities(self):
        """With the threshold scaled like the volume, the mask is that of the HU."""
        scan = stack(BODY, BODY.flip(0))
        scaled, threshold = (scan + 1024) / 4000, (BODY_THRESHOLD + 1024) / 4000
        assert torch.equal(body_mask(scaled, threshold), body_mask(scan))
        assert body_mask(scan, -1e4).all() and not body_mask(scan, 100).any()

    def test_each_channel_on_its_own(self):
        small = torch.full_like(BODY, AIR)
        small[1:3, 1:3] = TISSUE
        scan = torch.cat([stack(BODY, BODY), stack(small, small)])
        mask = body_mask(scan)
        assert torch.equal(mask[:1], body_mask(scan[:1])) and torch.equal(mask[1:], body_mask(scan[1:]))
        assert mask[0].sum() == 2 * 20 and mask[1].sum() == 2 * 4

    @pytest.mark.parametrize("dtype", [torch.int16, torch.float64])
    def test_types(self, dtype):
        scan = MetaTensor(stack(BODY, BODY).to(dtype), affine=torch.eye(4))
        before = scan.as_tensor().clone()
        mask = body_mask(scan)
        assert type(mask) is torch.Tensor and as_text(mask) == [SOLID, SOLID]
        assert torch.equal(scan.as_tensor(), before)
