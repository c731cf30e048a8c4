# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Networks that are trained in mixed precision, by MONAI's trainers and by ours."""

import json

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.losses import PatchAdversarialLoss
from torch import nn

from monai_sliceinterp import precision
from monai_sliceinterp.engines import ConditionalGANTrainer, CriticTrainer, PrepareConditionalPairs
from monai_sliceinterp.inferers import MixedPrecisionInferer
from tests.bundles.bundle_cases import CASES
from tests.bundles.bundle_commands import BUNDLES, overlays_of, parser_of

TRAINERS = {  # of each bundle, by their ids in train.json
    "asi": ["train"],
    "saint": ["train", "fusion"],
    "hrinet": ["train", "refine"],
    "vts": ["train"],
    "mixture": ["train"],
}


def parts_of(content):
    """All dictionaries of a configuration."""
    if isinstance(content, dict):
        yield content
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from parts_of(value)


class Recorder(nn.Module):
    """A layer that remembers the type it computed in."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.dtypes = []

    def forward(self, image):
        result = self.layer(image)
        self.dtypes.append(result.dtype)
        return result


@pytest.mark.parametrize(("amp", "dtype"), [(False, torch.float32), (True, torch.bfloat16), ("true", torch.bfloat16)])
def test_trainer(amp, dtype):
    """The network computes in it; its result, the loss and the weights are float32."""
    network, losses = Recorder(), []

    def loss(pred, label):
        losses.append((pred.dtype, label.dtype))
        return (pred - label).square().mean()

    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.rand(2, 4), "label": torch.rand(2, 4)}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=loss,
        inferer=MixedPrecisionInferer(amp),
        decollate=False,
    )
    before = network.layer.weight.detach().clone()
    trainer.run()
    assert network.dtypes == [dtype] and losses == [(torch.float32, torch.float32)]
    assert network.layer.weight.dtype == torch.float32 and not torch.equal(network.layer.weight, before)


def test_gradients_are_nearly_those_of_float32():
    torch.manual_seed(0)
    network, image = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3)), torch.rand(2, 1, 16, 16)
    gradients = []
    for amp in (False, True):
        network.zero_grad()
        MixedPrecisionInferer(amp)(image, network).square().mean().backward()
        gradients.append(torch.cat([parameter.grad.reshape(-1) for parameter in network.parameters()]))
    assert 0 < (gradients[1] - gradients[0]).norm() < 0.01 * gradients[0].norm()


@pytest.mark.parametrize(
    ("amp", "native", "expected"),
    [(True, True, False), ("auto", True, False), (True, False, True), ("auto", False, False), (False, False, False)],
)
def test_float16_alone_is_scaled(amp, native, expected, monkeypatch):
    """On GPUs without bfloat16; a processor has it or emulates it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert precision.needs_loss_scaling(amp, "cuda:0") is expected
    assert precision.needs_loss_scaling(amp, "cpu") is False


def test_unknown_setting():
    for make in (MixedPrecisionInferer, lambda amp: precision.needs_loss_scaling(amp, "cpu")):
        with pytest.raises(ValueError, match="amp must be auto, true or false, got 'maybe'"):
            make("maybe")


@pytest.mark.parametrize("bundle", CASES)
def test_bundles(bundle, tmp_path):
    """All networks of a training compute in what ``amp`` says; engines of MONAI get what is for float16 alone."""
    small = {"num_phantoms": 3, "shape": [32, 32, 25], "spacing": [8, 8, 1]}
    options = {"output_dir": str(tmp_path), **{f"phantoms__{name}": value for name, value in small.items()}}
    for amp, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        parser = parser_of(bundle, "train", amp=amp, **options)
        for name in TRAINERS[bundle]:
            trainer = parser.get_parsed_content(f"{name}#trainer")
            if isinstance(trainer, CriticTrainer):
                with trainer.autocast():
                    assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == dtype
                assert not any(scaler.is_enabled() for scaler in trainer.scalers.values())
            else:
                assert trainer.inferer.amp is amp and trainer.amp is False


@pytest.mark.parametrize("bundle", CASES)
def test_all_inferers_are_told(bundle):
    for overlay in ("train", *overlays_of(bundle)):
        content = json.loads((BUNDLES / bundle / f"{overlay}.json").read_text())
        for part in parts_of(content):
            if str(part.get("_target_")).endswith("SliceInferer"):
                assert part["amp"] == "@amp", (overlay, part)


def test_critics():
    """All networks of an adversarial training compute in it, their losses are float32."""
    networks = {name: Recorder() for name in ("generator", "discriminator")}
    batch = {"image": torch.rand(2, 4), "label": torch.rand(2, 4)}
    networks["discriminator"].layer = nn.Linear(8, 1)
    trainer = ConditionalGANTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        **networks,
        **{f"{name}_optimizer": torch.optim.SGD(networks[name].parameters(), lr=0.1) for name in networks},
        reconstruction_loss=nn.L1Loss(),
        adversarial_loss=PatchAdversarialLoss(criterion="least_squares"),
        prepare_batch=PrepareConditionalPairs(condition_key=None),
        amp=True,
    )
    trainer.run()
    assert networks["generator"].dtypes == [torch.bfloat16] and networks["discriminator"].dtypes == [torch.bfloat16] * 2
    losses = [value for value in trainer.state.output.values() if value.ndim == 0]
    assert len(losses) == 4 and all(loss.dtype == torch.float32 for loss in losses)
