# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Handlers of trainings: seeds of epochs, frozen normalization, losses of several processes."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose, RandScaleIntensityd
from torch import nn

from monai_sliceinterp.handlers import EpochSeedHandler, FreezeNormalizationHandler, MeanLossHandler
from monai_sliceinterp.networks.nets import ASIAutoencoder
from monai_sliceinterp.transforms import RandSlicePairsd
from tests.engines.helpers import Wrapper, rand


def make_chain():
    return Compose(
        [
            RandSlicePairsd("image", num_samples=2, patch_size=4, gap=[1, 2], fractional=True),
            RandScaleIntensityd(["image", "label"], factors=0.5, prob=0.5),
        ]
    )


class TestEpochSeed:
    """That resumed trainings draw the same is tested with the trainers, and of bundles."""

    def test_each_epoch_of_each_seed_has_its_own_draws(self):
        """Of all generators, whatever their state was before."""
        chain, item, draws = make_chain(), {"image": rand(1, 12, 12, 7)}, set()
        for seed, epoch in [*itertools.product((0, 1, 2), (1, 2)), (2**31, 10**6), (2**70, 3)] * 2:
            engine = Engine(lambda engine, batch: None)
            EpochSeedHandler(chain, seed=seed).attach(engine)
            engine.state.epoch = epoch
            engine.fire_event(Events.EPOCH_STARTED)
            sample = chain(item)[0]
            draws.add((random.random(), np.random.rand(), torch.rand(()).item(), sample["image"].sum().item()))
        assert len(draws) == len({draw[-1] for draw in draws}) == 8


class TestFreezeNormalization:
    @pytest.mark.parametrize(
        ("warmup", "states"),
        [(1, ((1, False), (2, True), (1, False))), (0, ((1, True),)), (None, ((1, False), (1000, False)))],
    )
    def test_toggles(self, warmup, states):
        network = ASIAutoencoder(channels=(3,), latent_channels=4)
        engine = Engine(lambda engine, batch: None)
        FreezeNormalizationHandler(Wrapper(network), warmup).attach(engine)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for epoch, frozen in states:
            engine.state.epoch = epoch
            engine.fire_event(Events.EPOCH_STARTED)
            network.train()
            assert network.normalization_frozen is frozen
            assert {layer.training for layer in norms} == {not frozen} and network.encoder.training


class TestMeanLoss:
    """Two real processes are in tests/bundles."""

    def test_losses_by_name(self, monkeypatch):
        monkeypatch.setattr("ignite.distributed.all_reduce", lambda values: values.add_(torch.tensor([3.0, 5.0])))
        monkeypatch.setattr("ignite.distributed.get_world_size", lambda: 2)
        loss = torch.tensor(1.0, requires_grad=True)
        engine = Engine(lambda engine, batch: {"loss": loss, "image": batch, "critic": torch.tensor(-1.0)})
        MeanLossHandler().attach(engine)
        output = engine.run([torch.ones(2)]).output
        assert (output["loss"].item(), output["critic"].item(), loss.item()) == (2.0, 2.0, 1.0)
        assert not output["loss"].requires_grad and torch.equal(output["image"], torch.ones(2))
