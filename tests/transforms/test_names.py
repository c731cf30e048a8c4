# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import pytest

from monai_sliceinterp import transforms

DICTIONARY = [name for name in dir(transforms) if name.endswith("d") and name[0].isupper()]


@pytest.mark.parametrize("name", DICTIONARY)
def test_aliases(name):
    """MONAI finds a dictionary transform by any of its three names."""
    dictionary = getattr(transforms, name)
    assert dictionary.__name__ == name
    assert getattr(transforms, f"{name[:-1]}D") is getattr(transforms, f"{name[:-1]}Dict") is dictionary
