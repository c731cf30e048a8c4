# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings of the whole test suite."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# one process per core runs the suite; this has to be set before torch is imported, and reaches the bundles too
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

pytest.register_assert_rewrite("tests.bundles.bundle_commands")

BUNDLES = {folder.name for folder in Path(__file__).parents[1].joinpath("bundles").iterdir()}
BY_BUNDLE = ("bundles/test_training.py", "bundles/test_inference.py", "bundles/test_two_processes.py")
"""Files whose set-up takes minutes for each bundle; they begin first."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests of a file, or of a bundle in it, share what is set up for them: one process runs them."""
    for item in items:
        file = item.nodeid.split("::")[0]
        values = getattr(item, "callspec", None) and item.callspec.params.values()
        bundle = (
            next((value for value in values or () if str(value) in BUNDLES), "") if file.endswith(BY_BUNDLE) else ""
        )
        item.add_marker(pytest.mark.xdist_group(f"{file} {bundle}".replace("/", ".").strip()))
    items.sort(key=lambda item: not item.nodeid.split("::")[0].endswith(BY_BUNDLE))


def pytest_collection_finish(session):
    """Tests that are not grouped would be set up by every process again, for minutes."""
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError(
            "this pytest-xdist cannot group tests under this pytest; expected those of constraints.txt."
        )


@pytest.fixture(scope="module")
def browser():
    """Chromium without a network, which draws in software."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium is not installed: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    environment = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,1200")
    no_network = "--host-resolver-rules=MAP * ~NOTFOUND"
    software_graphics = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    for argument in (*environment, no_network, *software_graphics):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()
