# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Checks of trainings: something to start from, at least one validation."""

import pytest

from monai_sliceinterp.engines import check_start, check_validation


def test_start():
    for stages, given in ((["ami"], ("", "")), (["rfn"], ("model.pt", "")), (["rfn"], ("", "checkpoint.pt"))):
        check_start(stages, *given)
    with pytest.raises(ValueError, match="needs what stage ami has trained"):
        check_start(["rfn"], "", "")


@pytest.mark.parametrize(("epochs", "interval"), [(20, 21), (20, 0), (0, 1), (5, -1)])
def test_never_validated(epochs, interval):
    check_validation(20, 20)
    message = f"rfn_interval {interval} does not fit rfn_epochs {epochs}: .* expected 1 to {epochs}"
    with pytest.raises(ValueError, match=message):
        check_validation(epochs, interval, ("rfn_epochs", "rfn_interval"))
