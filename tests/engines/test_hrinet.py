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

"""Training of HRINet in turns."""

from __future__ import annotations

import copy

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, list_data_collate
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver, MeanAbsoluteError, from_engine
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from monai.transforms import Compose, Lambdad
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from monai_sliceinterp.engines import AlternatingSupervisionTrainer, AtomicCheckpointSaver, PrepareSliceGroups
from monai_sliceinterp.handlers import EpochSeedHandler
from monai_sliceinterp.losses import EncoderFeatureLoss
from monai_sliceinterp.networks.nets import HRINetAutoencoder, InterpolationCritic, VariationalHRINetAutoencoder
from monai_sliceinterp.transforms import RandSliceGroupsd

STEP_I = {"loss", "content", "constraint", "adversarial", "constraint_critic", "patch_critic"}
STEP_II = {"loss", "supervised"}
LOSSES = STEP_I | STEP_II | {"divergence"}
NAMES = ("autoencoder", "constraint_critic", "patch_critic")


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_batches(number=4, batch_size=3, channels=1, count=5, size=8):
    """Groups as the transform draws them; random numbers, so that no slice is like another."""
    batches = []
    for k in range(number):
        group = rand(batch_size, count, channels, size, size, seed=k)
        batches.append(
            {
                "image": group[:, [0, -1]].flatten(1, 2),
                "label": group[:, 1:-1].flatten(1, 2),
                "alpha": (torch.arange(1, count - 1) / (count - 1)).repeat(batch_size, 1),
            }
        )
    return batches


class Spy(HRINetAutoencoder):
    """Autoencoder that remembers what it was asked."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = []

    def forward(self, image, alpha=0.5, reconstruct=False):
        self.asked.append((image.clone(), alpha.clone(), reconstruct))
        return super().forward(image, alpha, reconstruct)


class Variational(VariationalHRINetAutoencoder):
    """VAE that remembers what it was asked, and what came of it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked, self.given = [], []

    def forward(self, image, alpha=0.5, reconstruct=False, divergence=False):
        self.asked.append((image.clone(), alpha.clone(), reconstruct, divergence))
        result = super().forward(image, alpha, reconstruct, divergence)
        self.given.append((result[0] if divergence else result).detach())
        return result


class Listing(nn.Module):
    """Patch critic that gives its features before its output, and remembers what it was shown."""

    def __init__(self, channels=1, last=list):
        super().__init__()
        self.layer, self.head = nn.Conv2d(channels, 3, 4, 2, 1), nn.Conv2d(3, 1, 3)
        self.last = last
        self.seen = []

    def forward(self, image):
        self.seen.append((image.detach().clone(), image.requires_grad, self.layer.weight.requires_grad))
        features = F.leaky_relu(self.layer(image), 0.2)
        result = self.head(features)
        return [features, result] if self.last is list else result


class SpyCritic(InterpolationCritic):
    """D1 that remembers what it was shown."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def forward(self, image):
        self.seen.append((image.detach().clone(), image.requires_grad, self.layers[0].weight.requires_grad))
        return super().forward(image)


def make_networks(seed=0, channels=1, network_class=Spy, last=list):
    """The autoencoder and its critics, in which what goes in matters to what comes out."""
    torch.manual_seed(seed)
    networks = {
        "autoencoder": network_class(channels, (3, 4), (2, 3)),
        "constraint_critic": SpyCritic(channels, (3, 4), 2),
        "patch_critic": Listing(channels, last),
    }
    for name in NAMES[:2]:
        for parameter in networks[name].parameters():
            parameter.data *= 1.8
            if parameter.ndim == 1:
                nn.init.normal_(parameter, std=0.1)
    return networks


def make_trainer(networks, batches=None, epochs=1, rates=0.01, optimizer=torch.optim.SGD, **kwargs):
    rates = rates if isinstance(rates, dict) else dict.fromkeys(NAMES, rates)
    settings = {
        "device": "cpu",
        "max_epochs": epochs,
        "train_data_loader": make_batches() if batches is None else batches,
        "content_loss": nn.MSELoss(),
        "adversarial_loss": PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True),
        "constraint_weight": 0.7,
        "adversarial_weight": 0.3,
    }
    optimizers = {
        "autoencoder": "autoencoder_optimizer",
        "constraint_critic": "constraint_optimizer",
        "patch_critic": "patch_optimizer",
    }
    for name, network in networks.items():
        settings[name] = network
        settings[optimizers[name]] = optimizer(network.parameters(), lr=rates[name])
    return AlternatingSupervisionTrainer(**{**settings, **kwargs})


def record(trainer):
    """Losses of each iteration."""
    log = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def remember(engine):
        log.append({name: float(value) for name, value in engine.state.output.items() if name in LOSSES})

    return log


def weights(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def least_squares(logits, real):
    return ((logits - float(real)) ** 2).mean()


def bce(logits, real):
    return F.softplus(-logits if real else logits).mean()


def mse(first, second):
    return ((first - second) ** 2).mean()


def decode_mixed(autoencoder, earlier, later, alpha):
    """Slices ``(B, C, H, W)`` between two, one alpha each."""
    codes = [
        (1 - alpha[:, None, None, None]) * first + alpha[:, None, None, None] * second
        for first, second in zip(autoencoder.encode(earlier), autoencoder.encode(later), strict=True)
    ]
    return autoencoder.decode(tuple(codes), earlier.shape[-2:])


def train_by_hand(networks, batches, asked, rates, weights, mixture, adversarial):
    """Section 3.3 in plain torch, with the pairs and the coefficients of Step I as another training drew them."""
    optimizers = {name: torch.optim.SGD(network.parameters(), lr=rates[name]) for name, network in networks.items()}

    def step(name, loss):
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    autoencoder, constraint_critic, patch_critic = (networks[name] for name in NAMES)
    channels = autoencoder.in_channels
    log = []
    for number, (batch, (pairs, alpha, _)) in enumerate(zip(batches, asked, strict=True)):
        if number % 2 == 1:
            earlier, later = batch["image"].split(channels, dim=1)
            count = batch["alpha"].shape[1]
            loss = 0
            for k in range(count):  # eq. 9: the mean over the slices between
                made = decode_mixed(autoencoder, earlier, later, batch["alpha"][:, k])
                loss = loss + mse(made, batch["label"][:, k * channels : (k + 1) * channels]) / count
            step("autoencoder", loss)
            log.append({"loss": loss.item(), "supervised": loss.item()})
            continue
        earlier, later = pairs.split(channels, dim=1)
        mixed = decode_mixed(autoencoder, earlier, later, alpha)
        again = [autoencoder.decode(autoencoder.encode(part), part.shape[-2:]) for part in (earlier, later)]
        values = {"content": (mse(again[0], earlier) + mse(again[1], later)) / 2}  # eq. 5
        made = mixed.detach()
        loss = mse(constraint_critic(made), alpha)  # eq. 2
        nearly = [mixture * x + (1 - mixture) * y.detach() for x, y in zip((earlier, later), again, strict=True)]
        loss = loss + (constraint_critic(nearly[0]) ** 2).mean() / 2 + (constraint_critic(nearly[1]) ** 2).mean() / 2
        step("constraint_critic", loss)
        values["constraint_critic"] = loss
        values["constraint"] = (constraint_critic(mixed) ** 2).mean()  # eq. 7
        true = torch.cat([earlier, later])
        loss = (adversarial(patch_critic(true)[-1], True) + adversarial(patch_critic(made)[-1], False)) / 2
        step("patch_critic", loss)
        values["patch_critic"] = loss
        values["adversarial"] = adversarial(patch_critic(mixed)[-1], True)
        values["loss"] = (
            values["content"] + weights[0] * values["constraint"] + weights[1] * values["adversarial"]  # eq. 4
        )
        step("autoencoder", values["loss"])
        log.append({name: float(value.detach()) for name, value in values.items()})
    return log


class TestByHand:
    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize(
        ("criterion", "adversarial"),
        [
            (PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True), least_squares),
            (PatchAdversarialLoss(criterion="bce"), bce),
        ],
    )
    @pytest.mark.parametrize("mixture", [0.2, 0.0, 0.9])
    def test_training(self, channels, criterion, adversarial, mixture):
        """Both steps by turns give the losses and the networks that plain torch gives."""
        networks = make_networks(channels=channels)
        copies = copy.deepcopy(networks)
        batches = make_batches(6, channels=channels)
        rates = {"autoencoder": 3e-2, "constraint_critic": 5e-2, "patch_critic": 2e-2}
        trainer = make_trainer(networks, batches, rates=rates, mixture=mixture, adversarial_loss=criterion)
        log = record(trainer)
        trainer.run()
        assert len(log) == 6
        asked = networks["autoencoder"].asked
        expected = train_by_hand(copies, batches, asked, rates, (0.7, 0.3), mixture, adversarial)
        for found, values in zip(log, expected, strict=True):
            assert found == pytest.approx(values, rel=2e-4)
        start = make_networks(channels=channels)
        for name in NAMES:
            before, expected = start[name].state_dict(), copies[name].state_dict()
            for key, value in networks[name].state_dict().items():
                way = (expected[key] - before[key]).norm()
                assert way > 0 and (value - expected[key]).norm() < 1e-2 * way + 1e-6, key
            assert max((expected[key] - before[key]).abs().max() for key in expected) > 1e-3

    @pytest.mark.parametrize("batch_size", [1, 2, 5])
    def test_losses_of_networks_that_stay(self, batch_size):
        """With rates of zero each iteration's losses follow from the networks alone."""
        networks = make_networks()
        batches = make_batches(5, batch_size=batch_size, count=4, size=9)
        trainer = make_trainer(networks, batches, rates=0.0)
        log = record(trainer)
        trainer.run()
        expected = train_by_hand(
            make_networks(),
            batches,
            networks["autoencoder"].asked,
            dict.fromkeys(NAMES, 0.0),
            (0.7, 0.3),
            0.2,
            least_squares,
        )
        for found, values in zip(log, expected, strict=True):
            assert found == pytest.approx(values, rel=2e-4)
        assert [set(values) for values in log] == [STEP_I, STEP_II, STEP_I, STEP_II, STEP_I]

    def test_content_loss(self):
        """It compares slices: of one sample each, the result first and the truth second, both in float32."""
        calls = []

        def content(pred, target):
            calls.append((pred, target))
            return (pred - target).abs().mean()

        networks = make_networks(channels=2)
        batches = make_batches(2, channels=2)
        trainer = make_trainer(networks, batches, rates=0.0, content_loss=content)
        log = record(trainer)
        trainer.run()
        (pred, target), (made, between) = calls
        assert pred.requires_grad and made.requires_grad and not target.requires_grad and not between.requires_grad
        pairs = networks["autoencoder"].asked[0][0]
        assert torch.equal(target, pairs.reshape(6, 2, 8, 8)) and pred.shape == target.shape
        again = networks["autoencoder"].eval()(pairs, torch.tensor(0.5), reconstruct=True)[:, :4]
        torch.testing.assert_close(pred, again.reshape(6, 2, 8, 8))
        assert torch.equal(between, batches[1]["label"].reshape(9, 2, 8, 8)) and made.shape == between.shape
        assert log[0]["content"] == pytest.approx((pred - target).abs().mean().item())
        assert log[1]["supervised"] == pytest.approx((made - between).abs().mean().item())

    def test_perceptual_loss(self):
        """HRINet-Perceptual: the frozen encoder of stage I stays as it is."""
        networks = make_networks()
        frozen = make_networks(seed=1)["autoencoder"]
        before = weights(frozen)
        criterion = EncoderFeatureLoss(frozen)
        batches = make_batches(2)
        start = weights(networks["autoencoder"])
        trainer = make_trainer(networks, batches, content_loss=criterion)
        log = record(trainer)
        trainer.run()
        fresh = make_networks()["autoencoder"]
        pairs = networks["autoencoder"].asked[0][0]
        again = fresh(pairs, torch.tensor(0.5), reconstruct=True)[:, :2].reshape(6, 1, 8, 8)
        distances = [
            mse(first, second)
            for first, second in zip(frozen.encode(again), frozen.encode(pairs.reshape(6, 1, 8, 8)), strict=True)
        ]
        assert log[0]["content"] == pytest.approx((sum(distances) / len(distances)).item(), rel=1e-4)
        assert same(weights(frozen), before) and not same(weights(networks["autoencoder"]), start)
        assert not frozen.training

    def test_default_weights(self):
        """Lambda, beta for 256 x 256 pixels, and ACAI's gamma."""
        networks = make_networks()
        optimizers = [torch.optim.SGD(networks[name].parameters(), lr=0.0) for name in NAMES]
        trainer = AlternatingSupervisionTrainer(
            "cpu",
            1,
            make_batches(3),
            networks["autoencoder"],
            optimizers[0],
            nn.MSELoss(),
            networks["constraint_critic"],
            optimizers[1],
            networks["patch_critic"],
            optimizers[2],
            PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True),
        )
        log = record(trainer)
        trainer.run()
        assert [set(values) for values in log] == [STEP_I, STEP_II, STEP_I]
        values = log[0]
        expected = values["content"] + 0.5 * values["constraint"] + 5e-4 * values["adversarial"]
        assert values["loss"] == pytest.approx(expected, rel=1e-6)
        assert trainer.mixture == 0.2 and trainer.divergence_weight == 0


class TestPairs:
    @pytest.mark.parametrize("batch_size", [2, 3, 4, 7])
    @pytest.mark.parametrize("channels", [1, 2])
    def test_of_different_samples(self, batch_size, channels):
        """Each end of each sample occurs in one pair, with an end of another sample."""
        networks = make_networks(channels=channels)
        batches = make_batches(2, batch_size, channels)
        make_trainer(networks, batches, steps=["unsupervised"]).run()
        assert len(networks["autoencoder"].asked) == 2
        for batch, (pairs, _, reconstruct) in zip(batches, networks["autoencoder"].asked, strict=True):
            assert reconstruct is True
            assert pairs.shape == batch["image"].shape
            ends = list(batch["image"].reshape(2 * batch_size, channels, 8, 8))
            found = list(pairs.reshape(2 * batch_size, channels, 8, 8))
            index = [next(j for j, end in enumerate(ends) if torch.equal(end, part)) for part in found]
            assert sorted(index) == list(range(2 * batch_size))
            assert all(first // 2 != second // 2 for first, second in zip(index[::2], index[1::2], strict=True))

    def test_mostly_of_different_volumes(self):
        """Batches as RandSliceGroupsd draws them: several samples of a volume, one after the other."""
        sampler = RandSliceGroupsd("image", 4, num_slices=3, patch_size=8).set_random_state(seed=0)
        volumes = [k + rand(1, 8, 8, 6, seed=k) for k in range(2)]  # told apart by their values
        batch = list_data_collate([sample for volume in volumes for sample in sampler({"image": volume})])
        networks = make_networks()
        make_trainer(networks, [batch], rates=0.0, steps=["unsupervised"]).run()
        ((pairs, *_),) = networks["autoencoder"].asked
        volume = (pairs.mean(dim=(2, 3)) > 1).long()
        assert volume.sum() == 8
        assert (volume[:, 0] != volume[:, 1]).float().mean() > 0.5

    def test_coefficients(self):
        """One per pair, from [0, 0.5], all as likely: a mixture and its mirror image look alike."""
        networks = make_networks()
        make_trainer(
            networks, make_batches(3, batch_size=400, size=6, count=3), rates=0.0, steps=["unsupervised"]
        ).run()
        alphas = [alpha for _, alpha, _ in networks["autoencoder"].asked]
        assert all(alpha.shape == (400,) and alpha.dtype == torch.float32 for alpha in alphas)
        assert not torch.equal(alphas[0], alphas[1])
        values = torch.cat(alphas).sort().values
        assert values[0] >= 0 and values[-1] <= 0.5
        # Kolmogorov and Smirnov, at about 1e-4
        expected = (torch.arange(1200) + 0.5) / 2400
        assert abs(values - expected).max() < 0.5 * 2.2 / 1200**0.5

    def test_supervised_step_takes_the_group(self):
        networks, batches = make_networks(), make_batches(2)
        make_trainer(networks, batches, steps=["supervised"]).run()
        for batch, (pairs, alpha, reconstruct) in zip(batches, networks["autoencoder"].asked, strict=True):
            assert torch.equal(pairs, batch["image"]) and torch.equal(alpha, batch["alpha"]) and not reconstruct


class TestSteps:
    @pytest.mark.parametrize("steps", [("unsupervised", "supervised"), ["unsupervised", "supervised"], None])
    @pytest.mark.parametrize("number", [3, 4])
    def test_by_turns(self, steps, number):
        """Step I first, also over epochs of odd length."""
        trainer = make_trainer(make_networks(), make_batches(number), 2, **({} if steps is None else {"steps": steps}))
        log = record(trainer)
        trainer.run()
        assert [set(values) for values in log] == [STEP_I, STEP_II] * number

    @pytest.mark.parametrize(("step", "names"), [("unsupervised", STEP_I), ("supervised", STEP_II)])
    def test_one_step(self, step, names):
        trainer = make_trainer(make_networks(), steps=[step])
        log = record(trainer)
        trainer.run()
        assert [set(values) for values in log] == [names] * 4

    @pytest.mark.parametrize(
        ("setting", "names"),
        [
            ({"constraint_weight": 0}, STEP_I - {"constraint", "constraint_critic"}),
            ({"adversarial_weight": 0}, STEP_I - {"adversarial", "patch_critic"}),  # ACAI, stage I
            ({"constraint_weight": 0, "adversarial_weight": 0.0}, {"loss", "content"}),  # AE
        ],
    )
    @pytest.mark.parametrize("given", [True, False])
    def test_weights_of_zero(self, setting, names, given):
        """Critics without weight are not needed, and those given are left alone."""
        unused = {"constraint_critic" if name == "constraint_weight" else "patch_critic" for name in setting}
        networks = make_networks()
        before = {name: weights(network) for name, network in networks.items()}
        if given:
            trainer = make_trainer(networks, make_batches(2), steps=["unsupervised"], **setting)
        else:
            missing = {"adversarial_loss": None} if "adversarial_weight" in setting else {}
            kept = {name: network for name, network in networks.items() if name not in unused}
            trainer = make_trainer(kept, make_batches(2), steps=["unsupervised"], **setting, **missing)
        log = record(trainer)
        trainer.run()
        assert [set(values) for values in log] == [names] * 2
        assert set(trainer.networks) == set(trainer.optimizers) == set(NAMES) - unused
        for name, network in networks.items():
            assert same(weights(network), before[name]) is (name in unused)
            assert name == "autoencoder" or bool(network.seen) is (name not in unused)

    def test_supervised_needs_no_critics(self):
        networks = make_networks()
        trainer = make_trainer({"autoencoder": networks["autoencoder"]}, steps=("supervised",), adversarial_loss=None)
        log = record(trainer)
        trainer.run()
        assert len(log) == 4 and set(trainer.networks) == {"autoencoder"}

    @pytest.mark.parametrize("network", NAMES[1:])
    def test_critics_rest_in_step_ii(self, network):
        networks = make_networks()
        trainer = make_trainer(networks, make_batches(2))
        log = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: log.append(weights(networks[network])))
        calls = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: calls.append(len(networks[network].seen)))
        before = weights(networks[network])
        trainer.run()
        assert not same(before, log[0]) and same(log[0], log[1])
        assert calls == [2, 2]


class TestUpdates:
    @pytest.mark.parametrize("moving", NAMES)
    def test_own_parameters_only(self, moving):
        """With the others' rates at zero, only one network's parameters move, all of them."""
        networks = make_networks()
        before = {name: weights(network) for name, network in networks.items()}
        rates = {name: 0.05 if name == moving else 0.0 for name in NAMES}
        make_trainer(networks, make_batches(1), rates=rates).run()
        for name, network in networks.items():
            for key, value in network.named_parameters():
                assert torch.equal(value, before[name][key]) is (name != moving), (name, key)

    def test_critics_see(self):
        """First what teaches them, cut off from the autoencoder; then mixtures, to judge it and not to learn."""
        networks, batches = make_networks(), make_batches(1)
        trainer = make_trainer(networks, batches)
        trainer.run()
        pairs = networks["autoencoder"].asked[0][0]
        slices = torch.cat(list(pairs[:, :, None]))
        pred = trainer.state.output["pred"].detach()
        again, mixed = torch.cat(list(pred[:, :2, None])), pred[:, 2:]
        (shown, linked, learns), (judged, to, learns_then) = networks["patch_critic"].seen
        assert (linked, learns) == (False, True) and (to, learns_then) == (True, False)
        assert torch.equal(shown, torch.cat([slices, mixed])) and torch.equal(judged, mixed)
        (shown, linked, learns), (judged, to, learns_then) = networks["constraint_critic"].seen
        assert (linked, learns) == (False, True) and (to, learns_then) == (True, False)
        torch.testing.assert_close(shown, torch.cat([mixed, again + 0.2 * (slices - again)]))
        assert torch.equal(judged, mixed)
        for network in networks.values():
            assert all(parameter.requires_grad for parameter in network.parameters())

    def test_each_loss_moves_the_autoencoder(self):
        """Of the three only those with a weight."""
        heads = {}
        for key, setting in {
            "all": {},
            "no constraint": {"constraint_weight": 0},
            "no adversarial": {"adversarial_weight": 0},
            "content": {"constraint_weight": 0, "adversarial_weight": 0},
        }.items():
            networks = make_networks()
            torch.manual_seed(3)
            make_trainer(networks, make_batches(1), **setting).run()
            heads[key] = networks["autoencoder"].decoder[-1].weight.detach()
        moves = {key: head - heads["content"] for key, head in heads.items()}
        assert all(move.abs().max() > 1e-6 for key, move in moves.items() if key != "content")
        torch.testing.assert_close(moves["all"], moves["no constraint"] + moves["no adversarial"], rtol=1e-3, atol=1e-6)

    def test_gradients_do_not_add_up(self):
        """Each step takes the gradient of its own iteration and its own loss."""
        networks = make_networks()
        trainer = make_trainer(networks, make_batches(2), rates=0.0)
        gradients = []
        trainer.add_event_handler(
            IterationEvents.MODEL_COMPLETED,
            lambda: gradients.append(networks["autoencoder"].decoder[-1].weight.grad.clone()),
        )
        trainer.run()
        alone = make_networks()
        make_trainer(alone, make_batches(2)[1:], rates=0.0, steps=["supervised"]).run()
        torch.testing.assert_close(gradients[1], alone["autoencoder"].decoder[-1].weight.grad, rtol=1e-4, atol=1e-7)

    def test_training_mode(self):
        """Each iteration sets it, also after a validation has left another one."""
        networks = make_networks()
        trainer = make_trainer(networks)
        modes = []
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: [network.eval() for network in networks.values()])
        trainer.add_event_handler(
            IterationEvents.FORWARD_COMPLETED,
            lambda: modes.append([network.training for network in networks.values()]),
        )
        trainer.run()
        assert modes == [[True, True, True]] * 4


class TestPatchCritic:
    @pytest.mark.parametrize("criterion", ["least_squares", "bce", "hinge"])
    def test_of_monai(self, criterion):
        """PatchDiscriminator returns its features too; only its output counts."""
        networks = make_networks()
        torch.manual_seed(0)
        networks["patch_critic"] = PatchDiscriminator(2, 4, 1, num_layers_d=1, norm="INSTANCE")
        critic = copy.deepcopy(networks["patch_critic"])
        batches = make_batches(1, size=16)
        loss = PatchAdversarialLoss(criterion=criterion, no_activation_leastsq=True)
        trainer = make_trainer(networks, batches, rates=0.0, adversarial_loss=loss)
        log = record(trainer)
        trainer.run()
        pairs, mixed = networks["autoencoder"].asked[0][0], trainer.state.output["pred"].detach()[:, 2:]
        true, false = critic(pairs.reshape(6, 1, 16, 16))[-1], critic(mixed)[-1]
        assert true.shape == (6, 1, 6, 6)
        function = {
            "least_squares": least_squares,
            "bce": bce,
            "hinge": lambda logits, real: F.relu(1 - (1 if real else -1) * torch.tanh(logits)).mean(),
        }[criterion]
        teach = (function(true, True) + function(false, False)) / 2
        assert log[0]["patch_critic"] == pytest.approx(teach.item(), rel=1e-4)
        assert log[0]["adversarial"] == pytest.approx(function(false, True).item(), rel=1e-4)

    def test_one_output(self):
        """A critic that gives no list does as well."""
        logs = []
        for last in (list, None):
            networks = make_networks(last=last)
            torch.manual_seed(0)
            trainer = make_trainer(networks)
            logs.append(record(trainer))
            trainer.run()
        assert logs[0] == logs[1]

    def test_batch_normalization(self):
        """As PatchDiscriminator has it: its statistics go on in Step I."""
        networks = make_networks()
        networks["patch_critic"] = PatchDiscriminator(2, 4, 1, num_layers_d=1)
        norm = next(layer for layer in networks["patch_critic"].modules() if isinstance(layer, nn.BatchNorm2d))
        trainer = make_trainer(networks, make_batches(2, size=16))
        log = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: log.append(norm.num_batches_tracked.item()))
        trainer.run()
        assert log == [2, 2]

    def test_adversarial_loss(self):
        """Called for slices, mixtures, and mixtures that shall look like slices."""
        calls = []

        def loss(logits, target_is_real, for_discriminator):
            calls.append((tuple(logits.shape), logits.dtype, target_is_real, for_discriminator))
            return (logits**2).mean()

        make_trainer(make_networks(), make_batches(1), adversarial_loss=loss).run()
        single = torch.float32
        assert calls == [
            ((6, 1, 2, 2), single, True, True),
            ((3, 1, 2, 2), single, False, True),
            ((3, 1, 2, 2), single, True, False),
        ]

    def test_learns(self):
        """It tells random slices from what an autoencoder that does not learn makes of them; so does D1 with alpha."""
        torch.manual_seed(0)
        networks = make_networks()
        batches = make_batches(2, batch_size=16)
        rates = {"autoencoder": 0.0, "constraint_critic": 5e-3, "patch_critic": 2e-2}
        trainer = make_trainer(networks, batches, 40, rates=rates, optimizer=torch.optim.Adam, steps=["unsupervised"])
        log = record(trainer)
        trainer.run()
        assert log[-1]["patch_critic"] < 0.05 < 0.15 < log[0]["patch_critic"]
        assert log[-1]["adversarial"] > 0.5
        assert log[-1]["constraint_critic"] < 0.3 * log[0]["constraint_critic"]


class TestVariational:
    def test_losses(self):
        """The divergence per pixel is weighted and added; nothing of it in Step II."""
        networks = make_networks(channels=2, network_class=Variational)
        batches = make_batches(2, channels=2, size=9)
        trainer = make_trainer(
            {"autoencoder": networks["autoencoder"]},
            batches,
            rates=0.0,
            constraint_weight=0,
            adversarial_weight=0,
            divergence_weight=0.25,
        )
        log = record(trainer)
        trainer.run()
        network = networks["autoencoder"]
        pairs = network.asked[0][0]
        slices = pairs.reshape(6, 2, 9, 9)
        divergence = torch.zeros(())
        for part in network.feature_maps(slices):
            mean, log_variance = part.chunk(2, dim=1)
            divergence = divergence + kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum()
        divergence = (divergence / 6 / (2 * 9 * 9)).item()
        content = mse(network.given[0][:, :4].reshape(6, 2, 9, 9), slices).item()
        expected = {"content": content, "divergence": divergence, "loss": content + 0.25 * divergence}
        assert log[0] == pytest.approx(expected, rel=1e-4)
        supervised = mse(network.given[1], batches[1]["label"]).item()
        assert log[1] == pytest.approx({"loss": supervised, "supervised": supervised}, rel=1e-5)
        assert [asked[2:] for asked in network.asked] == [(True, True), (False, False)]

    def test_gradient_of_the_divergence(self):
        """The codes' distributions come closer to the standard one the more it weighs."""
        last = []
        for weight in (1e-4, 10.0):
            torch.manual_seed(0)
            networks = {"autoencoder": VariationalHRINetAutoencoder(1, (4, 4), (2,))}
            nn.init.normal_(networks["autoencoder"].bottlenecks[0].bias)
            trainer = make_trainer(
                networks,
                epochs=15,
                rates=1e-2,
                optimizer=torch.optim.Adam,
                constraint_weight=0,
                adversarial_weight=0,
                divergence_weight=weight,
                steps=["unsupervised"],
            )
            log = record(trainer)
            trainer.run()
            last.append(log[-1]["divergence"])
        assert last[1] < 0.1 * last[0]

    def test_with_critics(self):
        trainer = make_trainer(make_networks(network_class=Variational), divergence_weight=0.1)
        log = record(trainer)
        trainer.run()
        assert [set(values) for values in log] == [STEP_I | {"divergence"}, STEP_II] * 2
        values = log[2]
        expected = values["content"] + 0.7 * values["constraint"] + 0.3 * values["adversarial"]
        assert values["loss"] == pytest.approx(expected + 0.1 * values["divergence"], rel=1e-5)


class TestEngine:
    def test_events(self):
        """Each once per iteration of either step, in the order of MONAI's trainer; with what is known by then."""
        trainer = make_trainer(make_networks(), epochs=2)
        fired = []
        for event in IterationEvents:
            trainer.add_event_handler(
                event, lambda engine, event: fired.append((event.value, set(engine.state.output))), event
            )
        trainer.run()
        order = ["forward_completed", "loss_completed", "backward_completed", "model_completed"]
        assert [name for name, _ in fired] == order * 8
        for k, (name, known) in enumerate(fired):
            assert {"image", "label", "pred"} <= known
            if name != "forward_completed":
                assert known - {"image", "label", "pred"} == (STEP_II if k // 4 % 2 else STEP_I)

    def test_weights_at_the_events(self):
        """The autoencoder has learned by "backward completed", not before."""
        networks = make_networks()
        trainer = make_trainer(networks, make_batches(1))
        states = []
        for event in IterationEvents:
            trainer.add_event_handler(event, lambda: states.append(weights(networks["autoencoder"])))
        trainer.run()
        assert same(states[0], states[1]) and not same(states[1], states[2])

    def test_output(self):
        networks, batches = make_networks(), make_batches()
        trainer = make_trainer(networks, batches, rates=0.0)
        outputs = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output))
        trainer.run()
        for k, (output, batch) in enumerate(zip(outputs, batches, strict=True)):
            assert set(output) == {"image", "label", "pred"} | (STEP_II if k % 2 else STEP_I)
            assert torch.equal(output["image"], batch["image"]) and torch.equal(output["label"], batch["label"])
            pairs, alpha, reconstruct = networks["autoencoder"].asked[k]
            torch.testing.assert_close(output["pred"], make_networks()["autoencoder"](pairs, alpha, reconstruct))
            assert all(output[name].ndim == 0 and not output[name].requires_grad for name in set(output) & LOSSES)

    def test_key_metric(self):
        """Of Step II: the mean absolute error of the epoch is the mean of an L1 loss."""
        metric = {"train_mae": MeanAbsoluteError(output_transform=from_engine(["pred", "label"]))}
        trainer = make_trainer(
            make_networks(), epochs=2, key_train_metric=metric, content_loss=nn.L1Loss(), steps=["supervised"]
        )
        log = record(trainer)
        trainer.run()
        expected = sum(values["supervised"] for values in log[4:]) / 4
        assert trainer.state.metrics["train_mae"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("step", ["unsupervised", "supervised"])
    def test_postprocessing(self, step):
        """What the engine puts out is decollated and postprocessed, as that of MONAI's trainers."""
        post = Compose([Lambdad("pred", lambda value: value * 0 + value.ndim)])
        networks = make_networks()
        trainer = make_trainer(networks, make_batches(1), steps=[step], decollate=True, postprocessing=post)
        trainer.run()
        output = trainer.state.output
        assert isinstance(output, list) and len(output) == 3
        for item in output:
            assert item["pred"].shape == (3, 8, 8) and (item["pred"] == 3).all()  # a sample, without the batch
            assert not item["pred"].requires_grad and "loss" in item

    def test_double_precision(self):
        """As ConditionalGANTrainer allows it."""
        networks = {name: network.double() for name, network in make_networks().items()}
        trainer = make_trainer(networks, to_kwargs={"dtype": torch.float64})
        trainer.run()
        assert trainer.state.output["pred"].dtype == trainer.state.output["image"].dtype == torch.float64

    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_mixed_precision_is_for_gpus(self):
        results = []
        for amp in (False, True):
            networks = make_networks()
            torch.manual_seed(1)
            make_trainer(networks, amp=amp).run()
            results.append([weights(network) for network in networks.values()])
        assert all(same(first, second) for first, second in zip(*results, strict=True))

    @pytest.mark.parametrize(
        "setting", [{"constraint_weight": -1.0}, {"adversarial_weight": -0.1}, {"divergence_weight": float("nan")}]
    )
    def test_negative_weight(self, setting):
        with pytest.raises(ValueError, match="the weights of the losses must not be negative, got") as caught:
            make_trainer(make_networks(), **setting)
        assert repr(next(iter(setting.values()))) in str(caught.value) and "\n" not in str(caught.value)

    @pytest.mark.parametrize("mixture", [-0.1, 1.1, float("nan")])
    def test_mixture(self, mixture):
        with pytest.raises(ValueError, match=rf"mixture must be within \[0, 1\], got {mixture}"):
            make_trainer(make_networks(), mixture=mixture)

    @pytest.mark.parametrize("steps", [(), [], ["supervised", "other"], "supervised"])
    def test_unknown_steps(self, steps):
        with pytest.raises(ValueError, match=r"unknown steps .* expected one or both of unsupervised, supervised"):
            make_trainer(make_networks(), steps=steps)

    @pytest.mark.parametrize("step", ["unsupervised", "supervised"])
    def test_step_given_twice(self, step):
        """It is that step alone, or an error; never the other one."""
        try:
            trainer = make_trainer(make_networks(), steps=[step, step])
        except ValueError as error:
            assert "steps" in str(error)
            return
        log = record(trainer)
        trainer.run()
        assert [set(values) for values in log] == [STEP_I if step == "unsupervised" else STEP_II] * 4

    @pytest.mark.parametrize(
        ("missing", "message"),
        [
            ({"constraint_critic": None}, "a weight of 0.7 needs a constraint_critic and its optimizer"),
            ({"constraint_optimizer": None}, "a weight of 0.7 needs a constraint_critic and its optimizer"),
            ({"patch_critic": None}, "a weight of 0.3 needs a patch_critic and its optimizer"),
            ({"patch_optimizer": None}, "a weight of 0.3 needs a patch_critic and its optimizer"),
            ({"adversarial_loss": None}, "a patch_critic needs an adversarial_loss"),
        ],
    )
    @pytest.mark.parametrize("steps", [["unsupervised"], ["unsupervised", "supervised"]])
    def test_missing(self, missing, message, steps):
        with pytest.raises(ValueError, match=message) as caught:
            make_trainer(make_networks(), steps=steps, **missing)
        assert "\n" not in str(caught.value)


class TestPrepareSliceGroups:
    def test_batch(self):
        batch = make_batches(1, channels=2)[0] | {"other": 1}
        inputs, targets, nothing, keywords = PrepareSliceGroups()(batch)
        assert torch.equal(inputs, batch["image"]) and torch.equal(targets, batch["label"]) and nothing == ()
        assert set(keywords) == {"alpha"} and torch.equal(keywords["alpha"], batch["alpha"])

    def test_moved(self):
        batch = make_batches(1)[0]
        inputs, targets, _, keywords = PrepareSliceGroups()(batch, torch.device("meta"), True, dtype=torch.float64)
        for value in (inputs, targets, keywords["alpha"]):
            assert value.device.type == "meta" and value.dtype == torch.float64

    def test_own(self):
        """Another one may be given to the trainer."""

        class Half(PrepareSliceGroups):
            def __call__(self, *args, **kwargs):
                inputs, targets, more, keywords = super().__call__(*args, **kwargs)
                return inputs / 2, targets / 2, more, keywords

        batches = make_batches(2)
        trainer = make_trainer(make_networks(), batches, prepare_batch=Half())
        trainer.run()
        assert torch.equal(trainer.state.output["image"], batches[1]["image"] / 2)


class TestDistributed:
    def test_one_process(self, tmp_path):
        """DistributedDataParallel, of a single process, gives what unwrapped networks give."""
        if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
            pytest.skip("needs gloo")

        def run(wrap):
            networks = make_networks()
            networks["patch_critic"] = PatchDiscriminator(2, 4, 1, num_layers_d=1)
            networks["patch_critic"].load_state_dict(start)
            trainer = make_trainer(
                {name: wrap(network) for name, network in networks.items()},
                make_batches(size=16),
                epochs=2,
                optimizer=torch.optim.Adam,
            )
            log = record(trainer)
            torch.manual_seed(7)
            trainer.run()
            return log, [weights(network) for network in networks.values()]

        start = PatchDiscriminator(2, 4, 1, num_layers_d=1).state_dict()
        plain = run(lambda network: network)
        idist.initialize("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
        try:
            wrapped = run(nn.parallel.DistributedDataParallel)
        finally:
            idist.finalize()
        assert len(plain[0]) == 8 and plain[0] == wrapped[0]
        assert all(same(first, second) for first, second in zip(plain[1], wrapped[1], strict=True))

    def test_wrappers(self):
        """That of a critic sees its own loss alone; that of the autoencoder everything."""

        class Wrapper(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module, self.calls = module, 0

            def forward(self, *args, **kwargs):
                self.calls += 1
                return self.module(*args, **kwargs)

        networks = {name: Wrapper(network) for name, network in make_networks().items()}
        make_trainer(networks).run()
        assert [networks[name].calls for name in NAMES] == [4, 2, 2]


def make_loader(seed=0):
    """Three batches of groups drawn at random from random volumes."""
    items = [{"image": rand(1, 12, 10, 9, seed=k)} for k in range(6)]
    transform = Compose([RandSliceGroupsd("image", 2, 4, 8, (1, 2))]).set_random_state(seed=seed)
    return DataLoader(Dataset(items, transform), batch_size=2, shuffle=True, num_workers=0), transform


def train(epochs, folder=None, saver=CheckpointSaver, start="", seed=3, other_start=0, network_class=Spy):
    """Train; optionally keep the last epoch, or go on from one. Returns weights and losses of each iteration."""
    loader, transform = make_loader(other_start)
    networks = make_networks(other_start, network_class=network_class)
    torch.manual_seed(other_start)
    networks["patch_critic"] = PatchDiscriminator(2, 4, 1, num_layers_d=1)
    trainer = make_trainer(
        networks,
        loader,
        epochs,
        optimizer=torch.optim.Adam,
        divergence_weight=0.1 if network_class is Variational else 0.0,
        train_handlers=[EpochSeedHandler(transform, seed=seed)],
    )
    log = record(trainer)
    resumable = {"trainer": trainer, **networks}
    resumable |= {f"{name}_optimizer": optimizer for name, optimizer in trainer.optimizers.items()}
    assert len(resumable) == 7
    if folder is not None:
        saver(str(folder), resumable, save_final=True, final_filename="checkpoint.pt").attach(trainer)
    if start:
        CheckpointLoader(str(start), resumable).attach(trainer)
    trainer.run()
    assert trainer.state.epoch == epochs
    return [weights(network) for network in networks.values()], log


class TestResume:
    @pytest.mark.parametrize(
        ("saver", "network_class", "stop"),
        [(CheckpointSaver, Spy, 2), (AtomicCheckpointSaver, Variational, 2), (CheckpointSaver, Spy, 1)],
    )
    def test_as_if_never_stopped(self, tmp_path, saver, network_class, stop):
        """Also with epochs of three iterations, where the step at their start changes from epoch to epoch."""
        whole = train(4, network_class=network_class)
        train(stop, tmp_path, saver, network_class=network_class)
        resumed = train(4, start=tmp_path / "checkpoint.pt", other_start=5, network_class=network_class)
        assert all(same(first, second) for first, second in zip(whole[0], resumed[0], strict=True))
        assert len(whole[1]) == 12 and whole[1][3 * stop :] == resumed[1]
        assert ["supervised" in values for values in whole[1]] == [False, True] * 6

    def test_same_seed(self):
        first, second, other = train(2), train(2), train(2, seed=4)
        assert all(same(one, two) for one, two in zip(first[0], second[0], strict=True)) and first[1] == second[1]
        assert not same(first[0][0], other[0][0]) and first[1] != other[1]


def moving_blobs(number, size=16, count=5, seed=0):
    """Groups of slices in which a blob goes from one place to another, too far for a blend of the ends."""
    generator = torch.Generator().manual_seed(seed)
    places = 3 + (size - 7) * torch.rand(number, 2, generator=generator)
    angle = 6.2832 * torch.rand(number, generator=generator)
    middle = torch.tensor([size / 2, size / 2])
    way = torch.stack([angle.cos(), angle.sin()], dim=1) * 4
    way = torch.where(((middle - places) * way).sum(dim=1, keepdim=True) > 0, way, -way)
    steps = torch.linspace(0, 1, count)
    centers = places[:, None] + steps[:, None] * way[:, None]
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), dim=-1)
    distance = ((grid[None, None] - centers[:, :, None, None]) ** 2).sum(dim=-1)
    return torch.exp(-distance / (2 * 1.5**2))  # (number, count, size, size)


def test_learns():
    """Trained in turns, it moves a blob where a blend of the ends shows two."""
    torch.manual_seed(0)
    groups = moving_blobs(64)
    alpha = torch.linspace(0, 1, 5)[1:-1]
    batches = [
        {"image": part[:, [0, -1]], "label": part[:, 1:-1], "alpha": alpha.repeat(len(part), 1)}
        for part in groups.split(16)
    ]
    networks = {
        "autoencoder": HRINetAutoencoder(1, (8, 16), (8, 8)),
        "constraint_critic": InterpolationCritic(1, (4, 8), 4),
        "patch_critic": PatchDiscriminator(2, 4, 1, num_layers_d=1),
    }
    trainer = make_trainer(
        networks,
        batches,
        32,
        rates={"autoencoder": 3e-3, "constraint_critic": 1e-3, "patch_critic": 1e-3},
        optimizer=torch.optim.Adam,
        constraint_weight=0.5,
        adversarial_weight=5e-4,
    )
    log = record(trainer)
    trainer.run()
    blend = sum(
        mse(torch.lerp(batch["image"][:, :1], batch["image"][:, 1:], alpha[:, None, None]), batch["label"]).item()
        for batch in batches
    ) / len(batches)
    found = [values["supervised"] for values in log if "supervised" in values][-2:]
    assert sum(found) / 2 < 0.5 * blend, (found, blend)
    content = [values["content"] for values in log if "content" in values]
    assert content[-1] < 0.2 * content[0]
