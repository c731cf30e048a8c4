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
from monai.data import MetaTensor

from monai_sliceinterp.evaluation.cuts import (
    add_arrays,
    holds_arrays,
    panel_cuts,
    panel_path,
    read_panel,
    slice_view,
    volume_cuts,
)

SPACING = (1.0, 2.0, 5.0)


def affine(*signs, order=(0, 1, 2)):
    """Axes of the volume that run along axes of the patient, in either direction."""
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[world, axis] = sign * SPACING[axis]
    matrix[3, 3] = 1
    return matrix


def position(matrix, shape):
    """Volumes that hold x, y and z of each voxel in mm."""
    index = torch.stack([*torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")])
    return (matrix[:3, :3] @ index.reshape(3, -1)).reshape(3, *shape)


SIGNS = [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)]


class TestViews:
    @pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (1, 2, 0)])
    @pytest.mark.parametrize("signs", SIGNS)
    def test_slices_as_readers_know_them(self, signs, order):
        """Columns run to the patient's left (or posterior), rows to posterior (or inferior), whatever the file has."""
        matrix = affine(*signs, order=order)
        coordinates = position(matrix, (4, 6, 3))[..., 1]
        columns, rows = sorted(order[:2])
        for world, axis in ((columns, 1), (rows, 0)):
            image, aspect = slice_view(coordinates[world], matrix)
            steps = np.diff(image, axis=axis)
            spacing = SPACING[order.index(world)]
            np.testing.assert_allclose(steps, -spacing, atol=1e-5)
            assert (np.diff(image, axis=1 - axis) == 0).all()
            assert aspect == pytest.approx(SPACING[order.index(rows)] / SPACING[order.index(columns)])
        assert image.dtype == np.float32

    @pytest.mark.parametrize("signs", SIGNS)
    def test_cuts_across(self, signs):
        """Rows are slices from inferior on; the cuts lie in the middle."""
        matrix = affine(*signs)
        x, y, z = position(matrix, (4, 6, 5))
        for plane, (across, fixed, middle, aspect) in {
            "coronal": (x, y, y[0, 3, 0], 5.0),
            "sagittal": (y, x, x[2, 0, 0], 2.5),
        }.items():
            cuts = [volume_cuts(volume[None], matrix, 2)[plane] for volume in (across, z, fixed)]
            assert all(cut[1] == aspect for cut in cuts)
            np.testing.assert_allclose(np.diff(cuts[1][0], axis=0), 5, atol=1e-5)
            assert (np.diff(cuts[0][0], axis=1) < 0).all() and (np.diff(cuts[0][0], axis=0) == 0).all()
            assert (cuts[2][0] == float(middle)).all()

    @pytest.mark.parametrize(
        ("count", "factor", "middle"), [(5, 2, 1), (5, 4, 2), (7, 2, 3), (9, 4, 3), (9, 8, 4), (3, 2, 1)]
    )
    def test_the_slice_is_a_synthesized_one(self, count, factor, middle):
        volume = torch.arange(float(count)).expand(2, 3, 4, count)
        assert (volume_cuts(volume, torch.eye(4), factor)["axial"][0] == middle).all()

    def test_first_channel(self):
        volume = torch.stack([torch.zeros(3, 4, 5), torch.ones(3, 4, 5)])
        assert all((image == 0).all() for image, _ in volume_cuts(volume, torch.eye(4), 2).values())


class TestPanel:
    @pytest.mark.parametrize(
        ("factor", "nearest"), [(2, [0, 0, 1, 1, 2]), (3, [0, 0, 1, 1, 1, 2, 2]), (4, [0, 0, 0, 1, 1, 1, 1, 2, 2])]
    )
    def test_input_in_steps(self, factor, nearest):
        """The nearest thick slice, of two the earlier one."""
        count = 2 * factor + 1
        thick = torch.tensor([10.0, 11.0, 12.0]).expand(1, 4, 6, 3)
        truth = MetaTensor(torch.arange(float(count + 1)).expand(1, 4, 6, count + 1), affine=affine(1, 1, 1))
        cuts = panel_cuts(torch.rand(1, 4, 6, count), thick, truth, factor)
        for plane in ("coronal", "sagittal"):
            assert cuts[f"input|{plane}"][:, 0].tolist() == [10 + k for k in nearest]
            assert cuts[f"truth|{plane}"][:, 0].tolist() == list(range(count))  # the slice past the last is left out
        assert set(cuts) == {
            f"{what}|{plane}"
            for what in ("truth", "input", "pred", "aspect")
            for plane in ("axial", "coronal", "sagittal")
        }
        assert all(array.dtype == np.float32 for array in cuts.values())
        assert (float(cuts["aspect|axial"]), float(cuts["aspect|coronal"]), float(cuts["aspect|sagittal"])) == (
            2,
            5,
            2.5,
        )

    def test_path(self, tmp_path):
        assert panel_path(tmp_path, "a b", "fwhm 4 mm x3") == tmp_path / "panels" / "a b_fwhm_4_mm_x3.npz"


class TestFile:
    def arrays(self, value=1.0, truth=0.0):
        image = np.full((3, 4), 1, np.float32)
        return {
            "truth|axial": truth * image,
            "input|axial": image,
            "pred|axial": value * image,
            "aspect|axial": image[0, 0],
        }

    def test_methods_come_together(self, tmp_path):
        """In the order asked for, the input first and the truth last; what is not asked for stays out."""
        path = tmp_path / "new" / "panel.npz"
        assert not holds_arrays(path, "a", "1")
        for value, name in enumerate("bac"):
            add_arrays(path, self.arrays(value), name, f"key {name}")
        assert list(read_panel(path, ["a", "b"])) == [
            "aspect|axial",
            "input|axial",
            "a|axial",
            "b|axial",
            "truth|axial",
        ]
        panel = read_panel(path, ["a", "b", "c", "d"])
        assert [float(panel[f"{name}|axial"][0, 0]) for name in "abc"] == [1, 0, 2]
        assert all(holds_arrays(path, name, f"key {name}") for name in "abc")
        assert not holds_arrays(path, "a", "key b") and not holds_arrays(path, "d", "key d")
        assert [file.name for file in path.parent.iterdir()] == ["panel.npz"]

    def test_replaced(self, tmp_path):
        add_arrays(tmp_path / "p.npz", self.arrays(1), "a", "old")
        add_arrays(tmp_path / "p.npz", self.arrays(2), "a", "new")
        assert read_panel(tmp_path / "p.npz", ["a"])["a|axial"][0, 0] == 2
        assert holds_arrays(tmp_path / "p.npz", "a", "new") and not holds_arrays(tmp_path / "p.npz", "a", "old")

    @pytest.mark.parametrize("change", ["truth", "aspect"])
    def test_another_truth(self, tmp_path, change):
        """What was made from other slices is not shown beside this one."""
        path = tmp_path / "p.npz"
        add_arrays(path, self.arrays(), "a", "1")
        add_arrays(path, {**self.arrays(), f"{change}|axial": np.float32(0.5)}, "b", "1")
        assert not holds_arrays(path, "a", "1") and "a|axial" not in read_panel(path, ["a"])
        assert holds_arrays(path, "b", "1")
