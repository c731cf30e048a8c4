# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Bundles without a checkout: packed, downloaded, loaded, run and trained with the package as its wheel installs it.

The wheel is in a fresh environment. Other packages are those of the environment that runs the tests, of whose own
installation of this package the fresh one knows nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_sliceinterp.data.phantom import write_phantoms
from monai_sliceinterp.zoo import bundle_files
from tests.bundles.bundle_cases import CASES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "monai_sliceinterp"
BUNDLES = sorted(path.name for path in (ROOT / "bundles").iterdir() if path.is_dir())
EVERY = pytest.mark.parametrize("bundle", BUNDLES)
REPO = f"OWNER/{PACKAGE}/hosting_storage_v1"
FACTOR = 2

# Runs steps one after another in one process: a module as ``python -m`` does, or code. Of GitHub's addresses the hosts
# are replaced by the loopback; what follows them is what MONAI makes of the repository's name.
RUNNER = """
import contextlib, io, json, os, runpy, sys, traceback
import requests
import monai_sliceinterp
from monai.bundle import scripts

server, path, steps = json.load(sys.stdin)
get, download_url = requests.get, scripts.download_url
requests.get = lambda url, **options: get(url.replace("https://api.github.com", server), **options)
scripts.download_url = lambda url, **options: download_url(url.replace("https://github.com", server), **options)
results = {"package": [0, monai_sliceinterp.__file__]}
for name, folder, module, arguments in steps:
    os.chdir(folder)
    status, printed, sys.argv = 0, io.StringIO(), [module, *arguments]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True) if module else exec(*arguments, {})
        except SystemExit as end:
            status = end.code or 0
        except Exception:
            status = traceback.format_exc()
    results[name] = [status, printed.getvalue()]
with open(path, "w", encoding="utf-8") as file:
    json.dump(results, file)
"""

LOAD = """
import monai.bundle
import torch

network = monai.bundle.load({name!r}, bundle_dir={folder!r}, source="github", repo={repo!r}, workflow_type={kind!r})
expected = torch.load({folder!r} + "/{name}/models/model.pt", weights_only=True)
found = network.cpu().state_dict()
assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
print(type(network).__module__)
"""

# what makes a training tiny, with the overlays it takes
QUICKER = {"saint": {"stages": ["ami"]}, "asi": {"samples_per_volume": 1}}


@dataclass(frozen=True)
class User:
    """The folder of somebody who has no checkout, and how each step ended: exit status, and what was printed."""

    root: Path
    results: dict[str, tuple[object, str]]

    def check(self, step: str) -> str:
        status, printed = self.results[step]
        assert status == 0 and "Traceback" not in printed and " ERROR " not in printed, f"{status}\n{printed[-3000:]}"
        return printed


def run(*command: object, **options: object) -> None:
    result = subprocess.run([*map(str, command)], capture_output=True, encoding="utf-8", **options)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]


def version_of(bundle: str) -> str:
    return json.loads((ROOT / "bundles" / bundle / "metadata.json").read_text(encoding="utf-8"))["version"]


def asset(bundle: str) -> str:
    return f"{bundle}_v{version_of(bundle)}.zip"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as building leaves files beside the sources."""
    if not all(importlib.util.find_spec(name) for name in ("pip", "setuptools")):
        pytest.skip("building a wheel offline needs pip and setuptools")
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT / PACKAGE, sources / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", built, sources)
    (path,) = built.iterdir()
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(symlinks=os.name != "nt").create(folder)
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-index", wheel)
    (installed,) = folder.rglob(f"site-packages/{PACKAGE}")
    # folders that a .pth file names are searched, but their own .pth files, as of an editable install, are not read
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (installed.parent / "others.pth").write_text("\n".join(others), encoding="utf-8")
    return interpreter


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """GitHub on the loopback: its address, and the folder of a release's files, which its listing tells of."""
    folder = tmp_path_factory.mktemp("server")
    owner, repository, tag = REPO.split("/")
    listing = folder / "repos" / owner / repository / "releases"
    files = folder / owner / repository / "releases" / "download" / tag
    releases = {"v0.1.0": [f"{PACKAGE}-0.1.0.tar.gz"], tag: [*map(asset, BUNDLES), "model_info.json"]}
    listing.parent.mkdir(parents=True)
    listing.write_text(
        json.dumps([{"tag_name": key, "assets": [{"name": name} for name in given]} for key, given in releases.items()])
    )

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}", files
        serving.shutdown()


def bundle_command(step: str, folder: Path, function: str, /, **options: object) -> tuple[str, Path, str, list[str]]:
    """A step: ``python -m monai.bundle <function> <options>`` in a folder."""
    return step, folder, "monai.bundle", [function, *(f"--{key}={value}" for key, value in options.items())]


def steps_of(bundle: str, root: Path, files: Path) -> Iterator[tuple[str, Path, str, list[str]]]:
    """Download, load, interpolate, train: from where a user may do it."""
    elsewhere, inside = root / "elsewhere", root / "from_file" / bundle
    github = {"name": bundle, "version": version_of(bundle), "source": "github", "repo": REPO}
    yield bundle_command(f"{bundle} github", root, "download", **github, bundle_dir="bundles")
    file = {"name": bundle, "url": (files / asset(bundle)).as_uri(), "bundle_dir": "from_file"}
    yield bundle_command(f"{bundle} file", root, "download", **file)
    for kind in ("train", "inference"):  # where it is not yet, its latest version is downloaded
        code = LOAD.format(name=bundle, folder=str(root / kind), repo=REPO, kind=kind)
        yield f"{bundle} load {kind}", elsewhere, "", [code]
    scan = {"input": root / "scan.nii.gz", "factor": FACTOR}
    config = f"bundles/{bundle}/configs/inference.json"
    yield bundle_command(f"{bundle} above", root, "run", config_file=config, output_dir=f"above/{bundle}", **scan)
    places = {"bundle_root": root / "bundles" / bundle, "output_dir": root / "elsewhere_out" / bundle}
    yield bundle_command(f"{bundle} elsewhere", elsewhere, "run", config_file=root / config, **places, **scan)
    yield bundle_command(f"{bundle} inside", inside, "run", config_file="configs/inference.json", **scan)
    configs = [f"configs/{name}.json" for name in ("train", *CASES[bundle].overlays)]
    given = {"dataset_dir": root / "data", **CASES[bundle].short, "batch_size": 2, **QUICKER.get(bundle, {})}
    yield bundle_command(f"{bundle} train", inside, "run", config_file=configs, **given)


@pytest.fixture(scope="module")
def user(python: Path, server: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> User:
    """Everything in one process, as most of a process's time goes into imports."""
    root, (address, files) = tmp_path_factory.mktemp("user"), server
    (root / "elsewhere").mkdir()
    write_phantoms(root / "data", "torso", range(3), shape=(40, 40, 25), spacing=(8.0, 8.0, 8.0))
    values = np.linspace(0, 900, 18)[:, None, None] + np.random.default_rng(0).uniform(0, 90, (18, 16, 4))
    nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([1.0, 1.0, 4.0, 1.0])), root / "scan.nii.gz")
    folders = [str(ROOT / "bundles" / bundle) for bundle in BUNDLES]
    steps = [("pack", root, PACKAGE, ["pack", *folders, "--output_dir", str(files)])]
    for bundle in BUNDLES:
        steps += steps_of(bundle, root, files)
    configs = [f"bundles/saint/configs/{name}.json" for name in ("inference", "small")]
    given = {"input": "scan.nii.gz", "factor": FACTOR, "output_dir": "small/saint"}
    steps.append(bundle_command("saint small", root, "run", config_file=configs, **given))
    plan = json.dumps([address, root / "results.json", steps], default=str)
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "CUDA_VISIBLE_DEVICES": ""}
    run(python, "-I", "-X", "utf8", "-c", RUNNER, input=plan, cwd=root, env=environment)
    return User(root, json.loads((root / "results.json").read_text(encoding="utf-8")))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sources_of(bundle: str) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in bundle_files(ROOT / "bundles" / bundle).items()}


def test_wheel_has_the_package_alone(wheel: Path) -> None:
    """All modules and templates, and no bundles: they are downloaded."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = (path for path in (ROOT / PACKAGE).rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert names == {path.relative_to(ROOT).as_posix() for path in sources}


def test_package_is_that_of_the_wheel(user: User, python: Path) -> None:
    assert Path(user.check("package")).is_relative_to(python.parents[1])


@EVERY
def test_download(bundle: str, user: User) -> None:
    """From either place, what is in the repository."""
    user.check("pack")
    for place, folder in (("github", "bundles"), ("file", "from_file")):
        user.check(f"{bundle} {place}")
        # what has run since has written into output/ only
        found = {k: v for k, v in files_of(user.root / folder / bundle).items() if not k.startswith("output/")}
        assert found == sources_of(bundle)


@pytest.mark.parametrize("kind", ["train", "inference"])
@EVERY
def test_load(bundle: str, kind: str, user: User) -> None:
    """It downloads the latest version and gives the network with its weights; nothing else is written."""
    assert files_of(user.root / kind / bundle) == sources_of(bundle)
    assert user.check(f"{bundle} load {kind}").splitlines()[-1].startswith(f"{PACKAGE}.networks.nets.")
    assert not files_of(user.root / "elsewhere")


PLACES = [(bundle, place) for bundle in BUNDLES for place in ("above", "inside", "elsewhere")] + [("saint", "small")]


@pytest.mark.parametrize(("bundle", "place"), PLACES)
def test_inference(bundle: str, place: str, user: User) -> None:
    user.check(f"{bundle} {place}")
    folders = {"inside": f"from_file/{bundle}/output", "elsewhere": f"elsewhere_out/{bundle}"}
    image = nib.load(user.root / folders.get(place, f"{place}/{bundle}") / "scan_interp.nii.gz")
    scan = nib.load(user.root / "scan.nii.gz")
    values, found = np.asarray(scan.dataobj), np.asarray(image.dataobj)
    assert found.shape == (*values.shape[:2], FACTOR * (values.shape[2] - 1) + 1) and found.dtype == values.dtype
    np.testing.assert_array_equal(image.affine, scan.affine @ np.diag([1, 1, 1 / FACTOR, 1]))
    if CASES[bundle].keeps_observed:
        np.testing.assert_array_equal(found[..., ::FACTOR], values)
    assert all(np.ptp(found[..., k]) > 300 for k in range(found.shape[2]))


@EVERY
def test_training(bundle: str, user: User) -> None:
    """Inside the downloaded bundle: it writes into its output/ and leaves the weights alone."""
    assert "PSNR" in user.check(f"{bundle} train")
    inside = user.root / "from_file" / bundle
    written = {name for name in files_of(inside / "output") if "events.out.tfevents" not in name}
    stages = CASES[bundle].stages[: len(QUICKER.get(bundle, {}).get("stages", "all"))]
    trained = {f"{stage.folder}/checkpoint{end}.pt".removeprefix("./") for stage in stages for end in ("", "_epoch=1")}
    trained |= {stage.best for stage in stages}
    assert written == trained | {"scores.csv", "scores.md", "scan_interp.nii.gz"}
    assert files_of(inside / "models") == files_of(user.root / "bundles" / bundle / "models")
