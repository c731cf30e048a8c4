# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What the tests of the evaluation share."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from monai_sliceinterp.data import write_phantoms
from monai_sliceinterp.evaluation import presentation
from monai_sliceinterp.networks.nets import ASIAutoencoder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def make_bundle():
    """Make a small bundle: the inference of bundle asi with a tiny network, random weights from a seed, and changes."""

    def make(folder, seed=0, configs="", **changes):
        config = json.loads((ROOT / "bundles" / "asi" / "inference.json").read_text())
        plain = f"{ASIAutoencoder.__module__}.{ASIAutoencoder.__qualname__}"
        config["network_def"].update(_target_=plain, channels=[2], latent_channels=2)
        config.update(changes)
        (folder / configs).mkdir(parents=True, exist_ok=True)
        (folder / configs / "inference.json").write_text(json.dumps(config))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = ASIAutoencoder(channels=(2,), latent_channels=2)
        (folder / "models").mkdir(exist_ok=True)
        torch.save(network.state_dict(), folder / "models" / "model.pt")
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_bundle(make_bundle, tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def heads(tmp_path_factory):
    """A folder of three small MR phantoms of 9 slices."""
    folder = tmp_path_factory.mktemp("data") / "mr"
    write_phantoms(folder, "head", range(3), shape=(24, 22, 9), spacing=(8.0, 8.0, 9.0))
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(presentation, "_draw", lambda *args: ({}, []))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be written; they are not rendered."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    return figures
