# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Volumes, comparisons and spies that the tests of the inferers share."""

from __future__ import annotations

import io

import pytest
import torch
from monai.data import MetaTensor
from torch import nn
from tqdm import tqdm

from monai_sliceinterp import progress
from monai_sliceinterp.networks.nets import SAINT
from tests import volumes

SPACING = (0.7, 1.1, 4.0)
SMALL = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}


def rand(*shape, seed=0, dtype=torch.float64):
    """Intensities in [0, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def oblique(spacing=SPACING):
    return torch.tensor(volumes.oblique(spacing))


def straight(spacing=SPACING):
    return torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))


def sheared(spacing=SPACING):
    """As of a tilted gantry: the planes are ``spacing[2]`` apart, the step from slice to slice is longer."""
    affine = straight(spacing)
    affine[1, 2] = 1.5
    return affine


def make_scan(*shape, spacing=SPACING, seed=0, dtype=torch.float64, **meta):
    """Scan ``(B, C, H, W, N)`` with intensities in [0, 1]."""
    return MetaTensor(rand(*shape, seed=seed, dtype=dtype), affine=straight(spacing), meta=meta)


def make_saint(num_views=2, spatial_dims=2, edge="replicate", size=SMALL, dtype=torch.float64):
    """A network far from its start, where AMI is an interpolation and RFN the mean; float64 for sharp comparisons."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SAINT(size, {**size, "spatial_dims": spatial_dims}, num_views, edge)
    with torch.no_grad():
        for parameter in (*network.ami.filter_generation.parameters(), *network.rfn.network.last.parameters()):
            parameter.mul_(2)
        network.ami.filter_generation.layers[-1].weight.mul_(4)
        network.rfn.network.last.weight.mul_(5)
        network.rfn.network.last.bias.fill_(0.3)
    return network.to(dtype).eval()


def plain(value):
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def close(found, expected, atol=1e-10):
    torch.testing.assert_close(plain(found), plain(expected), rtol=0, atol=atol)


def check_error(kind, named, function, *args, **kwargs):
    with pytest.raises(kind, match=named) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


class Wrapper(nn.Module):
    """Stands in for DataParallel and DistributedDataParallel."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        raise AssertionError("the wrapper itself must not be called")


def record_bars(monkeypatch):
    """Progress bars of slices, which the base class makes, from now on, with what they show in ``screen``."""
    bars = []

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            self.screen = io.StringIO()
            super().__init__(*args, file=self.screen, **kwargs)
            if kwargs["unit"] == "slice":
                bars.append(self)

    monkeypatch.setattr(progress, "tqdm", Bar)
    return bars
