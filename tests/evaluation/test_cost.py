# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import platform
import threading
import time

import numpy as np
import pytest

from monai_sliceinterp.evaluation.cost import measure_cost


def test_time_and_result():
    def wait():
        time.sleep(0.1)
        return "done"

    result, seconds, memory = measure_cost(wait)
    assert result == "done" and 0.1 <= seconds < 5 and 0 <= memory < 50


def test_memory_that_is_held_for_a_while():
    """64 MiB that are given back before the end are seen; as much more as the result is kept."""

    def work():
        for _ in range(2):
            block = np.ones(2**23)
            time.sleep(0.05)
            del block
        return np.ones(2**20)

    _, _, memory = measure_cost(work)
    assert 60 < memory < 90
    kept, _, memory = measure_cost(lambda: np.ones(2**23))
    assert len(kept) == 2**23 and 60 < memory < 90


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library gives memory back when told to")
def test_memory_that_was_used_before():
    """Small blocks, which the C library keeps for later when they are freed, count once more."""

    def work():
        return [bytes(10000) for _ in range(5000)]

    work()
    kept = measure_cost(work)
    assert 40 < kept[2] < 80


def test_errors_pass_and_nothing_goes_on():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        measure_cost(lambda: 1 / 0)
    assert threading.active_count() == before
