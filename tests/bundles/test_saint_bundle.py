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

"""What of the bundle saint is not as in every bundle, for which there is ``test_monai_checks.py``."""

from __future__ import annotations

import pytest
from bundle_commands import check_weights, content, overlays_of

from monai_sliceinterp.networks.nets import SAINT

OWN_NETWORK = ["small", "four_views", "rfn_3d", "paper"]


@pytest.mark.parametrize(("overlay", "file"), [("", "model.pt"), ("small", "model_small.pt")])
def test_shipped_weights_fit_the_network(overlay: str, file: str) -> None:
    network = check_weights("saint", [overlay] if overlay else [], file)
    assert type(network) is SAINT


def test_overlays_with_a_network_have_its_weights() -> None:
    assert {"ct", *OWN_NETWORK} <= set(overlays_of("saint"))
    for name in OWN_NETWORK:
        overlay = content("saint", name)
        assert overlay["network_def"]["_target_"] == "monai_sliceinterp.networks.nets.SAINT"
        assert overlay["weights"] == f"model_{name}.pt"
