# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose

from monai_sliceinterp.geometry import slice_geometry, slice_positions
from monai_sliceinterp.transforms import (
    RandThinAxisLast,
    RandThinAxisLastd,
    ThroughPlaneLast,
    ThroughPlaneLastd,
    reorient_like,
    thin_axes,
)
from tests.volumes import oblique

SHAPE = (5, 6, 7)
ORDER = {0: (1, 2, 0), 1: (0, 2, 1), 2: (0, 1, 2)}


def make_scan(axis, channels=2):
    spacing = np.array([0.7, 0.9, 0.8])
    spacing[axis] = 5.0
    values = torch.rand(channels, *SHAPE, generator=torch.Generator().manual_seed(axis))
    return MetaTensor(values, affine=torch.tensor(oblique(spacing)), meta={"pixdim": np.array([1.0, *spacing])})


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
class TestRoundTrip:
    def test_slices_are_last(self, axis, chosen):
        scan = make_scan(axis)
        moved = ThroughPlaneLast(axis if chosen else None)(scan)
        order = ORDER[axis]
        np.testing.assert_array_equal(moved.numpy(), scan.numpy().transpose(0, *(k + 1 for k in order)))
        geometry = slice_geometry(moved)
        assert (geometry.axis, geometry.slice_spacing) == (2, 5.0) and "slice_positions_axis" not in moved.meta
        # the same voxel at the same place
        index = np.array([1, 2, 3])
        place = np.asarray(moved.affine) @ [*index[list(order)], 1]
        np.testing.assert_allclose(place, np.asarray(scan.affine) @ [*index, 1], atol=1e-12)

    def test_bit_exact(self, axis, chosen):
        scan = make_scan(axis)
        before, affine = scan.clone(), scan.affine.clone()
        to_last = ThroughPlaneLast(axis if chosen else None)
        moved = to_last(scan)
        back = to_last.inverse(moved)
        assert isinstance(back, MetaTensor)
        for image in (back, scan):  # and the input is left as it was
            assert torch.equal(image.as_tensor(), before.as_tensor())
            assert torch.equal(image.affine, affine) and "slice_positions_axis" not in image.meta
            np.testing.assert_allclose(image.meta["pixdim"], before.meta["pixdim"], rtol=1e-12)
            assert image.applied_operations == []
        np.testing.assert_allclose(moved.meta["pixdim"][1:], before.meta["pixdim"][1:][list(ORDER[axis])], rtol=1e-12)

    def test_compose_and_batches(self, axis, chosen):
        chain = Compose([ThroughPlaneLastd(["image", "label"], axis=axis if chosen else None)])
        items = [{"image": make_scan(axis), "label": make_scan(axis, 1)} for _ in range(3)]
        loader = DataLoader(Dataset(items, chain), batch_size=3, collate_fn=list_data_collate)
        (batch,) = loader
        assert batch["image"].shape == (3, 2, *(SHAPE[k] for k in ORDER[axis]))
        for item, source in zip(decollate_batch(batch), items, strict=True):
            back = chain.inverse(item)
            for key in ("image", "label"):
                assert torch.equal(back[key].as_tensor(), source[key].as_tensor())
                assert torch.equal(back[key].affine, source[key].affine)
                assert back[key].applied_operations == []


class TestThroughPlaneLast:
    def test_plain_tensor_is_isotropic(self):
        assert ThroughPlaneLast()(torch.zeros(1, 4, 5, 6)).shape == (1, 4, 5, 6)
        assert ThroughPlaneLast(axis=-3)(torch.zeros(1, 4, 5, 6)).shape == (1, 5, 6, 4)

    def test_keys(self):
        """Each key goes by its own affine."""
        data = {"a": make_scan(0), "b": make_scan(1), "other": 3}
        moved = ThroughPlaneLastd(["a", "b", "none"], allow_missing_keys=True)(data)
        assert moved["a"].shape == (2, 6, 7, 5) and moved["b"].shape == (2, 5, 7, 6) and moved["other"] == 3
        assert data["a"].shape == (2, *SHAPE)
        with pytest.raises(KeyError, match="none"):
            ThroughPlaneLastd(["a", "none"])(data)

    @pytest.mark.parametrize(
        ("image", "axis", "named"),
        [
            (torch.zeros(4, 5, 6), None, r"expected a volume \(C, X, Y, Z\)"),
            (torch.zeros(1, 1, 4, 5, 6), None, r"expected a volume \(C, X, Y, Z\)"),
            (make_scan(0), 3, "axis 3"),
            (MetaTensor(torch.zeros(1, 4, 5, 6), torch.diag(torch.tensor([1.0, 0, 1, 1]))), None, "zero or missing"),
        ],
    )
    def test_errors(self, image, axis, named):
        with pytest.raises(ValueError, match=named):
            ThroughPlaneLast(axis)(image)


def test_axes_that_are_not_those_of_the_other():
    """Two of a volume run most along the same one: it is left as it is."""
    sheared = torch.tensor([[1.0, 1, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    volume = MetaTensor(torch.rand(1, 3, 4, 5), affine=sheared)
    assert reorient_like(volume, MetaTensor(torch.zeros(1, 5, 4, 3))) is volume


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

    @pytest.mark.parametrize(("axis", "chosen"), [(2, 0), (0, 2), (1, -1), (2, 1)])
    def test_another_axis(self, axis, chosen):
        named = f"uneven slices along axis {axis} would lie in-plane; expected axis {axis}, not {chosen % 3}"
        with pytest.raises(ValueError, match=named) as caught:
            ThroughPlaneLast(chosen)(self.make(axis))
        assert "\n" not in str(caught.value)


def thin_scan(*spacing):
    """A volume of different values, turned and shifted in space."""
    values = torch.arange(60.0).reshape(1, 3, 4, 5)
    return MetaTensor(values, affine=torch.tensor(oblique(spacing)), meta={"filename_or_obj": "scan.nii"})


@pytest.mark.parametrize(
    ("spacing", "max_ratio", "axes"),
    [
        ((1.4, 1.4, 5.0), 2.0, [0, 1]),
        ((1.0, 1.0, 1.0), 2.0, [0, 1, 2]),
        ((4.5, 4.5, 1.0), 2.0, [2]),
        ((1.0, 2.0, 2.01), 2.0, [0, 1]),
        ((5.0, 0.9, 0.9), 2.0, [1, 2]),
        ((1.0, 1.2, 1.6), 1.5, [0, 1]),
        ((1.0, 1.2, 1.6), 1.0, [0]),
    ],
)
def test_thin_axes(spacing, max_ratio, axes):
    assert thin_axes(thin_scan(*spacing), max_ratio) == axes


@given(seed=st.integers(0, 1000), spacing=st.tuples(*[st.sampled_from([0.7, 1.0, 1.3, 4.0])] * 3))
def test_voxels_stay_where_they_are(seed, spacing):
    volume = thin_scan(*spacing)
    before = volume.clone()
    transform = RandThinAxisLast().set_random_state(seed)
    moved = transform(volume)
    assert torch.equal(volume, before) and torch.equal(volume.affine, before.affine)
    assert transform.axis in thin_axes(volume) and moved.meta["filename_or_obj"] == "scan.nii"
    homogeneous = torch.tensor([(*index, 1.0) for index in np.ndindex(*moved.shape[1:])], dtype=torch.float64).T
    back = torch.linalg.inv(volume.affine) @ (moved.affine @ homogeneous)
    index = back[:3].round().long()
    torch.testing.assert_close(back[:3], index.double(), rtol=0, atol=1e-9)
    assert (volume[0][index[0], index[1], index[2]].as_tensor() == moved[0].flatten().as_tensor()).all()


def test_every_thin_axis_is_drawn_as_often():
    transform = RandThinAxisLast().set_random_state(0)
    for spacing, axes in (((1.0, 1.0, 5.0), (0, 1)), ((1.0, 1.0, 1.5), (0, 1, 2))):
        drawn = [transform(thin_scan(*spacing)).shape[-1] - 3 for _ in range(600)]
        counts = np.bincount(drawn, minlength=3)
        for axis in range(3):
            assert abs(counts[axis] - (600 / len(axes) if axis in axes else 0)) < 60 * (axis in axes) + 1


def test_last_axis_stays_without_a_draw():
    transform = RandThinAxisLast(prob=0.0).set_random_state(0)
    assert {transform(thin_scan(1.0, 1.0, 1.0)).shape[-1] for _ in range(30)} == {5}
    assert {transform(thin_scan(1.0, 1.0, 5.0)).shape[-1] for _ in range(60)} == {3, 4}, "a thick axis must not stay"


def test_keys_follow_the_first_one_and_the_seed():
    first, second = (RandThinAxisLastd(["image", "label"]).set_random_state(3) for _ in range(2))
    for _ in range(20):
        volume = thin_scan(1.0, 1.0, 1.0)
        data = {"image": volume, "label": volume + 100.0, "other": 1}
        result = first(data)
        assert result["image"].shape == result["label"].shape and result["other"] == 1
        assert (result["label"] - result["image"] == 100.0).all()
        assert second(data)["image"].shape == result["image"].shape


def test_wrong_arguments():
    with pytest.raises(ValueError, match="max_ratio must be 1 or more, got 0.5"):
        RandThinAxisLast(max_ratio=0.5)
    with pytest.raises(ValueError, match=r"expected a volume \(C, X, Y, Z\)"):
        RandThinAxisLast()(torch.zeros(3, 3, 3))


def test_too_thick_to_teach():
    scan = MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.diag(torch.tensor([1.0, 1.0, 1.3, 1.0])))
    ThroughPlaneLast(2, max_spacing=1.3001)(scan), ThroughPlaneLast(0, max_spacing=1.25)(scan)
    with pytest.raises(ValueError, match=r"^a volume: slices 1.3 mm apart are too thick to teach .* at most 1.25 mm"):
        ThroughPlaneLast(2, max_spacing=1.25)(scan)
    scan.meta["filename_or_obj"] = "scans/a.nii.gz"
    with pytest.raises(ValueError, match="^scans/a.nii.gz: slices 1.3 mm"):
        ThroughPlaneLastd("image", 2, 1.25)({"image": scan})
