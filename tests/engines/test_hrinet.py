# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Training of HRINet by alternating supervision, against plain torch."""

import copy

import pytest
import torch
from ignite.engine import Events
from monai.data import list_data_collate
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from monai_sliceinterp.engines import AlternatingSupervisionTrainer
from monai_sliceinterp.networks.nets import HRINetAutoencoder, InterpolationCritic, VariationalHRINetAutoencoder
from monai_sliceinterp.transforms import RandSliceGroupsd
from tests.engines.helpers import (
    NAMES,
    STEP_I,
    STEP_II,
    Listing,
    bce,
    mse,
    patch_discriminator,
    rand,
    same,
    trained_log,
    turn_batches,
    turn_networks,
    turn_trainer,
    weights,
)


class Variational(VariationalHRINetAutoencoder):
    """VAE that records its arguments and results."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked, self.results = [], []

    def forward(self, image, alpha=0.5, reconstruct=False, divergence=False):
        self.asked.append((image.clone(), alpha.clone(), reconstruct, divergence))
        result = super().forward(image, alpha, reconstruct, divergence)
        self.results.append((result[0] if divergence else result).detach())
        return result


def least_squares(logits, real):
    return ((logits - float(real)) ** 2).mean()


def decode_mixed(autoencoder, earlier, later, alpha):
    """Slices ``(B, C, H, W)`` between two, one alpha each."""
    pairs, alpha = zip(autoencoder.encode(earlier), autoencoder.encode(later), strict=True), alpha[:, None, None, None]
    codes = tuple((1 - alpha) * first + alpha * second for first, second in pairs)
    return autoencoder.decode(codes, earlier.shape[-2:])


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
        detached = mixed.detach()
        loss = mse(constraint_critic(detached), alpha)  # eq. 2
        nearly = [mixture * x + (1 - mixture) * y.detach() for x, y in zip((earlier, later), again, strict=True)]
        loss = loss + (constraint_critic(nearly[0]) ** 2).mean() / 2 + (constraint_critic(nearly[1]) ** 2).mean() / 2
        step("constraint_critic", loss)
        values["constraint_critic"] = loss
        values["constraint"] = (constraint_critic(mixed) ** 2).mean()  # eq. 7
        true = torch.cat([earlier, later])
        loss = (adversarial(patch_critic(true)[-1], True) + adversarial(patch_critic(detached)[-1], False)) / 2
        step("patch_critic", loss)
        values["patch_critic"] = loss
        values["adversarial"] = adversarial(patch_critic(mixed)[-1], True)
        # eq. 4
        values["loss"] = values["content"] + weights[0] * values["constraint"] + weights[1] * values["adversarial"]
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
    @pytest.mark.parametrize(("mixture", "batch_size", "count"), [(0.2, 3, 5), (0.0, 1, 4), (0.9, 5, 3)])
    def test_training(self, channels, criterion, adversarial, mixture, batch_size, count):
        """Both steps by turns give the losses and the networks that plain torch gives."""
        networks = turn_networks(channels=channels)
        copies = copy.deepcopy(networks)
        batches = turn_batches(6, batch_size, channels, count)
        rates = {"autoencoder": 3e-2, "constraint_critic": 5e-2, "patch_critic": 2e-2}
        log = trained_log(turn_trainer(networks, batches, rates=rates, mixture=mixture, adversarial_loss=criterion))
        assert [set(values) for values in log] == [STEP_I, STEP_II] * 3
        asked = networks["autoencoder"].asked
        expected = train_by_hand(copies, batches, asked, rates, (0.7, 0.3), mixture, adversarial)
        for found, values in zip(log, expected, strict=True):
            assert found == pytest.approx(values, rel=2e-4)
        start = turn_networks(channels=channels)
        for name in NAMES:
            before, expected = start[name].state_dict(), copies[name].state_dict()
            for key, value in networks[name].state_dict().items():
                way = (expected[key] - before[key]).norm()
                assert way > 0 and (value - expected[key]).norm() < 1e-2 * way + 1e-6, key
            assert max((expected[key] - before[key]).abs().max() for key in expected) > 1e-3

    def test_content_loss(self):
        """It compares slices: of one sample each, the result first and the truth second, both in float32."""
        calls = []

        def content(pred, target):
            calls.append((pred, target))
            return (pred - target).abs().mean()

        networks = turn_networks(channels=2)
        batches = turn_batches(2, channels=2)
        log = trained_log(turn_trainer(networks, batches, rates=0.0, content_loss=content))
        (pred, target), (mixed, between) = calls
        assert pred.requires_grad and mixed.requires_grad and not target.requires_grad and not between.requires_grad
        pairs = networks["autoencoder"].asked[0][0]
        assert torch.equal(target, pairs.reshape(6, 2, 8, 8)) and pred.shape == target.shape
        again = networks["autoencoder"].eval()(pairs, torch.tensor(0.5), reconstruct=True)[:, :4]
        torch.testing.assert_close(pred, again.reshape(6, 2, 8, 8))
        assert torch.equal(between, batches[1]["label"].reshape(9, 2, 8, 8)) and mixed.shape == between.shape
        assert log[0]["content"] == pytest.approx((pred - target).abs().mean().item())
        assert log[1]["supervised"] == pytest.approx((mixed - between).abs().mean().item())

    def test_default_weights(self):
        """Lambda, beta for 256 x 256 pixels, and ACAI's gamma."""
        networks = turn_networks()
        first, *critics = [(networks[name], torch.optim.SGD(networks[name].parameters(), lr=0.0)) for name in NAMES]
        adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        losses = (nn.MSELoss(), *critics[0], *critics[1], adversarial)
        trainer = AlternatingSupervisionTrainer("cpu", 1, turn_batches(3), *first, *losses)
        log = trained_log(trainer)
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
        networks = turn_networks(channels=channels)
        batches = turn_batches(2, batch_size, channels)
        turn_trainer(networks, batches, steps=["unsupervised"]).run()
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
        volumes = [k + rand(1, 8, 8, 6, seed=k) for k in range(2)]  # recognized by their values
        batch = list_data_collate([sample for volume in volumes for sample in sampler({"image": volume})])
        networks = turn_networks()
        turn_trainer(networks, [batch], rates=0.0, steps=["unsupervised"]).run()
        ((pairs, *_),) = networks["autoencoder"].asked
        volume = (pairs.mean(dim=(2, 3)) > 1).long()
        assert volume.sum() == 8
        assert (volume[:, 0] != volume[:, 1]).float().mean() > 0.5

    def test_coefficients(self):
        """One per pair, from [0, 0.5], all as likely: a mixture and its mirror image look alike."""
        networks = turn_networks()
        batches = turn_batches(3, batch_size=400, size=6, count=3)
        turn_trainer(networks, batches, rates=0.0, steps=["unsupervised"]).run()
        alphas = [alpha for _, alpha, _ in networks["autoencoder"].asked]
        assert all(alpha.shape == (400,) and alpha.dtype == torch.float32 for alpha in alphas)
        assert not torch.equal(alphas[0], alphas[1])
        values = torch.cat(alphas).sort().values
        assert values[0] >= 0 and values[-1] <= 0.5
        # Kolmogorov and Smirnov, at about 1e-4
        expected = (torch.arange(1200) + 0.5) / 2400
        assert abs(values - expected).max() < 0.5 * 2.2 / 1200**0.5


class TestSteps:
    @pytest.mark.parametrize("settings", [{"steps": ["unsupervised", "supervised"]}, {}])
    @pytest.mark.parametrize("number", [3, 4])
    def test_by_turns(self, settings, number):
        """Step I first, also over epochs of odd length."""
        log = trained_log(turn_trainer(turn_networks(), turn_batches(number), 2, **settings))
        assert [set(values) for values in log] == [STEP_I, STEP_II] * number

    @pytest.mark.parametrize(("step", "names"), [("unsupervised", STEP_I), ("supervised", STEP_II)])
    def test_one_step(self, step, names):
        for steps in (step, [step], [step, step]):
            assert [set(values) for values in trained_log(turn_trainer(turn_networks(), steps=steps))] == [names] * 4

    @pytest.mark.parametrize(
        ("setting", "names"),
        [
            ({"constraint_weight": 0}, STEP_I - {"constraint", "constraint_critic"}),
            ({"adversarial_weight": 0}, STEP_I - {"adversarial", "patch_critic"}),  # ACAI, stage I
            ({"constraint_weight": 0, "adversarial_weight": 0.0}, {"loss", "content"}),  # AE
        ],
    )
    @pytest.mark.parametrize("all_critics", [True, False])
    def test_weights_of_zero(self, setting, names, all_critics):
        """Critics without weight are not needed, and are left alone."""
        unused = {"constraint_critic" if name == "constraint_weight" else "patch_critic" for name in setting}
        networks = turn_networks()
        before = {name: weights(network) for name, network in networks.items()}
        used = {name: network for name, network in networks.items() if all_critics or name not in unused}
        missing = {} if all_critics or "adversarial_weight" not in setting else {"adversarial_loss": None}
        trainer = turn_trainer(used, turn_batches(2), steps=["unsupervised"], **setting, **missing)
        log = trained_log(trainer)
        assert [set(values) for values in log] == [names] * 2
        assert set(trainer.networks) == set(trainer.optimizers) == set(NAMES) - unused
        for name, network in networks.items():
            assert same(weights(network), before[name]) is (name in unused)
            assert name == "autoencoder" or bool(network.seen) is (name not in unused)

    def test_supervised_needs_no_critics(self):
        networks = turn_networks()
        networks = {"autoencoder": networks["autoencoder"]}
        trainer = turn_trainer(networks, steps=("supervised",), adversarial_loss=None)
        assert len(trained_log(trainer)) == 4 and set(trainer.networks) == {"autoencoder"}


class TestPatchCritic:
    @pytest.mark.parametrize("criterion", ["least_squares", "bce", "hinge"])
    def test_of_monai(self, criterion):
        """PatchDiscriminator returns its features too; only its output counts."""
        networks = turn_networks()
        torch.manual_seed(0)
        networks["patch_critic"] = PatchDiscriminator(2, 4, 1, num_layers_d=1, norm="INSTANCE")
        critic = copy.deepcopy(networks["patch_critic"])
        batches = turn_batches(1, size=16)
        loss = PatchAdversarialLoss(criterion=criterion, no_activation_leastsq=True)
        trainer = turn_trainer(networks, batches, rates=0.0, adversarial_loss=loss)
        log = trained_log(trainer)
        pairs, mixed = networks["autoencoder"].asked[0][0], trainer.state.output["pred"].detach()[:, 2:]
        true, false = critic(pairs.reshape(6, 1, 16, 16))[-1], critic(mixed)[-1]
        assert true.shape == (6, 1, 6, 6)
        hinge = lambda logits, real: F.relu(1 - (1 if real else -1) * torch.tanh(logits)).mean()  # noqa: E731
        function = {"least_squares": least_squares, "bce": bce, "hinge": hinge}[criterion]
        teach = (function(true, True) + function(false, False)) / 2
        assert log[0]["patch_critic"] == pytest.approx(teach.item(), rel=1e-4)
        assert log[0]["adversarial"] == pytest.approx(function(false, True).item(), rel=1e-4)

    def test_one_output(self):
        """A critic that gives no list does as well."""
        logs = []
        for features in (True, False):
            networks = turn_networks(patch_critic=lambda channels, features=features: Listing(channels, features))
            torch.manual_seed(0)
            logs.append(trained_log(turn_trainer(networks)))
        assert logs[0] == logs[1]

    def test_batch_normalization(self):
        """As PatchDiscriminator has it: its statistics go on in Step I."""
        networks = turn_networks()
        networks["patch_critic"] = patch_discriminator()
        norm = next(layer for layer in networks["patch_critic"].modules() if isinstance(layer, nn.BatchNorm2d))
        trainer = turn_trainer(networks, turn_batches(2, size=16))
        log = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: log.append(norm.num_batches_tracked.item()))
        trainer.run()
        assert log == [2, 2]

    def test_same_verdict(self):
        """A critic with batch normalization judges a mixture alike in both steps."""
        verdicts = []

        def loss(logits, target_is_real, for_discriminator):
            verdicts.append(logits.detach().clone())
            return (logits**2).mean()

        networks = turn_networks() | {"patch_critic": patch_discriminator()}
        rates = dict(zip(NAMES, (0.01, 0.01, 0.0), strict=True))
        turn_trainer(networks, turn_batches(1, size=16), rates=rates, adversarial_loss=loss).run()
        true, learned, judged = verdicts
        torch.testing.assert_close(judged, learned)
        assert not torch.allclose(true[: len(learned)], learned, rtol=1e-2)


class TestVariational:
    only = {"constraint_weight": 0, "adversarial_weight": 0}

    def test_losses(self):
        """The divergence per pixel is weighted and added; nothing of it in Step II."""
        network = turn_networks(channels=2, network_class=Variational)["autoencoder"]
        batches = turn_batches(2, channels=2, size=9)
        trainer = turn_trainer({"autoencoder": network}, batches, rates=0.0, divergence_weight=0.25, **self.only)
        log = trained_log(trainer)
        slices = network.asked[0][0].reshape(6, 2, 9, 9)
        divergence = torch.zeros(())
        for part in network.feature_maps(slices):
            mean, log_variance = part.chunk(2, dim=1)
            divergence = divergence + kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum()
        divergence = (divergence / 6 / (2 * 9 * 9)).item()
        content = mse(network.results[0][:, :4].reshape(6, 2, 9, 9), slices).item()
        expected = {"content": content, "divergence": divergence, "loss": content + 0.25 * divergence}
        assert log[0] == pytest.approx(expected, rel=1e-4)
        supervised = mse(network.results[1], batches[1]["label"]).item()
        assert log[1] == pytest.approx({"loss": supervised, "supervised": supervised}, rel=1e-5)
        assert [asked[2:] for asked in network.asked] == [(True, True), (False, False)]

    def test_gradient_of_the_divergence(self):
        """The codes' distributions come closer to the standard one the more it weighs."""
        last = []
        for weight in (1e-4, 10.0):
            torch.manual_seed(0)
            network = VariationalHRINetAutoencoder(1, (4, 4), (2,))
            nn.init.normal_(network.bottlenecks[0].bias)
            settings = {"optimizer": torch.optim.Adam, "divergence_weight": weight, "steps": ["unsupervised"]}
            log = trained_log(turn_trainer({"autoencoder": network}, None, 15, 1e-2, **self.only, **settings))
            last.append(log[-1]["divergence"])
        assert last[1] < 0.1 * last[0]

    def test_with_critics(self):
        log = trained_log(turn_trainer(turn_networks(network_class=Variational), divergence_weight=0.1))
        assert [set(values) for values in log] == [STEP_I | {"divergence"}, STEP_II] * 2
        values = log[2]
        expected = values["content"] + 0.7 * values["constraint"] + 0.3 * values["adversarial"]
        assert values["loss"] == pytest.approx(expected + 0.1 * values["divergence"], rel=1e-5)


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"constraint_weight": -1.0}, "constraint_weight must be zero or a positive number, got -1.0"),
            ({"adversarial_weight": -0.1}, "adversarial_weight must be zero or a positive number, got -0.1"),
            ({"divergence_weight": float("nan")}, "divergence_weight must be zero or a positive number, got nan"),
            *(({"mixture": value}, f"mixture must be a number from 0 to 1, got {value}") for value in (-0.1, 1.1)),
            *(({"steps": steps}, "steps must be one or more of unsup") for steps in ((), [], ["supervised", "other"])),
            ({"steps": "other"}, "steps must be one or more of unsupervised, supervised, got 'other'"),
        ],
    )
    def test_wrong(self, wrong, message):
        with pytest.raises(ValueError, match=message) as caught:
            turn_trainer(turn_networks(), **wrong)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            *((f"constraint_{part}", "0.7 needs a constraint_critic and its") for part in ("critic", "optimizer")),
            *((f"patch_{part}", "0.3 needs a patch_critic and its optimizer") for part in ("critic", "optimizer")),
            ("adversarial_loss", "a patch_critic needs an adversarial_loss"),
        ],
    )
    @pytest.mark.parametrize("steps", ["unsupervised", ["unsupervised", "supervised"]])
    def test_missing(self, name, message, steps):
        with pytest.raises(ValueError, match=message):
            turn_trainer(turn_networks(), steps=steps, **{name: None})


def moving_blobs(number, size=16, count=5, seed=0):
    """Groups of slices in which a blob moves from one position to another, too far for a blend of the ends."""
    generator = torch.Generator().manual_seed(seed)
    starts = 3 + (size - 7) * torch.rand(number, 2, generator=generator)
    angle = 6.2832 * torch.rand(number, generator=generator)
    middle = torch.tensor([size / 2, size / 2])
    way = torch.stack([angle.cos(), angle.sin()], dim=1) * 4
    way = torch.where(((middle - starts) * way).sum(dim=1, keepdim=True) > 0, way, -way)
    steps = torch.linspace(0, 1, count)
    centers = starts[:, None] + steps[:, None] * way[:, None]
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), dim=-1)
    distance = ((grid[None, None] - centers[:, :, None, None]) ** 2).sum(dim=-1)
    return torch.exp(-distance / (2 * 1.5**2))  # (number, count, size, size)


def test_learns():
    """Trained in turns, it moves a blob where a blend of the ends shows two."""
    torch.manual_seed(0)
    groups = moving_blobs(64)
    alpha = torch.linspace(0, 1, 5)[1:-1]
    alphas = alpha.repeat(16, 1)
    batches = [{"image": part[:, [0, -1]], "label": part[:, 1:-1], "alpha": alphas} for part in groups.split(16)]
    parts = HRINetAutoencoder(1, (8, 16), (8, 8)), InterpolationCritic(1, (4, 8), 4), patch_discriminator()
    networks, rates = dict(zip(NAMES, parts, strict=True)), dict(zip(NAMES, (3e-3, 1e-3, 1e-3), strict=True))
    settings = {"optimizer": torch.optim.Adam, "constraint_weight": 0.5, "adversarial_weight": 5e-4}
    log = trained_log(turn_trainer(networks, batches, 32, rates, **settings))
    # the batches are of one size
    blend = mse(torch.lerp(groups[:, :1], groups[:, -1:], alpha[:, None, None]), groups[:, 1:-1]).item()
    found = [values["supervised"] for values in log if "supervised" in values][-2:]
    assert sum(found) / 2 < 0.5 * blend, (found, blend)
    content = [values["content"] for values in log if "content" in values]
    assert content[-1] < 0.2 * content[0]
