# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Unevenly spaced slices through every inferer, against hand-made truths and independent splines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from scipy.interpolate import CubicSpline

from monai_sliceinterp.geometry import slice_positions
from monai_sliceinterp.inferers import (
    LatentSliceInferer,
    MultiViewSliceInferer,
    SplineSliceInferer,
    VolumetricSliceInferer,
)
from monai_sliceinterp.networks.nets.latent import LatentInterpolator
from tests.inferers.common import SPACING, check_error, make_saint, straight

MISSING = (0.0, 1.0, 3.0, 4.0, 7.0)
UNEVEN = (0.0, 0.7, 1.9, 2.9, 4.4)


class Slices(LatentInterpolator):
    """The codes are the slices themselves, so that mixing codes is linear interpolation."""

    def encode(self, image):
        return (image,)

    def decode(self, codes, size=None):
        return codes[0]


def make_scan(values, positions, axis=2, **meta):
    """Volume ``(1, 1, H, W, N)`` with slices at ``positions`` in units of 4 mm."""
    if positions is not None:
        meta = {"slice_positions": tuple(positions), "slice_positions_axis": axis, **meta}
    return MetaTensor(values, affine=straight(), meta=meta)


def along(function, positions):
    """Volume whose slices are a function of their position."""
    return torch.tensor(function(np.asarray(positions, dtype=np.float64))).expand(1, 1, 6, 5, -1).contiguous()


INFERERS = {
    "linear": (SplineSliceInferer, {"mode": "linear"}, None),
    "cubic": (SplineSliceInferer, {"mode": "cubic"}, None),
    "latent": (LatentSliceInferer, {}, Slices()),
    "volumetric": (VolumetricSliceInferer, {}, lambda x: x),
}


def infer(name, scan, **options):
    kind, settings, network = INFERERS[name]
    return kind(**settings, **options)(scan, network)


@pytest.mark.parametrize("name", INFERERS)
@pytest.mark.parametrize("positions", [MISSING, UNEVEN, (0.0, 1.5), (0.0, 1.0, 2.6)])
class TestTruths:
    @pytest.mark.parametrize("how", [{"factor": 4}, {"factor": 1}, {"spacing": 1.5}])
    @pytest.mark.parametrize("keep", [True, False])
    def test_ramp(self, name, positions, how, keep):
        """A ramp over the true mm stays one: slice i of the output is at i times its spacing."""
        scan = make_scan(along(lambda x: 3.0 * 4.0 * x - 20.0, positions), positions)
        result = infer(name, scan, **how, keep_observed=keep)
        step = how.get("spacing", 4.0 / how.get("factor", 1))
        assert result.shape[-1] == int(positions[-1] * 4.0 / step + 1e-9) + 1
        expected = 3.0 * step * torch.arange(result.shape[-1], dtype=torch.float64) - 20.0
        torch.testing.assert_close(result.as_tensor(), expected.expand(result.shape), rtol=0, atol=1e-6)
        assert result.pixdim.tolist() == pytest.approx([0.7, 1.1, step])

    def test_output_is_evenly_spaced(self, name, positions):
        scan = make_scan(along(np.sin, positions), positions, note="kept")
        result = infer(name, scan, factor=2)
        assert not {"slice_positions", "slice_positions_axis"} & set(result.meta) and result.meta["note"] == "kept"
        assert slice_positions(scan, 2) == positions  # the input keeps its own
        assert infer(name, result, factor=2).shape[-1] == 2 * (result.shape[-1] - 1) + 1


class TestSpline:
    @pytest.mark.parametrize("positions", [MISSING, UNEVEN, (0.0, 1.5), (0.0, 1.0, 2.6)])
    @pytest.mark.parametrize("keep", [True, False])
    def test_natural_cubic(self, positions, keep):
        values = torch.randn(
            1, 2, 6, 5, len(positions), generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        result = SplineSliceInferer(factor=5, keep_observed=keep)(make_scan(values, positions))
        spline = CubicSpline(positions, values.numpy(), axis=-1, bc_type="natural")
        np.testing.assert_allclose(result.numpy(), spline(np.arange(result.shape[-1]) / 5), rtol=0, atol=1e-6)

    def test_missing_slice_by_hand(self):
        """Of the slices 0, 1, 2, 3 the third is missing; at x2 six of seven slices are between the others."""
        result = infer("linear", make_scan(torch.tensor([10.0, 20.0, 60.0]).expand(1, 1, 2, 2, 3), (0, 1, 3)), factor=2)
        assert result[0, 0, 1, 1].tolist() == [10, 15, 20, 30, 40, 50, 60]

    def test_long_stack(self):
        """Far slices get no weight, and the nearly sparse matrix still sums up to a ramp."""
        positions = np.cumsum(np.r_[0, np.random.default_rng(0).choice([1.0, 2.0], 399)])
        result = SplineSliceInferer(factor=2)(make_scan(along(lambda x: x, positions), positions))
        expected = torch.arange(result.shape[-1], dtype=torch.float64) / 2
        torch.testing.assert_close(result[0, 0, 0, 0].as_tensor(), expected, rtol=0, atol=1e-6)

    def test_lanczos_is_refused(self):
        named = "'lanczos' needs evenly spaced slices.*expected linear or cubic"
        scan = make_scan(along(np.sin, MISSING), MISSING)
        check_error(ValueError, named, SplineSliceInferer(factor=2, mode="lanczos"), scan)


class TestMultiView:
    @pytest.mark.parametrize("options", [{}, {"fuse": False, "views": ("columns",)}])
    def test_filters_of_the_true_gap(self, options):
        """In a stack of gaps of 2 units, each gap is what it is in an even stack of twice the spacing."""
        values = torch.rand(1, 1, 8, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        positions = (0.0, 1.0, 3.0, 4.0, 6.0, 7.0)
        network = make_saint()
        found = MultiViewSliceInferer(factor=4, **options)(make_scan(values, positions), network)
        narrow = make_scan(values, None)
        wide = narrow.clone()
        wide.affine = straight((*SPACING[:2], 8.0))
        single = MultiViewSliceInferer(factor=4, **options)(narrow, network)
        double = MultiViewSliceInferer(factor=8, **options)(wide, network)
        assert found.shape[-1] == 29
        begin = 0
        for gap, width in enumerate(np.diff(positions).astype(int)):
            source, factor = (single, 4) if width == 1 else (double, 8)
            part = source[..., gap * factor : (gap + 1) * factor + 1].as_tensor()
            length = part.shape[-1]
            torch.testing.assert_close(found[..., begin : begin + length].as_tensor(), part, rtol=0, atol=1e-12)
            begin += length - 1
        assert not torch.allclose(double[..., 4::8], single[..., 2::4], atol=1e-6)  # the spacing does matter

    def test_gaps_of_one_width_are_done_together(self, monkeypatch):
        positions = np.cumsum([0, 1, 2, 1.004, 1.996, 1, 1.5])
        network, spacings = make_saint(), []
        original = network.ami.interpolate
        monkeypatch.setattr(
            network.ami, "interpolate", lambda *args: (spacings.append(args[3]), original(*args))[1], raising=True
        )
        values = torch.rand(1, 1, 4, 4, len(positions), dtype=torch.float64)
        MultiViewSliceInferer(factor=3, batch_size=4)(make_scan(values, positions), network)
        expected = [4 * (1 + 1.004) / 2, 4 * 1.5, 4 * (1.996 + 2) / 2]
        assert spacings == pytest.approx(expected * 2, rel=1e-9)  # two views of one batch each
        spacings.clear()
        MultiViewSliceInferer(factor=3, batch_size=4)(make_scan(values, None), network)
        assert spacings == [4.0, 4.0]

    def test_disagreement(self):
        inferer = MultiViewSliceInferer(factor=2, disagreement=True)
        values = torch.rand(1, 1, 8, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        result = inferer(make_scan(values, (0, 1, 3)), make_saint())
        deviation = result.meta["disagreement"]
        assert deviation.shape == result.shape == (1, 1, 8, 7, 7)
        assert [bool(deviation[..., k].any()) for k in range(7)] == [False, True, False, True, True, True, False]


class TestValueRange:
    @pytest.mark.parametrize("factor", [1, 2])  # with 1, only slices that are missing are computed
    @pytest.mark.parametrize("slope", [10.0, 0.5, -10.0])
    def test_excess_is_interpolated_at_the_true_places(self, slope, factor):
        values = along(lambda x: slope * x + 0.5 * slope, MISSING)
        inferer = LatentSliceInferer(factor=factor, value_range=(0.0, 1.0))  # what the method sees at most
        result = inferer(make_scan(values, MISSING), Slices())
        expected = slope * (torch.arange(7 * factor + 1, dtype=torch.float64) / factor + 0.5)
        torch.testing.assert_close(result.as_tensor(), expected.expand(result.shape), rtol=0, atol=1e-12)


class TestMetadata:
    def test_through_a_batch(self):
        scan = make_scan(along(lambda x: x, MISSING), MISSING)[0]
        batch = list_data_collate([{"image": scan}])["image"]
        result = infer("linear", batch, factor=2)
        assert result[0, 0, 0, 0].tolist() == [k / 2 for k in range(15)]
        single = decollate_batch({"image": batch})[0]["image"]
        assert slice_positions(single, 2) == MISSING
        assert SplineSliceInferer(factor=2).output_grid(single[None]).slice_positions == MISSING

    def test_batch_of_different_stacks(self):
        scans = [{"image": make_scan(torch.zeros(1, 2, 2, 3), positions)} for positions in ((0, 1, 3), (0, 2, 3))]
        batch = list_data_collate(scans)["image"]
        with pytest.raises(ValueError, match="different slice positions; expected one volume at a time"):
            infer("linear", batch, factor=2)

    @pytest.mark.parametrize(
        ("positions", "axis", "named"),
        [
            ((0, 1, 3), 0, "uneven slices along axis 0 would lie in-plane; expected axis 0, not 2"),
            ((0, 1), 2, "2 slice positions do not fit 3 slices; expected one for each"),
            ((), 2, "0 slice positions do not fit 3 slices"),
            ((0, 2, 1), 2, "must be finite and ascend from 0, got 0, 2, 1"),
            ((0, 1, 1), 2, "must be finite and ascend from 0, got 0, 1, 1"),
            ((1, 2, 3), 2, "must be finite and ascend from 0, got 1, 2, 3"),
            ((0, float("nan"), 3), 2, "must be finite and ascend from 0, got 0, nan, 3"),
            ((0, 1, float("inf")), 2, "must be finite and ascend from 0, got 0, 1, inf"),
            ((0, 1, 3), 3, "slice_positions_axis 3 is not a spatial axis; expected 0, 1 or 2"),
            ((0, 1, 3), (), "slice_positions_axis  is not a spatial axis; expected 0, 1 or 2"),
        ],
    )
    def test_bad_positions(self, positions, axis, named):
        scan = make_scan(torch.zeros(1, 1, 2, 2, 3), positions, axis)
        check_error(ValueError, named, infer, "linear", scan, factor=2)
