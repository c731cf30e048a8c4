# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Training of a generator against a discriminator, against plain torch."""

import copy
import math

import pytest
import torch
from monai.inferers import Inferer
from monai.losses import PatchAdversarialLoss
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.engines import ConditionalGANTrainer, CriticTrainer, PrepareConditionalPairs
from tests.engines.helpers import Wrapper, bce, gan_batches, gan_networks, gan_trainer, same, trained_log, weights


def least_squares(logits, real):
    """As in MONAI's loss, which passes the numbers through a leaky ReLU."""
    return ((F.leaky_relu(logits, 0.05) - float(real)) ** 2).mean()


CRITERIA = {"bce": bce, "least_squares": least_squares}


def train_by_hand(networks, batches, rates, factors, loss_function, optimizer):
    """Eq. 1 and 2 of the paper: each iteration, a step of the discriminator, then one of the generator."""
    generator, discriminator = networks.values()
    steps = [optimizer(network.parameters(), lr=rate) for network, rate in zip(networks.values(), rates, strict=True)]
    generator.train(), discriminator.train()
    log = []
    for batch in batches:
        thick, thin, condition = batch["image"], batch["label"], batch["condition"]
        pred = generator(thick)
        steps[1].zero_grad()
        true, twice = torch.cat([thick, thin], 1), torch.cat([condition, condition])
        logits = discriminator(torch.cat([true, torch.cat([thick, pred.detach()], 1)]), twice)
        critic = (loss_function(logits[: len(thick)], True) + loss_function(logits[len(thick) :], False)) / 2
        critic.backward()
        steps[1].step()
        steps[0].zero_grad()
        logits = discriminator(torch.cat([true, torch.cat([thick, pred], 1)]), twice)
        adversarial = loss_function(logits[len(thick) :], True)
        reconstruction = (pred - thin).abs().mean()
        loss = factors[0] * reconstruction + factors[1] * adversarial
        loss.backward()
        steps[0].step()
        values = {"loss": loss, "reconstruction": reconstruction, "adversarial": adversarial, "discriminator": critic}
        log.append({name: float(value.detach()) for name, value in values.items()})
    return log


class TestByHand:
    @pytest.mark.parametrize("criterion", CRITERIA)
    @pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
    def test_training(self, criterion, optimizer):
        """Several iterations give the losses and the networks that plain torch gives."""
        networks, batches, rates = gan_networks(), gan_batches(4), (3e-3, 7e-3)
        copies = copy.deepcopy(networks)
        settings = {"rates": rates, "optimizer": optimizer, "reconstruction_weight": 5.0, "adversarial_weight": 0.7}
        adversarial = PatchAdversarialLoss(criterion=criterion)
        log = trained_log(gan_trainer(networks, batches, adversarial_loss=adversarial, **settings))
        expected = train_by_hand(copies, batches, rates, (5.0, 0.7), CRITERIA[criterion], optimizer)
        assert len(log) == 4
        for found, values in zip(log, expected, strict=True):
            assert found == pytest.approx(values, rel=2e-4)
        for name, network in networks.items():
            for key, value in network.state_dict().items():
                torch.testing.assert_close(value, copies[name].state_dict()[key], rtol=2e-3, atol=2e-4)


def flat_parameters(network):
    return torch.cat([value.detach().flatten() for value in network.parameters()])


class TestUpdates:
    @pytest.mark.parametrize("limit", [1e-3, 1e6, None])
    def test_largest_gradient(self, limit):
        """With plain gradient descent the step is the gradient."""
        steps = []
        for max_grad_norm in (None, limit):
            networks = gan_networks()
            start = [flat_parameters(network) for network in networks.values()]
            settings = {"rates": (1.0, 1.0), "optimizer": torch.optim.SGD, "max_grad_norm": max_grad_norm}
            gan_trainer(networks, gan_batches(1), **settings).run()
            end = [flat_parameters(network) for network in networks.values()]
            steps.append([new - old for new, old in zip(end, start, strict=True)])
        if limit == 1e-3:
            for free, limited in zip(*steps, strict=True):
                assert free.norm() > 0.01
                assert limited.norm().item() == pytest.approx(limit, rel=1e-2)
            # the direction stays; that of the generator depends on the discriminator it meets
            assert F.cosine_similarity(steps[0][1], steps[1][1], dim=0).item() == pytest.approx(1, abs=1e-3)
        else:
            torch.testing.assert_close(steps[0][0], steps[1][0])


class Spy(nn.Module):
    """Discriminator that records what it sees."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv3d(2, 1, 2, stride=2)
        self.seen = []

    def forward(self, image, **kwargs):
        trained = self.layer.weight.requires_grad
        self.seen.append((image.detach().clone(), image.requires_grad, kwargs, trained, torch.is_grad_enabled()))
        return self.layer(image)


class TestSeen:
    @pytest.mark.parametrize("key", ["condition", "other", None])
    def test_by_discriminator(self, key):
        """True and predicted pairs, detached from the generator; then, to judge and not to learn, the same again."""
        networks, (batch,) = gan_networks() | {"discriminator": Spy()}, gan_batches(1)
        batch["other"] = batch["condition"] + 2
        trainer = gan_trainer(networks, [batch], prepare_batch=PrepareConditionalPairs(key))
        trainer.run()
        thick, thin, pred = batch["image"], batch["label"], trainer.state.output["pred"].detach()
        learning, judging = networks["discriminator"].seen
        pairs = torch.cat([torch.cat([thick, thin], 1), torch.cat([thick, pred], 1)])
        assert torch.equal(learning[0], pairs) and learning[3]
        assert torch.equal(judging[0], pairs) and not judging[3] and judging[4]
        assert (learning[1], judging[1]) == (False, True)  # linked to the generator
        if key is None:
            assert learning[2] == judging[2] == {}
        else:
            twice = torch.cat([batch[key], batch[key]])
            assert torch.equal(judging[2]["condition"], twice) and torch.equal(learning[2]["condition"], twice)

    def test_adversarial_loss(self):
        """Called for true pairs, predicted ones, and predicted ones as if they were true."""
        calls = []

        def loss(logits, target_is_real, for_discriminator):
            calls.append((logits.shape[0], logits.dtype, target_is_real, for_discriminator))
            return (logits**2).mean()

        gan_trainer(gan_networks(), gan_batches(1), adversarial_loss=loss).run()
        single = torch.float32
        assert calls == [(2, single, True, True), (2, single, False, True), (2, single, True, False)]

    def test_same_verdict(self):
        """A discriminator with batch normalization judges a prediction alike in both steps."""
        verdicts = []

        def loss(logits, target_is_real, for_discriminator):
            verdicts.append(logits.detach().clone())
            return (logits**2).mean()

        gan_trainer(gan_networks(), gan_batches(1), rates=(1e-2, 0.0), adversarial_loss=loss).run()
        true, learned, judged = verdicts
        torch.testing.assert_close(judged, learned)
        assert not torch.allclose(true, learned, rtol=1e-2)

    def test_no_adversarial_weight(self):
        """The generator is trained alone: the discriminator and its loss are not called."""
        networks = gan_networks() | {"discriminator": Spy()}
        before = weights(networks["discriminator"])
        log = trained_log(gan_trainer(networks, adversarial_weight=0, adversarial_loss=None))
        assert networks["discriminator"].seen == [] and same(before, weights(networks["discriminator"]))
        assert len(log) == 3
        for values in log:
            assert set(values) == {"loss", "reconstruction"}
            assert values["loss"] == pytest.approx(10 * values["reconstruction"], rel=1e-6)

    def test_inferer(self):
        class Half(Inferer):
            def __call__(self, inputs, network, *args, **kwargs):
                assert args == () and kwargs == {}
                return 0.5 * network(inputs)

        networks, batch = gan_networks(), gan_batches(1)
        expected = 0.5 * copy.deepcopy(networks["generator"]).train()(batch[0]["image"])
        trainer = gan_trainer(networks, batch, inferer=Half())
        trainer.run()
        torch.testing.assert_close(trainer.state.output["pred"], expected)


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"reconstruction_weight": -1.0}, "reconstruction_weight must be zero or a positive number, got -1.0"),
            ({"adversarial_weight": -0.1}, "adversarial_weight must be zero or a positive number, got -0.1"),
            *(({"max_grad_norm": x}, f"max_grad_norm must be a positive number, got {x}") for x in (0, -1.0, math.nan)),
        ],
    )
    def test_wrong(self, wrong, message):
        with pytest.raises(ValueError, match=message) as caught:
            gan_trainer(gan_networks(), **wrong)
        assert "\n" not in str(caught.value)

    def test_unknown_optimizer(self):
        network = nn.Linear(1, 1)
        optimizers = {name: torch.optim.SGD(network.parameters(), 0.1) for name in ("b", "a", "critic")}
        with pytest.raises(ValueError, match=r"optimizers of unknown networks \['a', 'b'\]; expected some of"):
            CriticTrainer("cpu", 1, [0], {"critic": network}, optimizers, PrepareConditionalPairs())

    def test_default_weights(self):
        """Lambda is not in the paper; Pix2Pix' is 100."""
        networks = gan_networks().values()
        optimizers = [torch.optim.Adam(network.parameters()) for network in networks]
        losses = nn.L1Loss(), PatchAdversarialLoss()
        for values in trained_log(ConditionalGANTrainer("cpu", 1, gan_batches(), *networks, *optimizers, *losses)):
            assert values["loss"] == pytest.approx(100 * values["reconstruction"] + values["adversarial"], rel=1e-5)


class TestFrozen:
    @pytest.mark.parametrize("fails", [True, False])
    def test_restored(self, fails):
        """Parameters that took no gradient before take none afterwards, also when something fails in between."""
        generator, discriminator = gan_networks().values()
        trainer = gan_trainer({"generator": generator, "discriminator": Wrapper(discriminator)})
        discriminator.layers[0].requires_grad_(False)
        before = [value.requires_grad for value in discriminator.parameters()]
        assert True in before and False in before
        try:
            with trainer.frozen("discriminator") as network:
                assert network is discriminator  # without its wrapper
                assert not any(value.requires_grad for value in discriminator.parameters())
                assert all(value.requires_grad for value in generator.parameters())
                if fails:
                    raise RuntimeError("within")
        except RuntimeError as error:
            assert fails and str(error) == "within"
        assert [value.requires_grad for value in discriminator.parameters()] == before
