# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Precision of networks: where bfloat16 is used, what of a result it changes, and what it leaves as it is."""

import pytest
import torch
from torch import nn

from monai_sliceinterp import precision
from monai_sliceinterp.inferers import (
    LatentSliceInferer,
    MixtureSliceInferer,
    MultiViewSliceInferer,
    VolumetricSliceInferer,
)
from monai_sliceinterp.networks.nets import (
    ASIAutoencoder,
    HRINetAutoencoder,
    MixtureNetwork,
    ResidualASIAutoencoder,
    VTSGenerator,
)
from tests.bundles.bundle_cases import CASES
from tests.bundles.bundle_commands import parser_of
from tests.inferers.common import make_saint, make_scan

CPU = torch.device("cpu")
FLAGS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def vts():
    network = VTSGenerator(channels=(4, 8), stem_channels=4)
    nn.init.normal_(network.head.weight, std=0.1)
    return network


def mixture():
    network = MixtureNetwork(channels=8, num_blocks=2)
    nn.init.normal_(network.last.weight, std=0.1)
    return network


METHODS = {
    "asi": (LatentSliceInferer, lambda: ASIAutoencoder(channels=(4, 8), latent_channels=8)),
    "asi residual": (LatentSliceInferer, lambda: ResidualASIAutoencoder(channels=(4, 8), latent_channels=8)),
    "hrinet": (LatentSliceInferer, lambda: HRINetAutoencoder(channels=(4, 4, 8), stem=2)),
    "saint": (MultiViewSliceInferer, lambda: make_saint(dtype=torch.float32)),
    "vts": (VolumetricSliceInferer, vts),
    "mixture": (MixtureSliceInferer, mixture),
}


def has_bfloat16(monkeypatch, *flags):
    for name, flag in zip(FLAGS, flags, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda flag=flag: flag)


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True)])
def test_automatic_choice(flags, monkeypatch):
    """By the instructions of the processor; other devices than processors and CUDA are left alone."""
    has_bfloat16(monkeypatch, *flags)
    chosen = torch.bfloat16 if any(flags) else torch.float32
    assert precision.network_dtype("auto", CPU) == chosen
    assert precision.network_dtype("auto", "mps") == precision.network_dtype(False, CPU) == torch.float32
    assert precision.network_dtype(True, CPU) == torch.bfloat16


@pytest.mark.parametrize("native", [False, True])
def test_automatic_choice_on_gpus(native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    chosen = [precision.network_dtype(amp, "cuda:1") for amp in ("auto", True, False)]
    assert chosen == [torch.bfloat16] * 2 + [torch.float32] if native else [torch.float32, torch.float16, torch.float32]


@pytest.mark.parametrize("value", ["maybe", "Auto ", 1, None])
def test_unknown_setting(value):
    with pytest.raises(ValueError, match="amp must be auto, true or false, got"):
        LatentSliceInferer(factor=2, amp=value)


@pytest.mark.parametrize("name", METHODS)
def test_inferers(name, monkeypatch):
    """Observed slices stay exact, others nearly so and as fine; nothing changes without the instructions, or asking."""
    kind, make = METHODS[name]
    torch.manual_seed(0)
    network, scan = make().eval(), make_scan(1, 1, 40, 37, 5, dtype=torch.float32)
    full, reduced, again = (kind(factor=3, keep_observed=True, amp=amp)(scan, network) for amp in (False, True, "true"))
    assert torch.equal(full, kind(factor=3, keep_observed=True)(scan, network))
    assert reduced.dtype == torch.float32 and torch.equal(reduced, again)
    assert torch.equal(reduced[..., ::3].as_tensor(), scan.as_tensor())
    between = [volume.as_tensor()[..., 1] for volume in (full, reduced)]
    assert 50 < -10 * torch.log10(torch.mean((between[0] - between[1]) ** 2)) < 120
    assert len(between[1].unique()) > 0.95 * len(between[0].unique())
    has_bfloat16(monkeypatch, False, False)
    assert torch.equal(kind(factor=3, keep_observed=True, amp="auto")(scan, network), full)


def test_only_the_network_is_less_precise():
    """Spline, windows and blending around it are not: the result of a network without layers is the same."""
    scan = make_scan(1, 1, 80, 37, 9, dtype=torch.float32)
    results = [
        VolumetricSliceInferer(factor=9, roi_size=(64, 64, 64), amp=amp)(scan, nn.Identity()) for amp in (False, True)
    ]
    assert torch.equal(*results)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("bundle", CASES)
def test_bundles(bundle):
    """The network alone is told: MONAI's engine would reduce the precision of everything on a GPU."""
    parser = parser_of(bundle, "inference")
    assert parser.get_parsed_content("inferer").amp == "auto" and "amp" not in parser["evaluator"]
