# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Weights say what network they are of: those of another one are refused by what differs."""

from __future__ import annotations

import zipfile

import pytest
import torch
from torch import nn

from monai_sliceinterp.engines import BestModelSaver, load_weights
from monai_sliceinterp.engines.descriptions import add_description, describe_network, read_description
from monai_sliceinterp.files import file_sha256
from monai_sliceinterp.networks.nets import ASIAutoencoder, MixtureNetwork, ResidualASIAutoencoder, VTSGenerator

SMALL = {"channels": (2, 3), "latent_channels": 4}


def save(path, network, described=True):
    path.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), path)
    if described:
        add_description(path, network)
    return path


def entry(path, network):
    return {"sha256": file_sha256(path), **describe_network(network)}


def test_tensors_are_read_as_ever(tmp_path):
    """By torch, memory-mapped too; the file is whole."""
    network = ASIAutoencoder(**SMALL)
    path = save(tmp_path / "model.pt", network)
    for mmap in (False, True):
        torch.testing.assert_close(torch.load(path, weights_only=True, mmap=mmap), network.state_dict(), rtol=0, atol=0)
    assert zipfile.ZipFile(path).testzip() is None
    assert read_description(path)["made_by"].startswith("monai_sliceinterp")
    saver = BestModelSaver(network, tmp_path / "best.pt")
    saver.load_state_dict({"best_metric": 1.0, "best_metric_epoch": 2, "weights": network.state_dict()})
    assert read_description(tmp_path / "best.pt")["network"] == "ASIAutoencoder"
    load_weights(ASIAutoencoder(**SMALL), tmp_path / "best.pt")


def test_other_form_of_equal_tensors(tmp_path):
    path = save(tmp_path / "model.pt", ResidualASIAutoencoder(**SMALL))
    with pytest.raises(ValueError, match=r"model\.pt: are weights of ResidualASIAutoencoder, not of ASIAutoencoder;"):
        load_weights(ASIAutoencoder(**SMALL), path)
    path = save(tmp_path / "vts.pt", VTSGenerator(channels=(4, 8), residual_scale=0.1))
    load_weights(VTSGenerator(channels=(4, 8), residual_scale=0.1), path)
    with pytest.raises(ValueError, match=r"of a VTSGenerator with residual_scale 0\.1, not 1\.0; expected the overlay"):
        load_weights(VTSGenerator(channels=(4, 8), residual_scale=1.0), path)


def test_lists_of_settings(tmp_path):
    sizes = {"channels": 4, "num_blocks": 1}
    path = save(tmp_path / "model.pt", MixtureNetwork(**sizes, mixed=["linear", "cubic"]))
    load_weights(MixtureNetwork(**sizes, mixed=["linear", "cubic"]), path)
    with pytest.raises(ValueError, match=r"of a MixtureNetwork with mixed \['linear', 'cubic'\], not "):
        load_weights(MixtureNetwork(**sizes, mixed=["linear", "motion"]), path)


def test_shipped_weights(tmp_path):
    """The bundle's file has to be the one it ships; it is known wherever it lies."""
    plain, residual = ASIAutoencoder(**SMALL), ResidualASIAutoencoder(**SMALL)
    paths = [
        save(tmp_path / "models" / name, network, False) for name, network in (("a.pt", plain), ("b.pt", residual))
    ]
    shipped = {path.name: entry(path, network) for path, network in zip(paths, (plain, residual), strict=True)}
    load_weights(plain, paths[0], shipped=shipped)
    for path in (paths[1], paths[1].rename(tmp_path / "copy.pt")):
        with pytest.raises(ValueError, match="are weights of ResidualASIAutoencoder"):
            load_weights(plain, tmp_path / "copy.pt" if not path.exists() else path, shipped=shipped)
    own = save(tmp_path / "own.pt", ASIAutoencoder(**SMALL), False)
    load_weights(plain, own, shipped=shipped)
    with pytest.raises(ValueError, match=r"a\.pt: is not the file that the bundle ships \(SHA-256 "):
        load_weights(plain, own.rename(paths[0]), shipped=shipped)


def test_damaged_description(tmp_path):
    path = save(tmp_path / "model.pt", nn.Linear(1, 1), described=False)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/description.json", "[]")
    with pytest.raises(ValueError, match=r"model\.pt: has a damaged description"):
        load_weights(nn.Linear(1, 1), path)


def test_file_without_a_place_for_one(tmp_path):
    """As torch wrote them before version 1.6."""
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(network.state_dict(), tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    assert read_description(tmp_path / "model.pt") == {}
    assert torch.equal(load_weights(other, tmp_path / "model.pt").weight, network.weight)
