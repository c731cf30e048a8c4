# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Visual Turing test: what readers see, what they must not, and how their answers count."""

import json
import re

import numpy as np
import pytest

from monai_sliceinterp.cli import main
from monai_sliceinterp.visual_turing import StudySettings, make_study, score_answers, write_study
from monai_sliceinterp.visual_turing.scores import Answers, read_key
from tests.volumes import write_nifti

FACTOR = 3
KEY = {
    "visual_turing_test": 1,
    "study": "0f",
    "ask": "real",
    "questions": [{"candidates": ["truth", "a"]}, {"candidates": ["a", "truth"]}],
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """24 slices of 16 x 13 voxels from 0 to 1000, the axes to the left, posterior and superior."""
    values = np.random.default_rng(0).integers(0, 1001, (16, 13, 24)).astype(np.int16)
    return values, write_nifti(tmp_path_factory.mktemp("thin") / "Doe.nii.gz", values, np.diag([-1, -2, 3, 1]))


@pytest.fixture(scope="module")
def study(scan):
    settings = StudySettings(
        [scan[1]], ["linear", "cubic"], 6, 5, FACTOR, window=(0.0, 1000.0), device="cpu", seed=1, axis=2
    )
    return make_study(settings)


def test_stacks(scan, study):
    orders = set()
    for question in study.questions:
        first, last = question.key["slices"]
        assert last - first == 4 and (first + 2) % FACTOR != 0
        places = np.arange(first, last + 1)
        before = places // FACTOR * FACTOR
        part = ((places - before) / FACTOR)[:, None, None]
        slices = np.moveaxis(scan[0], 2, 0).astype(float)
        linear = (1 - part) * slices[before] + part * slices[np.minimum(before + FACTOR, 23)]
        shown = dict(zip(question.key["candidates"], question.stacks.astype(float), strict=True))
        for name, expected in (("truth", slices[places]), ("linear", linear)):
            assert np.abs(shown[name] - expected.transpose(0, 2, 1) / 1000 * 255).max() < 0.51
        assert np.abs(shown["cubic"] - shown["linear"])[2].mean() > 1
        assert question.aspect == 2
        orders.add(tuple(question.key["candidates"]))
    assert len(orders) > 1


def test_page_does_not_tell(study, tmp_path):
    page, key = write_study(study, tmp_path)
    text = page.read_text()
    assert not re.search(r"Doe|\btruth\b|linear|cubic|subsample|\bseed\b|nii", text)
    assert json.loads(key.read_text())["questions"] == [question.key for question in study.questions]
    shown = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert set(shown) == {"version", "study", "ask", "questions"}
    assert {tuple(question) for question in shown["questions"]} == {("shape", "aspect", "stacks")}
    with pytest.raises(ValueError, match=r"turing.html: exists already"):
        write_study(study, tmp_path)


def test_windows_of_ct(tmp_path):
    """The body's, or the lungs' where there are some."""
    body = np.linalg.norm(np.mgrid[-1:1:48j, -1:1:40j], axis=0)[..., None] < 0.9
    lungs = np.linalg.norm(np.mgrid[-1:1:48j, -2:2:40j], axis=0)[..., None] < 0.6
    values = np.where(lungs, -800, np.where(body, 40, -1000)) + np.random.default_rng(0).normal(0, 30, (48, 40, 17))
    path = write_nifti(tmp_path / "chest.nii.gz", values.astype(np.int16), np.diag([-8, -8, 8, 1]))
    study = make_study(StudySettings([path], ["linear"], 8, 3, 2, device="cpu", seed=1))
    windows = {tuple(question.key["window"]) for question in study.questions}
    assert windows == {(-160.0, 240.0), (-1350.0, 150.0)}
    assert all(np.ptp(question.stacks) > 100 for question in study.questions)


def test_command(scan, tmp_path, capsys):
    options = "--methods linear --axis 2 --questions 2 --slices 3 --factor 3 --device cpu --output_dir"
    assert main(["turing", "make", str(scan[1]), *options.split(), str(tmp_path)]) == 0
    page, key = (tmp_path / name for name in ("turing.html", "turing_key.json"))
    printed = capsys.readouterr()
    size = f"{page.stat().st_size / 1e6:.1f} MB"
    assert printed.out.splitlines() == [
        f"{page} ({size}): for readers, who open it in a browser and send their answers",
        f"{key}: tells what is what; keep it from readers",
    ]
    assert printed.err.splitlines() == [f"question {k} of 2: Doe, slices along axis 2" for k in (1, 2)]
    assert len(json.loads(key.read_text())["questions"]) == 2


def test_in_a_browser(study, tmp_path, browser, capsys):
    page, key = write_study(study, tmp_path)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(page.as_uri())
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait(browser, 120)
    for number, question in enumerate(study.questions, 1):
        wait.until(lambda _, n=number: browser.execute_script("return document.body.dataset.ready") == str(n))
        gray = browser.execute_script(
            "return [...document.querySelectorAll('canvas')].map(c => [...c.getContext('2d').getImageData("
            "0, 0, c.width, c.height).data].filter((_, k) => k % 4 === 0))"
        )
        np.testing.assert_array_equal(gray, question.stacks[:, 2].reshape(3, -1))  # the middle slice comes first
        assert not browser.find_element("id", "save").is_enabled()
        browser.find_elements("css selector", "#stacks input")[question.key["candidates"].index("truth")].click()
        browser.find_element("id", "next").click()
    browser.find_element("id", "reader").send_keys("Reader <1>")
    browser.find_element("id", "save").click()
    saved = tmp_path / "answers_Reader_1_.json"
    wait.until(lambda _: saved.is_file())
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    assert main(["turing", "score", str(key), str(saved), "-o", str(tmp_path / "scores.csv")]) == 0
    assert re.search(r"Reader <1>:\n.*\n.*\n  truth +6 of 6  100.0%", capsys.readouterr().out)
    assert (tmp_path / "scores.csv").read_text().startswith("reader,candidate,chosen,answers,share,low,high,chance")


def test_scores():
    """The interval of Clopper and Pearson for 8 of 10 is a textbook's; 2 of 2 by chance is one in two, both sides."""
    key = {"questions": [{"candidates": ["truth", "a"]}] * 10}
    table = score_answers(key, [Answers("A", (0,) * 8 + (1,) * 2), Answers("B", (1,) * 10)]).set_index(
        ["reader", "candidate"]
    )
    assert table.loc[("A", "truth"), ["share", "low", "high"]].tolist() == pytest.approx(
        [0.8, 0.4439, 0.9748], abs=1e-4
    )
    assert table.loc[("B", "truth"), "high"] == pytest.approx(1 - 0.025**0.1)
    assert table.loc[("B", "a"), "p_value"] == pytest.approx(2 * 0.5**10)
    assert table.loc[("all readers", "truth"), ["chosen", "answers"]].tolist() == [8, 20]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"answers": [0, None]}, "a.json: questions 2 are not answered; expected all to be"),
        ({"answers": [0]}, "a.json: has 1 answers; expected 2, one for each question"),
        ({"answers": [0, 2]}, "a.json: the answer to question 2 is 2; expected 0 to 1"),
        ({"study": "1e"}, "a.json: answers study '1e', the key is that of '0f'"),
        ({"reader": " "}, "a.json: has ' ' for the name of a reader"),
        ({"visual_turing_test": 2}, "a.json: is of version 2; expected 1"),
        ({"questions": KEY["questions"]}, "a.json: is the key of a study; expected answers"),
        (None, "a.json: is something else; expected answers that the page saved"),
    ],
)
def test_bad_answers(answers, message, tmp_path, capsys):
    whole = {"visual_turing_test": 1, "study": "0f", "reader": "A", "answers": [0, 1]}
    for name, content in (("key", KEY), ("a", [] if answers is None else whole | answers), ("b", whole)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert main(["turing", "score", *(str(tmp_path / f"{name}.json") for name in ("key", "a"))]) == 1
    assert message in capsys.readouterr().err
    assert main(["turing", "score", *(str(tmp_path / f"{name}.json") for name in ("key", "b", "b"))]) == 1
    assert "reader 'A' answers twice" in capsys.readouterr().err


NO_KEY = "is not the key of a study; expected NAME_key.json as it was written"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(KEY | {"questions": []}), NO_KEY),
        (json.dumps(KEY | {"questions": [{"candidates": ["a", "a"]}]}), NO_KEY),
        (json.dumps(KEY | {"questions": [{}]}), NO_KEY),
        (json.dumps({name: value for name, value in KEY.items() if name != "ask"}), NO_KEY),
        ("{", "is not JSON.*; expected the key of a study"),
        (b"\xff", "is not JSON.*; expected the key of a study"),
    ],
)
def test_bad_key(content, message, tmp_path, capsys):
    path = tmp_path / "key.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"^{path}: {message}\.$"):
        read_key(path)
    assert main(["turing", "score", str(path), "a.json"]) == 1
    assert re.fullmatch(rf"error: {path}: {message}\.\n", capsys.readouterr().err)  # no traceback, nor what JSON says


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slices", "17"], "Doe.nii.gz: has 24 slices; expected 25 or more, or fewer --slices or --factor"),
        (
            ["--slices", "18", "--factor", "3"],
            "Doe.nii.gz: has 24 slices, none to ask about; expected fewer --slices or --factor.",
        ),
        (["--methods", "liner"], "did you mean 'linear'"),
        (["--ask", "real", "--no-truth"], "nothing is real without the true slices"),
        (["--no-truth"], "one candidate alone"),
        (["--protocol", "leave_one_out"], "unknown protocol 'leave_one_out'"),
    ],
)
def test_bad_settings(scan, options, message, tmp_path, capsys):
    arguments = ["make", str(scan[1]), "-m", "linear", "--axis", "2", "-o", str(tmp_path), "--device", "cpu", *options]
    assert main(["turing", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
