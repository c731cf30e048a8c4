# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The report: both files show the same, nothing in them is followed, and every number is one of the tables."""

import base64
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import markdown
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monai_sliceinterp.evaluation import compare_methods, make_protocols, score_table, summarize
from monai_sliceinterp.evaluation.report import measurement_notes, write_report
from tests.evaluation.helpers import rows

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page: text, tables as lists of rows, attributes; and checks that tags are balanced."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tables, self.attributes, self.tags, self.texts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.texts.append(data)
        if self.open and (self.open[-1] in ("th", "td") or self.open[-2:] in (["td", "b"], ["td", "strong"])):
            self.tables[-1][-1][-1] += f"*{data}*" if self.open[-1] in ("b", "strong") else data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def make_scores(groups=("ct",), protocols=("subsample x2",), volumes=6, methods=("linear", "cubic", "saint")):
    rng = np.random.default_rng(0)
    scores = []
    for group in groups:
        for protocol in protocols:
            base = rng.normal(30, 2, volumes)
            for k, method in enumerate(methods):
                psnr = base + k + rng.normal(0, 0.1, volumes)
                others = {"rmse": list(10 ** (-psnr / 20)), "mse": list(10 ** (-psnr / 10))}
                others |= {"ssim": 0.8 + k / 100, "vif": 0.5 + k / 10}
                scores += rows({method: psnr}, protocol=protocol, group=group, **others)
    return score_table(scores)


def read(text, page):
    """The page, the Markdown, and the Markdown as a page."""
    source = text.read_text(encoding="utf-8")
    return Page(page.read_text(encoding="utf-8")), source, Page(markdown.markdown(source, extensions=["tables"]))


def report(folder, scores=None, metrics=("psnr",), pictures=None, settings=None, failures=(), **others):
    """Write a report and read it."""
    scores = make_scores() if scores is None else scores
    tests = compare_methods(scores, metrics=metrics, resamples=99)
    arguments = (scores, tests, summarize(scores, metrics), pictures or {}, settings or {}, failures, folder)
    text, page = write_report(*arguments, **others)
    assert (text, page) == (Path(folder) / "report.md", Path(folder) / "report.html")
    return read(text, page)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = {}
    for k, title in enumerate(("PSNR (dB)", "scan 1, subsample x2 <i>|*a*")):
        paths[title] = folder / f"picture {k} (x2).png"
        Image.new("RGB", (4 + k, 3)).save(paths[title])
    return paths


def a_test(metric="psnr", method="m0", baseline="linear", **values):
    """A row of the table of tests."""
    names = {"metric": metric, "protocol": "p", "group": "g", "method": method, "baseline": baseline}
    numbers = {"n": 5, "mean_difference": 1.0, "low": 0.5, "high": 1.5, "wins": 5, "p_value": 1 / 32}
    return {**names, **numbers, "p_adjusted": 0.04, **values}


def made_up(folder, means, metric="psnr", tests=(), volumes=1):
    """Write a report of means and tests that no scores stand for, and read it."""
    scores = score_table(rows({method: [0.0] * volumes for method in means}))
    summaries = [
        {"metric": name, "protocol": "p", "group": "g", "method": method, "n": 1, "mean": mean, "std": math.nan}
        for name in ([metric] if isinstance(metric, str) else metric)
        for method, mean in means.items()
    ]
    columns = list(summarize(scores).columns)
    tables = pd.DataFrame(list(tests), columns=list(a_test())), pd.DataFrame(summaries, columns=columns)
    page, source, text = read(*write_report(scores, *tables, {}, {}, [], folder))
    assert page.tables[: len(text.tables)] == text.tables
    return page, source


class TestNumbers:
    @pytest.mark.parametrize(
        ("metric", "means", "shown"),
        [
            ("psnr", (30.0, 31.5, 31.0), ["30.00", "*31.50*", "31.00"]),
            ("rmse", (0.02, 0.01, 0.03), ["0.02000", "*0.01000*", "0.03000"]),
            ("rmse_body", (0.02, 0.01, 0.03), ["0.02000", "*0.01000*", "0.03000"]),
            ("sharpness", (0.9, 1.2, 1.05), ["0.900", "1.200", "*1.050*"]),  # sharper than the truth is no better
            ("psnr", (31.501, 31.499, 31.0), ["*31.50*", "*31.50*", "31.00"]),  # equal as shown
            ("psnr", (math.inf, math.nan, 31.0), ["*∞*", "–", "31.00"]),
            ("psnr", (math.nan, math.nan, math.nan), ["–", "–", "–"]),
        ],
    )
    def test_best_is_bold(self, tmp_path, metric, means, shown):
        page, _ = made_up(tmp_path, dict(zip("abc", means, strict=True)), metric)
        assert page.tables[0][-1] == ["g", "p", "1", *shown]

    def test_a_method_that_failed_somewhere(self, tmp_path):
        scores = make_scores(protocols=("subsample x2", "subsample x4"))
        lost = (scores["protocol"] == "subsample x4") | (scores["volume"] == "v3")
        page, _, _ = report(tmp_path, scores[(scores["method"] != "saint") | ~lost])
        head, first, second = page.tables[0]
        assert head == ["group", "protocol", "n", "linear", "cubic", "saint"]
        assert first[2] == "5 to 6" and second[2] == "6" and second[5] == "–"

    def test_tests(self, tmp_path):
        none = {"low": math.nan, "high": math.nan}
        tests = [a_test(), a_test("rmse", mean_difference=-0.002, wins=1, **none)]
        small = {"mean_difference": 2e-5, "low": 1e-5, "high": 3e-5}
        tests += [a_test("mse", p_value=0.000123456, p_adjusted=math.nan, **small)]
        page, _ = made_up(tmp_path, {"m0": 0.0}, (), tests)
        head = ["group", "protocol", "method", "baseline", "n", "difference", "interval", "wins", "p"]
        assert page.tables[0][0] == [*head, "adjusted p"]
        words = ["g", "p", "m0", "linear", "5"]
        assert page.tables[0][1] == [*words, "+1.00", "0.50 to 1.50", "5 of 5", "0.031", "*0.04*"]
        assert page.tables[1][1] == [*words, "-0.00200", "–", "1 of 5", "0.031", "*0.04*"]
        assert page.tables[2][1] == [*words, "+2.00e-05", "1.00e-05 to 3.00e-05", "5 of 5", "0.00012", "–"]

    @pytest.mark.parametrize(("p_adjusted", "shown"), [(0.049, "*0.049*"), (0.05, "0.05"), (1.0, "1")])
    def test_significance(self, tmp_path, p_adjusted, shown):
        page, _ = made_up(tmp_path, {"m0": 0.0}, (), [a_test(p_adjusted=p_adjusted)])
        assert page.tables[0][1][-1] == shown


class TestContent:
    def test_tables(self, tmp_path):
        """Both files show the means, in the order of the scores, and the page every volume."""
        scores = make_scores(("ct", "mr"), ("subsample x2", "fwhm x4"), 3)
        page, _, text = report(tmp_path, scores, ("psnr", "mse"))
        assert page.tables[: len(text.tables)] == text.tables
        expected = [[group, protocol, "3"] for group in ("ct", "mr") for protocol in ("subsample x2", "fwhm x4")]
        assert [row[:3] for row in page.tables[0][1:]] == expected
        values = scores.set_index(["group", "protocol", "method"]).loc[("mr", "fwhm x4", "cubic"), "psnr"]
        assert page.tables[0][4][4] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        assert len(text.tables) == 3 and len(page.tables) == 6  # tests on the second metric are folded
        every = page.tables[4]
        assert every[0] == ["group", "volume", "protocol", "linear", "cubic", "saint"] and len(every) == 1 + 12
        first = scores[(scores["group"] == "ct") & (scores["volume"] == "v0")]["psnr"].tolist()
        assert every[1] == ["ct", "v0", "subsample x2", f"{first[0]:.2f}", f"{first[1]:.2f}", f"*{first[2]:.2f}*"]
        assert "details" in page.tags and "PSNR (dB) of every volume" in page.text

    def test_findings(self, tmp_path):
        means = {"linear": 30.0, "cubic": 31.0, "saint": 32.5}
        found = {"method": "saint", "n": 5, "wins": 4, "p_adjusted": 0.5}
        tests = [a_test(baseline=k, mean_difference=32.5 - means[k], **found) for k in ("linear", "cubic")]
        page, source = made_up(tmp_path, means, tests=tests, volumes=2)
        rest = "better on 4 of 5 volumes, adjusted p = 0.5."
        for shown in (page.text, source):
            assert "2 volumes, 1 protocol, 3 methods." in shown
            assert f"g, p: saint has the best mean PSNR, 32.50 dB; over cubic +1.50 dB, {rest}" in shown

    def test_too_few_volumes(self, tmp_path):
        """Four volumes could not be significant, whatever their scores: no p-value is shown."""
        page, source, _ = report(tmp_path, make_scores(volumes=4))
        assert "better on 4 of 4 volumes, too few volumes for a test." in page.text
        assert all(row[-2:] == ["too few volumes for a test", "–"] for row in page.tables[1][1:])
        assert "p = 1" not in page.text + source

    def test_guide(self, tmp_path):
        page, source, _ = report(tmp_path, guide={"saint": "two <views> of a CT", "linear": "the mean"})
        assert "saint: two <views> of a CT" in page.text and "saint: two &lt;views&gt; of a CT" in source
        titles = re.findall("^## (.*)$", source, re.MULTILINE)
        assert titles[:3] == ["In short", "Methods", "Scores"]

    @pytest.mark.parametrize(
        ("metrics", "means", "text"),
        [
            (["lpips", "psnr"], {"linear": 0.25, "saint": 0.5}, "linear has the best mean LPIPS, 0.2500."),
            ("sharpness", {"a": 0.9, "b": 1.2, "c": 1.05}, "c has the best mean Sharpness, 1.050."),
        ],
    )
    def test_finding_of_smaller_scores(self, tmp_path, metrics, means, text):
        page, _ = made_up(tmp_path, means, metrics)
        assert f"g, p: {text}" in page.text and "best mean PSNR" not in page.text

    def test_one_method_is_not_the_best(self, tmp_path):
        page, _, _ = report(tmp_path, make_scores(methods=("saint",)))
        assert "has the best" not in page.text and "1 method." in page.text

    def test_many_groups_are_counted(self, tmp_path):
        page, _, _ = report(tmp_path, make_scores([f"g{k}" for k in range(13)], volumes=1))
        assert "Best mean PSNR of 13 groups and protocols: saint 13." in page.text
        assert "has the best" not in page.text
        page, _, _ = report(tmp_path, make_scores([f"g{k}" for k in range(12)], volumes=1))
        assert page.text.count("saint has the best mean PSNR") == 12

    def test_number_of_tests_and_level(self, tmp_path):
        # one method, two baselines, three metrics
        page, source, _ = report(tmp_path, metrics=("psnr", "ssim", "vif"), confidence=0.9)
        for shown in (page.text, source):
            assert "Holm's correction over all 6 tests of this report" in shown
            assert "one-sided Wilcoxon signed-rank test that the method is better" in shown
            assert "90 % bootstrap interval" in shown
        page, source, _ = report(tmp_path, make_scores(methods=("linear", "cubic")))
        assert "Wilcoxon" not in page.text and "## Tests" not in source

    def test_settings_and_failures(self, tmp_path):
        settings = {"data": "/scans <b>", "intensities scored": "-1024 to 2976 HU: all volumes"}
        page, source, text = report(tmp_path, settings=settings, failures=["a.nii: NaN", "b|c.nii: 2 slices"])
        table = next(rows for rows in page.tables if rows[0] == ["setting", "value"])
        assert table[1:] == [list(pair) for pair in settings.items()]
        assert table in text.tables
        assert "None." not in page.text + source
        assert "2 failures, see there" in page.text and "2 failures, see there" in source
        for shown in (page.text, text.text):
            assert "a.nii: NaN" in shown and "b|c.nii: 2 slices" in shown
        page, source, _ = report(tmp_path)
        assert "Failures None." in page.text and "see there" not in page.text
        assert "## Failures\n\nNone.\n" in source

    def test_pictures(self, tmp_path, pictures):
        out = tmp_path / "new" / "out"
        page, source, text = report(out, pictures=pictures)
        images = [attributes for tag, attributes in page.attributes if tag == "img"]
        assert [image["alt"] for image in images] == list(pictures)
        for image, path in zip(images, pictures.values(), strict=True):
            kind, _, data = image["src"].partition(",")
            assert kind == "data:image/png;base64" and base64.b64decode(data, validate=True) == path.read_bytes()
        links = [attributes for tag, attributes in text.attributes if tag == "img"]
        assert [link["alt"] for link in links] == list(pictures)
        assert all(link["src"].startswith("../../pictures/") for link in links)
        linked = [(out / unquote(link["src"])).read_bytes() for link in links]
        assert linked == [path.read_bytes() for path in pictures.values()]
        assert not re.search(r"\]\([^)]*[ (]", source)

    def test_order_of_sections(self, tmp_path, pictures):
        _, source, _ = report(tmp_path, pictures=pictures, settings={"a": "b"}, notes=["how"])
        sections = ["In short", "Scores", "Tests", "Pictures", "How it was measured", "Settings", "Failures"]
        assert re.findall(r"^## (.*)$", source, re.M) == sections and "- how\n" in source


class TestPage:
    NAME = "<b>x & \"y\" 'z' {{ 7 * 7 }} |*a*_b_ `c` [d](http://e.org) # \\"

    def test_names_are_shown_as_they_are(self, tmp_path, pictures):
        """Markup in names is shown, not followed, in both files."""
        scores = make_scores((self.NAME,), (f"random {self.NAME}",), 3, ("linear", self.NAME))
        pictures = {self.NAME: next(iter(pictures.values()))}
        others = {"settings": {self.NAME: self.NAME}, "failures": [self.NAME], "title": self.NAME}
        page, source, text = report(tmp_path, scores, pictures=pictures, **others)
        for shown in (page, text):
            assert shown.tables[0][0][-1] == self.NAME
            assert shown.tables[0][1][:2] == [self.NAME, f"random {self.NAME}"]
            assert [self.NAME, self.NAME] in [row for rows in shown.tables for row in rows]
            assert next(attributes["alt"] for tag, attributes in shown.attributes if tag == "img") == self.NAME
            assert not [tag for tag, attributes in shown.attributes if tag in ("script", "em", "code")]
        assert "<b>" not in source
        links = [attributes["href"] for tag, attributes in [*page.attributes, *text.attributes] if tag == "a"]
        assert all(link.startswith("#") for link in links)

    def test_a_name_of_two_lines(self, tmp_path):
        page, _, text = report(tmp_path, settings={"a": "b\n\n| c"}, failures=["d\n\n# e"])
        assert ["a", "b | c"] in [row for rows in text.tables for row in rows]
        assert "d # e" in text.text and "d # e" in page.text and text.tags.count("h1") == 1

    def test_self_contained(self, tmp_path, pictures):
        page, _, _ = report(tmp_path, pictures=pictures, metrics=("psnr", "ssim"))
        assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
        for tag, attributes in page.attributes:
            assert not any(name.startswith("on") for name in attributes), tag
            for name in ("src", "href"):
                assert attributes.get(name, "#").startswith(("#", "data:image/"))
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "@import" not in text and "url(" not in text and "default-src 'none'" in text
        identifiers = [attributes["id"] for _, attributes in page.attributes if "id" in attributes]
        links = [attributes["href"][1:] for tag, attributes in page.attributes if tag == "a"]
        assert links == identifiers and len(set(identifiers)) == len(identifiers) >= 6
        # for phones and paper
        assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.attributes
        assert ("meta", {"charset": "utf-8"}) in page.attributes and ("html", {"lang": "en"}) in page.attributes
        assert "@media print" in text and "color-scheme: light" in text
        wide = [tag for tag, attributes in page.attributes if tag == "div" and attributes.get("class") == "wide"]
        assert page.tags.count("table") == len(wide)
        assert page.tags.count("h1") == 1 and page.text.startswith("Evaluation of slice interpolation")

    def test_written_again(self, tmp_path, pictures):
        report(tmp_path / "a", failures=["first run"], pictures=pictures)
        for folder in ("a", "b"):
            page, source, _ = report(tmp_path / folder, pictures=pictures)
            assert "first run" not in page.text + source
            assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["report.html", "report.md"]
        for name in ("report.html", "report.md"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


class TestBadInput:
    def test_nothing_scored(self, tmp_path):
        nothing = score_table()
        with pytest.raises(ValueError, match="no scores to report"):
            write_report(nothing, compare_methods(nothing), summarize(nothing), {}, {}, [], tmp_path)

    def test_pictures(self, tmp_path):
        (tmp_path / "scores.csv").write_text("a")
        for path in (tmp_path / "missing.png", tmp_path / "scores.csv"):
            with pytest.raises(ValueError, match=rf"{path.name}: expected an image file .* picture 'boxes'"):
                report(tmp_path, pictures={"boxes": path})
        assert not (tmp_path / "report.md").exists() and not (tmp_path / "report.html").exists()


class TestNotes:
    @pytest.mark.parametrize("name", ["subsample", "fwhm", "random", "leave_one_out"])
    def test_protocols(self, name):
        notes = measurement_notes(make_protocols([name], [2, 4]), [])
        assert len(notes) == 3 and notes[1].startswith(name.replace("_", "-"))

    @pytest.mark.parametrize(
        ("metrics", "expected"),
        [
            (["psnr"], ["PSNR", "Scores without"]),
            (["ssim_body"], ["SSIM", "Inside"]),
            (["psnr_volume", "vif_coronal", "vif_sagittal"], ["PSNR", "VIF", "Whole", "Cuts"]),
            (["vif_sagittal"], ["VIF", "Cuts"]),
            (["rmse", "mse", "lpips", "niqe"], ["RMSE", "MSE", "LPIPS", "NIQE", "Scores without"]),
            (["sharpness", "seconds"], ["Sharpness", "Time", "Scores without"]),
            (["seconds", "memory"], ["Time", "Memory"]),
        ],
    )
    def test_metrics(self, metrics, expected):
        notes = measurement_notes([], metrics)
        assert "data range 0 to 1 and clipped" in notes[1]
        assert [next(word for word in expected if note.startswith(word)) for note in notes[2:]] == expected
