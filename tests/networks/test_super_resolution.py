# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The networks that SAINT is compared with: RDN, MDSR, Meta-SR and mDCSRN with upsampling along the slices."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_sliceinterp.networks.blocks import SliceUpsampler, shuffle_phases
from monai_sliceinterp.networks.nets import MDCSRN, MDSR, RDN, SAINT, MetaSR
from monai_sliceinterp.networks.nets.super_resolution import smallest_multiple
from tests.networks.helpers import EXACT, blend_by_hand, check_error, count, rand, trained

RDB = {"channels": 4, "num_blocks": 2, "num_layers": 2, "growth": 3}
SIZES = {
    "rdn_2d": (RDN, {**RDB}),
    "mdsr_2d": (MDSR, {"channels": 4, "num_blocks": 2}),
    "meta_sr": (MetaSR, {**RDB, "hidden_channels": 6}),
    "rdn_3d": (RDN, {**RDB, "spatial_dims": 3, "upsampling_channels": 3}),
    "mdsr_3d": (MDSR, {"spatial_dims": 3, "channels": 3, "num_blocks": 1}),
    "mdcsrn": (MDCSRN, {"growth": 2, "num_blocks": 3, "num_units": 2, "upsampling_channels": 3}),
}
SHAPES = {name: (2, 1, 6, 5, 4) if "3d" in name or name == "mdcsrn" else (2, 3, 4, 7) for name in SIZES}
KNOWN = [name for name in SIZES if name != "meta_sr"]


def build(name, **more):
    network, sizes = SIZES[name]
    return trained(network, **{**sizes, **more})


def rows(name, volume):
    """Slices, or rows of the middle image, first: ``(B, N, ...)``."""
    return volume.movedim(-1, 2)[:, 0] if volume.ndim == 5 else volume[:, volume.shape[1] // 2]


@pytest.mark.parametrize(
    ("network", "sizes", "millions"),
    [
        (RDN, {}, 2.77),
        (MDSR, {}, 2.92),
        (MetaSR, {}, 2.81),
        (RDN, {"spatial_dims": 3, "growth": 16, "upsampling_channels": 32}, 2.88),
        (MDSR, {"spatial_dims": 3, "channels": 32, "num_blocks": 29}, 2.88),
        (MDCSRN, {}, 2.98),
    ],
)
def test_parameters_of_the_papers_tables(network, sizes, millions):
    """SAINT, tables 1 and 2; the docstring tells the exact number."""
    with torch.device("meta"):
        found = count(network(**sizes))
    assert abs(found / 1e6 - millions) < 0.02 * millions and f"{found:,}" in network.__doc__


@torch.no_grad()
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("name", SIZES)
def test_factors(name, residual):
    """Observed slices are copied bit for bit; a factor that divides another leaves slices out; all is one method."""
    network, image = build(name, residual=residual), rand(*SHAPES[name])
    results = {factor: rows(name, network(image, factor=factor)) for factor in (1, 2, 4)}
    for factor, result in results.items():
        assert result.shape[1] == factor * (rows(name, image).shape[1] - 1) + 1
        assert torch.equal(result[:, ::factor], rows(name, image))
    if name != "meta_sr":
        assert torch.equal(results[4][:, ::2], results[2])
    images = image.movedim(-1, 2) if image.ndim == 5 else image
    lower, alpha = torch.tensor([0, 0, 1, 2]), torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64)
    found = network.interpolate(images, lower, alpha, 4.0, 1.0, step=0.25)
    torch.testing.assert_close(found, results[4][:, [0, 1, 7, 12]], **EXACT)


@pytest.mark.parametrize("name", KNOWN)
def test_factors_that_a_network_does_not_have(name):
    network = build(name)
    able = "1, 2, 3, 4 or 6" if "mdsr" in name else "1, 2 or 4"
    check_error(f"expected a factor of {able}", network, rand(*SHAPES[name]), factor=5)
    with pytest.raises(ValueError, match="factor must be a positive integer, got 0"):
        network(rand(*SHAPES[name]), factor=0)
    check_error(r"expected .* and N of 2 or more, got shape", network, rand(2, 2, 2))
    if "mdsr" not in name:
        check_error(r"the one factor that .* is made for, such as \[4\], got", SIZES[name][0], factors=(4, 6))
    check_error("factors must be .* at least 2", SIZES[name][0], factors=(1,))


def test_smallest_multiple():
    for numerators, expected in (([0, 3], 4), ([1, 5], 6), ([0, 6], 4), ([2, 4], 6), ([0], 4)):
        parts = torch.tensor(numerators, dtype=torch.float64) / (4 if numerators == [0, 3] else 6)
        assert smallest_multiple((6, 4), parts) == expected
    check_error("not at all positions together", smallest_multiple, (4, 6), torch.tensor([0.25, 1 / 6]).double())


@torch.no_grad()
def test_upsampler_by_hand():
    """Row K n + k of the thin features is row n of map k, of which map 0 are the features themselves."""
    block = trained(SliceUpsampler, 2, 3, (2, 4))
    state, features = block.state_dict(), rand(1, 3, 5, 6)
    maps = F.conv2d(features, state["phases.4.weight"], state["phases.4.bias"], padding=1)
    fine = np.zeros((1, 3, 20, 6))
    for row in range(20):
        source = features if row % 4 == 0 else maps[:, 3 * (row % 4 - 1) : 3 * (row % 4)]
        fine[:, :, row] = source[:, :, row // 4]
    expected = F.conv2d(torch.tensor(fine), state["last.weight"], state["last.bias"], padding=1)
    torch.testing.assert_close(block(features, 4), expected, **EXACT)
    phases = rand(2, 4, 3, 5, 6)
    assert torch.equal(shuffle_phases(phases)[:, :, 7], phases[:, 3, :, 1])


@torch.no_grad()
def test_mdsr_by_hand():
    """EDSR's residual blocks; those of the factor before, the body and its skip behind; added to an interpolation."""
    network = trained(MDSR, channels=3, num_blocks=1)
    state, image = network.state_dict(), rand(1, 3, 3, 5)

    def conv(x, name):
        return F.conv2d(
            x, state[f"{name}.weight"], state[f"{name}.bias"], padding=state[f"{name}.weight"].shape[-1] // 2
        )

    def block(x, name):
        return x + conv(conv(x, f"{name}.layers.0").clamp(min=0), f"{name}.layers.2")

    x = conv((image - 0.25) / 0.25, "head")
    x = block(block(x, "preprocessing.6.0"), "preprocessing.6.1")
    x = x + conv(block(x, "body.0"), "body.1")
    learned = 0.25 * network.upsampler(x, 6)[:, 0, :13]
    positions = torch.arange(13, dtype=torch.float64) / 6
    lower = positions.floor().long().clamp(max=1)
    expected = blend_by_hand(image[:, 1], lower, positions - lower) + learned
    expected[:, ::6] = image[:, 1]
    torch.testing.assert_close(network(image, factor=6)[:, 0], expected, **EXACT)


@torch.no_grad()
def test_mdcsrn_by_hand():
    """Every block sees the compressed outputs of all levels before it."""
    network = build("mdcsrn")
    state, image = network.state_dict(), rand(1, 1, 3, 4, 5)

    def conv(x, name):
        return F.conv3d(
            x, state[f"{name}.weight"], state[f"{name}.bias"], padding=state[f"{name}.weight"].shape[-1] // 2
        )

    def unit(x, name):
        norm = (state[f"{name}.0.N.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return conv(F.elu(F.batch_norm(x, *norm)), f"{name}.1")

    levels = [conv(image, "first")]
    for number in range(3):
        x = levels[0] if number == 0 else conv(torch.cat(levels, dim=1), f"compressors.{number - 1}")
        for k in range(2):
            x = torch.cat([x, unit(x, f"blocks.{number}.units.{k}")], dim=1)
        levels.append(x)
    expected = network.upsampler(torch.cat(levels, dim=1), 4)
    torch.testing.assert_close(network.upsample(image, 4), expected, **EXACT)


@torch.no_grad()
def test_meta_sr_by_hand():
    """The filter at an offset is two layers' of offset and 1 / r, applied to the features around the row before."""
    network = trained(MetaSR, **SIZES["meta_sr"][1], residual=False)
    state, image = network.state_dict(), rand(1, 3, 3, 6)
    features = F.pad(network.feature_learning((image - 0.25) / 0.25), (1, 1, 1, 1))
    found = network(image, factor=5)[0, 0]
    for gap, k, column in ((0, 1, 0), (1, 4, 3), (1, 2, 5)):
        weights = (state[f"filter_generation.layers.{number}.weight"][:, :, 0, 0] for number in (0, 2))
        biases = (state[f"filter_generation.layers.{number}.bias"] for number in (0, 2))
        hidden = torch.tensor([k / 5, 1 / 5]).double()
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = weight @ (hidden.clamp(min=0) if layer else hidden) + bias
        patch = features[0, :, gap : gap + 3, column : column + 3]
        expected = 0.25 + 0.25 * (hidden.reshape(4, 3, 3) * patch).sum()
        assert abs(found[5 * gap + k, column] - expected) < 1e-6  # the offset is float32
    assert not torch.allclose(network(image, factor=2)[0, 0, 1], network(image, factor=4)[0, 0, 2])  # 1 / r counts


@torch.no_grad()
@pytest.mark.parametrize("name", ["rdn_2d", "mdsr_2d", "meta_sr"])
def test_in_the_place_of_ami(name):
    """The mean of the views; nothing is fused."""
    network = SAINT(build(name), rfn=False).double()
    image = rand(1, 1, 5, 6, 3)
    found = network(image, factor=2)
    assert found.shape == (1, 1, 5, 6, 5) and torch.equal(found[..., ::2], image)
    assert torch.equal(found, network(image, factor=2, fuse=False))


def test_network_for_volumes_in_the_place_of_ami():
    check_error("ami must be a network with spatial_dims 2, got RDN with 3", SAINT, build("rdn_3d"))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@torch.no_grad()
@pytest.mark.parametrize("name", SIZES)
def test_traced(name):
    """For any size, also with other numbers of slices."""
    network, image = build(name), rand(*SHAPES[name])
    traced = torch.jit.trace(network, image, check_trace=False)
    for more in (image, torch.cat([image, image.flip(-1)], dim=-1), torch.cat([image, image], dim=2)):
        torch.testing.assert_close(traced(more), network(more), **EXACT)
