# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The page that shows a result: in a browser without a network, and as text."""

import io
import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_sliceinterp.preview import write_viewer
from tests.volumes import write_nifti

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait

LONGEST = 120  # seconds, on a machine that is busy


@pytest.fixture(scope="module")
def page(scan, tmp_path_factory):
    """A page with disagreement, of a scan whose name is no HTML."""
    folder = tmp_path_factory.mktemp("page")
    source = folder / "<img src=x onerror=alert(1)>{{DATA}}.nii.gz"
    source.write_bytes(scan[0].read_bytes())
    thin = nib.load(scan[1])
    disagreement = np.abs(np.random.default_rng(0).normal(size=thin.shape)).astype(np.float32)
    written = write_nifti(folder / "map.nii.gz", disagreement, thin.affine)
    return write_viewer(source, scan[1], folder / "page.html", disagreement_path=written, method="cubic")


def open_page(browser, page, state=""):
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#{state}")
    ready = WebDriverWait(browser, LONGEST).until(
        lambda _: browser.execute_script("return document.body.dataset.ready")
    )
    assert ready == "true", browser.find_element("id", "failure").text


def pixels(browser, name):
    """What is seen where a canvas is."""
    shot = browser.find_element("id", name).screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(shot)).convert("L"), dtype=np.float64)


def test_in_a_browser(browser, page):
    open_page(browser, page, "plane=coronal&wipe=0")
    views = {name: pixels(browser, name) for name in ("input", "output")}
    assert all(view.std() > 20 for view in views.values())  # nothing is black
    assert np.abs(views["input"] - views["output"]).mean() > 1

    def slide(value):
        script = "wipe.value = arguments[0]; wipe.dispatchEvent(new Event('input'))"
        browser.execute_script(f"const wipe = document.getElementById('wipe'); {script}", value)
        return pixels(browser, "output")

    method, half, linear = (slide(value) for value in (0, 50, 100))
    assert np.abs(method - linear).mean() > 0.5
    middle = method.shape[1] // 2
    for part, expected in ((slice(None, middle - 9), linear), (slice(middle + 9, None), method)):
        assert np.abs(half - expected)[:, part].mean() < 0.05

    place = browser.find_element("id", "place").text
    assert re.search(r"Slice \d+ of 19: (observed|synthesized, 1.33 mm from the nearest slice of the scan)", place)
    canvas = browser.find_element("id", "input")
    webdriver.ActionChains(browser).move_to_element_with_offset(canvas, 40, 30).click().perform()
    assert browser.find_element("id", "place").text != place  # the cross-hairs of both sides are one
    assert np.abs(slide(100) - linear).mean() > 0.1

    before = slide(0)  # disagreement is that of the method
    for button in browser.find_elements("css selector", "#overlays button"):
        button.click()
        wait = WebDriverWait(browser, LONGEST)
        wait.until(lambda _, seen=before: np.abs(pixels(browser, "output") - seen).mean() > 1)
        before = pixels(browser, "output")
    buttons = [button.text for button in browser.find_elements("css selector", "#bar button")]
    assert buttons[:6] == ["three planes", "axial", "coronal", "sagittal", "body window", "lung window"]
    assert browser.find_element("id", "name").text == "<img src=x onerror=alert(1)>{{DATA}}.nii.gz"
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    asked = set(re.findall(r'"url":"(\w+):', "".join(entry["message"] for entry in browser.get_log("performance"))))
    assert asked <= {"file", "data", "blob", "about", "chrome"}


def test_what_the_page_says(scan, tmp_path):
    page = write_viewer(*scan, tmp_path / "page.html", largest=8_000)
    text = page.read_text(encoding="utf-8")
    assert "7 slices every 4 mm became 19 every 1.333 mm. 7 of them are copies" in text
    assert "BSD 2-Clause License" in text and "default-src 'none'" in text
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=", text.replace("&lt;", ""))
    assert "Reduced for this page" not in text and "Intensities are rounded" not in text and "frames" not in text
    with pytest.raises(ValueError, match="page.html: exists already"):
        write_viewer(*scan, page)
    with pytest.raises(ValueError, match=r"scan.nii.gz: has another grid than the output"):
        write_viewer(*scan, page, disagreement_path=scan[0], overwrite=True)


def test_what_the_page_says_of_a_reduced_one(tmp_path):
    """A large series of floats, of which the page has room for little."""
    values = np.random.default_rng(0).random((80, 72, 5, 2)).astype(np.float32)
    thick = write_nifti(tmp_path / "scan.nii", values[..., ::2, :], np.diag([1, 1, 4, 1]))
    thin = write_nifti(tmp_path / "thin.nii", values, np.diag([1, 1, 2, 1]))
    text = write_viewer(thick, thin, tmp_path / "page.html", largest=20_000).read_text(encoding="utf-8")
    assert (
        "Reduced for this page: blocks of 2 x 2 pixels of each slice are averaged, in the scan and the results" in text
    )
    rounded = float(re.search(r"Intensities are rounded by up to (\S+) for this page\.", text)[1])
    assert 0 < rounded <= 1.01 / 65535 and "The first of 2 frames is shown." in text
