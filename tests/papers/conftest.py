# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What the tests of the papers share with those of the bundles."""

from tests.bundles.conftest import thin_volumes

__all__ = ["thin_volumes"]
