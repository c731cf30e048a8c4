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
"""The slice axis of a volume is drawn among its thin ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_sliceinterp.transforms import RandThinAxisLast, RandThinAxisLastd, thin_axes


def scan(*spacing: float, shape: tuple[int, int, int] = (3, 4, 5)) -> MetaTensor:
    """A volume of different values, turned and shifted in space."""
    turn = np.array([[0.0, -1.0, 0.0], [0.8, 0.0, -0.6], [0.6, 0.0, 0.8]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = (7.0, -5.0, 3.0)
    values = torch.arange(float(np.prod(shape))).reshape(1, *shape)
    return MetaTensor(values, affine=torch.as_tensor(affine), meta={"filename_or_obj": "scan.nii"})


@pytest.mark.parametrize(
    ("spacing", "axes"),
    [
        ((1.4, 1.4, 5.0), [0, 1]),
        ((1.0, 1.0, 1.0), [0, 1, 2]),
        ((4.5, 4.5, 1.0), [2]),
        ((1.0, 2.0, 2.01), [0, 1]),
        ((5.0, 0.9, 0.9), [1, 2]),
    ],
)
def test_thin_axes(spacing: tuple[float, float, float], axes: list[int]) -> None:
    assert thin_axes(scan(*spacing)) == axes


def test_thin_axes_by_another_ratio() -> None:
    assert thin_axes(scan(1.0, 1.2, 1.6), max_ratio=1.5) == [0, 1]
    assert thin_axes(scan(1.0, 1.2, 1.6), max_ratio=1.0) == [0]


@given(seed=st.integers(0, 1000), spacing=st.tuples(*[st.sampled_from([0.7, 1.0, 1.3, 4.0])] * 3))
def test_voxels_stay_where_they_are(seed: int, spacing: tuple[float, float, float]) -> None:
    volume = scan(*spacing)
    transform = RandThinAxisLast().set_random_state(seed)
    moved = transform(volume)
    assert transform.axis in thin_axes(volume)
    where = torch.stack([torch.as_tensor(index, dtype=torch.float64) for index in np.ndindex(*moved.shape[1:])])
    homogeneous = torch.cat([where, torch.ones(len(where), 1, dtype=torch.float64)], dim=1).T
    back = torch.linalg.inv(volume.affine) @ (moved.affine @ homogeneous)
    index = back[:3].round().long()
    torch.testing.assert_close(back[:3], index.double(), rtol=0, atol=1e-9)
    assert (volume[0][index[0], index[1], index[2]].as_tensor() == moved[0].flatten().as_tensor()).all()


def test_every_thin_axis_is_drawn_as_often() -> None:
    transform = RandThinAxisLast().set_random_state(0)
    for spacing, axes in (((1.0, 1.0, 5.0), (0, 1)), ((1.0, 1.0, 1.5), (0, 1, 2))):
        drawn = [transform(scan(*spacing)).shape[-1] - 3 for _ in range(600)]
        counts = np.bincount(drawn, minlength=3)
        for axis in range(3):
            assert abs(counts[axis] - (600 / len(axes) if axis in axes else 0)) < 60 * (axis in axes) + 1


def test_last_axis_stays_without_a_draw() -> None:
    transform = RandThinAxisLast(prob=0.0).set_random_state(0)
    assert {transform(scan(1.0, 1.0, 1.0)).shape[-1] for _ in range(30)} == {5}
    assert {transform(scan(1.0, 1.0, 5.0)).shape[-1] for _ in range(60)} == {3, 4}, "a thick axis must not stay"


def test_input_is_left_alone_and_metadata_is_kept() -> None:
    volume = scan(1.0, 1.0, 5.0)
    affine, values = volume.affine.clone(), volume.as_tensor().clone()
    moved = RandThinAxisLast().set_random_state(1)(volume)
    assert moved.meta["filename_or_obj"] == "scan.nii"
    assert (volume.affine == affine).all() and (volume.as_tensor() == values).all()
    assert moved.pixdim.tolist() == pytest.approx([1.0, 5.0, 1.0])


def test_keys_follow_the_first_one() -> None:
    transform = RandThinAxisLastd(["image", "label"]).set_random_state(3)
    for _ in range(20):
        volume = scan(1.0, 1.0, 1.0)
        result = transform({"image": volume, "label": volume + 100.0, "other": 1})
        assert result["image"].shape == result["label"].shape and result["other"] == 1
        assert (result["label"] - result["image"] == 100.0).all()


def test_same_seed_same_axes() -> None:
    first, second = (RandThinAxisLastd("image").set_random_state(5) for _ in range(2))
    for _ in range(10):
        data = {"image": scan(1.0, 1.0, 1.0)}
        assert first(data)["image"].shape == second(data)["image"].shape


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="max_ratio must be 1 or more, got 0.5"):
        RandThinAxisLast(max_ratio=0.5)
    with pytest.raises(ValueError, match=r"expected a volume \(C, X, Y, Z\)"):
        RandThinAxisLast()(torch.zeros(3, 3, 3))
