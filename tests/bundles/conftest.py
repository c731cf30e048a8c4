"""What the tests of the bundles share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from monai_sliceinterp.networks.nets import ASIAutoencoder

sys.path.insert(0, str(Path(__file__).parent))  # for bundle_commands


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as a training writes them; random, as it is not quality that is tested here."""
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(ASIAutoencoder().state_dict(), path)
    return path
