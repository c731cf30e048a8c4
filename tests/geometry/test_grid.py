# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sliceinterp.geometry import OutputGrid, paste_observed, slice_geometry


class TestUnevenGrid:
    @pytest.mark.parametrize(
        ("grid", "positions", "widths"),
        [
            (
                OutputGrid.from_factor(4, 2, (0, 1, 3, 4)),
                [0, 0.5, 1, 1.25, 1.5, 1.75, 2, 2.5, 3],
                [1, 1, 2, 2, 2, 2, 1, 1, 1],
            ),
            # every 2 mm of slices at 0, 5 and 15 mm
            (
                OutputGrid.from_spacing(3, 5.0, 2.0, (0, 1, 3)),
                [0, 0.4, 0.8, 1.1, 1.3, 1.5, 1.7, 1.9],
                [1, 1, 1, 2, 2, 2, 2, 2],
            ),
            (OutputGrid.from_factor(3, 1, (0, 1.5, 2.5)), [0, 2 / 3, 1.5], [1.5, 1.5, 1]),
            # rounded positions: slices within a thousandth of the gap of an output slice are that slice
            (
                OutputGrid.from_factor(3, 1, (0, 1.0005, 2.9996)),
                [0, 1, 1 + 0.9995 / 1.9991, 2],
                [1.0005, *[1.9991] * 3],
            ),
            (OutputGrid.from_factor(3, 1, (0, 1.002, 2.998)), [0, 1 / 1.002, 1 + 0.998 / 1.996], [1.002, 1.002, 1.996]),
        ],
    )
    def test_by_hand(self, grid, positions, widths):
        assert grid.positions == pytest.approx(positions, abs=1e-12)
        assert grid.gap_width.tolist() == pytest.approx(widths, abs=1e-12)
        observed = [position for position in positions if position % 1 == 0]
        assert grid.observed_source.tolist() == observed
        assert grid.is_observed.tolist() == [position in observed for position in positions]

    def test_affine(self):
        grid = OutputGrid.from_spacing(3, 5.0, 2.0, (0, 1, 3))
        assert grid.step == 0.4 and grid.slice_positions == (0.0, 1.0, 3.0)
        np.testing.assert_allclose(grid.affine(np.diag([1, 1, 5, 1.0])), np.diag([1, 1, 2, 1.0]))

    @pytest.mark.parametrize("rounding", [0, 0.0009])
    def test_even_slices(self, rounding):
        places = [0, 1 + rounding, 2 - rounding, 3 + rounding]
        assert OutputGrid.from_factor(4, 3, places) == OutputGrid.from_factor(4, 3)
        assert OutputGrid.from_spacing(4, 5.0, 1.7, places) == OutputGrid.from_spacing(4, 5.0, 1.7)
        assert OutputGrid.from_factor(4, 3).gap_width.tolist() == [1.0] * 10

    def test_fine_grid(self):
        """Of output slices that are closer than the tolerance, one at most is on an input slice."""
        grid = OutputGrid.from_factor(3, 2000, (0, 1, 2.5))
        assert grid.observed_source.tolist() == [0, 1, 2]
        assert (np.diff(grid.positions) > 0).all() and len(grid) == 5001

    def test_drift_over_uneven_slices(self):
        """A spacing that nearly divides the gap means that factor only if that does not miss the last slice."""
        assert OutputGrid.from_spacing(3, 4.0, 2.0001, (0, 1, 3)).step == 0.5
        assert OutputGrid.from_spacing(3, 4.0, 2.0001, (0, 1, 30)).step != 0.5

    def test_create(self):
        geometry = slice_geometry(np.diag([1.0, 1.0, 4.0, 1.0]))
        for how, count in (({"factor": 2}, 7), ({"spacing": 1.0}, 13), ({}, 13), ({"default_spacing": 8.0}, 4)):
            grid = OutputGrid.create(3, geometry, **how, slice_positions=(0, 1, 3))
            assert len(grid) == count and grid.slice_positions == (0, 1, 3)

    @pytest.mark.parametrize("places", [(0, 2), (0, 2, 1), (0.5, 1, 3), (0, float("nan"), 3), (0, 0, 1)])
    def test_places_that_do_not_fit(self, places):
        named = "slice positions do not fit 3 slices" if len(places) == 2 else "must be finite and ascend from 0, got"
        for function, arguments in ((OutputGrid.from_factor, (2,)), (OutputGrid.from_spacing, (4.0, 2.0))):
            with pytest.raises(ValueError, match=named) as caught:
                function(3, *arguments, places)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("positions", [None, [0, 1, 2, 4, 5, 6, 7, 8, 10]])
@pytest.mark.parametrize("spacing", [5e-9, 5e-20, 1e-300])
def test_absurd(spacing, positions):
    """Refused before the positions are listed."""
    message = r"9 slices would become about .*; expected at most 100,000"
    with pytest.raises(ValueError, match=message):
        OutputGrid.from_spacing(9, 5.0, spacing, positions)
    with pytest.raises(ValueError, match=message):
        OutputGrid.from_factor(9, round(5 / spacing), positions)


class TestPasteObserved:
    def test_in_place(self):
        """Through a permuted view, too: slices need not be last in memory."""
        output, image = torch.full((10, 2, 5), -1, dtype=torch.int16), torch.arange(40, dtype=torch.int16)
        image = image.reshape(2, 5, 4)
        view = output.movedim(0, -1)
        assert paste_observed(view, image, OutputGrid.from_factor(4, 3)) is view
        assert torch.equal(output[::3], image.movedim(-1, 0))
        assert (output[[k for k in range(10) if k % 3]] == -1).all()

    def test_some_observed_positions(self):
        grid = OutputGrid.from_spacing(4, 4.0, 3.0)  # 0, 0.75, 1.5, 2.25, 3
        assert paste_observed(torch.zeros(5), torch.arange(1.0, 5.0), grid).tolist() == [1, 0, 0, 0, 4]

    @pytest.mark.parametrize(
        ("output", "image"),
        [
            (torch.zeros(2, 5), torch.zeros(2, 3, dtype=torch.float64)),
            (torch.zeros(2, 6), torch.zeros(2, 3)),
            (torch.zeros(2, 5), torch.zeros(2, 4)),
            (torch.zeros(2, 5, dtype=torch.int16), torch.zeros(2, 3)),
        ],
    )
    def test_errors(self, output, image):
        with pytest.raises(ValueError, match="do not fit .*expected 3 and 5 slices"):
            paste_observed(output, image, OutputGrid.from_factor(3, 2))
