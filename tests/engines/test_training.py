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

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.data import DataLoader, Dataset, MetaTensor, list_data_collate
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import from_engine
from monai.transforms import Compose, RandScaleIntensityd
from torch import nn

from monai_sliceinterp.engines import (
    BestModelSaver,
    PrepareSliceBlocks,
    PrepareSlicePairs,
    PrepareViewImages,
    check_start,
    check_validation,
)
from monai_sliceinterp.handlers import EpochSeedHandler, FreezeNormalizationHandler, MeanLossHandler
from monai_sliceinterp.inferers import MultiViewSliceInferer
from monai_sliceinterp.losses import ASILoss
from monai_sliceinterp.networks.nets import SAINT, ASIAutoencoder
from monai_sliceinterp.transforms import RandSliceBlocksd, RandSlicePairsd


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class TestPrepareSlicePairs:
    @pytest.mark.parametrize("channels", [1, 2])
    def test_batch(self, channels):
        batch = {
            "image": rand(4, 2 * channels, 8, 9),
            "label": rand(4, channels, 8, 9, seed=1),
            "alpha": rand(4, seed=2),
        }
        image, target, args, kwargs = PrepareSlicePairs()(batch, "cpu", True, dtype=torch.float64)
        assert torch.equal(image, batch["image"].double()) and args == ()
        assert torch.equal(target[:, : 2 * channels], image)
        assert torch.equal(target[:, 2 * channels :], batch["label"].double())
        assert set(kwargs) == {"alpha", "reconstruct"} and kwargs["reconstruct"] is True
        assert torch.equal(kwargs["alpha"], batch["alpha"].double())

    def test_with_network_and_loss(self):
        network = ASIAutoencoder(channels=(2,), latent_channels=3).eval()
        batch = {"image": rand(4, 2, 8, 8), "label": rand(4, 1, 8, 8, seed=1), "alpha": torch.full((4,), 0.5)}
        image, target, args, kwargs = PrepareSlicePairs()(batch)
        pred = network(image, *args, **kwargs)
        assert pred.shape == target.shape
        first, second, between = (network.decode(network.encode(batch["image"][:, k, None])) for k in (0, 1, 0))
        expected = ((torch.cat([first, second], 1) - batch["image"]) ** 2).mean()
        between = network(batch["image"], alpha=0.5)
        expected += ((between - batch["label"]) ** 2).mean()
        torch.testing.assert_close(ASILoss()(pred, target), expected)


SMALL = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}


def make_saint():
    """A small network that is far from an interpolation, so that its spacings matter."""
    torch.manual_seed(0)
    network = SAINT(SMALL, SMALL)
    with torch.no_grad():
        for parameter in network.ami.filter_generation.parameters():
            parameter.mul_(2)
    return network.eval()


def draw_blocks(patch=(3, 10), number=6, seed=0, spacing=(0.7, 0.9, 1.3)):
    """Batch of blocks whose spacings differ from block to block."""
    volume = MetaTensor(rand(1, 20, 24, 30), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    sampler = RandSliceBlocksd("image", number, patch, 3, [3]).set_random_state(seed)
    return list_data_collate(sampler({"image": volume}))


class TestPrepareSliceBlocks:
    def test_batch(self):
        batch = draw_blocks((5, 8))
        image, target, args, kwargs = PrepareSliceBlocks()(batch, "cpu", True, dtype=torch.float64)
        assert image.shape == (6, 1, 5, 8, 3) and target.shape == (6, 1, 5, 8, 7) and args == ()
        assert torch.equal(image, batch["image"].double()) and torch.equal(target, batch["label"].double())
        assert set(kwargs) == {"factor", "slice_spacing", "in_plane_spacing"}
        assert kwargs["factor"] == 3 and type(kwargs["factor"]) is int
        assert torch.equal(kwargs["slice_spacing"], batch["slice_spacing"].double())
        first, second = kwargs["in_plane_spacing"]
        assert torch.equal(first, batch["in_plane_spacing"][:, 0].double())
        assert torch.equal(second, batch["in_plane_spacing"][:, 1].double())
        assert not torch.equal(first, second) and len(kwargs["slice_spacing"].unique()) > 1

    def test_network_sees_each_block_with_its_spacings(self):
        """A batch gives what each block gives on its own, with the spacings that are in its affine."""
        batch, network = draw_blocks((6, 9)), make_saint()
        image, _, args, kwargs = PrepareSliceBlocks()(batch)
        with torch.no_grad():
            pred = network(image, *args, **kwargs)
        assert pred.shape == batch["label"].shape
        for k in range(6):
            spacing = [*batch["in_plane_spacing"][k], batch["slice_spacing"][k], torch.tensor(1.0)]
            scan = MetaTensor(batch["image"][k : k + 1], affine=torch.diag(torch.stack(spacing)))
            expected = MultiViewSliceInferer(factor=3)(scan, network).as_tensor()
            torch.testing.assert_close(pred[k : k + 1], expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("prepare", [PrepareSliceBlocks, PrepareViewImages])
    def test_mixed_factors(self, prepare):
        batch = draw_blocks()
        batch["factor"] = torch.tensor([4, 2, 4, 4, 2, 2])
        with pytest.raises(ValueError, match=r"blocks of factors \[2, 4\]; expected one factor for all") as caught:
            prepare()(batch)
        assert "\n" not in str(caught.value)

    def test_factors_as_a_list(self):
        batch = draw_blocks()
        batch["factor"] = [3] * 6
        assert PrepareSliceBlocks()(batch)[3]["factor"] == 3


class TestPrepareViewImages:
    def test_by_hand(self):
        """Row n of an image of the view is a line of slice n of the block."""
        blocks = torch.arange(2 * 3 * 4 * 3).reshape(2, 1, 3, 4, 3).float()
        truth = torch.arange(2 * 3 * 4 * 5).reshape(2, 1, 3, 4, 5).float()
        batch = {"image": blocks, "label": truth, "factor": torch.tensor([2, 2])}
        batch |= {"slice_spacing": torch.tensor([4.0, 5.0]), "in_plane_spacing": torch.tensor([[0.5, 0.6], [0.7, 0.8]])}
        image, target, args, kwargs = PrepareViewImages()(batch)
        assert image.shape == (2, 3, 3, 4) and target.shape == (2, 1, 5, 4) and args == ()
        for b in range(2):
            for n in range(3):
                for line in range(3):  # the previous line, the line itself, the next one
                    assert torch.equal(image[b, line, n], blocks[b, 0, line, :, n])
            for m in range(5):
                assert torch.equal(target[b, 0, m], truth[b, 0, 1, :, m])
        assert kwargs["factor"] == 2 and set(kwargs) == {"factor", "slice_spacing", "in_plane_spacing"}
        # the images' columns run along the block's width
        assert torch.equal(kwargs["in_plane_spacing"], torch.tensor([0.6, 0.8]))
        assert torch.equal(kwargs["slice_spacing"], torch.tensor([4.0, 5.0]))

    def test_moves(self):
        batch = draw_blocks()
        image, target, _, kwargs = PrepareViewImages()(batch, "cpu", True, dtype=torch.float64)
        tensors = (image, target, kwargs["slice_spacing"], kwargs["in_plane_spacing"])
        assert {tensor.dtype for tensor in tensors} == {torch.float64}

    def test_trained_as_used(self):
        """AMI sees in training what the inferer shows it of a scan: images, neighbors and spacings."""
        batch, network = draw_blocks(number=8), make_saint()
        image, target, args, kwargs = PrepareViewImages()(batch)
        with torch.no_grad():
            pred = network.ami(image, *args, **kwargs)
        assert pred.shape == target.shape
        # observed rows are copies of the truth
        assert torch.equal(pred[:, :, ::3], target[:, :, ::3])
        for k in range(8):
            spacing = [*batch["in_plane_spacing"][k], batch["slice_spacing"][k], torch.tensor(1.0)]
            scan = MetaTensor(batch["image"][k : k + 1], affine=torch.diag(torch.stack(spacing)))
            thin = MultiViewSliceInferer(factor=3, fuse=False, views=("rows",))(scan, network).as_tensor()
            torch.testing.assert_close(pred[k, 0], thin[0, 0, 1].T, rtol=0, atol=1e-5)
        # other spacings would be noticed
        with torch.no_grad():
            wrong = network.ami(image, 3, kwargs["slice_spacing"], batch["in_plane_spacing"][:, 0])
        assert abs(wrong - pred).max() > 1e-3

    def test_trains(self):
        network, batch = make_saint(), draw_blocks()
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=10,
            train_data_loader=[batch],
            network=network.ami,
            optimizer=torch.optim.Adam(network.ami.parameters(), 1e-3),
            loss_function=nn.L1Loss(),
            prepare_batch=PrepareViewImages(),
            decollate=False,
        )
        losses = []
        trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: losses.append(engine.state.output["loss"]))
        trainer.run()
        assert losses[-1] < 0.97 * losses[0]


def make_chain():
    return Compose(
        [
            RandSlicePairsd("image", num_samples=2, patch_size=4, gap=[1, 2], fractional=True),
            RandScaleIntensityd(["image", "label"], factors=0.5, prob=0.5),
        ]
    )


def draws(epochs, start=0, seed=0, with_handler=True):
    """What each epoch of a training draws: transforms, the order of volumes, and all global generators."""
    items = [{"image": rand(1, 12, 12, 7, seed=k)} for k in range(5)]
    chain = make_chain()
    chain.set_random_state(seed=123 + start)  # whatever state a fresh process has
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
            for epoch, values in resumed.items():
                assert torch.equal(values, whole[epoch])
        # without the handler it would not
        assert not torch.equal(draws(4, start=3, with_handler=False)[4], draws(4, with_handler=False)[4])

    def test_epochs_and_seeds_differ(self):
        drawn = [values for seed in (0, 1, 2) for values in draws(3, seed=seed).values()]
        assert len({tuple(values.tolist()) for values in drawn}) == 9
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
    def train(self, warmup, epochs=4):
        """Train; returns for each epoch the change of running statistics and the gradients of gamma and beta."""
        torch.manual_seed(0)
        network = ASIAutoencoder(channels=(3,), latent_channels=4)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        log = []

        def statistics():
            return [torch.cat([layer.running_mean, layer.running_var]).clone() for layer in norms]

        before = statistics()

        def completed(engine):
            nonlocal before
            after = statistics()
            moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
            gradients = [abs(p.grad).max().item() for layer in norms for p in (layer.weight, layer.bias)]
            log.append((moved, gradients))
            before = after

        batch = {"image": rand(4, 2, 8, 8), "label": rand(4, 1, 8, 8, seed=1), "alpha": torch.full((4,), 0.5)}
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=[batch] * 2,
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), 1e-3),
            loss_function=ASILoss(),
            prepare_batch=PrepareSlicePairs(),
            decollate=False,
            train_handlers=[FreezeNormalizationHandler(network, warmup)],
        )
        trainer.add_event_handler("EPOCH_COMPLETED", completed)
        trainer.run()
        return log

    @pytest.mark.parametrize(("warmup", "frozen"), [(2, 2), (0, 4), (None, 0), (10, 0)])
    def test_statistics_stop_moving(self, warmup, frozen):
        log = self.train(warmup)
        assert len(log) == 4
        for epoch, (moved, gradients) in enumerate(log, 1):
            assert set(moved) == {epoch <= 4 - frozen}
            assert min(gradients) > 0  # gamma and beta are still trained

    def test_toggles(self):
        class Wrapper(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module = module

        network = ASIAutoencoder(channels=(3,), latent_channels=4)
        engine = Engine(lambda engine, batch: None)
        handler = FreezeNormalizationHandler(Wrapper(network), 1)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for epoch, frozen in ((1, False), (2, True), (1, False)):
            engine.state.epoch = epoch
            handler(engine)
            network.train()
            assert network.normalization_frozen is frozen
            assert {layer.training for layer in norms} == {not frozen} and network.encoder.training


class TestMeanLoss:
    """Of two processes, of which the other one has losses ten times as large; real ones are in tests/bundles."""

    def run(self, monkeypatch, processes):
        """Train with a loss of 1 times the weight, then of 2 times; returns what is logged of each, and the weight."""
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


class Validation:
    """A validation engine whose key metric follows a list, with the saver attached."""

    def __init__(self, path, state=None):
        self.network = nn.Linear(1, 1)
        self.saver = BestModelSaver(self.network, path)
        if state is not None:
            self.saver.load_state_dict(state)
        self.score = 0.0
        self.path = path
        outer = self

        class Given(Metric):
            def reset(self):
                pass

            def update(self, output):
                pass

            def compute(self):
                return outer.score

        self.engine = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=[{"image": torch.zeros(1, 1), "label": torch.zeros(1, 1)}],
            network=self.network,
            key_val_metric={"score": Given(from_engine(["pred", "label"]))},
            val_handlers=[self.saver],
        )

    def run(self, epoch, score):
        """Validate weights that hold the number of the epoch; returns the epoch of the file."""
        nn.init.constant_(self.network.weight, epoch)
        self.score = score
        self.engine.run(epoch)
        if not self.path.exists():
            return None
        assert [p.name for p in self.path.parent.iterdir()] == [self.path.name]  # no half file beside it
        return torch.load(self.path, weights_only=True)["weight"].item()


class TestBestModelSaver:
    def test_saves_only_improvements(self, tmp_path):
        validation = Validation(tmp_path / "new" / "model.pt")
        found = [validation.run(k, score) for k, score in enumerate([20.0, 19.0, 21.0, 21.0, 20.5, 22.0], 1)]
        assert found == [1, 1, 3, 3, 3, 6]
        state = validation.saver.state_dict()
        assert state.pop("weights")["weight"].item() == 6
        assert state == {"best_metric": 22.0, "best_metric_epoch": 6}

    def test_best_weights_go_along_to_another_folder(self, tmp_path):
        validation = Validation(tmp_path / "model.pt")
        validation.run(1, 20.0)
        other = BestModelSaver(nn.Linear(1, 1), tmp_path / "other" / "model.pt")
        other.load_state_dict(validation.saver.state_dict())
        assert torch.load(other.path, weights_only=True)["weight"].item() == 1
        # a file that is there already belongs to the training that is resumed
        torch.save({}, other.path)
        other.load_state_dict(validation.saver.state_dict())
        assert torch.load(other.path, weights_only=True) == {}

    def test_first_counts_whatever_it_is(self, tmp_path):
        validation = Validation(tmp_path / "model.pt")
        assert validation.run(1, -50.0) == 1
        assert validation.run(2, -60.0) == 1
        assert validation.run(3, -40.0) == 3

    def test_resume_keeps_the_best(self, tmp_path):
        first = Validation(tmp_path / "model.pt")
        assert [first.run(1, 20.0), first.run(2, 25.0), first.run(3, 22.0)] == [1, 2, 2]
        state = first.saver.state_dict()
        resumed = Validation(tmp_path / "model.pt", state)
        assert [resumed.run(4, 24.0), resumed.run(5, 24.5), resumed.run(6, 26.0)] == [2, 2, 6]
        # without its state a worse model would replace it
        assert Validation(tmp_path / "model.pt").run(7, 10.0) == 7

    def test_wrapper_is_taken_off(self, tmp_path):
        class Wrapper(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module = module

        network = nn.Linear(2, 1)
        saver = BestModelSaver(Wrapper(network), tmp_path / "model.pt")
        engine = Engine(lambda engine, batch: None)
        engine.state.best_metric, engine.state.best_metric_epoch = 1.0, 1
        saver(engine)
        assert set(torch.load(tmp_path / "model.pt", weights_only=True)) == {"weight", "bias"}

    def test_failure_leaves_the_old_file(self, tmp_path, monkeypatch):
        validation = Validation(tmp_path / "model.pt")
        validation.run(1, 1.0)
        before = (tmp_path / "model.pt").read_bytes()

        def fail(state, path):
            path.write_bytes(b"half")
            raise OSError("no space left")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="no space"):
            validation.run(2, 2.0)
        assert (tmp_path / "model.pt").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


class TestCheckStart:
    @pytest.mark.parametrize(
        ("stages", "pretrained", "ckpt"),
        [(["ami"], "", ""), (["ami", "rfn"], "", ""), (["rfn"], "model.pt", ""), (["rfn"], "", "checkpoint.pt")],
    )
    def test_can_start(self, stages, pretrained, ckpt):
        check_start(stages, pretrained, ckpt)

    def test_fusion_of_nothing(self):
        with pytest.raises(ValueError, match="needs what stage ami has trained"):
            check_start(["rfn"], "", "")


class TestCheckValidation:
    @pytest.mark.parametrize(("epochs", "interval"), [(1, 1), (20, 1), (20, 20)])
    def test_validated_at_least_once(self, epochs, interval):
        check_validation(epochs, interval)

    @pytest.mark.parametrize(("epochs", "interval"), [(20, 21), (20, 0), (0, 1), (5, -1)])
    def test_never_validated(self, epochs, interval):
        message = f"rfn_interval {interval} does not fit rfn_epochs {epochs}: .* expected 1 to {epochs}"
        with pytest.raises(ValueError, match=message):
            check_validation(epochs, interval, ("rfn_epochs", "rfn_interval"))
