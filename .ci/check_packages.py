#!/usr/bin/env python3
# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Build the sdist and the wheel, and check them: what is in them, and that the wheel's command runs.

    python .ci/check_packages.py [--outdir DIR]

Each file of the package that git knows is in both, with the licenses, and nothing else is. The wheel is installed into
a fresh environment without dependencies, which are those of the environment that runs this. Beside the packages lies
the recipe of the conda package with the SHA-256 of the sdist.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "monai_sliceinterp"
BESIDE = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"}
LICENSES = {"LICENSE", *(path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("LICENSE*"))}
NO_SUM = "0" * 64


def run(*command: object, **options: object) -> str:
    result = subprocess.run([*map(str, command)], capture_output=True, encoding="utf-8", **options)
    if result.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout


def check(what: str, found: set[str], expected: set[str]) -> None:
    for names, problem in ((expected - found, "lacks"), (found - expected, "must not have")):
        if names:
            sys.exit(f"error: {what}: {problem} {', '.join(sorted(names)[:10])}")


def check_sdist(path: Path, sources: set[str], version: str) -> None:
    with tarfile.open(path) as archive:
        names = {member.name for member in archive.getmembers() if not member.isdir()}
    folder = f"{PACKAGE}-{version}/"
    found = {name.removeprefix(folder) for name in names if not name.startswith(f"{folder}{PACKAGE}.egg-info/")}
    check(path.name, found, sources | BESIDE)


def check_wheel(path: Path, sources: set[str], version: str) -> None:
    with zipfile.ZipFile(path) as archive:
        found = {*archive.namelist()}
    info = f"{PACKAGE}-{version}.dist-info"
    expected = {f"{info}/{name}" for name in INFO} | {f"{info}/licenses/{name}" for name in LICENSES}
    check(path.name, {name for name in found if not name.endswith("/zip-safe")}, sources | expected)


def check_command(wheel: Path, version: str, folder: Path) -> None:
    """Install the wheel alone; of other packages the folders are searched, but not the links of editable installs."""
    venv.EnvBuilder(symlinks=os.name != "nt").create(folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    install = ("install", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", programs / "python", *install, env=environment, cwd=folder)
    (installed,) = folder.rglob(f"site-packages/{PACKAGE}")
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (installed.parent / "others.pth").write_text("\n".join(others), encoding="utf-8")
    command = programs / "sliceinterp"
    printed = run(command, "--version", env=environment, cwd=folder)
    if printed != f"sliceinterp {version}\n":
        sys.exit(f"error: {wheel.name}: sliceinterp --version prints {printed!r}; expected {version}")
    if "commands:" not in run(command, "--help", env=environment, cwd=folder):
        sys.exit(f"error: {wheel.name}: sliceinterp --help lists no commands")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outdir", type=Path, help="keep the packages here")
    options = parser.parse_args()
    version = re.search(r"^version = (.+)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE)[1]
    sources = {*run("git", "ls-files", PACKAGE, cwd=ROOT).splitlines()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.outdir or Path(temporary, "dist")
        run(sys.executable, "-m", "build", "--outdir", folder.resolve(), cwd=ROOT)
        sdist, wheel = folder / f"{PACKAGE}-{version}.tar.gz", folder / f"{PACKAGE}-{version}-py3-none-any.whl"
        check_sdist(sdist, sources, version)
        check_wheel(wheel, sources, version)
        check_command(wheel.resolve(), version, Path(temporary, "venv"))
        recipe = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")
        filled = recipe.replace(NO_SUM, hashlib.sha256(sdist.read_bytes()).hexdigest())
        (folder / "recipe.yaml").write_text(filled, encoding="utf-8", newline="\n")
        print(f"{sdist.name} and {wheel.name}: {len(sources)} files of the package, and what they need")


if __name__ == "__main__":
    main()
