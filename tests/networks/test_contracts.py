# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every network: gradients, seeds, state dicts, evaluation, errors in settings."""

import math

import pytest
import torch

from monai_sliceinterp.networks import nets
from monai_sliceinterp.networks.blocks import ResidualDenseBlock, ResidualDenseNetwork
from monai_sliceinterp.networks.nets.vts import VolumeTranslator
from tests.networks.helpers import EXACT, check_error, rand, trained

RDN = {"channels": 8, "num_blocks": 2, "num_layers": 2, "growth": 4}
AMI = {**RDN, "filter_channels": (8, 8)}
ASI = {"channels": (4, 6), "latent_channels": 8}
SMALL = {"channels": (4, 6), "latent_channels": (3, 5, 2)}
STEM = {"channels": (4, 6), "latent_channels": (3, 2), "stem": 2, "shortcut": True}
PAIRS, PLANES, VOLUMES = (3, 2, 11, 9), (3, 1, 13, 10), (3, 1, 8, 8, 8)
ALL_PARTS = {"alpha": 0.3, "reconstruct": True}

CASES = {  # network, its settings, the shape of its input, what it is called with
    "asi": (nets.ASIAutoencoder, ASI, PAIRS, ALL_PARTS),
    "asi, residual": (nets.ResidualASIAutoencoder, ASI, PAIRS, ALL_PARTS),
    "hrinet": (nets.HRINetAutoencoder, SMALL, PAIRS, ALL_PARTS),
    "hrinet, one level": (nets.HRINetAutoencoder, {**SMALL, "latent_channels": (3,)}, PAIRS, ALL_PARTS),
    "hrinet, stem and shortcut": (nets.HRINetAutoencoder, STEM, PAIRS, ALL_PARTS),
    "vae": (nets.VariationalHRINetAutoencoder, SMALL, PAIRS, {**ALL_PARTS, "divergence": True}),
    "vae, shortcut": (nets.VariationalHRINetAutoencoder, STEM, PAIRS, {**ALL_PARTS, "divergence": True}),
    "critic": (nets.InterpolationCritic, {"channels": (4, 6), "latent_channels": 3}, PLANES, {}),
    "critic, stem": (nets.InterpolationCritic, {"channels": (4, 6), "stem": 3}, PLANES, {}),
    "rdn": (ResidualDenseNetwork, {**RDN, "in_channels": 2}, (3, 2, 7, 5), {}),
    "rdn, 3d": (ResidualDenseNetwork, {**RDN, "spatial_dims": 3, "out_channels": 2}, (3, 3, 5, 4, 3), {}),
    "ami": (nets.AnisotropicMetaInterpolation, AMI, (3, 3, 4, 6), {"slice_spacing": 5.0}),
    "ami, whole": (nets.AnisotropicMetaInterpolation, {**AMI, "residual": False}, (3, 3, 4, 6), {"slice_spacing": 5.0}),
    "rfn": (nets.ResidualFusionNetwork, {**RDN, "num_views": 4}, (3, 4, 6, 5), {}),
    "rfn, 3d": (nets.ResidualFusionNetwork, {**RDN, "spatial_dims": 3}, (3, 2, 6, 5, 4), {}),
    "saint": (nets.SAINT, {"ami": AMI, "rfn": RDN}, (3, 1, 4, 5, 3), {"factor": 2}),
    "saint, four views, 3d": (
        nets.SAINT,
        {"ami": AMI, "rfn": {**RDN, "spatial_dims": 3}, "num_views": 4, "edge": "zero"},
        (3, 1, 4, 5, 3),
        {"factor": 2},
    ),
    "rdn, 2d": (nets.RDN, RDN, (3, 3, 4, 6), {}),
    "rdn, volumes": (nets.RDN, {**RDN, "spatial_dims": 3, "upsampling_channels": 4}, (3, 1, 5, 4, 3), {}),
    "mdsr": (nets.MDSR, {"channels": 8, "num_blocks": 2, "factors": (4,)}, (3, 3, 4, 6), {}),
    "mdsr, 3d": (nets.MDSR, {"channels": 4, "num_blocks": 1, "factors": (4,), "spatial_dims": 3}, (3, 1, 5, 4, 3), {}),
    "meta-sr": (nets.MetaSR, {**RDN, "hidden_channels": 8}, (3, 3, 4, 6), {}),
    "mdcsrn": (
        nets.MDCSRN,
        {"growth": 2, "num_blocks": 2, "num_units": 2, "upsampling_channels": 4},
        (3, 1, 5, 4, 3),
        {},
    ),
    "mixture": (nets.MixtureNetwork, {"channels": 8, "num_blocks": 1}, (3, 1, 6, 7, 4), {"factor": 3}),
    "vts": (nets.VTSGenerator, {"channels": (2, 3)}, VOLUMES, {}),
    "vts, stem": (nets.VTSGenerator, {"channels": (2, 3), "stem_channels": 2, "high_frequency": False}, VOLUMES, {}),
    "vts critic": (nets.VTSDiscriminator, {"channels": (2, 16)}, (3, 2, 8, 8, 8), {"condition": torch.eye(8)[:3]}),
    "vts critic, whole": (nets.VTSDiscriminator, {"channels": (2, 3), "whole": True}, (3, 2, 8, 8, 8), {}),
    "srcnn": (nets.SRCNN3D, {"channels": (3, 2)}, (3, 1, 5, 4, 6), {}),
    "pix2pix": (nets.Pix2Pix3D, {"channels": 2, "size": 8, "dropout": 0.0}, (3, 1, 7, 8, 5), {}),
}


def build(name, seed=0):
    network_class, settings, _, _ = CASES[name]
    return trained(network_class, seed=seed, gain=1.6, **settings)


def run(name, network, image=None):
    """Everything that the network returns, as one tensor per sample."""
    _, _, shape, keywords = CASES[name]
    image = rand(*shape) if image is None else image
    keywords = {key: value[: len(image)] if torch.is_tensor(value) else value for key, value in keywords.items()}
    result = network(image, **keywords)
    parts = result if isinstance(result, tuple) else (result,)
    # a divergence is one number per slice of the pairs
    return torch.cat([part.reshape(-1, len(image)).T if part.ndim == 1 else part.flatten(1) for part in parts], dim=1)


@pytest.mark.parametrize("name", CASES)
class TestEveryNetwork:
    def test_gradients_reach_every_parameter_and_the_input(self, name):
        network = build(name).float().train()
        image = rand(*CASES[name][2]).float().requires_grad_()
        run(name, network, image).square().mean().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and abs(parameter.grad).max() > 1e-8, key
        assert (image.grad.abs().flatten(2).amax(dim=(0, 2)) > 0).all()  # every channel matters

    @torch.no_grad()
    def test_seed_and_state_dict(self, name, tmp_path):
        network, same, other = build(name, 3), build(name, 3), build(name, 4)
        expected = run(name, network)
        assert expected.isfinite().all()
        assert torch.equal(run(name, same), expected) and not torch.allclose(run(name, other), expected)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(run(name, other), expected)

    @torch.no_grad()
    def test_evaluation(self, name):
        """It draws nothing, leaves input and network alone, and treats each sample as if it were alone."""
        network, image = build(name), rand(*CASES[name][2])
        before = {key: value.clone() for key, value in network.state_dict().items()}
        state = torch.get_rng_state()
        expected = run(name, network, image)
        assert torch.equal(run(name, network, image), expected)
        assert torch.equal(torch.get_rng_state(), state) and torch.equal(image, rand(*CASES[name][2]))
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        alone = [run(name, network, image[k, None]) for k in range(2)]
        torch.testing.assert_close(expected[:1], alone[0], **EXACT)
        assert not torch.allclose(alone[0], alone[1])


@pytest.mark.parametrize("name", ["asi", "asi, residual", "vts", "vts, stem", "pix2pix"])
def test_frozen_normalization(name):
    """Training mode then gives what evaluation gives, and moves no statistic; otherwise both differ."""
    network, image = build(name), rand(*CASES[name][2])
    expected = run(name, network, image)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for frozen in (True, False):
        network.normalization_frozen = frozen
        assert network.train().training
        assert torch.allclose(run(name, network, image), expected, **EXACT) is frozen
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()) is frozen


@torch.no_grad()
@pytest.mark.parametrize("name", ["asi", "hrinet", "saint", "vts", "vts critic"])
def test_mixed_precision(name):
    """Close to single precision, which is close to double precision."""
    network, image = build(name), rand(*CASES[name][2])
    expected = run(name, network, image)
    single = run(name, network.float(), image.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(run(name, network, image.float()).float(), single, rtol=0.1, atol=0.1)


ONE, MORE, SCALE = "must be a positive integer", "must be one or more positive integers", "must be a positive number"
LATENT = [
    ({"in_channels": 0}, f"in_channels {ONE}, got 0"),
    ({"channels": ()}, rf"channels {MORE}, got \(\)"),
    ({"channels": (4, 0)}, rf"channels {MORE}, got \(4, 0\)"),
]
LEVELS = [*LATENT, ({"latent_channels": ()}, MORE), ({"latent_channels": (4, -1)}, f"latent_channels {MORE}")]
SIZES = ("num_blocks", "num_layers", "growth")
DENSE = [({name: value}, f"{name} {ONE}, got {value}") for name in SIZES for value in (0, -1)]
INTENSITY = [({"intensity_scale": value}, f"intensity_scale {SCALE}, got {value!r}") for value in (0, -1.0, math.nan)]
VOLUMETRIC = [({"channels": ()}, MORE), ({"channels": (4, 0)}, MORE), ({"channels": (-1, 4)}, MORE), *INTENSITY]
ERRORS = {
    nets.ASIAutoencoder: [*LATENT, ({"latent_channels": -1}, f"latent_channels {ONE}, got -1")],
    nets.ResidualASIAutoencoder: LATENT,
    nets.HRINetAutoencoder: [*LEVELS, ({"stem": 0}, f"stem {ONE}, got 0")],
    nets.VariationalHRINetAutoencoder: LEVELS,
    nets.InterpolationCritic: [
        *LATENT,
        ({"latent_channels": 0}, f"latent_channels {ONE}"),
        ({"stem": -2}, f"stem {ONE}"),
    ],
    ResidualDenseBlock: [({"channels": 0}, f"channels {ONE}, got 0"), *DENSE[2:]],
    ResidualDenseNetwork: [
        *DENSE,
        *(({name: 0}, f"{name} {ONE}") for name in ("in_channels", "out_channels", "channels")),
    ],
    nets.AnisotropicMetaInterpolation: [
        *(({"kernel_size": size}, f"kernel_size must be .*, got {size}") for size in (2, 0, -3)),
        *DENSE,
        *INTENSITY,
    ],
    nets.RDN: [
        *(({"spatial_dims": value}, f"spatial_dims must be 2 or 3, got {value}") for value in (1, 4)),
        ({"upsampling_channels": 0}, f"upsampling_channels {ONE}, got 0"),
        *DENSE,
        *INTENSITY,
    ],
    nets.MDSR: [({"channels": 0}, f"channels {ONE}, got 0"), ({"num_blocks": -1}, f"num_blocks {ONE}, got -1")],
    nets.MetaSR: [({"hidden_channels": 0}, f"hidden_channels {ONE}, got 0"), *DENSE],
    nets.MDCSRN: [({name: 0}, f"{name} {ONE}, got 0") for name in ("growth", "num_blocks", "num_units")],
    nets.ResidualFusionNetwork: [
        ({"num_views": 0}, f"in_channels {ONE}"),
        ({"num_views": -1}, ONE),
        *DENSE,
        *INTENSITY,
    ],
    nets.SAINT: [
        *(({"num_views": views}, f"must be 2 or 4, got {views}") for views in (0, 1, 3, 5, -2)),
        *(({"edge": edge}, "unknown edge .*replicate, zero") for edge in ("", "reflect", "Zero")),
    ],
    VolumeTranslator: INTENSITY,
    nets.VTSGenerator: [
        *VOLUMETRIC,
        ({"stem_channels": -1}, "stem_channels must be an integer of at least 0, got -1"),
        *(({"residual_scale": value}, f"residual_scale {SCALE}, got {value!r}") for value in (0, -0.1, math.nan)),
    ],
    nets.VTSDiscriminator: [
        *VOLUMETRIC,
        ({"condition_channels": -1}, "condition_channels must be an integer of at least 0"),
    ],
    nets.SRCNN3D: [
        *(({"channels": value}, "channels must be 2 positive integers") for value in ((2,), (2, 2, 2), (4, 0), ())),
        *INTENSITY,
    ],
    nets.Pix2Pix3D: [
        *(({"size": size}, f"size must be a power of two of at least 4, got {size}") for size in (3, 12, 0, 2, 1, -8)),
        *(({"channels": channels}, f"channels {ONE}, got {channels}") for channels in (0, -1)),
    ],
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    ("network_class", "wrong", "message"),
    [(network_class, *error) for network_class, errors in ERRORS.items() for error in errors],
)
def test_wrong_settings(network_class, wrong, message):
    check_error(message, network_class, **wrong)


@pytest.mark.parametrize("network_class", [nets.VTSGenerator, nets.SRCNN3D])
@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (1, 2, 8, 8, 8), (1, 0, 8, 8, 8), (1, 1, 1, 8, 8, 8), (8, 8)])
def test_no_volume(network_class, shape):
    message = check_error(r"expected volumes \(B, 1, H, W, N\), got shape", network_class((2, 2)), torch.zeros(shape))
    assert str(shape) in message
