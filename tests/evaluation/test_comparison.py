# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The comparison that bundles print: what methods are given, what is scored, and the table."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import stats
from torch import nn

from monai_sliceinterp.evaluation import BASELINES, MethodComparison, compare, format_scores, score_table
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import body_mask, score_volume
from monai_sliceinterp.transforms import FWHMDownsample
from tests.evaluation.helpers import cells, read_csv, rows

SUBSAMPLE = {"factor": 2, "fwhm": 0}
FOUR = {"factor": 4, "fwhm": 0}


def make_volume(num_slices=9, channels=1, seed=0, name="group/scan.nii.gz", spacing=2.0):
    affine = torch.diag(torch.tensor([1.0, 1.0, spacing, 1.0]))
    values = torch.rand(channels, 14, 13, num_slices, generator=torch.Generator().manual_seed(seed))
    return {"image": MetaTensor(values, affine=affine, meta={"filename_or_obj": name})}


def recorder(result):
    """A method that notes its inputs and answers with ``result(volume, factor)``."""
    calls = []

    def make(factor):
        def interpolate(volume):
            calls.append((factor, volume))
            return result(volume, factor)

        return interpolate

    return make, calls


def truth_of(volume, first=0):
    """A method that knows the answer."""
    return lambda thick, factor: volume["image"][None, ..., first : first + factor * (thick.shape[-1] - 1) + 1]


def spline(mode):
    return lambda thick, factor: SplineSliceInferer(factor=factor, mode=mode)(thick)


def compared(volumes, protocols, methods=None, **options):
    """Rows of the scores by method; the last one of each."""
    table = compare(volumes, methods or {}, protocols, progress=False, **options)
    return table, {row.method: row for row in table.itertuples()}


class TestBody:
    @pytest.mark.parametrize("phase", [0, 1])
    @pytest.mark.parametrize("threshold", [0.3, 0.6])
    def test_mask(self, threshold, phase):
        """The mask is that of the thin volume, from the first kept slice on, for every method."""
        volume = make_volume(9)
        volume["image"][:, 3:8, 3:8] += 0.5
        protocol = {"factor": 3, "fwhm": 0, "phase": phase}
        make, calls = recorder(lambda thick, k: spline("linear")(thick, k) * 0.9)
        table, scores = compared([volume], [protocol], {"mine": make}, body_threshold=threshold)
        body = body_mask(volume["image"], threshold)[..., phase:]
        assert 0.05 < body.float().mean() < 0.95
        pred = 0.9 * spline("linear")(calls[0][1], 3)[0]
        expected = score_volume(pred, volume["image"][..., phase:], 3, body=body)
        assert {name: getattr(scores["mine"], name) for name in expected} == expected
        assert np.isfinite(table[["psnr_body", "ssim_body"]].to_numpy()).all()
        without, _ = compared([volume], [protocol], {"mine": make})
        assert without["psnr_body"].isna().all() and without["ssim_body"].isna().all()
        assert without[["psnr", "ssim"]].equals(table[["psnr", "ssim"]])

    def test_nobody_there(self):
        """A volume of air has no score inside the body, but still one of its slices."""
        table, _ = compared([make_volume(9)], [SUBSAMPLE], body_threshold=2.0)
        assert table["psnr_body"].isna().all() and np.isfinite(table["psnr"]).all()


class TestProtocols:
    @pytest.mark.parametrize("factor", [2, 3, 4])
    def test_subsample(self, factor):
        volume = make_volume(10)
        make, calls = recorder(spline("linear"))
        table, scores = compared([volume], [{"factor": factor, "fwhm": 0}], {"mine": make})
        ((asked, thick),) = calls
        assert asked == factor
        assert torch.equal(thick.as_tensor(), volume["image"].as_tensor()[None, ..., ::factor])
        assert thick.affine[2, 2] == 2.0 * factor
        assert table["method"].tolist() == [*BASELINES, "mine"]
        places = set(table[["volume", "group", "protocol"]].itertuples(index=False, name=None))
        assert places == {("scan", "group", f"subsample x{factor}")}
        assert scores["mine"].psnr == scores["linear"].psnr and table["psnr"].nunique() == 3

    @pytest.mark.parametrize(("fwhm", "title"), [(None, "fwhm x3"), (4.0, "fwhm 4 mm x3")])
    def test_slabs(self, fwhm, title):
        """Slabs as wide as the target spacing, or of a width in mm; the affine has 2 mm."""
        volume = make_volume(10)
        protocol = {"factor": 3} if fwhm is None else {"factor": 3, "fwhm": fwhm}
        make, calls = recorder(truth_of(volume))
        table, _ = compared([volume], [protocol], {"mine": make})
        ((factor, thick),) = calls
        assert factor == 3 and thick.shape == (1, 1, 14, 13, 4)
        expected = FWHMDownsample(3, fwhm=fwhm or 6.0)(volume["image"])
        torch.testing.assert_close(thick[0].as_tensor(), expected.as_tensor())
        assert set(table["protocol"]) == {title}

    @pytest.mark.parametrize(("num_slices", "scored"), [(2, 0), (3, 1), (4, 1), (5, 2), (8, 2)])
    def test_too_few_slices(self, num_slices, scored):
        table, _ = compared([make_volume(num_slices)], [SUBSAMPLE, FOUR])
        assert len(table) == 3 * scored and table["protocol"].nunique() == scored

    def test_nameless_volumes_are_numbered(self):
        volumes = [{"image": MetaTensor(torch.rand(1, 12, 12, 5))} for _ in range(2)]
        assert compared(volumes, [SUBSAMPLE])[0]["volume"].tolist() == ["0"] * 3 + ["1"] * 3


def table_of(values, method="mine", region="slices", **others):
    """The cells of the rows of a table."""
    scores = score_table(rows(values, **{"ssim": 0.5, **others}) if isinstance(values, dict) else values)
    return [cells(line) for line in format_scores(scores, method, region).splitlines()]


class TestTable:
    LINEAR = [20.0, 25.0, 30.0, 22.0, 28.0]
    CUBIC = [21.0, 24.0, 31.0, 23.0, 27.5]
    MINE = [21.5, 24.25, 30.5, 25.0, 29.0]

    def test_arithmetic(self):
        scores = rows({"linear": self.LINEAR}, ssim=0.4) + rows({"cubic": self.CUBIC}, ssim=0.5)
        scores += rows({"mine": self.MINE}, ssim=0.75)
        head, rule, row = table_of(scores)
        assert head == ["group", "protocol", "n", "linear", "cubic", "mine", "gain", "wins", "p"]
        assert rule == ["---"] * 9
        means = ["25.00 / 0.4000", "25.30 / 0.5000", "26.05 / 0.7500"]
        assert row[:-1] == ["g", "p", "5", *means, "+0.75 dB over cubic", "4 of 5"]  # the better of the two by mean
        expected = stats.wilcoxon(np.subtract(self.MINE, self.CUBIC), alternative="greater").pvalue
        # ranks of |d| = .5, .25, .5, 2, 1.5: the one loss is the rank 2.5, so sums up to 2.5 count, among 32 signs
        assert row[-1] == f"{expected:.2g}" and 0.05 < expected < 0.25

    def test_groups_and_protocols(self):
        """Each has its row, its means, and its better baseline."""
        scores = rows({"linear": [30.0], "cubic": [29.0], "mine": [28.0]}, protocol="a", ssim=0.5)
        scores += rows({"linear": [20.0], "cubic": [21.0], "mine": [24.5]}, protocol="b", ssim=0.5)
        scores += rows({"linear": [40.0, 40.0], "cubic": [42.0] * 2, "mine": [43.0] * 2}, group="heart", ssim=0.5)
        first, second, third = table_of(scores)[2:]
        assert first[1:3] == ["a", "1"] and first[6:8] == ["-2.00 dB over linear", "0 of 1"]
        assert second[1:3] == ["b", "1"] and second[6:8] == ["+3.50 dB over cubic", "1 of 1"]
        assert third[:6] == ["heart", "p", "2", "40.00 / 0.5000", "42.00 / 0.5000", "43.00 / 0.5000"]

    @pytest.mark.parametrize("value", [25.0, math.inf])
    def test_tie(self, value):
        """Equal scores, infinite ones too: no gain, no win, no significance."""
        row = table_of({"linear": [20.0, 20.0], "cubic": [value] * 2, "mine": [value] * 2})[2]
        assert row[6:] == ["+0.00 dB over cubic", "0 of 2", "1"]
        row = table_of({"linear": [20.0, 20.0], "cubic": [25.0, 25.0], "mine": [math.inf] * 2})[2]
        assert row[6:] == ["+inf dB over cubic", "2 of 2", "0.25"]

    def test_inside_the_body(self):
        """Means, the better baseline, the gain and the wins are all of the region's scores."""
        scores = rows({"linear": [20.0], "cubic": [21.0], "mine": [22.0]}, ssim=0.5)
        scores = [row | {"psnr_body": 30.0 - 2 * k, "ssim_body": 0.9 - k / 10} for k, row in enumerate(scores)]
        body = ["30.00 / 0.9000", "28.00 / 0.8000", "26.00 / 0.7000", "-4.00 dB over linear", "0 of 1", "1"]
        assert table_of(scores, region="body")[2][3:] == body
        whole = ["20.00 / 0.5000", "21.00 / 0.5000", "22.00 / 0.5000", "+1.00 dB over cubic", "1 of 1", "0.5"]
        assert table_of(scores)[2][3:] == whole
        with pytest.raises(ValueError, match="unknown region 'lung'; expected one of slices, body"):
            table_of(scores, region="lung")


class Offset(nn.Module):
    """Adds a parameter; notes whether it is in training mode."""

    def __init__(self):
        super().__init__()
        self.weight, self.modes = nn.Parameter(torch.zeros(1)), []

    def forward(self, image):
        self.modes.append(self.training)
        return image + self.weight.detach()


def network_inferer(mode, *others):
    """Inferers that add a network's weight to a spline, and give half of it beside, if wanted."""

    def make(factor):
        def interpolate(volume, network):
            result = network(spline(mode)(volume, factor))
            return {"half": result / 2, "mine": result} if others else result

        return interpolate

    return make


class TestMethodComparison:
    def run(self, tmp_path, volumes, inferer, **options):
        self.network = Offset().train()
        comparison = MethodComparison(volumes, self.network, inferer, [SUBSAMPLE], "mine", tmp_path, **options)
        return comparison.run(progress=False)

    def row(self, table):
        lines = table.splitlines()
        return dict(zip(cells(lines[0]), cells(lines[2]), strict=True))

    def test_files_and_table(self, tmp_path):
        volumes = [make_volume(9, seed=k, name=f"g/{k}.nii") for k in range(2)]
        out = tmp_path / "new" / "out"
        table = self.run(out, volumes, network_inferer("linear"))
        assert self.network.modes == [False, False]
        assert (out / "scores.md").read_text() == table + "\n"
        found = [(line["volume"], line["method"]) for line in read_csv(out / "scores.csv")]
        assert found == [(str(k), name) for k in range(2) for name in (*BASELINES, "mine")]
        row = self.row(table)
        assert row["mine"] == row["linear"] and row["n"] == "2"

    def test_several_results(self, tmp_path):
        """The table tests the method among the results; the others are columns."""
        row = self.row(self.run(tmp_path, [make_volume(9)], network_inferer("cubic", "half")))
        assert list(row)[3:8] == [*BASELINES, "half", "mine"] and row["mine"] == row["cubic"] != row["half"]
        assert [line["method"] for line in read_csv(tmp_path / "scores.csv")] == [*BASELINES, "half", "mine"]

    def test_too_few_slices(self, tmp_path):
        with pytest.raises(ValueError, match="no volume has enough slices for any of the protocols"):
            self.run(tmp_path, [make_volume(2)], network_inferer("linear"))

    def test_second_table_for_the_body(self, tmp_path):
        volume = make_volume(9)
        volume["image"][:, :4] *= 0.1
        table = self.run(tmp_path, [volume], network_inferer("cubic"), body_threshold=0.4)
        assert (tmp_path / "scores.md").read_text() == table + "\n"
        whole, body = table.split("\n\ninside the body:\n")
        assert whole == self.run(None, [volume], network_inferer("cubic"))
        lines = {line["method"]: line for line in read_csv(tmp_path / "scores.csv")}
        for part, suffix in ((whole, ""), (body, "_body")):
            for name in BASELINES:
                psnr, ssim = (float(lines[name][key + suffix]) for key in ("psnr", "ssim"))
                assert self.row(part)[name] == f"{psnr:.2f} / {ssim:.4f}"
