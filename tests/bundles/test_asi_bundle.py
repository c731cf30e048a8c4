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

"""The bundle asi as a bundle: metadata, layout, overlays, and MONAI's own checks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest
from bundle_commands import (
    BUNDLES,
    ROOT,
    Command,
    Result,
    check_common_keys,
    check_files,
    check_metadata,
    check_net_in_out,
    check_overlay,
    check_versions,
    check_weights,
    check_weights_untouched,
    content,
    download,
    overlays_of,
    run_named,
    save_scan,
    start_workflow,
)

from monai_sliceinterp.networks.nets import ASIAutoencoder, ResidualASIAutoencoder

BUNDLE = BUNDLES / "asi"
TINY = {
    "phantoms#num_phantoms": 3,
    "phantoms#shape": [32, 32, 9],
    "patch_size": 32,
    "max_epochs": 1,
    "val_interval": 1,
}


def test_files_and_links() -> None:
    check_files("asi")


@pytest.mark.parametrize("overlay", ["", "residual"])
def test_shipped_weights_fit_the_network(overlay: str) -> None:
    network = check_weights("asi", [overlay] if overlay else [], "model_residual.pt" if overlay else "model.pt")
    assert type(network) is (ResidualASIAutoencoder if overlay else ASIAutoencoder)


def test_metadata_has_what_the_zoo_requires(tmp_path: Path) -> None:
    check_metadata("asi", tmp_path / "schema.json")


def test_versions_agree() -> None:
    check_versions("asi")


def test_verify_net_in_out() -> None:
    for config, n in (("inference", 4), ("inference", 7), ("train", 5)):
        check_net_in_out("asi", config, n=n)


def test_properties_of_training(tmp_path: Path) -> None:
    workflow = start_workflow("asi", ["train"], "train", output_dir=str(tmp_path), **TINY)
    assert workflow.version == content("asi", "metadata")["version"] and workflow.val_interval == 1


def test_properties_of_inference(weights: Path, tmp_path: Path) -> None:
    scan, out = save_scan(tmp_path / "scan.nii.gz"), tmp_path / "out"
    options = {"input": str(scan), "output_dir": str(out), "ckpt": str(weights), "factor": 2, "progress": False}
    workflow = start_workflow("asi", ["inference"], "infer", **options)
    workflow.run()
    workflow.finalize()
    assert nib.load(out / "scan_interp.nii.gz").shape == (20, 24, 11)


@pytest.mark.parametrize("name", overlays_of("asi"))
def test_overlays_change_what_exists(name: str) -> None:
    check_overlay("asi", name, ["train", "validate"])


def test_keys_that_all_bundles_share() -> None:
    check_common_keys("asi")


@pytest.fixture(scope="module")
def places(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Runs from the places a bundle may be run from, among them a copy as a download would be."""
    root = tmp_path_factory.mktemp("places")
    copy = download("asi", root / "downloaded", weights)
    scan = save_scan(root / "scan.nii.gz")
    tiny = {**TINY, "phantoms#shape": "[32,32,9]"}
    given = {"input": scan, "factor": 2}
    commands = {
        "inside": Command("train.json", {**tiny, "output_dir": root / "inside"}, BUNDLE, python_path=str(ROOT)),
        "configs": Command(
            "bundles/asi/configs/inference.json", {**given, "ckpt": weights, "output_dir": root / "configs"}
        ),
        "copy_train": Command("configs/train.json", tiny, copy, python_path=str(ROOT)),
        "copy_infer": Command("configs/inference.json", given, copy, python_path=str(ROOT)),
        "bundle_root": Command(
            f"{copy}/configs/inference.json",
            {**given, "bundle_root": copy, "output_dir": root / "bundle_root"},
            root,
            python_path=str(ROOT),
        ),
    }
    return root, run_named(commands)


def test_training_inside_the_bundle_folder(places: tuple[Path, dict[str, Result]]) -> None:
    root, results = places
    results["inside"].check_success()
    assert (root / "inside" / "model.pt").is_file()


def test_training_leaves_the_shipped_weights_alone(weights: Path, places: tuple[Path, dict[str, Result]]) -> None:
    root, results = places
    results["copy_train"].check_success()
    copy = root / "downloaded" / "asi"
    check_weights_untouched(copy, weights)
    assert (copy / "output" / "model.pt").read_bytes() != weights.read_bytes()


@pytest.mark.parametrize("place", ["configs", "copy_infer", "bundle_root"])
def test_inference_from_other_places(place: str, places: tuple[Path, dict[str, Result]]) -> None:
    root, results = places
    results[place].check_success()
    folder = root / "downloaded" / "asi" / "output" if place == "copy_infer" else root / place
    assert nib.load(folder / "scan_interp.nii.gz").shape == (20, 24, 11)
    assert "Traceback" not in results[place].stderr and " ERROR " not in results[place].stdout
