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

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import markdown
import numpy as np
import pytest
from PIL import Image

from monai_sliceinterp.evaluation import MethodSummary, MethodTest, Score, summarize, test_methods
from monai_sliceinterp.evaluation.labels import format_value
from monai_sliceinterp.evaluation.notes import measurement_notes
from monai_sliceinterp.evaluation.report import write_report

test_methods.__test__ = False  # a function of the package, not a test

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
        for v in range(volumes):
            for protocol in protocols:
                base = rng.normal(30, 2)
                for k, method in enumerate(methods):
                    psnr = base + k + rng.normal(0, 0.1)
                    error = 10 ** (-psnr / 20)
                    values = {"rmse": error, "mse": error**2, "vif": 0.5 + k / 10}
                    scores.append(Score(f"{group}{v}", group, protocol, method, psnr, 0.8 + k / 100, psnr, **values))
    return scores


def report(folder, scores=None, metrics=("psnr",), pictures=None, settings=None, failures=(), **others):
    """Write a report and read it: the page, the Markdown, and the Markdown as a page."""
    scores = make_scores() if scores is None else scores
    tests = test_methods(scores, metrics=metrics, resamples=99)
    arguments = (scores, tests, summarize(scores, metrics), pictures or {}, settings or {}, failures, folder)
    text, page = write_report(*arguments, **others)
    assert (text, page) == (Path(folder) / "report.md", Path(folder) / "report.html")
    source = text.read_text(encoding="utf-8")
    return Page(page.read_text(encoding="utf-8")), source, Page(markdown.markdown(source, extensions=["tables"]))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = {}
    for k, title in enumerate(("PSNR (dB)", "scan 1, subsample x2 <i>|*a*")):
        paths[title] = folder / f"picture {k} (x2).png"
        Image.new("RGB", (4 + k, 3)).save(paths[title])
    return paths


def make_tests(count, metric="psnr", **values):
    defaults = {
        "n": 5,
        "mean_difference": 1.0,
        "low": 0.5,
        "high": 1.5,
        "wins": 5,
        "p_value": 1 / 32,
        "p_adjusted": 0.04,
    }
    return [MethodTest(metric, "p", "g", f"m{k}", "linear", **(defaults | values)) for k in range(count)]


def make_summaries(means, metric="psnr", std=math.nan, n=1):
    return [MethodSummary(metric, "p", "g", method, n, mean, std) for method, mean in means.items()]


def one_row(folder, means, metric="psnr", **values):
    """The last row of the table of means, from both files."""
    scores = [Score("v", "g", "p", method, 0.0, 0.0, 0.0) for method in means]
    text, page = write_report(scores, [], make_summaries(means, metric, **values), {}, {}, [], folder)
    first = Page(page.read_text(encoding="utf-8")).tables[0][-1]
    second = Page(markdown.markdown(text.read_text(encoding="utf-8"), extensions=["tables"])).tables[0][-1]
    assert first == second
    return first


class TestNumbers:
    @pytest.mark.parametrize(
        ("metric", "value", "text"),
        [
            ("psnr", 31.2349, "31.23"),
            ("psnr_body", 31.235001, "31.24"),
            ("ssim_coronal", 0.98765432, "0.9877"),
            ("rmse", 0.0123456, "0.01235"),
            ("mse", 0.000152399, "1.52e-04"),
            ("vif", 1.0, "1.0000"),
            ("niqe", 4.56789, "4.57"),
            ("lpips", 0.123456, "0.1235"),
            ("seconds", 0.012345, "0.0123"),
            ("memory", 1234.5678, "1234.6"),
            ("memory", 0.0039, "0.0"),
            ("seconds", 1234.5678, "1235"),
            ("psnr", math.inf, "∞"),
            ("psnr", -math.inf, "-∞"),
            ("ssim", math.nan, "–"),
            ("psnr", -0.001, "0.00"),
            ("psnr", -0.01, "-0.01"),
        ],
    )
    def test_rounding(self, metric, value, text):
        assert format_value(metric, value) == text

    def test_best_is_bold(self, tmp_path):
        assert one_row(tmp_path, {"a": 30.0, "b": 31.5, "c": 31.0}) == ["g", "p", "1", "30.00", "*31.50*", "31.00"]

    def test_smaller_is_better(self, tmp_path):
        means = {"a": 0.02, "b": 0.01, "c": 0.03}
        assert one_row(tmp_path, means, "rmse")[3:] == ["0.02000", "*0.01000*", "0.03000"]
        assert one_row(tmp_path, means, "rmse_body")[3:] == ["0.02000", "*0.01000*", "0.03000"]

    def test_closest_to_one(self, tmp_path):
        """Sharper than the truth is no better than blurred."""
        means = {"a": 0.9, "b": 1.2, "c": 1.05}
        assert one_row(tmp_path, means, "sharpness")[3:] == ["0.900", "1.200", "*1.050*"]
        assert "c has the best mean Sharpness, 1.050." in (tmp_path / "report.md").read_text(encoding="utf-8")

    def test_equal_as_shown(self, tmp_path):
        assert one_row(tmp_path, {"a": 31.501, "b": 31.499, "c": 31.0})[3:] == ["*31.50*", "*31.50*", "31.00"]

    def test_exact_and_missing(self, tmp_path):
        assert one_row(tmp_path, {"a": math.inf, "b": math.nan, "c": 31.0})[3:] == ["*∞*", "–", "31.00"]
        assert one_row(tmp_path, {"a": math.nan, "b": math.nan})[3:] == ["–", "–"]

    def test_spread(self, tmp_path):
        assert one_row(tmp_path, {"a": 30.0, "b": 29.0}, std=1.234, n=7)[2:] == ["7", "*30.00 ± 1.23*", "29.00 ± 1.23"]

    def test_a_method_that_failed_somewhere(self, tmp_path):
        scores = make_scores(protocols=("subsample x2", "subsample x4"))
        scores = [s for s in scores if s.method != "saint" or (s.protocol == "subsample x2" and s.volume != "ct3")]
        page, _, _ = report(tmp_path, scores)
        head, first, second = page.tables[0]
        assert head == ["group", "protocol", "n", "linear", "cubic", "saint"]
        assert first[2] == "5 to 6" and second[2] == "6" and second[5] == "–"

    def test_tests(self, tmp_path):
        tests = make_tests(1) + make_tests(1, "rmse", mean_difference=-0.002, low=math.nan, high=math.nan, wins=1)
        tests += make_tests(
            1, "mse", p_value=0.000123456, p_adjusted=math.nan, mean_difference=2e-5, low=1e-5, high=3e-5
        )
        rows = [Score("v", "g", "p", "m0", 0.0, 0.0, 0.0)]
        text, path = write_report(rows, tests, [], {}, {}, [], tmp_path)
        page = Page(path.read_text(encoding="utf-8"))
        assert (
            page.tables[:3] == Page(markdown.markdown(text.read_text(encoding="utf-8"), extensions=["tables"])).tables
        )
        head = ["group", "protocol", "method", "baseline", "n", "difference", "interval", "wins", "p"]
        assert page.tables[0][0] == [*head, "adjusted p"]
        words = ["g", "p", "m0", "linear", "5"]
        assert page.tables[0][1] == [*words, "+1.00", "0.50 to 1.50", "5 of 5", "0.031", "*0.04*"]
        assert page.tables[1][1] == [*words, "-0.00200", "–", "1 of 5", "0.031", "*0.04*"]
        assert page.tables[2][1] == [*words, "+2.00e-05", "1.00e-05 to 3.00e-05", "5 of 5", "0.00012", "–"]

    @pytest.mark.parametrize(("p_adjusted", "shown"), [(0.049, "*0.049*"), (0.05, "0.05"), (1.0, "1")])
    def test_significance(self, tmp_path, p_adjusted, shown):
        rows = [Score("v", "g", "p", "m0", 0.0, 0.0, 0.0)]
        _, path = write_report(rows, make_tests(1, p_adjusted=p_adjusted), [], {}, {}, [], tmp_path)
        assert Page(path.read_text(encoding="utf-8")).tables[0][1][-1] == shown


class TestContent:
    def test_tables(self, tmp_path):
        """Both files show the means, in the order of the scores, and the page every volume."""
        scores = make_scores(("ct", "mr"), ("subsample x2", "fwhm x4"), 3)
        page, _, text = report(tmp_path, scores, ("psnr", "mse"))
        assert page.tables[: len(text.tables)] == text.tables
        assert [row[:3] for row in page.tables[0][1:]] == [
            [group, protocol, "3"] for group in ("ct", "mr") for protocol in ("subsample x2", "fwhm x4")
        ]
        values = [s.psnr for s in scores if (s.group, s.protocol, s.method) == ("mr", "fwhm x4", "cubic")]
        assert page.tables[0][4][4] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        assert len(text.tables) == 4 and len(page.tables) == 6
        every = page.tables[4]
        assert every[0] == ["group", "volume", "protocol", "linear", "cubic", "saint"] and len(every) == 1 + 12
        assert every[1][3] == f"{scores[0].psnr:.2f}" and every[1][5] == f"*{scores[2].psnr:.2f}*"
        assert "details" in page.tags and "PSNR (dB) of every volume" in page.text

    def test_findings(self, tmp_path):
        means = {"linear": 30.0, "cubic": 31.0, "saint": 32.5}
        rows = [Score(volume, "g", "p", name, 0.0, 0.0, 0.0) for volume in "ab" for name in means]
        tests = [
            MethodTest("psnr", "p", "g", "saint", baseline, 2, 32.5 - means[baseline], 0.1, 2.0, 2, 0.25, 0.5)
            for baseline in ("linear", "cubic")
        ]
        text, path = write_report(rows, tests, make_summaries(means), {}, {}, [], tmp_path)
        for shown in (Page(path.read_text(encoding="utf-8")).text, text.read_text(encoding="utf-8")):
            assert "2 volumes, 1 protocol, 3 methods." in shown
            assert (
                "g, p: saint has the best mean PSNR, 32.50 dB; over cubic +1.50 dB, better on 2 of 2 volumes, adjusted "
                "p = 0.5." in shown
            )

    def test_finding_of_a_baseline_and_of_smaller_scores(self, tmp_path):
        means = {"linear": 0.25, "saint": 0.5}
        rows = [Score("v", "g", "p", name, 0.0, 0.0, 0.0) for name in means]
        summaries = make_summaries(means, "lpips") + make_summaries(means)
        _, path = write_report(rows, [], summaries, {}, {}, [], tmp_path)
        assert "g, p: linear has the best mean LPIPS, 0.2500." in Page(path.read_text(encoding="utf-8")).text
        assert "best mean PSNR" not in Page(path.read_text(encoding="utf-8")).text

    def test_one_method_is_not_the_best(self, tmp_path):
        page, _, _ = report(tmp_path, make_scores(methods=("saint",)))
        assert "has the best" not in page.text and "1 method." in page.text

    def test_many_groups_are_counted(self, tmp_path):
        scores = make_scores([f"g{k}" for k in range(13)], volumes=1)
        page, _, _ = report(tmp_path, scores)
        assert "Best mean PSNR of 13 groups and protocols: saint 13." in page.text
        assert "has the best" not in page.text
        page, _, _ = report(tmp_path, make_scores([f"g{k}" for k in range(12)], volumes=1))
        assert page.text.count("saint has the best mean PSNR") == 12

    def test_number_of_tests_and_level(self, tmp_path):
        page, source, _ = report(tmp_path, metrics=("psnr", "ssim", "vif"), confidence=0.9)
        # one method, two baselines, three metrics
        assert len(test_methods(make_scores(), metrics=("psnr", "ssim", "vif"), resamples=99)) == 6
        for shown in (page.text, source):
            assert "Holm's correction over all 6 tests of this report" in shown
            assert "one-sided Wilcoxon signed-rank test that the method is better" in shown
            assert "90 % bootstrap interval" in shown

    def test_no_tests(self, tmp_path):
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

    def test_no_failures(self, tmp_path):
        page, source, _ = report(tmp_path)
        assert "Failures None." in page.text and "see there" not in page.text
        assert "## Failures\n\nNone.\n" in source

    def test_pictures(self, tmp_path, pictures):
        page, source, text = report(tmp_path, pictures=pictures)
        images = [attributes for tag, attributes in page.attributes if tag == "img"]
        assert [image["alt"] for image in images] == list(pictures)
        for image, path in zip(images, pictures.values(), strict=True):
            kind, _, data = image["src"].partition(",")
            assert kind == "data:image/png;base64" and base64.b64decode(data, validate=True) == path.read_bytes()
        links = [attributes for tag, attributes in text.attributes if tag == "img"]
        assert [(tmp_path / unquote(link["src"])).read_bytes() for link in links] == [
            path.read_bytes() for path in pictures.values()
        ]
        assert [link["alt"] for link in links] == list(pictures)
        assert not re.search(r"\]\([^)]*[ (]", source)

    def test_pictures_beside_the_folder(self, tmp_path, pictures):
        _, _, text = report(tmp_path / "new" / "out", pictures=pictures)
        links = [attributes["src"] for tag, attributes in text.attributes if tag == "img"]
        assert all(link.startswith("../../pictures/") for link in links)
        assert all((tmp_path / "new" / "out" / unquote(link)).is_file() for link in links)

    def test_order_of_sections(self, tmp_path, pictures):
        _, source, _ = report(tmp_path, pictures=pictures, settings={"a": "b"})
        assert re.findall(r"^## (.*)$", source, re.M) == [
            "In short",
            "Scores",
            "Tests",
            "Pictures",
            "How it was measured",
            "Settings",
            "Failures",
        ]


class TestPage:
    NAME = "<b>x & \"y\" 'z' {{ 7 * 7 }} |*a*_b_ `c` [d](http://e.org) # \\"

    def test_names_are_shown_as_they_are(self, tmp_path, pictures):
        """Markup in names is shown, not followed, in both files."""
        scores = make_scores((self.NAME,), (f"random {self.NAME}",), 3, ("linear", self.NAME))
        pictures = {self.NAME: next(iter(pictures.values()))}
        page, source, text = report(
            tmp_path, scores, pictures=pictures, settings={self.NAME: self.NAME}, failures=[self.NAME], title=self.NAME
        )
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
        assert "@import" not in text and "url(" not in text
        assert "default-src 'none'" in text

    def test_anchors_lead_somewhere(self, tmp_path, pictures):
        page, _, _ = report(tmp_path, pictures=pictures)
        identifiers = [attributes["id"] for _, attributes in page.attributes if "id" in attributes]
        links = [attributes["href"][1:] for tag, attributes in page.attributes if tag == "a"]
        assert links == identifiers and len(set(identifiers)) == len(identifiers) >= 6

    def test_for_phones_and_paper(self, tmp_path):
        page, _, _ = report(tmp_path)
        assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.attributes
        assert ("meta", {"charset": "utf-8"}) in page.attributes
        assert ("html", {"lang": "en"}) in page.attributes
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "@media print" in text and "color-scheme: light" in text
        assert page.tags.count("table") == sum(
            tag == "div" and attributes.get("class") == "wide" for tag, attributes in page.attributes
        )
        assert page.tags.count("h1") == 1 and page.text.startswith("Evaluation of slice interpolation")

    def test_rows_are_as_long_as_their_heads(self, tmp_path):
        page, _, text = report(tmp_path, make_scores(("a", "b")), ("psnr", "ssim", "rmse"), settings={"a": "b"})
        for table in [*page.tables, *text.tables]:
            assert {len(row) for row in table} == {len(table[0])}

    def test_written_again(self, tmp_path):
        report(tmp_path, failures=["first run"])
        page, source, _ = report(tmp_path)
        assert "first run" not in page.text + source
        assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md"]

    def test_same_again(self, tmp_path, pictures):
        report(tmp_path / "a", pictures=pictures)
        report(tmp_path / "b", pictures=pictures)
        for name in ("report.html", "report.md"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


class TestBadInput:
    def test_nothing_scored(self, tmp_path):
        with pytest.raises(ValueError, match="no scores to report"):
            write_report([], [], [], {}, {}, [], tmp_path)

    def test_pictures(self, tmp_path):
        (tmp_path / "scores.csv").write_text("a")
        for path in (tmp_path / "missing.png", tmp_path / "scores.csv"):
            with pytest.raises(ValueError, match=rf"{path.name}: expected an image file .* picture 'boxes'"):
                report(tmp_path, pictures={"boxes": path})
        assert not (tmp_path / "report.md").exists() and not (tmp_path / "report.html").exists()


class TestNotes:
    def test_protocols(self):
        kinds = {
            "subsample": "subsample x4",
            "fwhm": "fwhm 4 mm x2",
            "random": "random x3",
            "leave-one-out": "leave-one-out from 1",
        }
        for name, title in kinds.items():
            notes = measurement_notes([title], [])
            assert [other for other in kinds if any(note.startswith(other) for note in notes)] == [name]
        assert len(measurement_notes(["not at random x2"], [])) == 2  # a title of the user's own

    @pytest.mark.parametrize(
        ("metrics", "expected"),
        [
            (["psnr"], ["PSNR", "Scores without"]),
            (["ssim_body"], ["SSIM", "Inside"]),
            (["psnr_volume", "vif_coronal", "vif_sagittal"], ["PSNR", "VIF", "Whole", "Coronal"]),
            (["vif_sagittal"], ["VIF", "Coronal"]),
            (["rmse", "mse", "lpips", "niqe"], ["RMSE", "MSE", "LPIPS", "NIQE", "Scores without"]),
            (["sharpness", "seconds"], ["Sharpness", "Time", "Scores without"]),
            (["seconds", "memory"], ["Time", "Memory"]),
        ],
    )
    def test_metrics(self, metrics, expected):
        notes = measurement_notes([], metrics)
        assert "clipped" in notes[1]
        assert [next(word for word in expected if note.startswith(word)) for note in notes[2:]] == expected

    def test_what_psnr_is_over(self):
        text = " ".join(measurement_notes(["subsample x2"], ["psnr", "mse"]))
        assert "over all synthesized slices of a volume together" in text and "data range 0 to 1" in text
