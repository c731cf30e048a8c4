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
from monai_sliceinterp.networks.nets import SAINT, ASIAutoencoder
from monai_sliceinterp.networks.nets.latent import LatentInterpolator

SPACING = (0.7, 0.9, 4.0)
MISSING = (0.0, 1.0, 3.0, 4.0, 7.0)
UNEVEN = (0.0, 0.7, 1.9, 2.9, 4.4)


class Slices(LatentInterpolator):
    """The codes are the slices themselves, so that mixing codes is linear interpolation."""

    def encode(self, image):
        return (image,)

    def decode(self, codes, size=None):
        return codes[0]


def make_scan(values, places, axis=2, **meta):
    """Volume ``(1, 1, H, W, N)`` with slices at ``places`` in units of 4 mm."""
    if places is not None:
        meta = {"slice_positions": tuple(places), "slice_positions_axis": axis, **meta}
    return MetaTensor(values, affine=torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64)), meta=meta)


def along(function, places):
    """Volume whose slices are a function of their place."""
    return torch.tensor(function(np.asarray(places, dtype=np.float64))).expand(1, 1, 6, 5, -1).contiguous()


def saint():
    torch.manual_seed(0)
    size = {"channels": 4, "num_blocks": 1, "num_layers": 2, "growth": 4}
    return SAINT(ami=size, rfn=size).double().eval()


def copy(x):
    return x


INFERERS = {
    "linear": (SplineSliceInferer, {"mode": "linear"}, None),
    "cubic": (SplineSliceInferer, {"mode": "cubic"}, None),
    "latent": (LatentSliceInferer, {}, Slices()),
    "volumetric": (VolumetricSliceInferer, {}, copy),
}


def infer(name, scan, **options):
    kind, own, network = INFERERS[name]
    return kind(**own, **options)(scan, network)


@pytest.mark.parametrize("name", INFERERS)
@pytest.mark.parametrize("places", [MISSING, UNEVEN, (0.0, 1.5), (0.0, 1.0, 2.6)])
class TestTruths:
    @pytest.mark.parametrize("how", [{"factor": 4}, {"factor": 1}, {"spacing": 1.5}])
    @pytest.mark.parametrize("keep", [True, False])
    def test_ramp(self, name, places, how, keep):
        """A ramp over the true mm stays one: slice i of the output is at i times its spacing."""
        scan = make_scan(along(lambda x: 3.0 * 4.0 * x - 20.0, places), places)
        result = infer(name, scan, **how, keep_observed=keep)
        step = how.get("spacing", 4.0 / how.get("factor", 1))
        assert result.shape[-1] == int(places[-1] * 4.0 / step + 1e-9) + 1
        expected = 3.0 * step * torch.arange(result.shape[-1], dtype=torch.float64) - 20.0
        torch.testing.assert_close(result.as_tensor(), expected.expand(result.shape), rtol=0, atol=1e-6)
        assert result.pixdim.tolist() == pytest.approx([0.7, 0.9, step])

    def test_constant(self, name, places):
        result = infer(name, make_scan(torch.full((1, 1, 6, 5, len(places)), 7.5).double(), places), factor=3)
        torch.testing.assert_close(result.as_tensor(), torch.full(result.shape, 7.5).double(), rtol=0, atol=1e-12)

    def test_output_is_evenly_spaced(self, name, places):
        scan = make_scan(along(np.sin, places), places, note="kept")
        result = infer(name, scan, factor=2)
        assert not {"slice_positions", "slice_positions_axis"} & set(result.meta) and result.meta["note"] == "kept"
        assert slice_positions(scan, 2) == places  # the input keeps its own
        assert infer(name, result, factor=2).shape[-1] == 2 * (result.shape[-1] - 1) + 1


class TestSpline:
    @pytest.mark.parametrize("places", [MISSING, UNEVEN, (0.0, 1.5), (0.0, 1.0, 2.6)])
    @pytest.mark.parametrize("keep", [True, False])
    def test_natural_cubic(self, places, keep):
        values = torch.randn(1, 2, 6, 5, len(places), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        result = SplineSliceInferer(factor=5, keep_observed=keep)(make_scan(values, places))
        spline = CubicSpline(places, values.numpy(), axis=-1, bc_type="natural")
        np.testing.assert_allclose(result.numpy(), spline(np.arange(result.shape[-1]) / 5), rtol=0, atol=1e-6)

    def test_missing_slice_by_hand(self):
        """Of the slices 0, 1, 2, 3 the third is missing; at x2 six of seven slices are between the others."""
        result = infer("linear", make_scan(torch.tensor([10.0, 20.0, 60.0]).expand(1, 1, 2, 2, 3), (0, 1, 3)), factor=2)
        assert result[0, 0, 1, 1].tolist() == [10, 15, 20, 30, 40, 50, 60]

    def test_long_stack(self):
        """Far slices get no weight, and the nearly sparse matrix still sums up to a ramp."""
        places = np.cumsum(np.r_[0, np.random.default_rng(0).choice([1.0, 2.0], 399)])
        result = SplineSliceInferer(factor=2)(make_scan(along(lambda x: x, places), places))
        expected = torch.arange(result.shape[-1], dtype=torch.float64) / 2
        torch.testing.assert_close(result[0, 0, 0, 0].as_tensor(), expected, rtol=0, atol=1e-6)

    def test_lanczos_is_refused(self):
        with pytest.raises(
            ValueError, match="'lanczos' needs evenly spaced slices.*expected linear or cubic"
        ) as caught:
            SplineSliceInferer(factor=2, mode="lanczos")(make_scan(along(np.sin, MISSING), MISSING))
        assert "\n" not in str(caught.value)


EVEN = tuple(float(k) for k in range(5))
CASES = {
    "linear": (SplineSliceInferer, {"mode": "linear"}, lambda: None),
    "cubic": (SplineSliceInferer, {}, lambda: None),
    "lanczos": (SplineSliceInferer, {"mode": "lanczos"}, lambda: None),
    "latent": (LatentSliceInferer, {"value_range": (0.2, 0.8)}, lambda: ASIAutoencoder(1, (2,), 3).double().eval()),
    "multi_view": (MultiViewSliceInferer, {}, saint),
    "volumetric": (VolumetricSliceInferer, {}, lambda: copy),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("places", [EVEN, (0.0, 1.0004, 1.9996, 3.0, 4.0003)])
def test_even_positions_change_nothing(name, places):
    """A list of even positions, or one that only rounding makes uneven, gives exactly what no list gives."""
    kind, options, network = CASES[name]
    values = torch.rand(1, 1, 8, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = network()
    for how in ({"factor": 3}, {"spacing": 1.7}):
        with_list, without = (kind(**how, **options)(make_scan(values, given), network) for given in (places, None))
        assert torch.equal(with_list.as_tensor(), without.as_tensor())
        assert torch.equal(with_list.affine, without.affine)


class TestMultiView:
    @pytest.mark.parametrize("options", [{}, {"fuse": False, "views": ("columns",)}])
    def test_filters_of_the_true_gap(self, options):
        """In a stack of gaps of 2 units, each gap is what it is in an even stack of twice the spacing."""
        values = torch.rand(1, 1, 8, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        places = (0.0, 1.0, 3.0, 4.0, 6.0, 7.0)
        network = saint()
        found = MultiViewSliceInferer(factor=4, **options)(make_scan(values, places), network)
        narrow = make_scan(values, None)
        wide = narrow.clone()
        wide.affine = torch.diag(torch.tensor([*SPACING[:2], 8.0, 1.0], dtype=torch.float64))
        single = MultiViewSliceInferer(factor=4, **options)(narrow, network)
        double = MultiViewSliceInferer(factor=8, **options)(wide, network)
        assert found.shape[-1] == 29
        begin = 0
        for gap, width in enumerate(np.diff(places).astype(int)):
            source, factor = (single, 4) if width == 1 else (double, 8)
            part = source[..., gap * factor : (gap + 1) * factor + 1].as_tensor()
            length = part.shape[-1]
            torch.testing.assert_close(found[..., begin : begin + length].as_tensor(), part, rtol=0, atol=1e-12)
            begin += length - 1
        assert not torch.allclose(double[..., 4::8], single[..., 2::4], atol=1e-6)  # the spacing does matter

    def test_gaps_of_one_width_are_done_together(self, monkeypatch):
        places = np.cumsum([0, 1, 2, 1.004, 1.996, 1, 1.5])
        network, spacings = saint(), []
        original = network.ami.interpolate
        monkeypatch.setattr(
            network.ami, "interpolate", lambda *args: (spacings.append(args[3]), original(*args))[1], raising=True
        )
        values = torch.rand(1, 1, 4, 4, len(places), dtype=torch.float64)
        MultiViewSliceInferer(factor=3, batch_size=4)(make_scan(values, places), network)
        expected = [4 * (1 + 1.004) / 2, 4 * 1.5, 4 * (1.996 + 2) / 2]
        assert spacings == pytest.approx(expected * 2, rel=1e-9)  # two views of one batch each
        spacings.clear()
        MultiViewSliceInferer(factor=3, batch_size=4)(make_scan(values, None), network)
        assert spacings == [4.0, 4.0]

    def test_disagreement(self):
        inferer = MultiViewSliceInferer(factor=2, disagreement=True)
        values = torch.rand(1, 1, 8, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        result = inferer(make_scan(values, (0, 1, 3)), saint())
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
        scans = [{"image": make_scan(torch.zeros(1, 2, 2, 3), places)} for places in ((0, 1, 3), (0, 2, 3))]
        batch = list_data_collate(scans)["image"]
        with pytest.raises(ValueError, match="different slice positions; expected one volume at a time"):
            infer("linear", batch, factor=2)

    @pytest.mark.parametrize(
        ("places", "axis", "named"),
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
    def test_bad_positions(self, places, axis, named):
        with pytest.raises(ValueError, match=named) as caught:
            infer("linear", make_scan(torch.zeros(1, 1, 2, 2, 3), places, axis), factor=2)
        assert "\n" not in str(caught.value)
