# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Sander, de Vos, Isgum: Autoencoding Low-Resolution MRI for Semantically Smooth Interpolation of Anisotropic MRI."""

import numpy as np
import pytest
import torch
from torch import nn

from monai_sliceinterp.metrics import METRICS
from monai_sliceinterp.networks.nets import ASIAutoencoder, ResidualASIAutoencoder, VariationalASIAutoencoder
from tests.bundles.bundle_commands import parameters, parser_of, save_scan
from tests.papers.common import kinds, merged, part_of

BRAIN = ("paper", "paper_brain")


def layer_of(layer):
    if isinstance(layer, nn.Conv2d):
        assert (layer.kernel_size, layer.padding, layer.stride) == ((3, 3), (1, 1), (1, 1))
        assert layer.padding_mode == "zeros" and layer.bias is not None
        return ("conv", layer.in_channels, layer.out_channels)
    if isinstance(layer, nn.LeakyReLU):
        return layer.negative_slope
    if isinstance(layer, nn.BatchNorm2d):
        return ("norm", layer.num_features)
    if isinstance(layer, nn.AvgPool2d):
        return ("average", layer.kernel_size, layer.stride)
    assert isinstance(layer, nn.Upsample)
    return (layer.mode, layer.scale_factor)


def block(before, after, resize):
    return [("conv", before, after), 0.2, ("conv", after, after), 0.2, ("norm", after), resize]


def test_layers():
    """III-B: two blocks of 32 and 64 kernels, a code of 128 channels at a quarter of the size, and the mirror image."""
    network = part_of("asi", "network_def", "paper")
    leaves = lambda part: [layer_of(layer) for layer in part.modules() if not list(layer.children())]  # noqa: E731
    down, up = ("average", 2, 2), ("nearest", 2)
    last = [("conv", 64, 128), 0.2, ("conv", 128, 128)]  # linear
    assert leaves(network.encoder) == [*block(1, 32, down), *block(32, 64, down), *last]
    last = [("conv", 32, 32), 0.2, ("conv", 32, 1)]
    assert leaves(network.decoder) == [*block(128, 64, up), *block(64, 32, up), *last]
    assert network.encode(torch.zeros(1, 1, 128, 128))[0].shape == (1, 128, 32, 32)
    # nine weights a kernel, a bias, and two numbers a normalized channel
    widths = [(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    widths += [(128, 64), (64, 64), (64, 32), (32, 32), (32, 32), (32, 1)]
    expected = sum(9 * before * after + after for before, after in widths) + 2 * 2 * (32 + 64)
    assert parameters(network) == expected == 434_785
    residual = ResidualASIAutoencoder()
    assert (str(residual.encoder), str(residual.decoder)) == (str(network.encoder), str(network.decoder))


@pytest.mark.parametrize(
    ("names", "epochs", "pairs", "patch", "weight", "percentiles"),
    [(["paper"], 900, 12, 128, 0.05, [1.0, 99.0]), (BRAIN, 1300, 8, 64, 0.001, [0.0, 100.0])],
    ids=["VI-B", "VI-C"],
)
def test_training(names, epochs, pairs, patch, weight, percentiles, tmp_path):
    """IV: Adam at a constant 1e-5, MSE and LPIPS, the slice in the middle of three, turned by 90 degrees."""
    for seed in range(6):
        save_scan(tmp_path / "scans" / f"{seed}.nii.gz", (130, 128, 18), spacing=(1.4, 1.4, 4.0), seed=seed)
    parser = parser_of("asi", "train", *names, loss__synthesis="mse", dataset_dir=str(tmp_path / "scans"))
    assert parser.get_parsed_content("train#trainer").state.max_epochs == parser["max_epochs"] == epochs
    optimizer, scheduler = parser.get_parsed_content("optimizer"), parser.get_parsed_content("lr_scheduler")
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["lr"] == 1e-5
    for _ in range(20):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 1e-5
    assert parser.get_parsed_content("loss").synthesis_weight == weight
    assert merged("asi", *names)["loss"]["synthesis"] == "lpips"
    assert parser["norm_warmup_epochs"] is None and parser["percentiles"] == percentiles
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape == (pairs, 2, patch, patch)
    assert (batch["alpha"] == 0.5).all()
    assert "RandRotate90d" in kinds(parser.get_parsed_content("train#preprocessing").transforms)


def test_epochs(tmp_path):
    """IV: every slice between two others is provided once per epoch, of every frame."""
    for seed, shape in enumerate([(130, 128, 4, 3), (130, 128, 12), (130, 128, 9)]):
        save_scan(tmp_path / "scans" / f"{seed}.nii.gz", shape, spacing=(1.4, 1.4, 4.0), seed=seed)
    own = {"loss__synthesis": "mse", "dataset_dir": str(tmp_path / "scans"), "validation_subjects": ["2"]}
    parser = parser_of("asi", "train", "paper", **own)
    assert parser.get_parsed_content("sampler#weights") == [2 * 3, 10]
    batches = list(parser.get_parsed_content("train#dataloader"))
    assert sum(len(batch["image"]) for batch in batches) == 2 * 3 + 10
    assert parser.get_parsed_content("train#trainer").state.epoch_length == len(batches)


def test_pixels_of_cardiac_scans(tmp_path):
    """II-A: slices are resampled to 1.4 x 1.4 mm; the network says so, and is shown such pixels ever after."""
    save_scan(tmp_path / "a.nii.gz", (141, 99, 6), spacing=(0.7, 2.1, 10.0))
    save_scan(tmp_path / "b.nii.gz", (141, 99, 6), spacing=(0.7, 2.1, 10.0), seed=1)
    own = {"dataset_dir": str(tmp_path), "loss__synthesis": "mse"}
    for name in ("comparison#volumes", "validate#dataset"):
        image = part_of("asi", name, "paper", **own)[0]["image"]
        assert image.shape[1:3] == (71, 148)
        np.testing.assert_allclose(image.pixdim[:2], 1.4)
    for config in ("train", "inference"):
        assert parser_of("asi", config, "paper").get_parsed_content("network_def").in_plane_spacing == 1.4
        # VI-C, VI-D: brains of 0.5 and 1 mm stay as they are
        assert parser_of("asi", config, *BRAIN).get_parsed_content("network_def").in_plane_spacing == 0


def test_slabs_of_brains(tmp_path):
    """VI-C: a Gaussian as wide as K slices, every K-th slice, K = 2 to 6; a slice apart from both of a pair (IV)."""
    scans = [save_scan(tmp_path / f"{name}.nii.gz", (66, 65, 40), spacing=(0.5, 0.5, 0.5)) for name in "ab"]
    own = {"dataset_dir": str(tmp_path), "loss__synthesis": "mse", "validation_subjects": ["b"]}
    parser = parser_of("asi", "train", *BRAIN, **own)
    loaded = parser.get_parsed_content("train#preprocessing").transforms
    slabs = loaded[kinds(loaded).index("RandDegraderd")].set_random_state(0)
    volume = {"image": part_of("asi", "validate#dataset", *BRAIN, **own)[0]["label"]}
    draws = []
    for _ in range(40):
        thick = slabs(volume)["image"]
        draw = slabs.transform.draw
        draws.append(draw["factor"])
        np.testing.assert_allclose(thick.pixdim[2], 0.5 * draw["factor"], rtol=1e-5)
        assert thick.meta["slice_thickness"] == pytest.approx(0.5 * draw["factor"])
    assert set(draws) == {2, 3, 4, 5, 6} and len(scans) == 2
    pairs = loaded[-3].transform
    assert type(loaded[-3]).__name__ == "RandSlicePairsd" and pairs.strides == (1,) and not pairs.fractional
    protocols = parser.get_parsed_content("protocols")
    assert protocols == [{"factor": factor} for factor in (2, 3, 4, 5, 6)]  # blurred: no "fwhm": 0
    assert part_of("asi", "validate#dataset", *BRAIN, **own)[0]["image"].meta["slice_thickness"] == pytest.approx(1.0)


def test_scores():
    """V: SSIM, PSNR and VIF, of reconstructed and synthesized slices (Table I), and of sagittal cuts (Fig. 5)."""
    for name in ("psnr", "ssim", "vif"):
        assert {name, f"{name}_reconstruction"} <= METRICS.keys()
    assert {"ssim_sagittal", "vif_sagittal"} <= METRICS.keys()


def test_rotated_digits():
    """VI-A: 16 channels of the code; the VAE has two linear layers more, for mean and variance."""
    asi = ASIAutoencoder(latent_channels=16)
    vae = VariationalASIAutoencoder(latent_channels=16)
    assert asi.encode(torch.zeros(1, 1, 32, 32))[0].shape == (1, 16, 8, 8)
    assert parameters(vae) - parameters(asi) == 2 * (16 * 16 + 16)
    image = torch.rand(2, 1, 32, 32)
    (mean,), (log_variance,) = vae.eval().distributions(image)
    (code,) = ASIAutoencoder.encode(vae, image)
    for layer, found in ((vae.mean, mean), (vae.log_variance, log_variance)):
        expected = torch.einsum("oi,bihw->bohw", layer.weight[..., 0, 0], code) + layer.bias[:, None, None]
        torch.testing.assert_close(found, expected)
