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

"""What of the bundle hrinet is not as in every bundle, for which there is ``test_monai_checks.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_commands import (
    BUNDLES,
    card,
    check_weights,
    content,
    names,
    overlays_of,
    parameters,
    parser_of,
    start_workflow,
)

from monai_sliceinterp.networks.nets import HRINetAutoencoder, VariationalHRINetAutoencoder

OWN_NETWORK = ["ae", "acai", "vae", "paper"]
OWN_WEIGHTS = [*OWN_NETWORK, "perceptual", "patchgan_only"]


def test_shipped_weights_fit_the_network() -> None:
    """There are those of the default; every other file is read by an overlay and fits, too."""
    files = {"model.pt": "", **{f"model_{name}.pt": name for name in OWN_WEIGHTS}}
    shipped = [name for name in names(BUNDLES / "hrinet" / "models") if name.endswith(".pt")]
    assert "model.pt" in shipped and set(shipped) <= set(files)
    for file in shipped:
        network = check_weights("hrinet", [files[file]] if files[file] else [], file)
        assert type(network) is (VariationalHRINetAutoencoder if files[file] == "vae" else HRINetAutoencoder)


def test_metadata_tells_the_scores() -> None:
    scores = content("hrinet", "metadata")["eval_metrics"]
    assert set(scores) == {f"x{factor}_{name}" for factor in (2, 4, 6) for name in ("psnr", "ssim")}


def test_card_tells_the_size_of_the_papers_network() -> None:
    network = parser_of("hrinet", "inference", "paper").get_parsed_content("network_def")
    assert f"{parameters(network):,} parameters" in card("hrinet")


@pytest.mark.parametrize("overlay", ["perceptual", "vae"])
def test_properties_of_training(overlay: str, thin_volumes: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "val_interval": 1}
    assert start_workflow("hrinet", ["train", overlay], "train", **options).val_interval == 1


def test_overlays_with_a_network_have_its_weights() -> None:
    assert {"ct", "mse", *OWN_WEIGHTS} <= set(overlays_of("hrinet"))
    for name in overlays_of("hrinet"):
        overlay = content("hrinet", name)
        changes = bool({"channels", "latent_channels", "network_def"} & set(overlay))
        assert changes == (name in OWN_NETWORK)
        file = "model.pt" if name in ("mse", "evaluate") else f"model_{name}.pt" if name in OWN_WEIGHTS else None
        assert overlay.get("weights") == file
