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

"""What of the bundle asi is not as in every bundle, for which there is ``test_monai_checks.py``."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest
from bundle_commands import BUNDLES, ROOT, Command, check_weights, run_named, save_scan

from monai_sliceinterp.networks.nets import ASIAutoencoder, ResidualASIAutoencoder


@pytest.mark.parametrize("overlay", ["", "residual"])
def test_shipped_weights_fit_the_network(overlay: str) -> None:
    network = check_weights("asi", [overlay] if overlay else [], "model_residual.pt" if overlay else "model.pt")
    assert type(network) is (ResidualASIAutoencoder if overlay else ASIAutoencoder)


def test_other_places_in_a_checkout(weights: Path, tmp_path: Path) -> None:
    """Training inside the bundle's folder, and a config in the folder of links."""
    phantoms = {"phantoms#num_phantoms": 3, "phantoms#shape": "[32,32,9]"}
    tiny = {**phantoms, "patch_size": 32, "max_epochs": 1, "val_interval": 1, "output_dir": tmp_path / "inside"}
    given = {"input": save_scan(tmp_path / "scan.nii.gz"), "factor": 2, "ckpt": weights, "output_dir": tmp_path}
    commands = {
        "inside": Command("train.json", tiny, BUNDLES / "asi", python_path=str(ROOT)),
        "configs": Command("bundles/asi/configs/inference.json", given),
    }
    for result in run_named(commands).values():
        result.check_success()
        assert " ERROR " not in result.stdout
    assert (tmp_path / "inside" / "model.pt").is_file()
    assert nib.load(tmp_path / "scan_interp.nii.gz").shape == (20, 24, 11)
