# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Motion-compensated interpolation of volumes: objects that move from slice to slice."""

from __future__ import annotations

import pytest
import torch

from monai_sliceinterp.inferers import MotionSliceInferer, SplineSliceInferer, motion
from tests.inferers.common import check_error, close, make_scan


def moving_disk(positions, scale=1.0, offset=0.0):
    """Soft disk ``(1, 1, 64, 64, len(positions))`` that moves by four pixels from slice to slice."""
    rows = torch.arange(64.0)
    slices = [
        torch.sigmoid(10 - torch.hypot(rows[:, None] - 24 - 4 * at, rows[None] - 30 + 2 * at)) for at in positions
    ]
    return offset + scale * torch.stack(slices, dim=-1)[None, None]


class TestMovingObject:
    @pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1500.0, -1000.0)])
    def test_is_moved_instead_of_faded(self, scale, offset):
        thick = moving_disk(range(4), scale, offset)
        true = moving_disk([k / 4 for k in range(13)], scale, offset)
        errors = {
            kind: (kind(factor=4)(thick) - true).abs().mean() / scale
            for kind in (MotionSliceInferer, SplineSliceInferer)
        }
        assert errors[MotionSliceInferer] < 0.35 * errors[SplineSliceInferer]

    def test_scale_does_not_matter(self):
        plain, scaled = (MotionSliceInferer(factor=3)(moving_disk(range(3), *how)) for how in ((), (100.0, 7.0)))
        close(scaled / 100 - 0.07, plain, atol=1e-4)


def test_one_flow_for_every_gap(monkeypatch):
    gaps = []

    def count(earlier, later, *settings):
        gaps.append(len(earlier))
        return found(earlier, later, *settings)

    found = motion.gap_motion
    monkeypatch.setattr(motion, "gap_motion", count)
    scan = make_scan(1, 1, 20, 18, 6)
    whole = MotionSliceInferer(factor=5)(scan)
    assert sum(gaps) == 5
    gaps.clear()
    close(MotionSliceInferer(factor=5, batch_size=2)(scan), whole, atol=1e-6)
    assert gaps == [2, 2, 1]


@pytest.mark.parametrize("wrong", [{"attachment": 0}, {"tolerance": -1}, {"batch_size": -1}])
def test_wrong_settings(wrong):
    check_error(ValueError, next(iter(wrong)), MotionSliceInferer, factor=2, **wrong)
