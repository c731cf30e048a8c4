# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Kudo, Kitamura, Li, Iizuka, Simo-Serra: Virtual Thin Slice: 3D Conditional GAN-based Super-Resolution for CT."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter1d
from torch import nn

from monai_sliceinterp.networks import nets
from monai_sliceinterp.transforms import RandDegrader
from monai_sliceinterp.transforms.conditioning import BODY_PARTS
from tests.bundles.bundle_commands import content, parameters, parser_of
from tests.papers.common import merged, part_of


def test_generator():
    """Section 3.2: kernels of four voxels with stride 2, four times, 64 channels at first, added to the image."""
    full = part_of("vts", "network_def", "paper")
    assert type(full) is nets.VTSGenerator and parameters(full) == 18_096_769 and full.multiple == 16
    first = [layer for layer in full.encoder.modules() if isinstance(layer, nn.Conv3d)]
    assert [layer.out_channels for layer in first] == [64, 128, 256, 512]
    assert {(layer.kernel_size, layer.stride) for layer in first} == {((4, 4, 4), (2, 2, 2))}
    assert {layer.negative_slope for layer in full.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}
    assert full.residual_scale == 1 and full.high_frequency and type(full.stem) is nn.Identity


@pytest.mark.parametrize("name", ["", "paper", "no_condition", "pix2pix", "srcnn"])
def test_discriminator(name):
    """Sections 3.2 and 3.4: thick, thin and eight channels of the condition; self-attention."""
    critic, bare = part_of("vts", "discriminator_def", *filter(None, [name])), name in ("no_condition", "pix2pix")
    assert critic.condition_channels == (0 if bare else 8) and len(BODY_PARTS) == 4
    attention = any("SelfAttention" in type(module).__name__ for module in critic.modules())
    assert attention == (name != "pix2pix")
    image = torch.rand(1, 2, 16, 16, 16)
    assert critic.eval()(image, **({} if bare else {"condition": torch.zeros(1, 8)})).shape[:2] == (1, 1)


def test_training():
    """Section 4: crops of 160 mm, small affine transforms alone, -2048 to 2048 HU as -1 to 1, Adam at 2e-4 and 0.5."""
    settings = merged("vts")
    assert settings["patch_size"] == 160 and settings["pixdim"] == settings["training_pixdim"] == [1, 1, 1]
    assert settings["window"] == "$[-2048.0, 2048.0]" and settings["norm_warmup_epochs"] is None
    assert settings["max_epochs"] == 100 and settings["betas"] == [0.5, 0.999]
    assert settings["learning_rate"] == settings["discriminator_learning_rate"] == 2e-4
    network = part_of("vts", "network_def", "paper")
    assert (network.intensity_center, network.intensity_scale) == (0.5, 0.5)  # of [0, 1]: [-1, 1]
    steps = part_of("vts", "train#preprocessing", "paper").transforms
    (affine,) = [step for step in steps if type(step).__name__ in ("RandAffined", "RandFlipd")]
    grid = affine.rand_affine.rand_affine_grid
    assert affine.prob == 1 and np.rad2deg(grid.rotate_range) == pytest.approx(5, abs=0.01)
    assert grid.scale_range == (0.05, 0.05, 0.05)


def test_pixels():
    """Section 4.1: all images are rescaled to 1 mm; the network says so in training and inference."""
    for config in ("train", "inference"):
        for more in ((), ("srcnn",), ("pix2pix",), ("no_hf",), ("no_condition",)):
            network = parser_of("vts", config, "paper", *more, channels=[2, 2, 2, 2]).get_parsed_content("network_def")
            assert network.in_plane_spacing == 1


def test_degradation_as_drawn():
    """Section 4.1: a Gaussian of 0 to 3.2, one slice in 4 or 8; no noise is told."""
    degrader, volume, draws = RandDegrader().set_random_state(1), torch.rand(1, 2, 2, 33), []
    for _ in range(200):
        degrader.randomize(volume)
        draws.append(degrader.draw)
    assert {draw["factor"] for draw in draws} == {4, 8} and {draw["profile"] for draw in draws} == {"gaussian"}
    assert {draw["noise"] for draw in draws} == {0} and {draw["phase"] for draw in draws} == set(range(8))
    sigmas = [draw["sigma"] for draw in draws]
    assert 0 <= min(sigmas) < 0.16 and 3.04 < max(sigmas) <= 3.2
    assert merged("vts")["factors"] == [4, 8] and merged("vts")["sigma_range"] == [0, 3.2]


@pytest.mark.parametrize("spacing", [0.5, 1.0, 2.0, 1.0000001])
def test_degradation_in_millimeters(spacing):
    """Section 3.3 and 3.4: the interval is 4 or 8 mm and sigma counts in mm, whatever the voxels are."""
    degrade, condition, _ = part_of("vts", "train#degradation", "paper")
    assert degrade.transform.unit == condition.unit == 1
    degrade.set_random_state(3)
    degrade.transform.noise_range = (0.0, 0.0)
    degrade.transform.restore_grid = False
    thin = torch.rand(1, 3, 3, round(80 / spacing), generator=torch.Generator().manual_seed(0))
    volume = MetaTensor(thin, affine=np.diag([1, 1, spacing, 1]))
    for _ in range(4):
        result = condition(degrade({"image": volume}))
        draw, told = result["degradation"], result["condition"][4:].tolist()
        assert result["image"].pixdim[2] == pytest.approx(draw["slice_spacing"], rel=1e-4)
        assert round(draw["slice_spacing"], 4) in (4, 8)
        sigma = draw["sigma"] * spacing
        assert 0 <= sigma <= 3.2 and told == [
            draw["slice_spacing"] < 6,
            draw["slice_spacing"] > 6,
            sigma <= 1.6,
            sigma > 1.6,
        ]
        blurred = gaussian_filter1d(thin.double().numpy(), draw["sigma"], mode="nearest", radius=100)
        start, step = int(draw["phase"]), round(draw["slice_spacing"] / spacing)
        # the kernel is cut at four standard deviations
        np.testing.assert_allclose(result["image"].numpy(), blurred[..., start::step], atol=2e-4)


@pytest.mark.parametrize("paper", [(), ("paper",)])
def test_networks_of_comparison(paper):
    """Section 4.2: SRCNN's 9-1-5 model of 64 and 32 channels; Pix2Pix of four voxels down to one, 64 at first."""
    width = 64 if paper else 16
    for overlays in ((*paper, "srcnn"), ("srcnn", *paper)):
        layers = part_of("vts", "network_def", *overlays).layers
        assert [layer.out_channels for layer in layers[::2]] == [width, width // 2, 1]
        assert [layer.kernel_size[0] for layer in layers[::2]] == [9, 1, 5]
    network = part_of("vts", "network_def", *paper, "pix2pix")
    assert network.encoder[0](torch.zeros(1, 1, 4, 4, 4)).shape[1] == width
    assert merged("vts", "pix2pix", *paper)["patch_size"] % network.multiple == 0  # no padding
    assert type(network) is nets.Pix2Pix3D and content("vts", "srcnn")["adversarial_weight"] == 0


def test_ablations():
    """Table 1: no condition, no high-frequency prediction; the widths stay. small.json is half as wide."""
    default, small, whole = (part_of("vts", "network_def", *names) for names in ((), ("small",), ("no_hf",)))
    assert type(default) is type(small) is type(whole) is nets.VTSGenerator
    assert parameters(whole) == parameters(default) and not whole.high_frequency and default.high_frequency
    assert 3 < parameters(default) / parameters(small) < 4.2
    assert content("vts", "train")["patch_size"] == part_of("vts", "network_def", "pix2pix").multiple
