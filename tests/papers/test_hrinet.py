# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Li, Koh, Lee: HRINet: Alternative Supervision Network for High-Resolution CT Image Interpolation."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import PatchAdversarialLoss
from torch import nn

from monai_sliceinterp.losses import EncoderFeatureLoss
from monai_sliceinterp.metrics import METRICS, PERCEPTUAL_SCORES
from monai_sliceinterp.networks import nets
from monai_sliceinterp.transforms import RandSliceGroups
from tests.bundles.bundle_commands import parameters, parser_of
from tests.papers.common import merged, part_of

ALONE = ("ae", "acai", "vae")  # overlays that have the first stage alone
SIZES = pytest.mark.parametrize(
    ("names", "size", "beta", "maps"),
    [
        (("paper",), 256, 5e-4, [(16, 16, 16), (8, 8, 8), (8, 4, 4)]),
        (("paper", "paper_512"), 512, 5e-3, [(16, 32, 32), (8, 16, 16), (4, 8, 8)]),
    ],
    ids=["256", "512"],
)


@SIZES
def test_sizes(names, size, beta, maps, tmp_path):
    """Table 1: the maps that are mixed; 4.1: slices are resized, not cropped; 4.2: beta."""
    settings = merged("hrinet", "paper", *names)
    assert settings["patch_size"] == size and settings["adversarial_weight"] == beta
    for config in ("train", "inference"):
        network = parser_of("hrinet", config, *names).get_parsed_content("network_def")
        assert network.in_plane_size == size
    codes = network.encode(torch.zeros(1, 1, size, size))
    assert [tuple(code.shape[1:]) for code in codes] == maps
    (resize,) = part_of("hrinet", "resize", *names)
    image = MetaTensor(torch.rand(1, 96, 40, 3), affine=np.diag([2.0, 4.0, 5.0, 1.0]))
    resized = resize({"image": image})["image"]
    assert resized.shape == (1, size, size, 3)
    np.testing.assert_allclose(resized.pixdim, (2 * 96 / size, 4 * 40 / size, 5.0), rtol=1e-6)
    assert part_of("hrinet", "center_crop", *names) == []


def test_acai_has_one_map():
    """Table 1: 16 x 16 x 16."""
    network = part_of("hrinet", "network_def", "paper", "acai")
    assert [tuple(code.shape[1:]) for code in network.encode(torch.zeros(1, 1, 256, 256))] == [(16, 16, 16)]


def test_settings():
    """Sections 3.3 and 4.2: groups of seven, lambda, the learning rate, steps in turns; as many layers as ACAI's."""
    settings = merged("hrinet")
    assert settings["num_slices"] == 7 and settings["strides"] == 1 and settings["constraint_weight"] == 0.5
    assert {settings[f"{name}learning_rate"] for name in ("", "critic_", "final_")} == {1e-4}
    assert settings["steps"] == ["unsupervised", "supervised"] and settings["stages"] == ["stage1", "stage2"]
    assert parameters(part_of("hrinet", "network_def", "paper")) == 9_571_809
    assert parameters(part_of("hrinet", "constraint_critic_def", "paper")) == 2_388_720
    patch_critic = part_of("hrinet", "patch_critic_def", "paper")
    assert patch_critic(torch.zeros(1, 1, 256, 256))[-1].shape == (1, 1, 30, 30)  # of patches of 70 pixels
    loss = part_of("hrinet", "adversarial_loss", "paper")
    assert type(loss) is PatchAdversarialLoss
    logits = torch.tensor([[0.0, 3.0]])  # the form of eq. 8 that does not saturate: -log D2
    found = loss(logits, target_is_real=True, for_discriminator=False)
    torch.testing.assert_close(found, -torch.sigmoid(logits).log().mean())


def test_iterations(thin_volumes, tmp_path):
    """Section 4.2: 50,000 in each stage, whatever the number of volumes."""
    own = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "patch_size": 24}
    parser = parser_of("hrinet", "train", "paper", **own)
    for stage in ("train", "refine"):
        state = parser.get_parsed_content(f"{stage}#trainer").state
        assert state.epoch_length * state.max_epochs == 50_000


def test_groups():
    """Section 3.3.2: seven slices next to each other, of which five are made, alpha evenly spaced."""
    volume = torch.arange(9.0).expand(1, 128, 128, 9)
    (sample,) = RandSliceGroups()(volume)
    order = torch.cat([sample["image"][:1], sample["label"], sample["image"][1:]])[:, 0, 0]
    assert len(order) == 7 and torch.diff(order).abs().tolist() == [1.0] * 6
    torch.testing.assert_close(sample["alpha"].flatten(), torch.arange(1, 6) / 6)


def test_networks_and_losses_of_comparison():
    """Section 4.3: AE, ACAI and VAE of one level; content in pixels, in the encoder's maps, or PatchGAN only."""
    assert part_of("hrinet", "network_def").latent_channels == (16, 8, 8)
    for name in ALONE:
        network = part_of("hrinet", "network_def", name)
        assert network.latent_channels == (16,) and network.multiple == 16
        assert type(network) is (nets.VariationalHRINetAutoencoder if name == "vae" else nets.HRINetAutoencoder)
    pair = torch.rand(1, 2, 16, 16)
    assert not torch.equal(network.train()(pair), network(pair)) and torch.equal(network.eval()(pair), network(pair))
    for name, kind in (("mse", nn.MSELoss), ("perceptual", EncoderFeatureLoss), ("patchgan_only", nn.MSELoss)):
        assert type(part_of("hrinet", "stage2_loss", name)) is kind
        assert type(part_of("hrinet", "loss", name)) is nn.MSELoss


def test_scores():
    """Table 2: PSNR, SSIM, RMSE, and the score of Ma et al., of which larger is better."""
    assert {"psnr", "ssim", "rmse", "ma"} <= METRICS.keys()
    assert "ma" in PERCEPTUAL_SCORES and METRICS["ma"].better == "larger"
