# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The recipe of the conda package says what setup.cfg says; .ci/check_packages.py builds what it takes."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"torch": "pytorch", "pytorch-ignite": "ignite", "SimpleITK": "simpleitk", "isal": "python-isal"}
"""Packages that conda-forge calls otherwise."""


def requirement(text: str) -> tuple[str, frozenset[str]]:
    name, limits = re.fullmatch(r"([\w-]+) *(.*)", text.strip()).groups()
    return name, frozenset(limits.split(","))


def test_recipe_is_in_step():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    options, metadata = setup["options"], setup["metadata"]
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    python = recipe["context"]["python_min"]
    lines = [line for line in options["install_requires"].splitlines() if line and not line.startswith("#")]
    expected = {NAMES.get(name, name): limits for name, limits in map(requirement, lines)}
    found = [line.replace("${{ python_min }}", python) for line in recipe["requirements"]["run"]]
    assert dict(map(requirement, found)) == {**expected, "python": frozenset([options["python_requires"]])}
    assert recipe["context"]["version"] == metadata["version"] and recipe["package"]["name"] == metadata["name"]
    about = recipe["about"]
    assert (about["license"], about["summary"]) == (metadata["license_expression"], metadata["description"])
    licenses = {
        path.relative_to(ROOT).as_posix() for line in metadata["license_files"].split() for path in ROOT.glob(line)
    }
    assert {*about["license_file"]} == licenses and all((ROOT / name).is_file() for name in licenses)
    assert recipe["build"]["python"]["entry_points"] == setup["options.entry_points"]["console_scripts"].split("\n")[1:]
    built = re.search(r'"(setuptools.+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert requirement(built) in map(requirement, recipe["requirements"]["host"])
