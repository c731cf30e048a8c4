# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Peng, Liao, Wong, Luo, Zhou, Chellappa: SAINT: Spatially Aware Interpolation Network for Medical Slice Synthesis."""

import pytest
import torch

from monai_sliceinterp.networks.nets.saint import SAINT, ResidualFusionNetwork
from tests.bundles.bundle_commands import content, parameters
from tests.papers.common import merged, part_of


def test_network():
    """Section 4: six blocks of eight layers that grow by 32; Table 1: 2.81 million parameters of AMI."""
    network = part_of("saint", "network_def", "paper")
    features = network.ami.feature_learning
    assert len(features.blocks) == 6 and {len(block.layers) for block in features.blocks} == {8}
    assert {layer.out_channels for block in features.blocks for layer in block.layers} == {32}
    assert parameters(network.ami) == 2_787_712  # 2.79: as the authors' code
    # first two, six blocks and their fusion of 64 channels
    block = sum((9 * (64 + 32 * layer) + 1) * 32 for layer in range(8)) + (64 + 8 * 32 + 1) * 64
    assert parameters(features) == 1_792 + 36_928 + 6 * block + 24_640 + 36_928 == 2_787_712 - 129_600
    assert network.edge == "zero" and network.ami.residual is False
    assert parameters(network) - 2_787_712 == parameters(ResidualFusionNetwork()) == 371_105  # DIFF: paper about 0.12


def test_training():
    """Section 4: Adam at 1e-4 with a momentum of 0.5, factors 4 and 6, slices up to 5 mm, at least 60, no flips."""
    settings = merged("saint")
    assert settings["factors"] == [4, 6] and settings["max_spacing"] == 5
    assert settings["min_remaining_slices"] == 60 and settings["flip_prob"] == 0
    assert settings["learning_rate"] == settings["rfn_learning_rate"] == 1e-4 and settings["betas"] == [0.5, 0.999]
    assert settings["final_fraction"] == 1  # constant
    assert settings["stages"] == ["ami", "rfn"] and settings["any_axis"] is False
    assert type(part_of("saint", "loss", "paper")) is torch.nn.L1Loss  # eq. 9 and 11
    assert content("saint", "evaluate")["crop"] == 256  # the central 256 x 256 pixels are scored


@pytest.mark.parametrize("paper", [(), ("paper",)])
@pytest.mark.parametrize("name", ["four_views", "rfn_3d"])
def test_alternatives(name, paper):
    """Section 3.3: four views; all filters of the fusion in 3D. Nothing else changes, in either form."""
    network = part_of("saint", "network_def", *paper, name)
    assert network.ami.residual is not bool(paper) and parameters(network.ami) == 2_787_712
    assert network.edge == ("zero" if paper else "replicate")
    assert len(network.directions) == (4 if name == "four_views" else 2)
    assert network.rfn.spatial_dims == (3 if name == "rfn_3d" else 2)


# Tables 1 and 2
COMPARED = {"rdn_2d": 2.77, "mdsr_2d": 2.92, "meta_sr": 2.81, "rdn_3d": 2.88, "mdsr_3d": 2.88, "mdcsrn": 2.98}


@pytest.mark.parametrize("paper", [(), ("paper",)])
@pytest.mark.parametrize("name", COMPARED)
def test_compared_methods(name, paper):
    """Tables 1 and 2: as many parameters as the paper's within 2 percent, and narrow ones; in either form."""
    network = part_of("saint", "network_def", *paper, name)
    assert getattr(network, "ami", network).residual is not bool(paper)
    assert isinstance(network, SAINT) == (not name.endswith(("3d", "mdcsrn")))
    assert getattr(network, "edge", "") in ("", "zero" if paper else "replicate")
    assert parameters(network) == pytest.approx(1e6 * COMPARED[name], rel=0.02)
    assert parameters(part_of("saint", "network_def", *paper, "small", name)) < 4e5
