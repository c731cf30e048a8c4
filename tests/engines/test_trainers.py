# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every trainer against critics: events, output, metrics, precision, wrappers, resumed trainings."""

from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver, MeanAbsoluteError, from_engine
from monai.transforms import Compose, Lambdad, RandGaussianNoised
from torch import nn

from monai_sliceinterp.engines import AtomicCheckpointSaver
from monai_sliceinterp.handlers import EpochSeedHandler
from monai_sliceinterp.networks.nets import VariationalHRINetAutoencoder
from monai_sliceinterp.transforms import RandSliceGroupsd
from tests.engines.helpers import (
    GAN_LOSSES,
    STEP_I,
    STEP_II,
    Wrapper,
    gan_batches,
    gan_items,
    gan_networks,
    gan_trainer,
    patch_discriminator,
    rand,
    same,
    trained_log,
    turn_batches,
    turn_networks,
    turn_trainer,
    weights,
)

GAN = SimpleNamespace(
    networks=gan_networks,
    trainer=gan_trainer,
    batches=gan_batches,
    losses=[GAN_LOSSES],
    data=gan_items,
    draws=lambda: [RandGaussianNoised("image", prob=1.0, std=0.05)],
    random={},
    compared="reconstruction",
    l1={},
    calls=[3, 3],
)
TURNS = SimpleNamespace(
    networks=turn_networks,
    trainer=turn_trainer,
    batches=turn_batches,
    losses=[STEP_I, STEP_II],
    data=lambda: [{"image": rand(1, 12, 10, 9, seed=k)} for k in range(6)],
    draws=lambda: [RandSliceGroupsd("image", 2, 4, 8, (1, 2))],
    random={"network_class": VariationalHRINetAutoencoder, "patch_critic": patch_discriminator},
    compared="supervised",
    l1={"content_loss": nn.L1Loss(), "steps": ["supervised"]},
    calls=[4, 2, 2],
)


def all_weights(networks):
    return {f"{name}.{key}": value for name, network in networks.items() for key, value in weights(network).items()}


def train(kind, epochs, folder=None, saver=CheckpointSaver, start="", seed=3, other_start=0):
    """Train on batches in random order; save the last epoch, or go on from one. Returns weights and losses."""
    transform = Compose(kind.draws()).set_random_state(seed=other_start)
    loader = DataLoader(Dataset(kind.data(), transform), batch_size=2, shuffle=True, num_workers=0)
    networks = kind.networks(other_start, **kind.random)
    settings = {"divergence_weight": 0.1} if kind is TURNS else {}
    handlers = [EpochSeedHandler(transform, seed=seed)]
    trainer = kind.trainer(networks, loader, epochs, optimizer=torch.optim.Adam, train_handlers=handlers, **settings)
    resumable = {"trainer": trainer, **networks}
    resumable |= {f"{name}_optimizer": optimizer for name, optimizer in trainer.optimizers.items()}
    assert len(resumable) == 1 + 2 * len(networks)
    if folder is not None:
        saver(str(folder), resumable, save_interval=1, save_final=True, final_filename="checkpoint.pt").attach(trainer)
    if start:
        CheckpointLoader(str(start), resumable).attach(trainer)
    log = trained_log(trainer)
    assert trainer.state.epoch == epochs
    return all_weights(networks), log


@pytest.mark.parametrize("kind", [GAN, TURNS], ids=["gan", "turns"])
class TestEveryTrainer:
    def test_events(self, kind):
        """Each once per iteration, in the order of MONAI's trainer; with what is known by then, of either step."""
        trainer = kind.trainer(kind.networks(), epochs=2)
        fired = []
        remember = lambda engine, event: fired.append((event.value, set(engine.state.output)))  # noqa: E731
        for event in IterationEvents:
            trainer.add_event_handler(event, remember, event)
        trainer.run()
        order = ["forward_completed", "loss_completed", "backward_completed", "model_completed"]
        assert [name for name, _ in fired] == order * (2 * len(kind.batches()))
        for k, (name, known) in enumerate(fired):
            assert known >= {"image", "label", "pred"}
            if name != "forward_completed":
                assert known - {"image", "label", "pred"} == kind.losses[k // 4 % len(kind.losses)]

    def test_weights_at_the_events(self, kind):
        """The first network has learned by "backward completed", not before; a gradient is that of its iteration."""
        networks, states = kind.networks(), []
        first = next(iter(networks.values()))
        trainer = kind.trainer(networks, kind.batches(1))
        for event in IterationEvents:
            trainer.add_event_handler(event, lambda: states.append(weights(first)))
        trainer.run()
        assert same(states[0], states[1]) and not same(states[1], states[2])

    def test_output(self, kind):
        networks, batches, outputs = kind.networks(), kind.batches(), []
        trainer = kind.trainer(networks, batches)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output))
        trainer.run()
        for k, (output, batch) in enumerate(zip(outputs, batches, strict=True)):
            losses = kind.losses[k % len(kind.losses)]
            assert set(output) == {"image", "label", "pred"} | losses
            assert torch.equal(output["image"], batch["image"]) and torch.equal(output["label"], batch["label"])
            assert all(output[name].ndim == 0 and not output[name].requires_grad for name in losses)

    @pytest.mark.parametrize("decollate", [True, False])
    def test_metrics(self, kind, decollate):
        """The mean absolute error of the last epoch is the mean of the loss that computes it."""
        metric = {"mae": MeanAbsoluteError(output_transform=from_engine(["pred", "label"]))}
        more = {"pixels": MeanAbsoluteError(output_transform=from_engine(["image", "image"]))}
        settings = {"key_train_metric": metric, "additional_metrics": more, "decollate": decollate, **kind.l1}
        trainer, losses = kind.trainer(kind.networks(), epochs=2, **settings), []

        @trainer.on(IterationEvents.MODEL_COMPLETED)
        def remember(engine):
            output = engine.state.output[0] if isinstance(engine.state.output, list) else engine.state.output
            losses.append(float(output[kind.compared]))

        trainer.run()
        epoch = losses[len(losses) // 2 :]
        assert trainer.state.metrics["mae"] == pytest.approx(sum(epoch) / len(epoch), rel=1e-5)
        assert trainer.state.metrics["pixels"] == 0
        assert trainer.state.best_metric_epoch in (1, 2) and trainer.state.key_metric_name == "mae"

    @pytest.mark.parametrize("decollate", [True, False])
    def test_postprocessing(self, kind, decollate):
        """Applied to the output of the engine, item by item, as in MONAI's trainers."""
        transform = Compose([Lambdad("pred", lambda value: value * 0 + value.ndim)])
        batches = kind.batches(1)
        trainer = kind.trainer(kind.networks(), batches, decollate=decollate, postprocessing=transform)
        trainer.run()
        items = trainer.state.output if decollate else [trainer.state.output]
        assert isinstance(items, list) and len(items) == (len(batches[0]["image"]) if decollate else 1)
        for item in items:
            assert (item["pred"] == batches[0]["image"].ndim - decollate).all()
            assert kind.losses[0] <= set(item) and not (decollate and item["pred"].requires_grad)

    def test_training_mode(self, kind):
        """Each iteration sets it, also after a validation has left another one."""
        networks, modes = kind.networks().values(), []
        trainer = kind.trainer(dict(zip(kind.networks(), networks, strict=True)))
        remember = lambda: modes.append({network.training for network in networks})  # noqa: E731
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: [network.eval() for network in networks])
        trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, remember)
        trainer.run()
        assert modes == [{True}] * len(kind.batches())

    def test_double_precision(self, kind):
        networks = {name: network.double() for name, network in kind.networks().items()}
        trainer = kind.trainer(networks, to_kwargs={"dtype": torch.float64})
        trainer.run()
        assert trainer.state.output["pred"].dtype == trainer.state.output["image"].dtype == torch.float64

    def test_wrappers(self, kind):
        """Same result; the wrapper of a critic sees its own loss alone, that of the first network everything."""
        plain, logs = kind.networks(), []
        wrapped = {name: Wrapper(network) for name, network in kind.networks().items()}
        for networks in (plain, wrapped):
            torch.manual_seed(1)
            logs.append(trained_log(kind.trainer(networks)))
        assert logs[0] == logs[1]
        assert same(all_weights(plain), all_weights({name: wrapper.module for name, wrapper in wrapped.items()}))
        assert [wrapper.calls for wrapper in wrapped.values()] == kind.calls

    @pytest.mark.parametrize(("saver", "stop"), [(CheckpointSaver, 2), (AtomicCheckpointSaver, 1)])
    def test_resumed_as_if_never_stopped(self, kind, tmp_path, saver, stop):
        """Also with epochs of three iterations, where the step at their start changes from epoch to epoch."""
        whole = train(kind, 4)
        train(kind, stop, tmp_path, saver)
        resumed = train(kind, 4, start=tmp_path / "checkpoint.pt", other_start=5)
        assert same(whole[0], resumed[0]) and len(whole[1]) == 12 and whole[1][3 * stop :] == resumed[1]

    def test_runs_in_parts(self, kind):
        """The same trainer goes on where it stopped."""
        networks, whole = kind.networks(), kind.networks()
        trainer = kind.trainer(networks, epochs=1)
        torch.manual_seed(1)
        trainer.run()
        trainer.state.max_epochs = 2
        trainer.run()
        assert trainer.state.epoch == 2 and trainer.state.iteration == 2 * len(kind.batches())
        torch.manual_seed(1)
        kind.trainer(whole, epochs=2).run()
        assert same(all_weights(networks), all_weights(whole))
        assert len(trained_log(kind.trainer(whole, epochs=2, epoch_length=2))) == 4
