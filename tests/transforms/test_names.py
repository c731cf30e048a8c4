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

import pytest

from monai_sliceinterp import transforms

DICTIONARY = [name for name in dir(transforms) if name.endswith("d") and name[0].isupper()]


@pytest.mark.parametrize("name", DICTIONARY)
def test_aliases(name):
    """MONAI finds a dictionary transform by any of its three names."""
    dictionary = getattr(transforms, name)
    assert dictionary.__name__ == name
    assert getattr(transforms, f"{name[:-1]}D") is getattr(transforms, f"{name[:-1]}Dict") is dictionary
