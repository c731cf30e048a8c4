# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings of the whole test suite."""

from __future__ import annotations

import os

# one process per core runs the suite; this has to be set before torch is imported, and reaches the bundles too
os.environ.setdefault("OMP_NUM_THREADS", "1")
