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

"""What the tests of the bundles share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from monai_sliceinterp.data.phantom import write_phantoms
from monai_sliceinterp.networks.nets import SAINT, ASIAutoencoder

sys.path.insert(0, str(Path(__file__).parent))  # for bundle_commands
pytest.register_assert_rewrite("bundle_commands")

SAINT_BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "saint"
VTS_BUNDLE = SAINT_BUNDLE.with_name("vts")
HRINET_BUNDLE = SAINT_BUNDLE.with_name("hrinet")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as a training writes them; random, as it is not quality that is tested here."""
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(ASIAutoencoder().state_dict(), path)
    return path


@pytest.fixture(scope="session")
def saint_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small SAINT, that of ``small.json``."""
    path = tmp_path_factory.mktemp("saint_weights") / "small.pt"
    parser = ConfigParser()
    parser.read_config(SAINT_BUNDLE / "small.json")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


@pytest.fixture(scope="session")
def full_saint_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of SAINT in the size of the paper."""
    path = tmp_path_factory.mktemp("full_saint_weights") / "full.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(SAINT().state_dict(), path)
    return path


def save_vts_weights(path: Path, *overlays: str) -> Path:
    """Random weights of VTS, with a last layer that adds something of 50 HU to the image."""
    parser = ConfigParser()
    parser.read_config([VTS_BUNDLE / f"{name}.json" for name in ("train", *overlays)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = parser.get_parsed_content("network_def")
        torch.nn.init.normal_(network.head.weight, std=0.1)
        torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def vts_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small VTS, that of ``small.json``."""
    return save_vts_weights(tmp_path_factory.mktemp("vts_weights") / "small.pt", "small")


@pytest.fixture(scope="session")
def default_vts_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VTS in the size of ``train.json``."""
    return save_vts_weights(tmp_path_factory.mktemp("default_vts_weights") / "default.pt")


@pytest.fixture(scope="session")
def hrinet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of HRINet, with a last layer that makes slices of some 600 HU, well inside the window."""
    path = tmp_path_factory.mktemp("hrinet_weights") / "model.pt"
    parser = ConfigParser()
    parser.read_config(HRINET_BUNDLE / "inference.json")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = parser.get_parsed_content("network_def")
        last = [layer for layer in network.decoder if isinstance(layer, torch.nn.Conv2d)][-1]
        torch.nn.init.normal_(last.weight, std=0.1)
        torch.nn.init.constant_(last.bias, 0.1)
        torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def thin_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small thin-slice CT phantoms to train on."""
    folder = tmp_path_factory.mktemp("data") / "thin"
    write_phantoms(folder, "torso", range(3), shape=(40, 40, 25), spacing=(8.0, 8.0, 8.0))
    return folder
