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

"""What of the bundle vts is not as in every bundle, for which there is ``test_monai_checks.py``."""

from __future__ import annotations

import pytest
from bundle_commands import card, check_weights, content, overlays_of

from monai_sliceinterp.networks.nets import VTSGenerator

OWN_NETWORK = ["small", "paper", "no_hf", "srcnn", "pix2pix"]
OWN_WEIGHTS = [*OWN_NETWORK, "no_condition"]


@pytest.mark.parametrize(("overlay", "file"), [("", "model.pt"), ("small", "model_small.pt")])
def test_shipped_weights_fit_the_network(overlay: str, file: str) -> None:
    network = check_weights("vts", [overlay] if overlay else [], file)
    assert type(network) is VTSGenerator
    assert network.head.weight.abs().sum() > 0  # trained: an untrained one leaves its input as it is


def test_card_tells_the_size_of_the_papers_network() -> None:
    assert "18,096,769 parameters" in card("vts")


def test_overlays_with_a_network_have_its_weights() -> None:
    assert {"ct", *OWN_WEIGHTS} <= set(overlays_of("vts"))
    for name in overlays_of("vts"):
        overlay = content("vts", name)
        keys = {"channels", "stem_channels", "high_frequency", "residual_scale", "network_def"}
        changes = bool(keys & set(overlay))
        assert changes == (name in OWN_NETWORK)
        if name in OWN_WEIGHTS:
            assert overlay["weights"] == f"model_{name}.pt"
