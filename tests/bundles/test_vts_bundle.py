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

"""The bundle vts as a bundle: metadata, layout, card, overlays, and MONAI's own checks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundle_commands import (
    ROOT,
    Command,
    card,
    check_card,
    check_common_keys,
    check_documented_command,
    check_files,
    check_metadata,
    check_net_in_out,
    check_overlay,
    check_versions,
    check_weights,
    check_weights_untouched,
    content,
    documented_commands,
    download,
    names,
    overlays_of,
    parameters,
    parser_of,
    run_named,
    save_scan,
    start_workflow,
)

from monai_sliceinterp.networks.nets import VTSGenerator

OWN_NETWORK = ["small", "paper", "no_hf", "srcnn", "pix2pix"]
OWN_WEIGHTS = [*OWN_NETWORK, "no_condition"]


def test_files_and_links() -> None:
    check_files("vts")
    assert {"ct", *OWN_WEIGHTS} <= set(overlays_of("vts"))
    assert card("vts")


@pytest.mark.parametrize(("overlay", "file"), [("", "model.pt"), ("small", "model_small.pt")])
def test_shipped_weights_fit_the_network(overlay: str, file: str) -> None:
    network = check_weights("vts", [overlay] if overlay else [], file)
    assert type(network) is VTSGenerator
    assert network.head.weight.abs().sum() > 0  # trained: an untrained one leaves its input as it is


def test_metadata_has_what_the_zoo_requires(tmp_path: Path) -> None:
    check_metadata("vts", tmp_path / "schema.json")


def test_metadata_tells_the_scores() -> None:
    scores = content("vts", "metadata")["eval_metrics"]
    assert scores and all(type(value) is float for value in scores.values())


def test_versions_agree() -> None:
    check_versions("vts")


def test_card_is_complete() -> None:
    """The number of parameters is that of the default network, the paper's network is told too, and no gap is left."""
    check_card("vts", parameters(parser_of("vts", "inference").get_parsed_content("network_def")), 18_096_769)


def test_card_has_commands() -> None:
    commands = " ".join(documented_commands("vts"))
    for name in ("inference", "train", "evaluate", "small", "paper", "multi_gpu_train"):
        assert f"bundles/vts/{name}.json" in commands


@pytest.mark.parametrize("command", documented_commands("vts"))
def test_commands_of_the_card(command: str) -> None:
    """Their files are there, and have the keys that are set."""
    check_documented_command("vts", command)


@pytest.mark.parametrize("sizes", [{}, {"n": 2}, {"any": 6, "n": 3}], ids=str)
@pytest.mark.parametrize("configs", [["inference"], ["inference", "small"], ["train", "small"]], ids="+".join)
def test_verify_net_in_out(configs: list[str], sizes: dict[str, int]) -> None:
    """Also with the sizes that MONAI takes by itself, as the model zoo's checks do."""
    check_net_in_out("vts", *configs, **sizes)


def test_properties_of_training(thin_volumes: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "val_interval": 1, "pixdim": [0, 0, 0]}
    workflow = start_workflow("vts", ["train", "small"], "train", **options)
    assert workflow.version == content("vts", "metadata")["version"] and workflow.val_interval == 1


def test_properties_of_inference(default_vts_weights: Path, tmp_path: Path) -> None:
    scan, out = save_scan(tmp_path / "scan.nii.gz", (14, 13, 4)), tmp_path / "out"
    options = {"input": str(scan), "output_dir": str(out), "ckpt": str(default_vts_weights), "progress": False}
    workflow = start_workflow("vts", ["inference"], "infer", **options)
    workflow.run()
    workflow.finalize()
    assert nib.load(out / "scan_interp.nii.gz").shape == (14, 13, 13)  # 4 mm to 1 mm


@pytest.mark.parametrize("name", overlays_of("vts"))
def test_overlays_change_what_exists(name: str) -> None:
    check_overlay("vts", name, ["train", "validate"])


def test_keys_that_all_bundles_share() -> None:
    check_common_keys("vts")


def test_configs_have_the_same_network() -> None:
    """Inference builds what training trained, alone and with an overlay, and finds its file."""
    assert content("vts", "inference")["network_def"] == content("vts", "train")["network_def"]
    assert content("vts", "inference")["window"] == content("vts", "train")["window"]
    for name in overlays_of("vts"):
        overlay = content("vts", name)
        keys = {"channels", "stem_channels", "high_frequency", "residual_scale", "network_def"}
        changes = bool(keys & set(overlay))
        assert changes == (name in OWN_NETWORK)
        if name in OWN_WEIGHTS:
            assert overlay["weights"] == f"model_{name}.pt"
    assert {"weights": "model.pt"}.items() <= content("vts", "inference").items()
    assert {"weights": "model.pt"}.items() <= content("vts", "evaluate").items()


def test_downloaded_bundle(default_vts_weights: Path, thin_volumes: Path, tmp_path: Path) -> None:
    """A copy runs in its own folder, as a download would: paths, links turned files, output beside the weights."""
    copy = download("vts", tmp_path / "downloaded", default_vts_weights)
    scan = save_scan(tmp_path / "scan.nii.gz", (14, 13, 3), spacing=(1.0, 1.0, 5.0))
    python_path = str(ROOT)
    tiny = {"patch_size": 16, "max_epochs": 1, "val_interval": 1, "batch_size": 2, "crops_per_volume": 1}
    given = {**tiny, "dataset_dir": thin_volumes, "pixdim": "[0,0,0]"}
    results = run_named(
        {
            "train": Command(["configs/train.json", "configs/small.json"], given, copy, python_path=python_path),
            "infer": Command("configs/inference.json", {"input": scan}, copy, python_path=python_path),
        }
    )
    for result in results.values():
        result.check_success()
        assert " ERROR " not in result.stdout
    check_weights_untouched(copy, default_vts_weights)
    found = {name for name in names(copy / "output") if not name.startswith("events.out.tfevents")}
    assert {"model.pt", "checkpoint.pt", "scores.csv", "scores.md", "scan_interp.nii.gz"} <= found
    image = nib.load(copy / "output" / "scan_interp.nii.gz")
    assert image.shape == (14, 13, 11) and image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.header.get_zooms(), 1.0)
