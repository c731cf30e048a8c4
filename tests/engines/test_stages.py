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

"""Checks of trainings: something to start from, at least one validation."""

from __future__ import annotations

import pytest

from monai_sliceinterp.engines import check_start, check_validation


class TestCheckStart:
    @pytest.mark.parametrize(
        ("stages", "pretrained", "ckpt"),
        [(["ami"], "", ""), (["ami", "rfn"], "", ""), (["rfn"], "model.pt", ""), (["rfn"], "", "checkpoint.pt")],
    )
    def test_can_start(self, stages, pretrained, ckpt):
        check_start(stages, pretrained, ckpt)

    def test_fusion_of_nothing(self):
        with pytest.raises(ValueError, match="needs what stage ami has trained"):
            check_start(["rfn"], "", "")


class TestCheckValidation:
    @pytest.mark.parametrize(("epochs", "interval"), [(1, 1), (20, 1), (20, 20)])
    def test_validated_at_least_once(self, epochs, interval):
        check_validation(epochs, interval)

    @pytest.mark.parametrize(("epochs", "interval"), [(20, 21), (20, 0), (0, 1), (5, -1)])
    def test_never_validated(self, epochs, interval):
        message = f"rfn_interval {interval} does not fit rfn_epochs {epochs}: .* expected 1 to {epochs}"
        with pytest.raises(ValueError, match=message):
            check_validation(epochs, interval, ("rfn_epochs", "rfn_interval"))
