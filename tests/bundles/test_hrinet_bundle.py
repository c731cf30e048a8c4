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

"""The bundle hrinet as a bundle: metadata, layout, card, overlays, and MONAI's own checks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundle_commands import (
    BUNDLES,
    ROOT,
    Command,
    card,
    check_card,
    check_common_keys,
    check_documented_command,
    check_files,
    check_metadata,
    check_net_in_out,
    check_output,
    check_overlay,
    check_versions,
    check_weights,
    check_weights_untouched,
    content,
    documented_commands,
    download,
    files_of,
    names,
    overlays_of,
    parameters,
    parser_of,
    run_named,
    save_scan,
    scan_of,
    start_workflow,
)

from monai_sliceinterp.networks.nets import HRINetAutoencoder, VariationalHRINetAutoencoder

OWN_NETWORK = ["ae", "acai", "vae", "paper"]
OWN_WEIGHTS = [*OWN_NETWORK, "perceptual", "patchgan_only"]


def test_files_and_links() -> None:
    check_files("hrinet")
    assert {"ct", "mse", *OWN_WEIGHTS} <= set(overlays_of("hrinet"))


def test_shipped_weights_fit_the_network() -> None:
    """There are those of the default; every other file is read by an overlay and fits, too."""
    files = {"model.pt": "", **{f"model_{name}.pt": name for name in OWN_WEIGHTS}}
    shipped = [name for name in names(BUNDLES / "hrinet" / "models") if name.endswith(".pt")]
    assert "model.pt" in shipped and set(shipped) <= set(files)
    for file in shipped:
        network = check_weights("hrinet", [files[file]] if files[file] else [], file)
        assert type(network) is (VariationalHRINetAutoencoder if files[file] == "vae" else HRINetAutoencoder)


def test_metadata_has_what_the_zoo_requires(tmp_path: Path) -> None:
    check_metadata("hrinet", tmp_path / "schema.json")


def test_metadata_tells_the_scores() -> None:
    scores = content("hrinet", "metadata")["eval_metrics"]
    assert set(scores) == {f"x{factor}_{name}" for factor in (2, 4, 6) for name in ("psnr", "ssim")}
    assert all(type(value) is float and value > 0 for value in scores.values())


def test_versions_agree() -> None:
    check_versions("hrinet")


def test_card_is_complete() -> None:
    """The number of parameters is that of the default network, the paper's network is told too, and no gap is left."""
    counts = [
        parameters(parser_of("hrinet", "inference", *names_).get_parsed_content("network_def"))
        for names_ in ((), ("paper",))
    ]
    check_card("hrinet", *counts)
    for name in ("ct", "mse", *OWN_WEIGHTS):
        assert f"{name}.json" in card("hrinet")


def test_card_has_commands() -> None:
    commands = " ".join(documented_commands("hrinet"))
    for name in ("inference", "train", "evaluate", "paper", "multi_gpu_train"):
        assert f"bundles/hrinet/{name}.json" in commands


@pytest.mark.parametrize("command", documented_commands("hrinet"))
def test_commands_of_the_card(command: str) -> None:
    """Their files are there, and have the keys that are set."""
    check_documented_command("hrinet", command)


@pytest.mark.parametrize("sizes", [{}, {"n": 2}, {"any": 6, "n": 3}], ids=str)
@pytest.mark.parametrize(
    "configs", [["inference"], ["inference", "acai"], ["inference", "vae"], ["train"]], ids="+".join
)
def test_verify_net_in_out(configs: list[str], sizes: dict[str, int]) -> None:
    """Also with the sizes that MONAI takes by itself, as the model zoo's checks do."""
    check_net_in_out("hrinet", *configs, **sizes)


@pytest.mark.parametrize("overlay", ["", "perceptual", "vae"])
def test_properties_of_training(overlay: str, thin_volumes: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "val_interval": 1}
    workflow = start_workflow("hrinet", ["train", *filter(None, [overlay])], "train", **options)
    assert workflow.version == content("hrinet", "metadata")["version"] and workflow.val_interval == 1


def test_properties_of_inference(hrinet_weights: Path, tmp_path: Path) -> None:
    scan, out = save_scan(tmp_path / "scan.nii.gz", (14, 13, 4)), tmp_path / "out"
    options = {"input": str(scan), "output_dir": str(out), "ckpt": str(hrinet_weights), "progress": False}
    workflow = start_workflow("hrinet", ["inference"], "infer", **options)
    workflow.run()
    workflow.finalize()
    assert nib.load(out / "scan_interp.nii.gz").shape == (14, 13, 13)  # 4 mm to 1 mm


@pytest.mark.parametrize("name", overlays_of("hrinet"))
def test_overlays_change_what_exists(name: str) -> None:
    check_overlay("hrinet", name, ["train", "validate"])  # the second stage has the first one's batches


def test_keys_that_all_bundles_share() -> None:
    check_common_keys("hrinet")


def test_configs_have_the_same_network() -> None:
    """Inference builds what training trained, alone and with an overlay, and finds its file."""
    for key in ("network_def", "channels", "latent_channels", "window"):
        assert content("hrinet", "inference")[key] == content("hrinet", "train")[key]
    for name in overlays_of("hrinet"):
        overlay = content("hrinet", name)
        changes = bool({"channels", "latent_channels", "network_def"} & set(overlay))
        assert changes == (name in OWN_NETWORK)
        file = "model.pt" if name in ("mse", "evaluate") else f"model_{name}.pt" if name in OWN_WEIGHTS else None
        assert overlay.get("weights") == file
    assert content("hrinet", "inference")["weights"] == "model.pt"


def test_downloaded_bundle(hrinet_weights: Path, thin_volumes: Path, tmp_path: Path) -> None:
    """A copy runs in its own folder, as a download would: paths, links turned files, output beside the weights."""
    copy = download("hrinet", tmp_path / "downloaded", hrinet_weights)
    scan = save_scan(tmp_path / "scan.nii.gz", (14, 13, 3), spacing=(1.0, 1.0, 5.0))
    python_path = str(ROOT)
    tiny = {"patch_size": 24, "max_epochs": 1, "stage2_epochs": 1, "val_interval": 1, "batch_size": 2}
    given = {**tiny, "samples_per_epoch": 1, "dataset_dir": thin_volumes}
    results = run_named(
        {
            "train": Command(["configs/train.json", "configs/perceptual.json"], given, copy, python_path=python_path),
            "infer": Command("configs/inference.json", {"input": scan}, copy, python_path=python_path),
        }
    )
    for result in results.values():
        result.check_success()
        assert " ERROR " not in result.stdout
    check_weights_untouched(copy, hrinet_weights)
    stages = {f"{stage}/checkpoint{end}.pt" for stage in ("stage1", "stage2") for end in ("", "_epoch=1")}
    scores = {"scores.csv", "scores.md", "scan_interp.nii.gz"}
    assert files_of(copy / "output") == stages | scores | {"stage1/model.pt", "model.pt"}
    check_output(copy / "output" / "scan_interp.nii.gz", *scan_of(scan), 5, 2)
    np.testing.assert_allclose(nib.load(copy / "output" / "scan_interp.nii.gz").header.get_zooms(), 1.0)
