# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The score of a method on one scan, whose own slices are left out."""

import json
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.metrics import peak_signal_noise_ratio

from monai_sliceinterp.geometry import ADAPTATION
from monai_sliceinterp.inferers import LatentSliceInferer, SliceInterpolationInferer, SplineSliceInferer
from monai_sliceinterp.networks.nets import ASIAutoencoder
from monai_sliceinterp.transforms import LeaveOneOutQualityd, SaveVolumed, leave_one_out_quality

AFFINE = torch.diag(torch.tensor([0.8, 0.9, 5.0, 1.0], dtype=torch.float64))


def scan(num_slices, channels=1, seed=0):
    values = torch.rand(channels, 14, 13, num_slices, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=AFFINE, meta={"filename_or_obj": "folder/scan.nii.gz"})


class Recorder(SliceInterpolationInferer):
    """Gives zeros, and keeps what it is asked."""

    asked = []

    def synthesize(self, stack, network):
        spacing = stack.geometry.slice_spacing if stack.geometry else None
        self.asked.append((stack.slices.clone(), spacing, self.factor, self.spacing, self.progress))
        yield stack.wanted, torch.zeros(len(stack.wanted), *stack.slices.shape[1:])


@pytest.mark.parametrize("num_slices", [3, 4, 7, 8])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_inner_slice_is_left_out_once(num_slices, channels):
    volume = scan(num_slices, channels)
    quality = leave_one_out_quality(volume[None], SplineSliceInferer(mode="linear"))
    values = volume.numpy().astype(np.float64)
    mean = 0.5 * (values[..., :-2] + values[..., 2:])
    expected = peak_signal_noise_ratio(values[..., 1:-1], mean, data_range=1.0)
    assert quality["psnr"] == pytest.approx(expected, abs=1e-5) == quality["linear_psnr"]
    assert quality["gain"] == 0.0 and quality["ssim"] == quality["linear_ssim"]
    assert quality["slices"] == num_slices - 2


def test_the_method_sees_every_second_slice_at_its_true_distance():
    Recorder.asked = []
    volume = scan(6)
    inferer = Recorder(spacing=1.0, progress=True)
    quality = leave_one_out_quality(volume[None], inferer)
    assert [asked[1:] for asked in Recorder.asked] == [(10.0, 2, None, False)] * 2
    for asked, phase in zip(Recorder.asked, (0, 1), strict=True):
        assert (asked[0] == volume[0, ..., phase::2].permute(2, 0, 1)).all()
    assert (inferer.factor, inferer.spacing, inferer.progress) == (None, 1.0, True), "the inferer is left alone"
    inner = volume[..., 1:-1].double()
    assert quality["psnr"] == pytest.approx(-10 * math.log10((inner**2).mean().item()), abs=1e-4)
    assert quality["gain"] == pytest.approx(quality["psnr"] - quality["linear_psnr"])


def test_intensities_outside_the_range_do_not_count():
    volume = scan(5)
    volume[..., 2] = 7.0  # beyond the range: 1 after clipping
    quality = leave_one_out_quality(volume[None], SplineSliceInferer(mode="linear"))
    clipped = volume.clamp(0, 1).numpy()
    blend = np.clip(0.5 * (volume[..., :-2] + volume[..., 2:]).numpy(), 0, 1)
    assert quality["psnr"] == pytest.approx(peak_signal_noise_ratio(clipped[..., 1:-1], blend, data_range=1), abs=1e-4)


def test_exact_results():
    ramp = torch.arange(5.0).expand(1, 1, 12, 12, 5) / 8  # without rounding
    quality = leave_one_out_quality(ramp, SplineSliceInferer(mode="linear"))
    assert quality["psnr"] == quality["linear_psnr"] == math.inf and quality["gain"] == 0.0


def test_too_few_slices():
    with pytest.raises(ValueError, match="at least 3 of them, the volume has 2"):
        leave_one_out_quality(scan(2)[None], SplineSliceInferer())


class TestFile:
    def save(self, tmp_path, volume, inferer, network=None, **meta):
        saved = SaveVolumed("pred", tmp_path)({"image": volume, "pred": volume.clone()})
        saved["pred"].meta.update(meta)
        result = LeaveOneOutQualityd("pred", inferer, network, "asi")(saved)
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == ["scan_interp_quality.json"]
        written = json.loads((tmp_path / "scan_interp_quality.json").read_text())
        assert result["pred"].meta["quality"] == written
        return written

    def test_beside_the_output(self, tmp_path):
        volume = scan(5)
        written = self.save(tmp_path, volume, SplineSliceInferer(mode="cubic"))
        quality = leave_one_out_quality(volume[None], SplineSliceInferer(mode="cubic"))
        assert written == {"method": "asi", "protocol": "leave-one-out", **quality}

    def test_the_network_is_put_into_evaluation_mode_and_back(self, tmp_path):
        torch.manual_seed(0)
        network = ASIAutoencoder(channels=(4, 4), latent_channels=4)
        network.train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        written = self.save(tmp_path, scan(5), LatentSliceInferer(factor=3), network)
        assert network.training
        assert all((value == before[name]).all() for name, value in network.state_dict().items())
        expected = leave_one_out_quality(scan(5)[None], LatentSliceInferer(factor=3), network.eval())
        assert written["psnr"] == pytest.approx(expected["psnr"], abs=1e-6)

    def test_adaptation(self, tmp_path):
        record = {"steps": 100, "seed": 0, "psnr_before": 30.0, "psnr_after": 31.0, "used": True}
        written = self.save(tmp_path, scan(5), SplineSliceInferer(), **{ADAPTATION: json.dumps(record)})
        assert written["adaptation"] == record and written["slices"] == 3

    def test_two_slices(self, tmp_path):
        written = self.save(tmp_path, scan(2), SplineSliceInferer())
        assert written["reason"] == "no score: 2 slices, of which none can be left out" and "psnr" not in written

    def test_slices_smaller_than_the_window_of_ssim(self, tmp_path):
        volume = MetaTensor(torch.rand(1, 12, 10, 5), affine=AFFINE, meta={"filename_or_obj": "scan.nii"})
        written = self.save(tmp_path, volume, SplineSliceInferer())
        assert written["reason"] == "no score: slices of 12 x 10 pixels; SSIM needs 11 x 11" and "psnr" not in written

    def test_unevenly_spaced_slices(self, tmp_path):
        volume = scan(5)
        volume.meta.update(slice_positions=(0.0, 1.0, 3.0, 4.0, 5.0), slice_positions_axis=2)
        written = self.save(tmp_path, volume, SplineSliceInferer())
        assert written["reason"] == "no score: unevenly spaced slices" and "psnr" not in written

    def test_exact_results_are_valid_json(self, tmp_path):
        ramp = torch.arange(5.0).expand(1, 12, 12, 5) / 8
        volume = MetaTensor(ramp.clone(), affine=AFFINE, meta={"filename_or_obj": "scan.nii"})
        written = self.save(tmp_path, volume, SplineSliceInferer(mode="linear"))
        assert written["psnr"] is None and written["gain"] == 0.0 and written["ssim"] == 1.0
