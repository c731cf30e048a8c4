# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_sliceinterp.transforms import DegradationConditiond, RandDegraderd, condition_vector
from tests.transforms.volumes import check_error


class TestConditionVector:
    @pytest.mark.parametrize(("part", "position"), [("head", 0), ("chest", 1), ("abdomen", 2), ("leg", 3)])
    @pytest.mark.parametrize(("factor", "interval"), [(4, 4), (8, 5)])
    @pytest.mark.parametrize(("sigma", "width"), [(0.0, 6), (1.59, 6), (1.6, 6), (1.61, 7), (3.2, 7)])
    def test_by_hand(self, part, position, factor, interval, sigma, width):
        found = condition_vector(part, factor, sigma)
        assert found.shape == (8,) and found.dtype == torch.float32
        assert found.tolist() == [float(k in (position, interval, width)) for k in range(8)]

    @pytest.mark.parametrize("part", [None, ""])
    def test_unknown_part(self, part):
        assert condition_vector(part, 8, 2.0).tolist() == [0, 0, 0, 0, 0, 1, 0, 1]

    @pytest.mark.parametrize("kind", [float, np.float32, np.float64, torch.tensor, np.int64])
    def test_kinds_of_numbers(self, kind):
        assert condition_vector("leg", kind(4), kind(2)).tolist() == [0, 0, 0, 1, 1, 0, 0, 1]

    def test_factor_of_rounded_spacings(self):
        assert condition_vector(None, 4 * (1 + 1e-7), 0.0).tolist()[4:6] == [1, 0]

    @pytest.mark.parametrize(
        ("factors", "factor", "expected"),
        [((4,), 4, [1]), ((2, 4, 8), 8, [0, 0, 1]), ((8, 4), 4, [0, 1]), ([2.5, 3, 5, 6], 2.5, [1, 0, 0, 0])],
    )
    def test_other_factors(self, factors, factor, expected):
        assert condition_vector("head", factor, 5.0, factors).tolist() == [1, 0, 0, 0, *expected, 0, 1]

    def test_other_threshold(self):
        assert condition_vector(None, 4, 0.5, sigma_threshold=0.5).tolist()[6:] == [1, 0]
        assert condition_vector(None, 4, 0.51, sigma_threshold=0.5).tolist()[6:] == [0, 1]

    @pytest.mark.parametrize("part", ["Chest", "thorax", "he", "headchest"])
    def test_wrong_part(self, part):
        expected = "expected one of head, chest, abdomen, leg"
        check_error(f"unknown body part {part!r}; {expected}", condition_vector, part, 4, 1)
        degradation = {"degradation": TestDegradationCondition.parameters, "body_part": part}
        check_error(f"unknown body part {part!r}", DegradationConditiond("degradation"), degradation)

    @pytest.mark.parametrize("factor", [2, 5, 0, -4, math.nan, math.inf, 4.001])
    def test_wrong_factor(self, factor):
        message = f"no condition for a factor of {factor!r}; expected one of 4, 8."
        check_error(message, condition_vector, "head", factor, 1)

    @pytest.mark.parametrize("sigma", [-0.01, math.nan, math.inf, -math.inf])
    def test_wrong_sigma(self, sigma):
        check_error(f"sigma must be zero or a positive number, got {sigma!r}", condition_vector, "head", 4, sigma)


class TestDegradationCondition:
    parameters = {"factor": 8.0, "sigma": 1.0, "noise": 0.01}

    def test_by_hand(self):
        item = {"degradation": dict(self.parameters), "body_part": "abdomen", "image": 3}
        result = DegradationConditiond("degradation")(item)
        assert set(item) == {"degradation", "body_part", "image"}  # not modified
        assert set(result) == {*item, "condition"}
        assert {key: result[key] for key in item} == item
        assert result["condition"].tolist() == [0, 0, 1, 0, 0, 1, 1, 0]
        assert type(result["condition"]) is torch.Tensor

    @pytest.mark.parametrize("entries", [{}, {"body_part": None}, {"body_part": ""}])
    def test_unknown_part(self, entries):
        result = DegradationConditiond("degradation")({"degradation": self.parameters, **entries})
        assert result["condition"].tolist() == [0, 0, 0, 0, 0, 1, 1, 0]

    def test_settings(self):
        transform = DegradationConditiond("used", "part", "vector", [2, 4, 8], sigma_threshold=0.9)
        result = transform({"used": self.parameters, "part": "head", "body_part": "leg"})
        assert result["vector"].tolist() == [1, 0, 0, 0, 0, 0, 1, 0, 1] and "condition" not in result

    def test_missing_keys(self):
        with pytest.raises(KeyError, match="degradation"):
            DegradationConditiond("degradation")({"image": 1})
        assert DegradationConditiond("degradation", allow_missing_keys=True)({"image": 1}) == {"image": 1}

    @pytest.mark.parametrize("keys", [("a", "b"), ()])
    def test_several_keys(self, keys):
        check_error("key", DegradationConditiond, keys)

    def test_of_a_random_degradation(self):
        chain = Compose([RandDegraderd("image", sigma_range=(0.0, 3.2)), DegradationConditiond("degradation")])
        chain.set_random_state(seed=1)
        volume, rows = MetaTensor(torch.rand(1, 4, 4, 40)), set()
        for _ in range(12):
            result = chain({"image": volume, "body_part": "leg"})
            factor, sigma = result["degradation"]["factor"], result["degradation"]["sigma"]
            expected = (0, 0, 0, 1, factor == 4, factor == 8, sigma <= 1.6, sigma > 1.6)
            assert tuple(result["condition"].tolist()) == expected
            rows.add(expected)
        assert len(rows) > 2
