# Copyright (c) monai_sliceinterp contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Handlers of trainings: seeds of epochs, frozen normalization, losses of several processes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
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


def draws(epochs, start=0, seed=0, with_handler=True):
    """Random numbers of each epoch of a training: transforms, the order of volumes, and all global generators."""
    items = [{"image": rand(1, 12, 12, 7, seed=k)} for k in range(5)]
    chain = make_chain()
    chain.set_random_state(seed=123 + start)  # whatever state a new process has
    torch.manual_seed(77 + start)
    np.random.seed(start)
    random.seed(start)
    loader = DataLoader(Dataset(items, chain), batch_size=2, shuffle=True, num_workers=0)
    record = {}

    def step(engine, batch):
        globals_ = torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])
        record.setdefault(engine.state.epoch, []).append(
            torch.cat([batch["image"].as_tensor().flatten(), batch["alpha"].flatten(), globals_])
        )

    engine = Engine(step)
    if with_handler:
        EpochSeedHandler(chain, seed=seed).attach(engine)
    if start:
        engine.load_state_dict({"epoch_length": len(loader), "max_epochs": epochs, "epoch": start})
        engine.run(loader)
    else:
        engine.run(loader, max_epochs=epochs)
    return {epoch: torch.cat(parts) for epoch, parts in record.items()}


class TestEpochSeed:
    def test_resumed_training_draws_the_same(self):
        whole = draws(4)
        assert sorted(whole) == [1, 2, 3, 4]
        for start in (1, 3):
            resumed = draws(4, start=start)
            assert sorted(resumed) == list(range(start + 1, 5))
            assert all(torch.equal(values, whole[epoch]) for epoch, values in resumed.items())
        # without the handler it would not
        assert not torch.equal(draws(4, start=3, with_handler=False)[4], draws(4, with_handler=False)[4])

    def test_epochs_and_seeds_differ(self):
        epochs = [values for seed in (0, 1, 2) for values in draws(3, seed=seed).values()]
        assert len({tuple(values.tolist()) for values in epochs}) == 9
        assert torch.equal(draws(3, seed=2)[2], draws(3, seed=2)[2])

    @pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (2**31, 10**6), (2**70, 3)])
    def test_any_seed(self, seed, epoch):
        engine = Engine(lambda engine, batch: None)
        engine.state.epoch = epoch
        handler = EpochSeedHandler(make_chain(), seed=seed)
        handler(engine)
        first = torch.rand(3)
        handler(engine)
        assert torch.equal(torch.rand(3), first)


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
    """Two processes, the other one with losses ten times as large; real ones are in tests/bundles."""

    def run(self, monkeypatch, processes):
        """Train with a loss of 1 times the weight, then of 2 times; returns what each logs, and the weight."""
        exchanged = []

        def all_reduce(values):
            exchanged.append(values.clone())
            return values.mul_(1.0 + 10.0 * (processes - 1))  # in place, as the real one

        monkeypatch.setattr("ignite.distributed.all_reduce", all_reduce)
        monkeypatch.setattr("ignite.distributed.get_world_size", lambda: processes)
        network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(network.weight, 3.0)
        optimizer = torch.optim.SGD(network.parameters(), 1.0)
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=1,
            train_data_loader=[{"image": torch.full((2, 1), float(k)), "label": torch.zeros(2, 1)} for k in (1, 2)],
            network=network,
            optimizer=optimizer,
            loss_function=lambda pred, label: pred.mean(),
            decollate=False,
            train_handlers=[MeanLossHandler()],
        )
        log = []
        trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: log.append(dict(engine.state.output)))
        trainer.run()
        assert [len(values) for values in exchanged] == [1, 1]  # once in a step
        return log, network.weight.item()

    @pytest.mark.parametrize(("processes", "factor"), [(1, 1.0), (2, 5.5)])
    def test_logged(self, monkeypatch, processes, factor):
        log, weight = self.run(monkeypatch, processes)
        assert weight == 3.0 - 1.0 - 2.0  # steps are those of the process's own losses, which DDP averages
        assert [output["loss"].item() for output in log] == [3.0 * factor, 2.0 * 2.0 * factor]
        for k, output in enumerate(log, 1):
            assert not output["loss"].requires_grad and output["loss"].shape == ()
            assert torch.equal(output["image"], torch.full((2, 1), float(k))) and output["pred"].shape == (2, 1)

    def test_losses_by_name(self, monkeypatch):
        monkeypatch.setattr("ignite.distributed.all_reduce", lambda values: values + torch.tensor([3.0, 5.0]))
        monkeypatch.setattr("ignite.distributed.get_world_size", lambda: 2)
        engine = Engine(lambda engine, batch: {"loss": torch.tensor(1.0), "image": batch, "critic": torch.tensor(-1.0)})
        MeanLossHandler().attach(engine)
        output = engine.run([torch.ones(2)]).output
        assert (output["loss"].item(), output["critic"].item()) == (2.0, 2.0)
