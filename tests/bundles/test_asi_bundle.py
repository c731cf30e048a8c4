"""The bundle asi as a bundle: metadata, layout, overlays, and MONAI's own checks."""

from __future__ import annotations

import json
import re
import shutil
from configparser import ConfigParser as IniParser
from pathlib import Path

import monai.bundle
import nibabel as nib
import pytest
import torch
from bundle_commands import ROOT, Command, Result, run_all, save_scan
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_sliceinterp.networks.nets import ASIAutoencoder, ResidualASIAutoencoder

BUNDLE = ROOT / "bundles" / "asi"
CONFIGS = sorted(path.name for path in BUNDLE.glob("*.json"))
OVERLAYS = [name for name in CONFIGS if name not in ("train.json", "inference.json", "metadata.json")]
METADATA = json.loads((BUNDLE / "metadata.json").read_text())
TINY = {
    "phantoms#num_phantoms": 3,
    "phantoms#shape": [32, 32, 9],
    "patch_size": 32,
    "max_epochs": 1,
    "val_interval": 1,
}


def content(name: str) -> dict[str, object]:
    return json.loads((BUNDLE / name).read_text())


def test_documented_files_are_there() -> None:
    documented = {"train", "inference", "evaluate", "multi_gpu_train", "paper", "metadata"}
    assert {f"{name}.json" for name in documented} <= set(CONFIGS)
    assert (BUNDLE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_configs_are_links_to_the_files_above() -> None:
    folder = BUNDLE / "configs"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CONFIGS, "logging.conf"])
    for path in folder.iterdir():
        assert path.is_symlink() and path.readlink() == Path("..") / path.name
        assert path.resolve(strict=True) == (BUNDLE / path.name).resolve()


@pytest.mark.parametrize("overlay", ["", "residual.json"])
def test_shipped_weights_fit_the_network(overlay: str) -> None:
    parser = ConfigParser()
    parser.read_config([BUNDLE / "inference.json", *([BUNDLE / overlay] if overlay else [])])
    parser["bundle_root"], parser["device"] = str(BUNDLE), torch.device("cpu")
    path = Path(parser.get_parsed_content("ckpt"))
    assert path == BUNDLE / "models" / ("model_residual.pt" if overlay else "model.pt")
    if overlay and not path.exists():
        pytest.skip("the weights of the residual network are not shipped")
    assert path.stat().st_size < 25e6
    network = parser.get_parsed_content("network_def")
    assert type(network) is (ResidualASIAutoencoder if overlay else ASIAutoencoder)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    assert all(value.isfinite().all() for value in network.state_dict().values())


REQUIRED = {
    "schema": str,
    "version": str,
    "changelog": dict,
    "monai_version": str,
    "pytorch_version": str,
    "numpy_version": str,
    "required_packages_version": dict,
    "task": str,
    "description": str,
    "authors": str,
    "copyright": str,
    "network_data_format": dict,
}
REQUIRED_OF_A_TENSOR = {
    "type": str,
    "format": str,
    "num_channels": int,
    "spatial_shape": list,
    "dtype": str,
    "value_range": list,
}


def test_metadata_has_what_the_zoo_requires() -> None:
    assert {key: type(METADATA.get(key)) for key in REQUIRED} == REQUIRED
    for direction in ("inputs", "outputs"):
        tensors = METADATA["network_data_format"][direction]
        assert list(tensors) == ["image" if direction == "inputs" else "pred"]
        for tensor in tensors.values():
            assert {key: type(tensor.get(key)) for key in REQUIRED_OF_A_TENSOR} == REQUIRED_OF_A_TENSOR
            assert set(tensor["channel_def"]) == {str(k) for k in range(tensor["num_channels"])}
    assert re.fullmatch(r"https://github\.com/Project-MONAI/.*/meta_schema_\d{8}\.json", METADATA["schema"])
    assert METADATA["version"] in METADATA["changelog"]
    assert all(re.fullmatch(r"\d\.\d\.\d", version) for version in METADATA["changelog"])  # compared as strings
    assert not re.search(r"_v", BUNDLE.name)  # names of release assets are split there


def test_versions_agree() -> None:
    setup = IniParser()
    setup.read(ROOT / "setup.cfg")
    assert METADATA["version"] == setup["metadata"]["version"]
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    found = {
        "torch": METADATA["pytorch_version"],
        "monai": METADATA["monai_version"],
        "numpy": METADATA["numpy_version"],
        **METADATA["required_packages_version"],
    }
    assert found == {name: pinned[name] for name in found}
    needed = re.findall(r"^([\w.-]+)[<>=]", setup["options"]["install_requires"], re.MULTILINE)
    assert set(found) <= set(needed)


def test_verify_net_in_out(capsys: pytest.CaptureFixture[str]) -> None:
    for config, n in (("inference.json", 4), ("inference.json", 7), ("train.json", 5)):
        monai.bundle.verify_net_in_out(
            net_id="network_def",
            meta_file=str(BUNDLE / "metadata.json"),
            config_file=str(BUNDLE / config),
            device="cpu",
            n=n,
        )


def test_properties_of_training(tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "train.json"),
        meta_file=str(BUNDLE / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        device="$torch.device('cpu')",
        output_dir=str(tmp_path),
        **TINY,
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.version == METADATA["version"] and workflow.val_interval == 1


def test_properties_of_inference(weights: Path, tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "inference.json"),
        meta_file=str(BUNDLE / "metadata.json"),
        logging_file=False,
        workflow_type="infer",
        device="$torch.device('cpu')",
        input=str(save_scan(tmp_path / "scan.nii.gz")),
        output_dir=str(tmp_path / "out"),
        ckpt=str(weights),
        factor=2,
        progress=False,
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    assert nib.load(tmp_path / "out" / "scan_interp.nii.gz").shape == (20, 24, 11)


def paths(value: object, prefix: str = "") -> list[str]:
    """Every path ``a#b#0`` into a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    result = []
    for key, inner in items:
        result += [f"{prefix}{key}", *paths(inner, f"{prefix}{key}#")]
    return result


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_change_what_exists(name: str) -> None:
    known = set(paths(content("train.json")))
    # the file below models/ is chosen where weights are read, in inference.json and evaluate.json
    if "weights" in content("inference.json") and "weights" in content("evaluate.json"):
        known.add("weights")
    added = {key for key in content(name) if key not in known}
    if name == "multi_gpu_train.json":
        samplers = {f"{part}#{key}" for part in ("train", "validate") for key in ("sampler", "dataloader#sampler")}
        assert added == {"backend", "finalize", *samplers}
        assert set(content("train.json")["imports"]) <= set(content(name)["imports"])  # type: ignore[call-overload]
    else:
        assert not added


COMMON_KEYS = {
    "train.json": "dataset_dir output_dir max_epochs learning_rate batch_size val_interval device amp seed ckpt",
    "inference.json": "input output_dir factor spacing ckpt device amp batch_size",
}


@pytest.mark.parametrize("name", COMMON_KEYS)
def test_keys_that_all_bundles_share(name: str) -> None:
    assert set(COMMON_KEYS[name].split()) <= set(content(name))


@pytest.fixture(scope="module")
def places(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Runs from the places a bundle may be run from, among them a copy as a download would be."""
    root = tmp_path_factory.mktemp("places")
    copy = root / "downloaded" / "asi"
    shutil.copytree(BUNDLE, copy, ignore=shutil.ignore_patterns("output*", "models"))  # links become files
    (copy / "models").mkdir()
    shutil.copy(weights, copy / "models" / "model.pt")
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
    return root, dict(zip(commands, run_all(list(commands.values())), strict=True))


def test_training_inside_the_bundle_folder(places: tuple[Path, dict[str, Result]]) -> None:
    root, results = places
    results["inside"].check_success()
    assert (root / "inside" / "model.pt").is_file()


def test_training_leaves_the_shipped_weights_alone(weights: Path, places: tuple[Path, dict[str, Result]]) -> None:
    root, results = places
    results["copy_train"].check_success()
    copy = root / "downloaded" / "asi"
    assert [path.name for path in (copy / "models").iterdir()] == ["model.pt"]
    assert (copy / "models" / "model.pt").read_bytes() == weights.read_bytes()
    assert (copy / "output" / "model.pt").read_bytes() != weights.read_bytes()


@pytest.mark.parametrize("place", ["configs", "copy_infer", "bundle_root"])
def test_inference_from_other_places(place: str, places: tuple[Path, dict[str, Result]]) -> None:
    root, results = places
    results[place].check_success()
    folder = root / "downloaded" / "asi" / "output" if place == "copy_infer" else root / place
    assert nib.load(folder / "scan_interp.nii.gz").shape == (20, 24, 11)
    assert "Traceback" not in results[place].stderr and " ERROR " not in results[place].stdout
