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

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from monai_sliceinterp.geometry import OutputGrid, paste_observed, slice_geometry
from monai_sliceinterp.inferers import SliceInterpolationInferer, base


class PositionInferer(SliceInterpolationInferer):
    """Every synthesized slice is ``start`` + its position; what was asked for is noted."""

    def __init__(self, *args, start=1000, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls, self.start = [], start

    def synthesize(self, stack, network):
        self.calls.append((stack.slices.clone(), stack.wanted.tolist(), network))
        positions = torch.tensor(stack.grid.positions, dtype=torch.float64)[stack.wanted].to(stack.slices.dtype)
        images = (self.start + positions)[:, None, None].expand(-1, *stack.slices.shape[1:])
        order = torch.arange(len(stack.wanted)).flip(0)  # in any order, in several parts
        for part in order.split(3):
            yield stack.wanted[part], images[part]


def oblique(spacing=(0.7, 0.9, 4.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (-100, 20, 300)
    return torch.tensor(affine)


def make_volume(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make_scan(batch=1, channels=1, num_slices=5, size=(6, 7), **meta):
    values = make_volume(batch, channels, *size, num_slices)
    return MetaTensor(values, affine=oblique(), meta={"filename_or_obj": "scan.nii.gz", **meta})


def check_error(kind, named, function, *args, **kwargs):
    with pytest.raises(kind, match=named) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


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

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_observed_slices_are_bit_exact(self, dtype):
        volume = make_volume(2, 2, 5, 4, 6, dtype=dtype) * 3.7e3
        result = PositionInferer(factor=3)(volume)
        assert result.dtype == dtype
        assert torch.equal(result[..., ::3], volume)

    def test_factor_equals_spacing(self):
        scan = make_scan(num_slices=7)
        by_factor, by_spacing = PositionInferer(factor=4)(scan), PositionInferer(spacing=1.0)(scan)
        assert torch.equal(by_factor.as_tensor(), by_spacing.as_tensor())
        assert torch.equal(by_factor.affine, by_spacing.affine)

    def test_isotropic(self):
        result = PositionInferer()(make_scan())
        assert slice_geometry(result, axis=-1).slice_spacing == 0.7
        assert slice_geometry(result, axis=-1).in_plane_spacing == (0.7, 0.9)

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
        for how in ({}, {"spacing": 1.0}):
            check_error(ValueError, "a plain tensor has no spacing: give a factor", PositionInferer(**how), volume)

    @pytest.mark.parametrize("num_slices", [2, 3])
    def test_few_slices(self, num_slices):
        result = PositionInferer(factor=2)(make_scan(num_slices=num_slices))
        assert result.shape[-1] == 2 * num_slices - 1

    def test_output_grid(self):
        scan = make_scan()
        assert PositionInferer(factor=3).output_grid(scan) == OutputGrid.from_factor(5, 3)
        assert PositionInferer(spacing=2.0).output_grid(scan) == OutputGrid.from_factor(5, 2)
        assert PositionInferer(factor=3).output_grid(scan.as_tensor()) == OutputGrid.from_factor(5, 3)


class TestLoop:
    def test_each_channel_on_its_own(self):
        scan = make_scan(2, 3)
        inferer = PositionInferer(factor=2)
        network = object()
        inferer(scan, network)
        assert len(inferer.calls) == 6
        for number, (slices, wanted, given) in enumerate(inferer.calls):
            expected = scan.as_tensor()[number // 3, number % 3].permute(2, 0, 1)
            assert torch.equal(slices, expected)
            assert wanted == [1, 3, 5, 7] and given is network

    def test_all_slices_without_observed(self):
        inferer = PositionInferer(factor=2, keep_observed=False)
        inferer(make_scan())
        assert inferer.calls[0][1] == list(range(9))

    def test_input_is_left_alone(self):
        scan = make_scan(value_range=None)
        before, affine = scan.as_tensor().clone(), scan.affine.clone()
        result = PositionInferer(factor=2, value_range=(-0.1, 0.1))(scan)
        result.meta["new"] = 1
        result.affine[0, 0] = 9
        assert torch.equal(scan.as_tensor(), before) and torch.equal(scan.affine, affine)
        assert "new" not in scan.meta

    @pytest.mark.parametrize("factor", [2, 5])
    @pytest.mark.parametrize("progress", [True, False])
    def test_progress_counts_synthesized_slices(self, monkeypatch, factor, progress):
        bars = []

        class Bar(tqdm):
            def __init__(self, *args, **kwargs):
                self.screen = io.StringIO()
                super().__init__(*args, file=self.screen, **kwargs)
                bars.append(self)

        monkeypatch.setattr(base, "tqdm", Bar)
        PositionInferer(factor=factor, progress=progress)(make_scan(2, 3))
        (bar,) = bars
        if progress:
            assert bar.n == bar.total == 2 * 3 * 4 * (factor - 1)
        assert ("slice" in bar.screen.getvalue()) == progress


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


class TestBatches:
    def test_collated_batch(self):
        items = [{"image": make_scan(num_slices=4)[0]} for _ in range(3)]
        for number, item in enumerate(items):
            item["image"].meta["filename_or_obj"] = f"{number}.nii"
            item["image"] += number
        batch = list_data_collate(items)["image"]
        result = PositionInferer(factor=2)(batch)
        assert result.shape == (3, 1, 6, 7, 7)
        parts = decollate_batch(result)
        assert len(parts) == 3
        for number, (part, item) in enumerate(zip(parts, items, strict=True)):
            assert part.shape == (1, 6, 7, 7)
            assert part.meta["filename_or_obj"] == f"{number}.nii"
            assert part.affine.shape == (4, 4)
            assert slice_geometry(part, axis=-1).slice_spacing == 2.0
            torch.testing.assert_close(part.affine[:, [0, 1, 3]], item["image"].affine[:, [0, 1, 3]])
            assert torch.equal(part[..., ::2].as_tensor(), item["image"].as_tensor())

    def test_different_spacings_in_a_batch(self):
        items = [{"image": make_scan()[0]}, {"image": make_scan()[0]}]
        items[1]["image"].affine = oblique((0.7, 0.9, 3.0))
        check_error(
            ValueError,
            r"one 4x4 matrix, got shape \(2, 4, 4\)",
            PositionInferer(factor=2),
            *([list_data_collate(items)["image"]]),
        )


class TestErrors:
    @pytest.mark.parametrize("shape", [(4, 5, 6), (1, 4, 5, 6), (1, 1, 1, 4, 5, 6)])
    def test_not_a_batch_of_volumes(self, shape):
        named = r"expected volumes \(B, C, H, W, N\), got shape \(" + ", ".join(map(str, shape))
        check_error(ValueError, named, PositionInferer(factor=2), torch.zeros(shape))

    @pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.bool, torch.complex64])
    def test_not_floating_point(self, dtype):
        volume = torch.zeros(1, 1, 4, 4, 3, dtype=dtype)
        check_error(ValueError, f"expected floating point volumes, got {dtype}", PositionInferer(factor=2), volume)

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"factor": 2, "spacing": 1.0}, "not both"),
            ({"factor": 0}, "factor must be a positive integer such as 2 or 4, got 0"),
            ({"factor": 1.5}, "got 1.5"),
            ({"factor": "4"}, "got '4'"),
            ({"spacing": 0}, "target spacing must be a positive number of mm, got 0"),
            ({"spacing": -1.0}, "got -1.0"),
            ({"spacing": float("nan")}, "got nan"),
            ({"spacing": "1"}, "got '1'"),
            ({"spacing": True}, "got True"),
            ({"value_range": (1.0, 1.0)}, r"value_range must be ascending, got \(1.0, 1.0\)"),
            ({"value_range": (1.0, float("nan"))}, "value_range must be ascending"),
        ],
    )
    def test_parameters(self, wrong, named):
        check_error(ValueError, named, PositionInferer, **wrong)

    @pytest.mark.parametrize("spacing", [2, 2.0, np.float32(2), np.float64(2), 0.001, 400])
    def test_any_positive_spacing_can_be_asked_for(self, spacing):
        assert PositionInferer(spacing=spacing).spacing == spacing

    def test_unfit_for_the_volume(self):
        check_error(ValueError, "4.5 mm is coarser than the input's 4 mm", PositionInferer(spacing=4.5), make_scan())
        check_error(ValueError, "2 slices, got 1", PositionInferer(factor=2), make_scan(num_slices=1))


class TestPasteObserved:
    def test_in_place(self):
        grid = OutputGrid.from_factor(4, 3)
        output, image = torch.full((2, 5, 10), -1, dtype=torch.int16), torch.arange(40, dtype=torch.int16)
        image = image.reshape(2, 5, 4)
        assert paste_observed(output, image, grid) is output
        assert torch.equal(output[..., ::3], image)
        rest = [k for k in range(10) if k % 3]
        assert (output[..., rest] == -1).all()

    def test_through_a_view(self):
        """A permuted view is filled too: slices need not be last in memory."""
        grid = OutputGrid.from_factor(2, 2)
        output = torch.zeros(3, 4, 5)
        paste_observed(output.movedim(0, -1), torch.ones(4, 5, 2), grid)
        assert output.sum((1, 2)).tolist() == [20, 0, 20]

    def test_some_observed_positions(self):
        grid = OutputGrid.from_spacing(4, 4.0, 3.0)  # 0, 0.75, 1.5, 2.25, 3
        output = paste_observed(torch.zeros(5), torch.tensor([1.0, 2.0, 3.0, 4.0]), grid)
        assert output.tolist() == [1, 0, 0, 0, 4]

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
        check_error(
            ValueError,
            "do not fit .*expected 3 and 5 slices",
            paste_observed,
            output,
            image,
            OutputGrid.from_factor(3, 2),
        )
