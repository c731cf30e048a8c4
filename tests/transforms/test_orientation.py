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

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose
from scipy.spatial.transform import Rotation

from monai_sliceinterp import transforms
from monai_sliceinterp.geometry import OutputGrid, slice_geometry, slice_positions
from monai_sliceinterp.resampling import apply_weights, interpolation_weights
from monai_sliceinterp.transforms import ThroughPlaneLast, ThroughPlaneLastd, move_axis_last, moved_axis

SHAPE = (5, 6, 7)
ORDER = {0: (1, 2, 0), 1: (0, 2, 1), 2: (0, 1, 2)}


def oblique(spacing):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (-100, 20, 300)
    return torch.tensor(affine)


def make_scan(axis, channels=2):
    spacing = np.array([0.7, 0.9, 0.8])
    spacing[axis] = 5.0
    values = torch.rand(channels, *SHAPE, generator=torch.Generator().manual_seed(axis))
    return MetaTensor(values, affine=oblique(spacing), meta={"pixdim": np.array([1.0, *spacing])})


def physical_ramp(shape, affine):
    """Volume whose value is a linear function of the physical position."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    places = index @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]
    return torch.tensor(places @ [0.3, -0.5, 0.7] + 2.0)[None]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
class TestRoundTrip:
    def test_slices_are_last(self, axis, given):
        scan = make_scan(axis)
        moved = ThroughPlaneLast(axis if given else None)(scan)
        order = ORDER[axis]
        np.testing.assert_array_equal(moved.numpy(), scan.numpy().transpose(0, *(k + 1 for k in order)))
        geometry = slice_geometry(moved)
        assert (geometry.axis, geometry.slice_spacing) == (2, 5.0)
        # the same voxel at the same place
        index = np.array([1, 2, 3])
        np.testing.assert_allclose(
            np.asarray(moved.affine) @ [*index[list(order)], 1], np.asarray(scan.affine) @ [*index, 1], atol=1e-12
        )

    def test_bit_exact(self, axis, given):
        scan = make_scan(axis)
        before, affine = scan.clone(), scan.affine.clone()
        to_last = ThroughPlaneLast(axis if given else None)
        moved = to_last(scan)
        back = to_last.inverse(moved)
        assert isinstance(back, MetaTensor)
        for image in (back, scan):  # and the input is left as it was
            assert torch.equal(image.as_tensor(), before.as_tensor())
            assert torch.equal(image.affine, affine)
            np.testing.assert_allclose(image.meta["pixdim"], before.meta["pixdim"], rtol=1e-12)
            assert image.applied_operations == []
        np.testing.assert_allclose(moved.meta["pixdim"][1:], before.meta["pixdim"][1:][list(ORDER[axis])], rtol=1e-12)

    def test_interpolated_in_between(self, axis, given):
        scan = make_scan(axis)
        scan = MetaTensor(physical_ramp(SHAPE, scan.affine), affine=scan.affine)
        to_last = ThroughPlaneLast(axis if given else None)
        moved = to_last(scan)
        grid = OutputGrid.from_spacing(moved.shape[-1], 5.0, 1.2)
        weights = interpolation_weights(moved.shape[-1], grid.positions, "linear")
        dense = MetaTensor(apply_weights(moved.as_tensor(), weights)).copy_meta_from(moved)
        dense.affine = grid.affine(moved.affine)
        back = to_last.inverse(dense)
        size = list(SHAPE)
        size[axis] = len(grid)
        assert tuple(back.shape) == (1, *size)
        np.testing.assert_allclose(back.numpy(), physical_ramp(size, back.affine), rtol=0, atol=1e-9)
        assert torch.equal(back.affine[:, 3], scan.affine[:, 3])
        assert slice_geometry(back, axis=axis).slice_spacing == 1.2
        assert [back.affine[:3, k].norm() for k in range(3) if k != axis] == [
            scan.affine[:3, k].norm() for k in range(3) if k != axis
        ]

    def test_compose_and_batches(self, axis, given):
        chain = Compose([ThroughPlaneLastd(["image", "label"], axis=axis if given else None)])
        items = [{"image": make_scan(axis), "label": make_scan(axis, 1)} for _ in range(3)]
        loader = DataLoader(Dataset(items, chain), batch_size=3, collate_fn=list_data_collate)
        (batch,) = loader
        assert batch["image"].shape == (3, 2, *(SHAPE[k] for k in ORDER[axis]))
        for item, source in zip(decollate_batch(batch), items, strict=True):
            assert moved_axis(item["image"]) == axis  # also once it has been collated
            back = chain.inverse(item)
            assert moved_axis(back["image"]) == 2
            for key in ("image", "label"):
                assert torch.equal(back[key].as_tensor(), source[key].as_tensor())
                assert torch.equal(back[key].affine, source[key].affine)
                assert back[key].applied_operations == []


class TestThroughPlaneLast:
    def test_matrix(self):
        image = torch.arange(24.0).reshape(1, 2, 3, 4)
        for axis in range(3):
            moved, matrix = move_axis_last(image, axis)
            for index in np.ndindex(*moved.shape[1:]):
                source = (matrix[:3, :3] @ torch.tensor(index).double()).long().tolist()
                assert moved[0, index[0], index[1], index[2]] == image[0, source[0], source[1], source[2]]

    def test_plain_tensor_is_isotropic(self):
        assert ThroughPlaneLast()(torch.zeros(1, 4, 5, 6)).shape == (1, 4, 5, 6)
        assert ThroughPlaneLast(axis=-3)(torch.zeros(1, 4, 5, 6)).shape == (1, 5, 6, 4)

    def test_each_key_by_its_own_affine(self):
        data = {"a": make_scan(0), "b": make_scan(1), "other": 3}
        moved = ThroughPlaneLastd(["a", "b"])(data)
        assert moved["a"].shape == (2, 6, 7, 5) and moved["b"].shape == (2, 5, 7, 6) and moved["other"] == 3
        assert data["a"].shape == (2, *SHAPE)

    def test_missing_keys(self):
        assert ThroughPlaneLastd(["a", "b"], allow_missing_keys=True)({"a": make_scan(0)})["a"].shape == (2, 6, 7, 5)
        with pytest.raises(KeyError, match="b"):
            ThroughPlaneLastd(["a", "b"])({"a": make_scan(0)})

    @pytest.mark.parametrize("shape", [(4, 5, 6), (1, 1, 4, 5, 6)])
    def test_not_a_volume(self, shape):
        with pytest.raises(ValueError, match=r"expected a volume \(C, X, Y, Z\)"):
            ThroughPlaneLast()(torch.zeros(shape))

    def test_bad_affine_and_axis(self):
        with pytest.raises(ValueError, match="zero or missing"):
            ThroughPlaneLast()(
                MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0])))
            )
        with pytest.raises(ValueError, match="axis 3"):
            ThroughPlaneLast(axis=3)(make_scan(0))


class TestUnevenSlices:
    def make(self, axis):
        scan = make_scan(axis)
        count = SHAPE[axis]
        scan.meta["slice_positions"] = tuple(np.cumsum([0.0, *([1.0, 2.0, 1.5] * 2)])[:count].tolist())
        scan.meta["slice_positions_axis"] = axis
        return scan

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_axis_follows(self, axis):
        scan = self.make(axis)
        to_last = ThroughPlaneLast()
        moved = to_last(scan)
        assert slice_positions(moved, 2) == slice_positions(scan, axis) is not None
        back = to_last.inverse(moved)
        assert slice_positions(back, axis) == slice_positions(scan, axis)
        batch = decollate_batch({"image": list_data_collate([{"image": to_last(scan)}])["image"]})[0]["image"]
        assert slice_positions(to_last.inverse(batch), axis) == slice_positions(scan, axis)

    @pytest.mark.parametrize(("axis", "given"), [(2, 0), (0, 2), (1, -1), (2, 1)])
    def test_another_axis(self, axis, given):
        named = f"uneven slices along axis {axis} would lie in-plane; expected axis {axis}, not {given % 3}"
        with pytest.raises(ValueError, match=named) as caught:
            ThroughPlaneLast(given)(self.make(axis))
        assert "\n" not in str(caught.value)

    def test_even_slices_get_no_entries(self):
        to_last = ThroughPlaneLast(0)
        moved = to_last(make_scan(0))
        assert "slice_positions_axis" not in moved.meta
        assert "slice_positions_axis" not in to_last.inverse(moved).meta


@pytest.mark.parametrize(
    "name",
    [
        "ThroughPlaneLast",
        "FWHMDownsample",
        "InvertibleScaleIntensityRange",
        "InvertibleScaleIntensityRangePercentiles",
        "RandSigmoidContrast",
        "RandSlicePairs",
    ],
)
def test_aliases(name):
    """MONAI finds a dictionary transform by any of its three names."""
    dictionary = getattr(transforms, f"{name}d")
    assert getattr(transforms, f"{name}D") is dictionary and getattr(transforms, f"{name}Dict") is dictionary
    assert dictionary is not getattr(transforms, name)
