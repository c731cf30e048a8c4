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

"""Training of a generator against a discriminator."""

from __future__ import annotations

import copy

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor, list_data_collate
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver, MeanAbsoluteError, from_engine
from monai.inferers import Inferer
from monai.losses import PatchAdversarialLoss
from monai.transforms import Compose, Lambdad, RandGaussianNoised
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.engines import (
    AtomicCheckpointSaver,
    ConditionalGANTrainer,
    CriticTrainer,
    PrepareConditionalPairs,
)
from monai_sliceinterp.handlers import EpochSeedHandler, FreezeNormalizationHandler
from monai_sliceinterp.networks.nets import VTSDiscriminator, VTSGenerator

LOSSES = {"loss", "reconstruction", "adversarial", "discriminator"}


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_items(number=6, size=8, seed=0):
    """Sharp random volumes and blurred ones, with what is told of each."""
    items = []
    for k in range(number):
        sharp = rand(1, size, size, size, seed=1000 * seed + k)
        blurred = F.avg_pool3d(F.pad(sharp[None], (1, 1, 0, 0, 0, 0), mode="replicate"), (1, 1, 3), 1)[0]
        condition = torch.zeros(8)
        condition[k % 8] = 1
        items.append({"image": blurred, "label": sharp, "condition": condition})
    return items


def make_batches(number=3, batch_size=2, **kwargs):
    items = make_items(number * batch_size, **kwargs)
    return [list_data_collate(items[k * batch_size : (k + 1) * batch_size]) for k in range(number)]


def make_networks(seed=0):
    """A generator and a discriminator that nothing holds at their start: head and attention are not zero."""
    torch.manual_seed(seed)
    generator, discriminator = VTSGenerator((2, 3)), VTSDiscriminator((2, 4))
    nn.init.normal_(generator.head.weight)
    nn.init.constant_(discriminator.layers[2].weight, 0.5)
    return generator, discriminator


def make_trainer(
    generator,
    discriminator,
    batches=None,
    epochs=1,
    rates=(1e-2, 1e-2),
    optimizer=torch.optim.Adam,
    criterion="bce",
    **kwargs,
):
    settings = {
        "device": "cpu",
        "max_epochs": epochs,
        "train_data_loader": make_batches() if batches is None else batches,
        "generator": generator,
        "discriminator": discriminator,
        "generator_optimizer": optimizer(generator.parameters(), lr=rates[0]),
        "discriminator_optimizer": optimizer(discriminator.parameters(), lr=rates[1]),
        "reconstruction_loss": nn.L1Loss(),
        "adversarial_loss": PatchAdversarialLoss(criterion=criterion),
        "reconstruction_weight": 10.0,
    }
    return ConditionalGANTrainer(**{**settings, **kwargs})


def record(trainer, event=Events.ITERATION_COMPLETED):
    """Losses of each iteration."""
    log = []

    @trainer.on(event)
    def remember(engine):
        log.append({name: float(value) for name, value in engine.state.output.items() if name in LOSSES})

    return log


def weights(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def bce(logits, real):
    return F.softplus(-logits if real else logits).mean()


def least_squares(logits, real):
    """Of MONAI's loss, which passes the numbers through a leaky ReLU."""
    return ((F.leaky_relu(logits, 0.05) - float(real)) ** 2).mean()


def train_by_hand(generator, discriminator, batches, rates, weights, loss_function, optimizer=torch.optim.Adam):
    """Eq. 1 and 2 of the paper: each iteration, a step of the discriminator, then one of the generator."""
    steps = [
        optimizer(network.parameters(), lr=rate)
        for network, rate in zip((generator, discriminator), rates, strict=True)
    ]
    generator.train(), discriminator.train()
    log = []
    for batch in batches:
        thick, thin, told = batch["image"], batch["label"], batch["condition"]
        made = generator(thick)
        steps[1].zero_grad()
        logits = discriminator(
            torch.cat([torch.cat([thick, thin], 1), torch.cat([thick, made.detach()], 1)]), torch.cat([told, told])
        )
        critic = (loss_function(logits[: len(thick)], True) + loss_function(logits[len(thick) :], False)) / 2
        critic.backward()
        steps[1].step()
        steps[0].zero_grad()
        adversarial = loss_function(discriminator(torch.cat([thick, made], 1), told), True)
        reconstruction = (made - thin).abs().mean()
        loss = weights[0] * reconstruction + weights[1] * adversarial
        loss.backward()
        steps[0].step()
        values = (loss, reconstruction, adversarial, critic)
        names = ("loss", "reconstruction", "adversarial", "discriminator")
        log.append({name: float(value.detach()) for name, value in zip(names, values, strict=True)})
    return log


class TestByHand:
    @pytest.mark.parametrize(("criterion", "loss_function"), [("bce", bce), ("least_squares", least_squares)])
    @pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
    def test_training(self, criterion, loss_function, optimizer):
        """Several iterations give the losses and the networks that plain torch gives."""
        networks = make_networks()
        copies = copy.deepcopy(networks)
        batches = make_batches(4)
        trainer = make_trainer(
            *networks,
            batches,
            rates=(3e-3, 7e-3),
            optimizer=optimizer,
            criterion=criterion,
            reconstruction_weight=5.0,
            adversarial_weight=0.7,
        )
        log = record(trainer)
        trainer.run()
        expected = train_by_hand(*copies, batches, (3e-3, 7e-3), (5.0, 0.7), loss_function, optimizer)
        assert len(log) == 4
        for found, values in zip(log, expected, strict=True):
            assert found == pytest.approx(values, rel=2e-4)
        for network, other in zip(networks, copies, strict=True):
            for name, value in network.state_dict().items():
                torch.testing.assert_close(value, other.state_dict()[name], rtol=2e-3, atol=2e-4)

    @pytest.mark.parametrize("weights_of_losses", [(3.0, 0.25), (0.0, 1.0)])
    def test_losses_of_networks_that_stay(self, weights_of_losses):
        """Without batch normalization and with rates of zero, the losses follow from the networks alone."""
        torch.manual_seed(0)
        generator, discriminator = nn.Conv3d(1, 1, 3, padding=1), VTSDiscriminator((2,))
        batches = make_batches()
        trainer = make_trainer(
            generator,
            discriminator,
            batches,
            rates=(0.0, 0.0),
            reconstruction_weight=weights_of_losses[0],
            adversarial_weight=weights_of_losses[1],
        )
        log = record(trainer)
        trainer.run()
        for batch, found in zip(batches, log, strict=True):
            thick, thin, told = batch["image"], batch["label"], batch["condition"]
            with torch.no_grad():
                made = generator(thick)
                real = discriminator(torch.cat([thick, thin], 1), told)
                fake = discriminator(torch.cat([thick, made], 1), told)
            expected = {
                "reconstruction": (made - thin).abs().mean(),
                "adversarial": -torch.sigmoid(fake).log().mean(),
                "discriminator": -0.5 * (torch.sigmoid(real).log() + torch.sigmoid(-fake).log()).mean(),
            }
            expected["loss"] = (
                weights_of_losses[0] * expected["reconstruction"] + weights_of_losses[1] * expected["adversarial"]
            )
            assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)


class TestUpdates:
    @pytest.mark.parametrize("moving", ["generator", "discriminator"])
    def test_own_parameters_only(self, moving):
        """With the other's rate at zero, only one network's parameters move, all of them."""
        networks = dict(zip(("generator", "discriminator"), make_networks(), strict=True))
        before = {name: weights(network) for name, network in networks.items()}
        rates = (1e-2, 0.0) if moving == "generator" else (0.0, 1e-2)
        make_trainer(*networks.values(), rates=rates).run()
        for name, network in networks.items():
            for key, value in network.named_parameters():
                assert torch.equal(value, before[name][key]) is (name != moving), key

    def test_each_loss_moves_its_network(self):
        """The generator learns from both of its losses, the discriminator from none of these."""
        results = {}
        for key, setting in {
            "both": {},
            "reconstruction": {"adversarial_weight": 0.0},
            "adversarial": {"reconstruction_weight": 0.0},
        }.items():
            networks = make_networks()
            make_trainer(*networks, make_batches(1), optimizer=torch.optim.SGD, **setting).run()
            results[key] = weights(networks[0])["head.weight"], weights(networks[1])
        heads = [head for head, _ in results.values()]
        assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
        assert not torch.equal(heads[1], heads[2])
        assert same(results["both"][1], results["adversarial"][1])

    def test_gradient_does_not_add_up(self):
        """Each step takes the gradient of its own iteration."""
        networks = make_networks()
        trainer = make_trainer(*networks, rates=(0.0, 0.0), optimizer=torch.optim.SGD)
        gradients = []
        trainer.add_event_handler(
            IterationEvents.MODEL_COMPLETED,
            lambda: gradients.append([network.head.weight.grad.clone() for network in networks[:1]]),
        )
        trainer.run()
        alone = make_networks()
        make_trainer(*alone, make_batches()[2:], rates=(0.0, 0.0), optimizer=torch.optim.SGD).run()
        torch.testing.assert_close(gradients[2][0], alone[0].head.weight.grad, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("limit", [1e-3, 1e6, None])
    def test_largest_gradient(self, limit):
        """With plain gradient descent the step is the gradient."""
        steps = []
        for max_grad_norm in (None, limit):
            networks = make_networks()
            before = [torch.cat([value.flatten() for value in network.parameters()]).detach() for network in networks]
            batches = make_batches(number=1)
            rates = (1.0, 1.0)
            make_trainer(*networks, batches, rates=rates, optimizer=torch.optim.SGD, max_grad_norm=max_grad_norm).run()
            after = [torch.cat([value.flatten() for value in network.parameters()]).detach() for network in networks]
            steps.append([new - old for new, old in zip(after, before, strict=True)])
        generator, discriminator = steps[1]
        if limit == 1e-3:
            for limited, free in zip(*reversed(steps), strict=True):
                assert free.norm() > 0.01
                assert limited.norm().item() == pytest.approx(limit, rel=1e-2)
            # the direction stays; that of the generator depends on the discriminator it meets
            cosine = torch.nn.functional.cosine_similarity(discriminator, steps[0][1], dim=0)
            assert cosine.item() == pytest.approx(1, abs=1e-3)
        else:
            torch.testing.assert_close(generator, steps[0][0])

    @pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
    def test_wrong_largest_gradient(self, limit):
        with pytest.raises(ValueError, match=f"max_grad_norm must be positive, or None for no limit, got {limit}"):
            make_trainer(*make_networks(), max_grad_norm=limit)

    def test_training_mode(self):
        """Each iteration sets it, also after a validation has left another one."""
        networks = make_networks()
        trainer = make_trainer(*networks)
        modes = []
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: [network.eval() for network in networks])
        trainer.add_event_handler(
            IterationEvents.FORWARD_COMPLETED, lambda: modes.append([network.training for network in networks])
        )
        trainer.run()
        assert modes == [[True, True]] * 3

    def test_frozen_normalization(self):
        """After the warm-up the generator's statistics stay, the discriminator's go on."""
        networks = make_networks()
        handlers = [FreezeNormalizationHandler(networks[0], 1)]
        trainer = make_trainer(*networks, epochs=3, train_handlers=handlers)
        log = []
        trainer.add_event_handler(
            Events.EPOCH_COMPLETED,
            lambda: log.append(
                [
                    networks[0].encoder[1][0].adn.N.running_mean.clone(),
                    networks[1].layers[1][0].adn.N.running_mean.clone(),
                ]
            ),
        )
        before = [networks[0].encoder[1][0].adn.N.running_mean.clone()]
        trainer.run()
        assert not torch.equal(log[0][0], before[0])
        assert torch.equal(log[0][0], log[1][0]) and torch.equal(log[1][0], log[2][0])
        assert not torch.equal(log[0][1], log[1][1]) and not torch.equal(log[1][1], log[2][1])

    @pytest.mark.parametrize("criterion", ["bce", "least_squares"])
    def test_learns(self, criterion):
        """Blurred volumes get sharper: the error falls well below that of the input."""
        torch.manual_seed(0)
        generator, discriminator = VTSGenerator((8, 8), residual_scale=1.0), VTSDiscriminator((4, 4))
        trainer = make_trainer(
            generator,
            discriminator,
            make_batches(4, 4),
            epochs=30,
            rates=(1e-2, 1e-3),
            criterion=criterion,
            reconstruction_weight=100.0,
        )
        log = record(trainer)
        trainer.run()
        start = sum(values["reconstruction"] for values in log[:4]) / 4
        end = sum(values["reconstruction"] for values in log[-4:]) / 4
        assert 0.15 < start < 0.3 and end < 0.75 * start, (start, end)

    def test_discriminator_learns(self):
        """Shown what a generator that does not learn makes, it tells it from the truth."""
        torch.manual_seed(0)
        networks = VTSGenerator((2, 2)), VTSDiscriminator((4, 4))
        trainer = make_trainer(*networks, make_batches(2, 4), epochs=30, rates=(0.0, 1e-2))
        log = record(trainer)
        trainer.run()
        assert log[0]["discriminator"] > 0.55 and log[-1]["discriminator"] < 0.35
        assert log[-1]["adversarial"] > 2 * log[0]["adversarial"]


class Spy(nn.Module):
    """Discriminator that remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv3d(2, 1, 2, stride=2)
        self.seen = []

    def forward(self, image, **kwargs):
        trained = self.layer.weight.requires_grad
        self.seen.append((image.detach().clone(), image.requires_grad, kwargs, trained, torch.is_grad_enabled()))
        return self.layer(image)


class TestSeen:
    @pytest.mark.parametrize("key", ["condition", "told", None])
    def test_by_discriminator(self, key):
        generator, spy = make_networks()[0], Spy()
        batches = make_batches(2)
        for batch in batches:
            batch["told"] = batch["condition"] + 2
        trainer = make_trainer(generator, spy, batches, rates=(1e-2, 1e-2), prepare_batch=PrepareConditionalPairs(key))
        outputs = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output))
        trainer.run()
        assert len(spy.seen) == 4
        for k, batch in enumerate(batches):
            thick, thin, made = batch["image"], batch["label"], outputs[k]["pred"].detach()
            image, linked, told, trained, _ = spy.seen[2 * k]
            # true pairs, then made ones, cut off from the generator
            assert image.shape == (4, 2, 8, 8, 8) and not linked and trained
            assert torch.equal(image[:2], torch.cat([thick, thin], 1))
            assert torch.equal(image[2:], torch.cat([thick, made], 1))
            image, linked, again, trained, enabled = spy.seen[2 * k + 1]
            assert torch.equal(image, torch.cat([thick, made], 1))
            assert linked and not trained and enabled
            if key is None:
                assert told == again == {}
            else:
                assert set(told) == set(again) == {"condition"}
                assert torch.equal(again["condition"], batch[key])
                assert torch.equal(told["condition"], torch.cat([batch[key], batch[key]]))
        assert not torch.equal(outputs[0]["pred"], batches[0]["label"])

    def test_adversarial_loss(self):
        """Called for true pairs, made ones, and made ones that shall look true."""
        calls = []

        def loss(logits, target_is_real, for_discriminator):
            calls.append((logits.shape[0], logits.dtype, target_is_real, for_discriminator))
            return (logits**2).mean()

        make_trainer(*make_networks(), make_batches(1), adversarial_loss=loss).run()
        single = torch.float32
        assert calls == [(2, single, True, True), (2, single, False, True), (2, single, True, False)]

    def test_no_adversarial_weight(self):
        """The generator is trained alone: the discriminator and its loss are not called."""
        generator, spy = make_networks()[0], Spy()
        before = weights(spy)
        trainer = make_trainer(generator, spy, adversarial_weight=0, adversarial_loss=None)
        log = record(trainer)
        trainer.run()
        assert spy.seen == [] and same(before, weights(spy)) and len(log) == 3
        for values in log:
            assert set(values) == {"loss", "reconstruction"}
            assert values["loss"] == pytest.approx(10 * values["reconstruction"], rel=1e-6)

    def test_whole_volumes(self):
        """A discriminator with one number per volume."""
        torch.manual_seed(0)
        networks = make_networks()[0], VTSDiscriminator((2, 4), whole=True)
        trainer = make_trainer(*networks)
        log = record(trainer)
        trainer.run()
        assert [set(values) for values in log] == [LOSSES] * 3

    def test_inferer(self):
        class Half(Inferer):
            def __call__(self, inputs, network, *args, **kwargs):
                assert args == () and kwargs == {}
                return 0.5 * network(inputs)

        networks = make_networks()
        copied = copy.deepcopy(networks[0])
        batch = make_batches(1)
        trainer = make_trainer(*networks, batch, inferer=Half())
        trainer.run()
        torch.testing.assert_close(trainer.state.output["pred"], 0.5 * copied.train()(batch[0]["image"]))

    def test_double_precision(self):
        networks = [network.double() for network in make_networks()]
        trainer = make_trainer(*networks, to_kwargs={"dtype": torch.float64})
        trainer.run()
        assert trainer.state.output["pred"].dtype == trainer.state.output["image"].dtype == torch.float64

    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_mixed_precision_is_for_gpus(self):
        results = []
        for amp in (False, True):
            networks = make_networks()
            trainer = make_trainer(*networks, amp=amp)
            trainer.run()
            results.append(weights(networks[0]) | weights(networks[1]))
        assert same(*results)


class TestEngine:
    def test_events(self):
        """Each once per iteration, in the order of MONAI's trainer; with what is known by then."""
        trainer = make_trainer(*make_networks(), epochs=2)
        fired = []
        for event in IterationEvents:
            trainer.add_event_handler(
                event, lambda engine, event: fired.append((event.value, set(engine.state.output))), event
            )
        trainer.run()
        order = ["forward_completed", "loss_completed", "backward_completed", "model_completed"]
        assert [name for name, _ in fired] == order * 6
        for name, known in fired:
            assert {"image", "label", "pred"} <= known
            if name in ("backward_completed", "model_completed"):
                assert known >= LOSSES

    def test_losses_at_loss_completed(self):
        """MONAI's trainers have the loss in their output when they tell that it is computed."""
        trainer = make_trainer(*make_networks())
        known = []
        trainer.add_event_handler(
            IterationEvents.LOSS_COMPLETED, lambda engine: known.append(set(engine.state.output) & LOSSES)
        )
        trainer.run()
        assert known == [LOSSES] * 3

    def test_output(self):
        networks, batches = make_networks(), make_batches()
        trainer = make_trainer(*networks, batches)
        outputs = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output))
        trainer.run()
        for output, batch in zip(outputs, batches, strict=True):
            assert set(output) == {"image", "label", "pred"} | LOSSES
            assert torch.equal(output["image"], batch["image"]) and torch.equal(output["label"], batch["label"])
            assert output["pred"].shape == (2, 1, 8, 8, 8)
            assert all(output[name].ndim == 0 and not output[name].requires_grad for name in LOSSES)

    def test_key_metric(self):
        """Of decollated outputs: the mean absolute error of the epoch is the mean of the reconstruction loss."""
        networks = make_networks()
        metric = {"train_mae": MeanAbsoluteError(output_transform=from_engine(["pred", "label"]))}
        trainer = make_trainer(*networks, epochs=2, key_train_metric=metric, decollate=True)
        losses = []
        trainer.add_event_handler(
            IterationEvents.MODEL_COMPLETED, lambda engine: losses.append(engine.state.output[0]["reconstruction"])
        )
        trainer.run()
        assert len(losses) == 6
        assert trainer.state.metrics["train_mae"] == pytest.approx(float(sum(losses[3:]) / 3), rel=1e-5)
        assert trainer.state.best_metric_epoch in (1, 2) and trainer.state.key_metric_name == "train_mae"

    def test_metric_of_the_batch(self):
        metric = {"train_mae": MeanAbsoluteError(output_transform=from_engine(["pred", "label"]))}
        more = {"train_other": MeanAbsoluteError(output_transform=from_engine(["image", "label"]))}
        batches = make_batches()
        trainer = make_trainer(*make_networks(), batches, key_train_metric=metric, additional_metrics=more)
        log = record(trainer)
        trainer.run()
        expected = sum(values["reconstruction"] for values in log) / 3
        assert trainer.state.metrics["train_mae"] == pytest.approx(expected, rel=1e-5)
        expected = sum(float((batch["image"] - batch["label"]).abs().mean()) for batch in batches) / 3
        assert trainer.state.metrics["train_other"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("with_metric", [True, False])
    def test_postprocessing(self, with_metric):
        """What the engine puts out is decollated and postprocessed, as that of MONAI's trainers."""
        post = Compose([Lambdad(["pred", "label"], lambda value: value * 0 + value.ndim)])
        networks = make_networks()
        metric = None
        if with_metric:
            metric = {"sum": MeanAbsoluteError(output_transform=lambda output: (output[0]["pred"], output[0]["image"]))}
        trainer = make_trainer(*networks, make_batches(1), decollate=True, postprocessing=post, key_train_metric=metric)
        trainer.run()
        output = trainer.state.output
        assert isinstance(output, list) and len(output) == 2
        for item in output:
            assert item["pred"].shape == (1, 8, 8, 8) and (item["pred"] == 4).all()  # a volume, without the batch
            assert not item["pred"].requires_grad and {"loss", "adversarial"} <= set(item)
        if with_metric:
            expected = float((4 - output[0]["image"]).abs().mean())
            assert trainer.state.metrics["sum"] == pytest.approx(expected, rel=1e-5)

    def test_postprocessing_of_the_batch(self):
        post = Compose([Lambdad("pred", lambda value: value * 0 + value.ndim)])
        trainer = make_trainer(*make_networks(), make_batches(1), postprocessing=post)
        trainer.run()
        assert (trainer.state.output["pred"] == 5).all()

    def test_epoch_length(self):
        trainer = make_trainer(*make_networks(), epochs=2, epoch_length=2)
        log = record(trainer)
        trainer.run()
        assert len(log) == 4 and trainer.state.epoch == 2

    @pytest.mark.parametrize("setting", [{"reconstruction_weight": -1.0}, {"adversarial_weight": -0.1}])
    def test_negative_weight(self, setting):
        with pytest.raises(ValueError, match="the weights of the losses must not be negative, got") as caught:
            make_trainer(*make_networks(), **setting)
        assert repr(next(iter(setting.values()))) in str(caught.value) and "\n" not in str(caught.value)

    def test_default_weights(self):
        """Lambda is not in the paper; Pix2Pix' is 100."""
        generator, discriminator = make_networks()
        optimizers = [torch.optim.Adam(network.parameters()) for network in (generator, discriminator)]
        trainer = ConditionalGANTrainer(
            "cpu", 1, make_batches(), generator, discriminator, *optimizers, nn.L1Loss(), PatchAdversarialLoss()
        )
        log = record(trainer)
        trainer.run()
        for values in log:
            assert values["loss"] == pytest.approx(100 * values["reconstruction"] + values["adversarial"], rel=1e-5)

    def test_unknown_optimizer(self):
        network = nn.Linear(1, 1)
        optimizers = {name: torch.optim.SGD(network.parameters(), 0.1) for name in ("b", "a", "critic")}
        with pytest.raises(ValueError, match=r"optimizers of unknown networks \['a', 'b'\]; expected some of"):
            CriticTrainer("cpu", 1, [0], {"critic": network}, optimizers, PrepareConditionalPairs())


class Wrapper(nn.Module):
    """A wrapper as those for distributed training are."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.calls = 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return self.module(*args, **kwargs)


class TestFrozen:
    @pytest.mark.parametrize("fails", [True, False])
    def test_restored(self, fails):
        """Parameters that took no gradient before take none afterwards."""
        generator, discriminator = make_networks()
        trainer = make_trainer(generator, discriminator)
        discriminator.layers[0].requires_grad_(False)
        before = [value.requires_grad for value in discriminator.parameters()]
        assert True in before and False in before
        try:
            with trainer.frozen("discriminator") as network:
                assert network is discriminator
                assert not any(value.requires_grad for value in discriminator.parameters())
                assert all(value.requires_grad for value in generator.parameters())
                if fails:
                    raise RuntimeError("within")
        except RuntimeError as error:
            assert fails and str(error) == "within"
        assert [value.requires_grad for value in discriminator.parameters()] == before

    def test_restored_in_training(self):
        generator, discriminator = make_networks()
        discriminator.layers[0].requires_grad_(False)
        before = [value.requires_grad for value in discriminator.parameters()]
        first = weights(discriminator.layers[0])
        trainer = make_trainer(generator, discriminator)
        log = []
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda: log.append([value.requires_grad for value in discriminator.parameters()]),
        )
        trainer.run()
        assert log == [before] * 3
        assert same(first, weights(discriminator.layers[0]))

    def test_restored_after_a_failure(self):
        """Here of the discriminator, where it judges what the generator made."""
        generator, spy = make_networks()[0], Spy()
        trainer = make_trainer(generator, spy)

        def fail(layer, args):
            if not layer.weight.requires_grad:
                raise RuntimeError("broken")

        spy.layer.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="broken"):
            trainer.run()
        assert len(spy.seen) == 2 and all(value.requires_grad for value in spy.parameters())

    def test_unwrapped(self):
        network = Wrapper(make_networks()[1])
        trainer = make_trainer(make_networks()[0], network)
        with trainer.frozen("discriminator") as found:
            assert found is network.module

    def test_training_with_wrappers(self):
        """Same result; the wrapper of the discriminator sees the loss of the discriminator alone."""
        plain, wrapped = make_networks(), [Wrapper(network) for network in make_networks()]
        logs = []
        for networks in (plain, wrapped):
            trainer = make_trainer(*networks)
            logs.append(record(trainer))
            trainer.run()
        assert logs[0] == logs[1]
        for network, wrapper in zip(plain, wrapped, strict=True):
            assert same(weights(network), weights(wrapper.module))
        assert [wrapper.calls for wrapper in wrapped] == [3, 3]

    def test_distributed(self, tmp_path):
        """DistributedDataParallel, of a single process."""
        if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
            pytest.skip("needs gloo")
        plain = make_networks()
        make_trainer(*plain, epochs=2).run()
        networks = make_networks()
        idist.initialize("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
        try:
            assert torch.distributed.is_initialized()
            wrapped = [nn.parallel.DistributedDataParallel(network) for network in networks]
            trainer = make_trainer(*wrapped, epochs=2)
            log = record(trainer)
            trainer.run()
        finally:
            idist.finalize()
        assert len(log) == 6
        for network, other in zip(plain, networks, strict=True):
            assert same(weights(network), weights(other))


def make_loader(seed=0):
    """Batches in random order, with random noise."""
    transform = Compose([RandGaussianNoised("image", prob=1.0, std=0.05)]).set_random_state(seed=seed)
    return DataLoader(Dataset(make_items(), transform), batch_size=2, shuffle=True, num_workers=0), transform


def train(epochs, folder=None, saver=CheckpointSaver, start="", seed=3, other_start=0):
    """Train; optionally keep the last epoch, or go on from one. Returns weights, losses of each iteration."""
    loader, transform = make_loader(other_start)
    generator, discriminator = make_networks(other_start)
    trainer = make_trainer(
        generator, discriminator, loader, epochs, train_handlers=[EpochSeedHandler(transform, seed=seed)]
    )
    log = record(trainer)
    resumable = {"trainer": trainer, "network": generator, "discriminator": discriminator}
    resumable |= {f"{name}_optimizer": optimizer for name, optimizer in trainer.optimizers.items()}
    if folder is not None:
        saver(str(folder), resumable, save_final=True, final_filename="checkpoint.pt").attach(trainer)
    if start:
        CheckpointLoader(str(start), resumable).attach(trainer)
    trainer.run()
    assert trainer.state.epoch == epochs
    return weights(generator), weights(discriminator), log


class TestResume:
    @pytest.mark.parametrize("saver", [CheckpointSaver, AtomicCheckpointSaver])
    def test_as_if_never_stopped(self, tmp_path, saver):
        whole = train(4)
        train(2, tmp_path, saver)
        resumed = train(4, start=tmp_path / "checkpoint.pt", other_start=5)
        assert same(whole[0], resumed[0]) and same(whole[1], resumed[1])
        assert len(whole[2]) == 12 and whole[2][6:] == resumed[2]

    def test_same_seed(self):
        first, second, other = train(2), train(2), train(2, seed=4)
        assert same(first[0], second[0]) and same(first[1], second[1]) and first[2] == second[2]
        assert not same(first[0], other[0]) and first[2] != other[2]

    def test_runs_in_parts(self):
        """The same trainer goes on where it stopped."""
        generator, discriminator = make_networks()
        trainer = make_trainer(generator, discriminator, epochs=1)
        trainer.run()
        trainer.state.max_epochs = 2
        trainer.run()
        assert trainer.state.epoch == 2 and trainer.state.iteration == 6
        whole = make_networks()
        make_trainer(*whole, epochs=2).run()
        assert same(weights(whole[0]), weights(generator))


class TestPrepareConditionalPairs:
    @pytest.mark.parametrize("key", ["condition", "told"])
    def test_batch(self, key):
        batch = {"image": rand(2, 1, 4, 4, 4), "label": rand(2, 1, 4, 4, 4, seed=1), key: rand(2, 8, seed=2)}
        image, label, args, kwargs = PrepareConditionalPairs(key)(batch, "cpu", True, dtype=torch.float64)
        assert args == () and set(kwargs) == {"condition"}
        for found, expected in ((image, batch["image"]), (label, batch["label"]), (kwargs["condition"], batch[key])):
            assert found.dtype == torch.float64 and torch.equal(found, expected.double())

    def test_plain_tensors(self):
        batch = {
            "image": MetaTensor(rand(2, 1, 4, 4, 4), affine=torch.eye(4)),
            "label": MetaTensor(rand(2, 1, 4, 4, 4, seed=1)),
            "condition": MetaTensor(rand(2, 8)),
        }
        image, label, _, kwargs = PrepareConditionalPairs()(batch)
        for found, expected in ((image, "image"), (label, "label"), (kwargs["condition"], "condition")):
            assert type(found) is torch.Tensor and torch.equal(found, batch[expected].as_tensor())
        assert type(batch["image"]) is MetaTensor

    def test_no_condition(self):
        batch = {"image": rand(2, 1, 4, 4, 4), "label": rand(2, 1, 4, 4, 4, seed=1), "condition": rand(2, 8)}
        image, label, args, kwargs = PrepareConditionalPairs(None)(batch)
        assert (args, kwargs) == ((), {})
        assert torch.equal(image, batch["image"]) and torch.equal(label, batch["label"])

    def test_missing_condition(self):
        with pytest.raises(KeyError, match="condition"):
            PrepareConditionalPairs()({"image": rand(1, 1, 2, 2, 2), "label": rand(1, 1, 2, 2, 2)})
