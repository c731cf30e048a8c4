# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Small trainings against critics, for the tests of the trainers."""

import torch
from ignite.engine import Events
from monai.data import list_data_collate
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.engines import AlternatingSupervisionTrainer, ConditionalGANTrainer
from monai_sliceinterp.networks.nets import HRINetAutoencoder, InterpolationCritic, VTSDiscriminator, VTSGenerator

NAMES = ("autoencoder", "constraint_critic", "patch_critic")
GAN_LOSSES = {"loss", "reconstruction", "adversarial", "discriminator"}
STEP_I = {"loss", "content", "constraint", "adversarial", "constraint_critic", "patch_critic"}
STEP_II = {"loss", "supervised"}
LOSSES = GAN_LOSSES | STEP_I | STEP_II | {"divergence"}


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def record(trainer):
    """Losses of each iteration."""
    log = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def remember(engine):
        log.append({name: float(value) for name, value in engine.state.output.items() if name in LOSSES})

    return log


def trained_log(trainer):
    log = record(trainer)
    trainer.run()
    return log


def weights(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def bce(logits, real):
    return F.softplus(-logits if real else logits).mean()


def mse(first, second):
    return ((first - second) ** 2).mean()


class Wrapper(nn.Module):
    """A wrapper like those for distributed training."""

    def __init__(self, module):
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return self.module(*args, **kwargs)


def gan_items(number=6, size=8):
    """Sharp random volumes and blurred ones, each with a condition."""
    items = []
    for k in range(number):
        sharp = rand(1, size, size, size, seed=k)
        blurred = F.avg_pool3d(F.pad(sharp[None], (1, 1, 0, 0, 0, 0), mode="replicate"), (1, 1, 3), 1)[0]
        items.append({"image": blurred, "label": sharp, "condition": torch.eye(8)[k % 8]})
    return items


def gan_batches(number=3, batch_size=2):
    items = gan_items(number * batch_size)
    return [list_data_collate(items[k * batch_size : (k + 1) * batch_size]) for k in range(number)]


def gan_networks(seed=0):
    """A generator and a discriminator with head and attention unlike zero."""
    torch.manual_seed(seed)
    networks = {"generator": VTSGenerator((2, 3)), "discriminator": VTSDiscriminator((2, 4))}
    nn.init.normal_(networks["generator"].head.weight)
    nn.init.constant_(networks["discriminator"].layers[2].weight, 0.5)
    return networks


def gan_trainer(networks, batches=None, epochs=1, rates=(1e-2, 1e-2), optimizer=torch.optim.Adam, **kwargs):
    settings = {
        "device": "cpu",
        "max_epochs": epochs,
        "train_data_loader": gan_batches() if batches is None else batches,
        "reconstruction_loss": nn.L1Loss(),
        "adversarial_loss": PatchAdversarialLoss(criterion="bce"),
        "reconstruction_weight": 10.0,
    }
    for (name, network), rate in zip(networks.items(), rates, strict=True):
        settings |= {name: network, f"{name}_optimizer": optimizer(network.parameters(), lr=rate)}
    return ConditionalGANTrainer(**{**settings, **kwargs})


class Spy(HRINetAutoencoder):
    """Autoencoder that records its arguments."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = []

    def forward(self, image, alpha=0.5, reconstruct=False):
        self.asked.append((image.clone(), alpha.clone(), reconstruct))
        return super().forward(image, alpha, reconstruct)


class SpyCritic(InterpolationCritic):
    """D1 that records what it sees."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def forward(self, image):
        self.seen.append((image.detach().clone(), image.requires_grad, self.layers[0].weight.requires_grad))
        return super().forward(image)


class Listing(nn.Module):
    """Patch critic that returns its features before its output, and records what it sees."""

    def __init__(self, channels=1, features=True):
        super().__init__()
        self.layer, self.head = nn.Conv2d(channels, 3, 4, 2, 1), nn.Conv2d(3, 1, 3)
        self.features, self.seen = features, []

    def forward(self, image):
        self.seen.append((image.detach().clone(), image.requires_grad, self.layer.weight.requires_grad))
        features = F.leaky_relu(self.layer(image), 0.2)
        result = self.head(features)
        return [features, result] if self.features else result


def turn_batches(number=4, batch_size=3, channels=1, count=5, size=8):
    """Groups as the transform draws them; random numbers, so that no slice resembles another."""
    batches = []
    for k in range(number):
        group = rand(batch_size, count, channels, size, size, seed=k)
        alpha = (torch.arange(1, count - 1) / (count - 1)).repeat(batch_size, 1)
        ends, between = group[:, [0, -1]], group[:, 1:-1]
        batches.append({"image": ends.flatten(1, 2), "label": between.flatten(1, 2), "alpha": alpha})
    return batches


def turn_networks(seed=0, channels=1, network_class=Spy, patch_critic=Listing):
    """The autoencoder and its critics, whose outputs depend strongly on their inputs."""
    torch.manual_seed(seed)
    parts = network_class(channels, (3, 4), (2, 3)), SpyCritic(channels, (3, 4), 2), patch_critic(channels)
    networks = dict(zip(NAMES, parts, strict=True))
    for name in NAMES[:2]:
        for parameter in networks[name].parameters():
            parameter.data *= 1.8
            if parameter.ndim == 1:
                nn.init.normal_(parameter, std=0.1)
    return networks


def patch_discriminator(channels=1):
    return PatchDiscriminator(2, 4, channels, num_layers_d=1)


def turn_trainer(networks, batches=None, epochs=1, rates=0.01, optimizer=torch.optim.SGD, **kwargs):
    rates = rates if isinstance(rates, dict) else dict.fromkeys(NAMES, rates)
    settings = {
        "device": "cpu",
        "max_epochs": epochs,
        "train_data_loader": turn_batches() if batches is None else batches,
        "content_loss": nn.MSELoss(),
        "adversarial_loss": PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True),
        "constraint_weight": 0.7,
        "adversarial_weight": 0.3,
    }
    for name, network in networks.items():
        key = "autoencoder_optimizer" if name == "autoencoder" else name.replace("critic", "optimizer")
        settings |= {name: network, key: optimizer(network.parameters(), lr=rates[name])}
    return AlternatingSupervisionTrainer(**{**settings, **kwargs})
