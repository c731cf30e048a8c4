# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""``python -m monai_sliceinterp pack``: zip files of bundles as a model zoo hosts them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_sliceinterp.cli import COMMANDS, main
from monai_sliceinterp.files import file_sha256
from monai_sliceinterp.zoo import check_metadata, pack_bundles, write_archive
from monai_sliceinterp.zoo import metadata as zoo_metadata

ROOT = Path(__file__).resolve().parents[1]
ASI = ROOT / "bundles" / "asi"
TENSOR = {
    "type": "image",
    "format": "magnitude",
    "num_channels": 1,
    "spatial_shape": [30],
    "dtype": "float32",
    "value_range": [0, 1],
}
METADATA = {
    "schema": "https://example.org/meta_schema_20240725.json",
    "version": "0.2.0",
    "changelog": {"0.1.0": "first", "0.2.0": "second"},
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"scipy": "1.17.1"},
    "task": "a line",
    "description": "a line from a point",
    "authors": "somebody",
    "copyright": "somebody",
    "eval_metrics": {"psnr": 31.25},
    "network_data_format": {"inputs": {"image": TENSOR}, "outputs": {"pred": TENSOR}},
}
CARD = """# tiny
The network has 1,240 parameters; PSNR 31.250 dB.
Weights: `models/model.pt`, and `models/model_small.pt` of `small.json`.
`wide.json` has no weights yet, `train.json` and `evaluate.json` make and score them.
    python -m monai.bundle run --config_file bundles/tiny/inference.json

## Tags

MR, thin
slices

"""


def linear(in_features):
    return {"_target_": "torch.nn.Linear", "in_features": in_features, "out_features": 40}


CONFIGS = {
    "metadata": METADATA,
    "inference": {"width": 30, "weights": "model.pt", "network_def": linear("@width")},
    "train": {"network_def": linear(30), "loss": {"_target_": "torch.nn.MSELoss"}},
    "evaluate": {"weights": "model.pt", "loss#reduction": "sum"},
    "small": {"width": 10, "weights": "model_small.pt"},
    "wide": {"width": 90, "weights": "model_wide.pt"},
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def change(path, **values):
    """Change keys of a JSON file, or remove those that are None."""
    content = {**json.loads(path.read_text()), **values}
    write(path, {key: value for key, value in content.items() if value is not None})


def save(path, in_features, **extra):
    torch.manual_seed(in_features)
    torch.save(extra or nn.Linear(in_features, 40).state_dict(), path)


def describe(bundle, network="Linear"):
    """List the weights of a bundle in its metadata, as they are."""
    files = sorted((bundle / "models").glob("*.pt"))
    weights = {file.name: {"sha256": file_sha256(file), "network": network, "settings": {}} for file in files}
    change(bundle / "metadata.json", weights=weights)


@pytest.fixture
def tiny(tmp_path):
    """A bundle of a network of one layer, laid out as the bundles of this repository."""
    bundle = tmp_path / "made" / "tiny"
    for name, content in CONFIGS.items():
        write(bundle / f"{name}.json", content)
    write(bundle / "logging.conf", "[loggers]\nkeys=root\n")
    (bundle / "configs").mkdir()
    for path in [*bundle.glob("*.json"), bundle / "logging.conf"]:
        link(bundle, path.name)
    write(bundle / "LICENSE", "Apache-2.0")
    write(bundle / "docs" / "README.md", CARD)
    (bundle / "models").mkdir()
    save(bundle / "models" / "model.pt", 30)
    save(bundle / "models" / "model_small.pt", 10)
    describe(bundle)
    write(bundle / "output" / "scores.csv", "left by a run")
    write(bundle / "models" / ".model.pt.part-x", "left by a killed run")
    return bundle


def link(bundle, name, target=""):
    path = bundle / "configs" / name
    path.unlink(missing_ok=True)
    path.symlink_to(target or f"../{name}")


def as_on_windows(bundle):
    """Turn links into what a checkout without links has: files with the text of the link."""
    for path in (bundle / "configs").iterdir():
        target = os.readlink(path)
        path.unlink()
        path.write_bytes(target.encode())


def members(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_layout_and_content(tiny, tmp_path):
    """One folder in the layout of the specification, with the bytes of the sources; what runs left is not in it."""
    (packed,) = pack_bundles([tiny], tmp_path / "new" / "dist")
    assert packed.path == tmp_path / "new" / "dist" / "tiny_v0.2.0.zip"
    assert (packed.name, packed.version, packed.key) == ("tiny", "0.2.0", "tiny_v0.2.0")
    expected = {f"tiny/configs/{name}.json": (tiny / f"{name}.json").read_bytes() for name in CONFIGS}
    for name in ("LICENSE", "docs/README.md", "models/model.pt", "models/model_small.pt"):
        expected[f"tiny/{name}"] = (tiny / name).read_bytes()
    expected["tiny/configs/logging.conf"] = (tiny / "logging.conf").read_bytes()
    assert members(packed.path) == expected
    assert sorted(os.listdir(packed.path.parent)) == ["model_info.json", "tiny_v0.2.0.zip"]


def test_members_are_plain_files(tiny, tmp_path):
    """Sorted, without folders and links, readable by all."""
    (packed,) = pack_bundles([tiny], tmp_path)
    with zipfile.ZipFile(packed.path) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    assert names == sorted(names)
    for info in infos:
        assert info.external_attr >> 16 == 0o100644 and info.create_system == 3
        assert info.date_time == (1980, 1, 1, 0, 0, 0) and info.compress_type == zipfile.ZIP_STORED
    write_archive(tmp_path / "a.zip", "a", {"z": tiny / "LICENSE", "b/c": tiny / "train.json"})
    assert list(members(tmp_path / "a.zip")) == ["a/b/c", "a/z"]  # whatever the order of the files


def test_same_content_gives_the_same_bytes(tiny, tmp_path):
    """From another place, with other dates and permissions, in another order of files, with or without links."""
    copy, windows, plain = (tmp_path / name / "tiny" for name in ("copy", "windows", "plain"))
    for other in (copy, windows):
        shutil.copytree(tiny, other, symlinks=True)
    for path in sorted(copy.rglob("*"), reverse=True):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
            path.chmod(0o755)
            os.utime(path, (1e9, 1e9))
    as_on_windows(windows)
    (packed,) = pack_bundles([tiny], tmp_path / "dist")
    with zipfile.ZipFile(packed.path) as archive:
        archive.extractall(plain.parent)
    found = packed.path.read_bytes()
    for number, bundle in enumerate([tiny, copy, windows, plain]):
        (again,) = pack_bundles([bundle], tmp_path / f"dist{number}")
        assert again.path.read_bytes() == found, bundle
        assert again.checksum == packed.checksum
    write(tiny / "LICENSE", "Apache-2.1")
    (other,) = pack_bundles([tiny], tmp_path / "dist")
    assert other.checksum != packed.checksum


def test_model_info(tiny, tmp_path):
    """What is listed already stays; the version that is packed is replaced."""
    info = tmp_path / "dist" / "model_info.json"
    other = {"checksum": "1", "source": "https://example.org/tiny_v0.1.0.zip"}
    write(info, {"tiny_v0.2.0": {"checksum": "2", "source": "there"}, "tiny_v0.1.0": other})
    (packed,) = pack_bundles([tiny], info.parent)
    content = (info.parent / "tiny_v0.2.0.zip").read_bytes()
    checksum, sha256 = hashlib.sha1(content).hexdigest(), hashlib.sha256(content).hexdigest()
    assert (packed.checksum, packed.sha256) == (checksum, sha256)
    entry = {"checksum": checksum, "sha256": sha256, "source": ""}
    assert json.loads(info.read_text()) == {"tiny_v0.1.0": other, "tiny_v0.2.0": entry}
    pack_bundles([tiny], info.parent, source="https://example.org/zips/")
    assert json.loads(info.read_text())["tiny_v0.2.0"]["source"] == "https://example.org/zips/tiny_v0.2.0.zip"


@pytest.mark.parametrize("content", ["{", "[]", '{"tiny_v0.1.0": 1}'])
def test_unusable_model_info(tiny, tmp_path, content):
    write(tmp_path / "dist" / "model_info.json", content)
    with pytest.raises(ValueError, match=r"model_info\.json: is not (JSON|a list of zip files)"):
        pack_bundles([tiny], tmp_path / "dist")
    assert os.listdir(tmp_path / "dist") == ["model_info.json"]


def test_several_bundles(tiny, tmp_path):
    """All are checked before any is written."""
    second = tmp_path / "second"
    shutil.copytree(tiny, second, symlinks=True)
    card = CARD.replace("bundles/tiny", "bundles/second")
    write(second / "docs" / "README.md", card)
    packed = pack_bundles([tiny, second], tmp_path / "dist")
    assert [item.key for item in packed] == ["tiny_v0.2.0", "second_v0.2.0"]
    assert list(json.loads((tmp_path / "dist" / "model_info.json").read_text())) == ["second_v0.2.0", "tiny_v0.2.0"]
    (second / "LICENSE").unlink()
    with pytest.raises(ValueError, match="second: lacks LICENSE"):
        pack_bundles([tiny, second], tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="a bundle tiny is already to be packed"):
        pack_bundles([tiny, f"{tiny}/"], tmp_path / "none")


@pytest.mark.parametrize("bundle", sorted((ROOT / "bundles").iterdir()), ids=lambda path: path.name)
def test_licenses_of_data(bundle):
    """As MONAI's zoo has them; each license and source that the card names is there, in one entry of each source."""
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    text = (bundle / "docs" / "data_license.txt").read_text(encoding="utf-8")
    data = card[card.index("\n## Data\n") : card.index("\n## Performance\n")]
    assert text.startswith("Third Party Licenses\n") and "`docs/data_license.txt`" in data
    named = re.findall(
        r"CC BY(?: \d\.0)?|CC0|PDDL|BSD|public domain|Apache-2\.0|Sunnybrook|ds\d{6}|LIDC|LungFCP|TCGA", data
    )
    assert named and all(name in text for name in named)
    entries = re.findall(r"^[ivxl]+\. (?s:.+?)\n    https://\S+\n/\*+/\n\nUsed: .+\nLicense: ", text, re.MULTILINE)
    assert len(entries) == text.count("License: ") >= 5


def tensor(**values):
    return {"inputs": {"image": {**TENSOR, **values}}, "outputs": {"pred": TENSOR}}


def config(file, **values):
    return lambda bundle: change(bundle / f"{file}.json", **values)


def metadata(**values):
    return config("metadata", **values)


def removed(path):
    return lambda bundle: (bundle / path).unlink()


def weights(in_features, file="model.pt", **extra):
    return lambda bundle: save(bundle / "models" / file, in_features, **extra)


def card(old="", new=""):
    return lambda bundle: write(bundle / "docs" / "README.md", CARD.replace(old, new) if old else CARD + new)


@pytest.mark.parametrize(
    ("owner", "change_it", "line"),
    [
        ("a/b", card(), "--huggingface a/b: expected a user or an organization"),
        ("MONAI", card("## Tags", "## Words"), "README.md: has no section '## Tags'"),
        ("MONAI", card(new="![Scan](scan.png)"), "README.md: links to scan.png, which is not in the bundle"),
        ("MONAI", lambda b: write(b / "LICENSE", "mine"), "LICENSE: is no license that is known; expected one of"),
    ],
)
def test_refused_for_hugging_face(tiny, tmp_path, owner, change_it, line):
    change_it(tiny)
    with pytest.raises(ValueError, match=re.escape(line)):
        pack_bundles([tiny], tmp_path / "dist", huggingface=owner)
    assert not (tmp_path / "dist").exists()


def test_card_for_hugging_face(tiny, tmp_path):
    """Links lead where they led; a repository that is there is replaced."""
    write(tiny / "docs" / "scan.png", "a picture")
    links = (
        "![Scan](scan.png) [LICENSE](../LICENSE) [asi](../../asi/docs/README.md#data) [here](#tags) [x](https://x.org)"
    )
    card(new=links)(tiny)
    write(tmp_path / "huggingface" / "MONAI" / "tiny" / "old", "")
    (packed,) = pack_bundles([tiny], tmp_path, huggingface="MONAI")
    text = (packed.repository / "README.md").read_text(encoding="utf-8")
    assert text.startswith(
        '---\nlicense: apache-2.0\nlibrary_name: monai\npipeline_tag: image-to-image\ntags:\n- "monai"'
    )
    assert '- "medical"\n- "MR"\n- "thin slices"\n---\n# tiny\n' in text and "--repo MONAI/tiny " in text
    for link in ("docs/scan.png", "LICENSE", "https://huggingface.co/MONAI/asi#data", "#tags", "https://x.org"):
        assert f"]({link})" in text
    assert sorted(os.listdir(packed.repository)) == [
        ".gitattributes",
        "LICENSE",
        "README.md",
        "configs",
        "docs",
        "models",
    ]


def quantized(name, sha256=None):
    """Add a quantized part, listed as it is or by another hash."""

    def spoil(bundle):
        write(bundle / "models" / name, "a graph")
        weights = json.loads((bundle / "metadata.json").read_text())["weights"]
        weights[name] = {"sha256": sha256 or file_sha256(bundle / "models" / name)}
        change(bundle / "metadata.json", weights=weights)

    return spoil


def outside(bundle):
    """Put a link into a bundle that leads out of it."""
    write(bundle.parent / "secret.pt", "of somebody")
    (bundle / "models" / "model_far.pt").symlink_to("../../secret.pt")


LINEAR = nn.Linear(30, 40).state_dict()
NAN = {"weight": torch.full((40, 30), torch.nan), "bias": torch.ones(40)}
INPUTS_ALONE = {"inputs": {"image": TENSOR}}
DEFECTS = {
    "no metadata": (
        lambda b: [removed(f"{folder}metadata.json")(b) for folder in ("", "configs/")],
        r"tiny: lacks configs/metadata\.json; a bundle",
    ),
    "no license": (removed("LICENSE"), "tiny: lacks LICENSE;"),
    "no card": (removed("docs/README.md"), r"lacks docs/README\.md;"),
    "no weights": (removed("models/model.pt"), r"lacks models/model\.pt;"),
    "missing keys": (metadata(task=None, numpy_version=None), r"metadata\.json: lacks numpy_version, task\."),
    "type of a key": (metadata(changelog="x"), "changelog 'x'; expected a dict"),
    "empty key": (metadata(authors=""), "authors ''; expected a str that is not empty"),
    "changelog": (metadata(version="0.3.0"), "version 0.3.0, which its changelog"),
    "two digits": (metadata(version="0.10.0", changelog={"0.10.0": ""}), "version '0.10.0'; expected three digits"),
    "local version": (metadata(pytorch_version="2.13.0+cpu"), r"version '2\.13\.0\+cpu' of pytorch_version"),
    "required version": (metadata(required_packages_version={"scipy": ">=1.1"}), "version '>=1.1' of scipy"),
    "no outputs": (metadata(network_data_format=INPUTS_ALONE), "lacks network_data_format#outputs"),
    "no tensor": (
        metadata(network_data_format={"inputs": {"image": 1}, "outputs": {}}),
        "network_data_format#inputs#image is 1",
    ),
    "tensor's type": (
        metadata(network_data_format=tensor(num_channels="1")),
        "network_data_format#inputs#image#num_channels '1'; expected a int",
    ),
    "tensor's key": (
        metadata(network_data_format={**tensor(), "outputs": {"pred": {}}}),
        "lacks network_data_format#outputs#pred#type, ",
    ),
    "options": (metadata(options=["width"]), "has options#options with None; expected a line of text"),
    "empty option": (metadata(options={"inference": {"width": ""}}), "has options#inference with ''; expected a line"),
    "option of MONAI": (metadata(options={"inference": {"width": "@x"}}), "has options#inference with '@x'"),
    "unknown option": (
        metadata(options={"inference": {"widht": "of the network"}}),
        r"unknown option of .*inference\.json 'widht'; expected one of .*did you mean 'width'",
    ),
    "options of another config": (metadata(options={"x": {}}), r"metadata\.json: lists options of x\.json"),
    "no JSON": (lambda b: write(b / "wide.json", '{"width": 90,}'), r"wide\.json: is not JSON \(.*line 1"),
    "no text": (lambda b: (b / "wide.json").write_bytes(b'{"\xff": 1}'), r"wide\.json: is not JSON"),
    "no keys": (lambda b: write(b / "wide.json", "[1]"), r"wide\.json: holds a list; expected keys"),
    "broken link": (removed("wide.json"), r"wide\.json: points to \.\./wide\.json, which is not there"),
    "broken text": (
        lambda b: [as_on_windows(b), removed("wide.json")(b)],
        r"wide\.json: points to \.\./wide\.json, which is not there",
    ),
    "wrong link": (lambda b: link(b, "wide.json", "../small.json"), r"points to \.\./small\.json; expected \.\./wide"),
    "broken link of weights": (
        lambda b: (b / "models" / "model_far.pt").symlink_to("../../far.pt"),
        r"model_far\.pt: points to \.\./\.\./far\.pt, which is not there",
    ),
    "no link": (removed("configs/train.json"), r"train\.json: is not in configs/"),
    "two contents": (
        lambda b: [removed("configs/train.json")(b), write(b / "configs" / "train.json", {"a": 1})],
        r"configs.train\.json: differs from .*train\.json",
    ),
    "other weights": (
        config("inference", weights="model_best.pt"),
        r"inference\.json: reads models/model_best\.pt, which is missing",
    ),
    "weights of another size": (
        weights(31),
        r"model\.pt: is not a checkpoint of Linear: it has weight of shape .*The network is that of inference\.",
    ),
    "weights of an overlay": (
        weights(30, "model_small.pt"),
        r"model_small\.pt: is not a checkpoint of Linear.*that of inference \+ small\.",
    ),
    "weights for training": (
        config("train", network_def=linear(31)),
        r"models.model\.pt: is not a checkpoint of Linear.*that of train\.",
    ),
    "weights for scoring": (
        config("evaluate", **{"network_def#in_features": 31}),
        r"models.model\.pt: is not a checkpoint of Linear.*that of train \+ evaluate\.",
    ),
    "more weights": (weights(30, **LINEAR, more=torch.ones(1)), r"model\.pt: .*has the unknown more"),
    "truncated weights": (
        lambda b: (b / "models" / "model.pt").write_bytes((b / "models" / "model.pt").read_bytes()[:900]),
        r"model\.pt: not a readable checkpoint",
    ),
    "checkpoint": (weights(30, network=LINEAR, epoch=1), r"model\.pt: is the checkpoint of a training"),
    "weights not finite": (weights(30, **NAN), r"model\.pt: .* with values that are not finite"),
    "weights without a config": (weights(30, "model_old.pt"), r"model_old\.pt: no config reads it"),
    "weights that are not listed": (
        lambda b: change(b / "metadata.json", weights={}),
        r"metadata\.json: does not describe models/model\.pt as it is; expected below its \"weights\": "
        r'\{"model\.pt": \{"sha256": "[0-9a-f]{64}", "network": "Linear", "settings": \{\}\}\}\.$',
    ),
    "quantized weights of no config": (
        quantized("model_old_int8_rfn.onnx"),
        r"model_old_int8_rfn\.onnx: is made from models/model_old\.pt, which no config reads; remove it\.$",
    ),
    "quantized weights that are not listed": (
        quantized("model_int8_rfn.onnx", "0" * 64),
        r"metadata\.json: does not list models/model_int8_rfn\.onnx as it is; expected below its \"weights\": "
        r'\{"model_int8_rfn\.onnx": \{"sha256": "(?!0{64})[0-9a-f]{64}"\}\}\.$',
    ),
    "file from outside": (
        outside,
        r"models.model_far\.pt: is .*made.secret\.pt, outside of the bundle; expected a file within\.$",
    ),
    "no network": (config("inference", network_def=None), r"inference\.json: .*no network_def"),
    "no such class": (
        config("inference", network_def={"_target_": "torch.nn.Linar"}),
        r"inference\.json: inference gives no network_def \(",
    ),
    "card without a config": (card("wide.json", "extrawide.json"), r"README\.md: does not mention wide\.json"),
    "card without weights": (
        card("models/model_small.pt", "others"),
        r"README\.md: does not mention models/model_small\.pt",
    ),
    "card with other weights": (
        card(new="`models/model_wide.pt`"),
        r"README\.md: mentions models/model_wide\.pt, which is not there",
    ),
    "card with another config": (card("tiny/inference", "tiny/infer"), r"README\.md: does not mention inference\.json"),
    "card with an old config": (
        card(new="configs/old.json"),
        r"README\.md: mentions configs/old\.json, which is not there",
    ),
    "card with another size": (
        card("1,240", "1,241"),
        r"README\.md: does not say that the network has 1,240 parameters",
    ),
    "card with other scores": (
        metadata(eval_metrics={"psnr": 31.26}),
        r"README\.md: does not contain psnr 31\.26, which is in metadata\.json",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_refuses(tiny, tmp_path, capsys, defect):
    """A bundle that is incomplete or out of step is refused in one line, and nothing is written."""
    spoil, message = DEFECTS[defect]
    spoil(tiny)
    with pytest.raises(ValueError, match=message) as caught:
        pack_bundles([tiny], tmp_path / "dist")
    assert "tiny" in str(caught.value)  # says where
    assert main(["pack", str(tiny), "--output_dir", str(tmp_path / "dist")]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert not (tmp_path / "dist").exists()


def test_refuses_names_that_a_zoo_would_split_and_files(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "tiny_v2", symlinks=True)
    with pytest.raises(ValueError, match="tiny_v2: cannot be the name of a bundle"):
        pack_bundles([tmp_path / "tiny_v2"], tmp_path / "dist")
    with pytest.raises(ValueError, match="LICENSE: no such folder; expected the folder of a bundle"):
        pack_bundles([tiny / "LICENSE"], tmp_path / "dist")


def test_card_may_tell_the_size_of_each_part(tiny, tmp_path):
    """As the card of a network of two networks does."""
    parts = [{**linear(30), "out_features": 5}, {**linear(5), "out_features": 40}]
    for name in ("inference", "train"):
        change(tiny / f"{name}.json", network_def="$torch.nn.Sequential(*@parts)", parts=parts)
    change(tiny / "small.json", weights=None)
    (tiny / "models" / "model_small.pt").unlink()
    save(tiny / "models" / "model.pt", 30, **nn.Sequential(nn.Linear(30, 5), nn.Linear(5, 40)).state_dict())
    describe(tiny, "Sequential")
    card = CARD.replace("1,240", "155 and 240").replace("and `models/model_small.pt` of", "none of")
    write(tiny / "docs" / "README.md", card)
    pack_bundles([tiny], tmp_path / "dist")
    write(tiny / "docs" / "README.md", card.replace("155", "156"))
    with pytest.raises(ValueError, match="the network has 395 parameters"):
        pack_bundles([tiny], tmp_path / "dist")


@pytest.mark.parametrize("key", ["monai_sliceinterp", "monai-sliceinterp"])
def test_version_of_the_package(monkeypatch, key):
    """Where the metadata tells a version of this package, it is the one that packs."""
    content = {**METADATA, "required_packages_version": {key: "0.1.0"}}
    monkeypatch.setattr(zoo_metadata, "version", lambda name: {"monai_sliceinterp": "0.1.0"}[name])
    check_metadata(content)
    monkeypatch.setattr(zoo_metadata, "version", lambda name: "0.2.0")
    with pytest.raises(ValueError, match="needs monai_sliceinterp 0.1.0, but 0.2.0 packs it"):
        check_metadata(content)

    def missing(name):
        raise zoo_metadata.PackageNotFoundError(name)

    monkeypatch.setattr(zoo_metadata, "version", missing)
    with pytest.raises(ValueError, match="which is not installed"):
        check_metadata(content)
    check_metadata(METADATA)


def test_killed_run_leaves_the_old_file(tiny, tmp_path, monkeypatch):
    (packed,) = pack_bundles([tiny], tmp_path / "dist")
    before = packed.path.read_bytes()
    write(tiny / "LICENSE", "Apache-2.1")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match="disk full"):
        pack_bundles([tiny], tmp_path / "dist")
    assert packed.path.read_bytes() == before
    assert sorted(os.listdir(tmp_path / "dist")) == ["model_info.json", "tiny_v0.2.0.zip"]


def test_command_tells_what_there_is(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize("options", [["pack"], ["pack", "x", "--output"], ["pack", "x", "--sauce", "y"]])
def test_wrong_options_are_told_in_one_line(options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
