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
from monai.transforms import Compose
from scipy import ndimage
from scipy.spatial.transform import Rotation

from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms import FWHMDownsample, FWHMDownsampled, fwhm_downsample

SPACING = 1.5


def make_volume(num_slices=20, axis=2, dtype=torch.float32, channels=2, **meta):
    """Random volume with an oblique affine: 0.8 mm in-plane, slices of 1.5 mm along ``axis``."""
    shape, spacing = [7, 6, 5], [0.8, 0.8, 0.8]
    shape[axis], spacing[axis] = num_slices, SPACING
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (-100, 20, 300)
    values = 100 * np.random.default_rng(0).random((channels, *shape))
    return MetaTensor(torch.tensor(values).to(dtype), affine=torch.tensor(affine), meta=meta)


def blur_then_slice(volume, factor, fwhm_in_slices, phase, axis):
    """Every slice blurred, then every ``factor``-th one taken."""
    sigma = fwhm_in_slices / (2 * np.sqrt(2 * np.log(2)))
    blurred = ndimage.gaussian_filter1d(
        volume.numpy().astype(np.float64), sigma, axis=axis + 1, mode="nearest", radius=int(np.ceil(4 * sigma))
    )
    return np.take(blurred, range(phase, volume.shape[axis + 1], factor), axis=axis + 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("factor", "phase"), [(1, 0), (2, 0), (4, 3), (6, 1), (19, 0)])
class TestFWHMDownsample:
    @pytest.mark.parametrize("fwhm", [0.5, 3.0, 7.5])
    def test_equals_blur_then_slice(self, axis, factor, phase, fwhm):
        volume = make_volume(axis=axis)
        found = FWHMDownsample(factor, fwhm=fwhm, phase=phase, axis=axis)(volume)
        expected = blur_then_slice(volume, factor, fwhm / SPACING, phase, axis)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
        assert found.meta["slice_thickness"] == fwhm and slice_geometry(found, axis=axis).thickness == fwhm

    def test_default_width_is_the_target_spacing(self, axis, factor, phase):
        volume = make_volume(axis=axis)
        found = FWHMDownsample(factor, phase=phase, axis=axis)(volume)
        np.testing.assert_allclose(found.numpy(), blur_then_slice(volume, factor, factor, phase, axis), rtol=1e-5)
        geometry = slice_geometry(found, axis=axis)
        assert geometry.slice_spacing == geometry.thickness == SPACING * factor

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
    def test_zero_width_is_slicing(self, axis, factor, phase, dtype):
        volume = make_volume(axis=axis, dtype=dtype, slice_thickness=1.2)
        found = FWHMDownsample(factor, fwhm=0, phase=phase, axis=axis)(volume)
        kept = [slice(None)] * 4
        kept[axis + 1] = slice(phase, None, factor)
        assert found.dtype == dtype and torch.equal(found.as_tensor(), volume.as_tensor()[tuple(kept)])
        assert found.meta["slice_thickness"] == 1.2  # as thick as before
        found += 1  # not a view of the input
        assert torch.equal(volume.as_tensor(), make_volume(axis=axis, dtype=dtype).as_tensor())

    def test_count_and_affine(self, axis, factor, phase):
        volume = make_volume(axis=axis)
        affine = volume.affine.numpy().copy()
        found = FWHMDownsample(factor, phase=phase, axis=axis)(volume)
        count = len(range(phase, 20, factor))
        assert found.shape[axis + 1] == count
        for n in range(count):  # slice n of the result lies where slice phase + n * factor was
            here, there = np.array([2.0, 3, 1, 1]), np.array([2.0, 3, 1, 1])
            here[axis], there[axis] = n, phase + n * factor
            np.testing.assert_allclose(found.affine.numpy() @ here, affine @ there, atol=1e-9)
        np.testing.assert_array_equal(volume.affine, affine)
        assert "slice_thickness" not in volume.meta

    def test_constant(self, axis, factor, phase):
        volume = make_volume(axis=axis)
        volume[:] = 37.0
        np.testing.assert_allclose(FWHMDownsample(factor, phase=phase, axis=axis)(volume), 37.0, rtol=1e-6)


class TestDetails:
    def test_width_in_millimeters_of_a_sheared_stack(self):
        """A tilted gantry: the slab is measured along the normal, not along the step."""
        volume = make_volume()
        affine = torch.diag(torch.tensor([0.8, 0.8, SPACING, 1.0], dtype=torch.float64))
        affine[1, 2] = 1.0
        volume.affine = affine
        found = FWHMDownsample(3, fwhm=4.5)(volume)
        np.testing.assert_allclose(found.numpy(), blur_then_slice(volume, 3, 4.5 / SPACING, 0, 2), rtol=1e-5)
        np.testing.assert_allclose(found.affine[:3, 2], [0, 3, 4.5])

    def test_defaults_to_the_last_axis(self):
        volume = make_volume(axis=0)
        assert FWHMDownsample(2)(volume).shape == (2, 20, 6, 3)

    def test_thickness_goes_before_the_files(self):
        found = FWHMDownsample(2)(make_volume(**{"0018|0050": "1.0"}))
        assert slice_geometry(found).thickness == 3.0

    def test_plain_tensor_has_unit_spacing(self):
        volume = make_volume().as_tensor()
        found = FWHMDownsample(4, fwhm=3.0)(volume)
        np.testing.assert_allclose(found.numpy(), blur_then_slice(volume, 4, 3.0, 0, 2), rtol=1e-5)
        np.testing.assert_array_equal(found.affine, np.diag([1.0, 1.0, 4.0, 1.0]))

    def test_integers_are_averaged_in_float(self):
        volume = make_volume(dtype=torch.int16)
        found = FWHMDownsample(4)(volume)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), blur_then_slice(volume, 4, 4, 0, 2), rtol=1e-5)

    def test_function_on_any_rank(self):
        volume = make_volume().as_tensor().double()
        expected = blur_then_slice(volume, 3, 2.0, 1, 2)
        for index in ((0, 1, 2), 0, slice(None), None):
            found = fwhm_downsample(volume[index], 3, 2.0, phase=1)
            np.testing.assert_allclose(found.numpy(), expected[index], rtol=1e-12)

    def test_dictionary_in_compose(self):
        volume = make_volume()
        chain = Compose([FWHMDownsampled(["image", "gone"], factor=4, fwhm=0, phase=1, allow_missing_keys=True)])
        found = chain({"image": volume, "other": 1})
        assert torch.equal(found["image"].as_tensor(), volume.as_tensor()[..., 1::4]) and found["other"] == 1
        blurred = FWHMDownsampled("image", 2, axis=0)({"image": volume})["image"]
        assert torch.equal(blurred.as_tensor(), FWHMDownsample(2, axis=0)(volume).as_tensor())
        with pytest.raises(KeyError, match="gone"):
            FWHMDownsampled("gone", factor=4)({"image": volume})


class TestErrors:
    @pytest.mark.parametrize("factor", [0, -2, 1.5, True, float("nan"), float("inf"), "4"])
    def test_factor(self, factor):
        for call in (lambda: FWHMDownsample(factor), lambda: fwhm_downsample(torch.rand(9), factor, 1.0)):
            check_error(f"positive integer, got {factor!r}", call)

    @pytest.mark.parametrize("fwhm", [-1.0, float("nan"), float("inf")])
    def test_fwhm(self, fwhm):
        check_error(f"FWHM .*{fwhm!r}", lambda: FWHMDownsample(2, fwhm=fwhm))
        check_error(f"FWHM .*{fwhm!r}", lambda: fwhm_downsample(torch.rand(9), 2, fwhm))

    @pytest.mark.parametrize("fwhm", [0, None])
    def test_fewer_than_two_slices_left(self, fwhm):
        assert FWHMDownsample(19, fwhm=fwhm)(make_volume()).shape[-1] == 2
        check_error("every 20. of 20 slices", lambda: FWHMDownsample(20, fwhm=fwhm)(make_volume()))
        check_error("every 19. of 20 slices", lambda: FWHMDownsample(19, fwhm=fwhm, phase=1)(make_volume()))

    @pytest.mark.parametrize("phase", [-1, 20])
    def test_phase(self, phase):
        check_error(f"below 20, got {phase}", lambda: FWHMDownsample(2, phase=phase)(make_volume()))

    def test_axis(self):
        check_error("axis 3", lambda: FWHMDownsample(2, axis=3)(make_volume()))


def check_error(named, call):
    with pytest.raises(ValueError, match=named) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_uneven_slices_are_refused():
    meta = {"slice_positions": (0.0, 1.0, 3.0, 4.0, 5.0), "slice_positions_axis": 2}
    volume = MetaTensor(torch.rand(1, 4, 4, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])), meta=meta)
    with pytest.raises(ValueError, match="the slices are unevenly spaced or some are missing; expected even gaps"):
        FWHMDownsample(2)(volume)
