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

import math

import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.evaluation import compare
from monai_sliceinterp.evaluation.protocols import (
    PROTOCOLS,
    can_score,
    closest,
    degrade_by_protocol,
    make_protocols,
    protocol_titles,
)


def make_thin(count=9):
    generator = torch.Generator().manual_seed(0)
    return MetaTensor(
        torch.rand(1, 12, 12, count, generator=generator), affine=torch.diag(torch.tensor([1, 1, 2.0, 1]))
    )


class TestMakeProtocols:
    def test_names_then_factors(self):
        protocols = make_protocols(["fwhm", "subsample", "leave_one_out", "random"], [4, 2])
        assert protocols == [
            {"factor": 4},
            {"factor": 2},
            {"factor": 4, "fwhm": 0},
            {"factor": 2, "fwhm": 0},
            {"factor": 2, "fwhm": 0, "phase": 0, "title": "leave-one-out"},
            {"factor": 2, "fwhm": 0, "phase": 1, "title": "leave-one-out from 1"},
            {"factor": 4, "random": {"sigma_range": [0.0, 3.2], "noise_range": [0.0, 0.005]}},
            {"factor": 2, "random": {"sigma_range": [0.0, 3.2], "noise_range": [0.0, 0.005]}},
        ]
        assert protocol_titles(protocols) == [
            "fwhm x4",
            "fwhm x2",
            "subsample x4",
            "subsample x2",
            "leave-one-out",
            "leave-one-out from 1",
            "random x4",
            "random x2",
        ]

    def test_leave_one_out_needs_no_factor(self):
        assert len(make_protocols(["leave_one_out"], [])) == 2
        assert make_protocols(["leave_one_out"], [8]) == make_protocols(["leave_one_out"], [2, 3])
        with pytest.raises(ValueError, match="nothing to evaluate; expected at least one protocol and one factor"):
            make_protocols(["leave_one_out", "subsample"], [])
        with pytest.raises(ValueError, match="nothing to evaluate"):
            make_protocols([], [2])

    def test_made_anew(self):
        """Settings of one are not those of another."""
        first, second = make_protocols(["random"], [4, 8])
        first["random"]["seed"] = 3
        assert "seed" not in second["random"] and "seed" not in make_protocols(["random"], [4])[0]["random"]

    @pytest.mark.parametrize("factor", [1, 0, -2, 2.0, "2", True])
    def test_bad_factor(self, factor):
        with pytest.raises(ValueError, match=rf"a factor must be an integer of at least 2, got {factor!r}"):
            make_protocols(["subsample"], [2, factor])

    def test_unknown(self):
        with pytest.raises(ValueError) as error:
            make_protocols(["subsample", "subsampel"], [2])
        known = "subsample, fwhm, random, leave_one_out"
        assert str(error.value) == f"unknown protocol 'subsampel'; expected one of {known}; did you mean 'subsample'?"
        with pytest.raises(ValueError, match=r"unknown protocol 'x'; expected one of .*leave_one_out\.$"):
            make_protocols(["x"], [2])

    def test_twice(self):
        with pytest.raises(ValueError, match="protocol 'fwhm' is given twice; expected different ones"):
            make_protocols(["fwhm", "subsample", "fwhm"], [2])
        with pytest.raises(ValueError, match="factor 4 is given twice; expected different ones"):
            make_protocols(["fwhm"], [4, 2, 4])

    def test_closest(self):
        assert closest("liner", ["linear", "cubic", "lines"]) == "; did you mean 'linear' or 'lines'?"
        assert closest("zzz", ["linear"]) == ""


class TestLeaveOneOut:
    @pytest.mark.parametrize("count", [4, 5, 8, 9])
    def test_both_phases(self, count):
        """Every slice but those at the ends is synthesized once; a method that knows the truth is perfect."""
        thin = make_thin(count)
        recipes = make_protocols(["leave_one_out"], [])
        left_out = []
        for recipe in recipes:
            thick, first = degrade_by_protocol(thin, recipe)
            assert first == recipe["phase"]
            assert torch.equal(thick.as_tensor(), thin.as_tensor()[..., first::2]) and thick.affine[2, 2] == 4
            left_out += range(first + 1, first + 2 * (thick.shape[-1] - 1), 2)
        assert sorted(left_out) == list(range(1, count - 1))

    def test_in_compare(self):
        """Titles are kept, and the truth of each phase starts where its thick volume does."""
        thin, recipes = make_thin(), make_protocols(["leave_one_out"], [])
        calls = []

        def make(factor):
            def interpolate(thick):
                calls.append(thick)
                first = int((thick.affine[2, 3] - thin.affine[2, 3]) / 2)
                return thin[None, ..., first : first + factor * (thick.shape[-1] - 1) + 1]

            return interpolate

        scores = compare([{"image": thin}], {"oracle": make}, recipes, progress=False)
        found = {score.protocol: score.psnr for score in scores if score.method == "oracle"}
        assert found == {"leave-one-out": math.inf, "leave-one-out from 1": math.inf}
        assert [thick.shape[-1] for thick in calls] == [5, 4]


class TestCanScore:
    @pytest.mark.parametrize("count", range(2, 11))
    @pytest.mark.parametrize("name", PROTOCOLS)
    def test_agrees_with_degradation(self, name, count):
        for recipe in make_protocols([name], [2, 4, 7]):
            possible = True
            for number in range(4 if name == "random" else 1):
                try:
                    thick, _ = degrade_by_protocol(make_thin(count), recipe, number)
                    possible &= thick.shape[-1] >= 2
                except ValueError:
                    possible = False
            assert can_score(count, recipe) == possible


class TestTitle:
    def test_does_not_change_what_is_done(self):
        for recipe in make_protocols(["subsample", "fwhm", "random"], [2]):
            first, _ = degrade_by_protocol(make_thin(), recipe, 3)
            second, _ = degrade_by_protocol(make_thin(), {**recipe, "title": "mine"}, 3)
            assert torch.equal(first.as_tensor(), second.as_tensor())
            assert protocol_titles([{**recipe, "title": "mine"}]) == ["mine"]

    @pytest.mark.parametrize("setting", ["fwhm", "phase", "factors"])
    def test_other_settings_of_random_ones_are_refused(self, setting):
        recipe = {"factor": 4, "random": {}, "title": "mine"}
        (recipe["random"] if setting == "factors" else recipe)[setting] = 0
        with pytest.raises(ValueError, match=f"a random protocol takes no '{setting}'; expected a factor, and ranges"):
            degrade_by_protocol(make_thin(), recipe)
