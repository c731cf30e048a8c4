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

"""What the tests of the bundles share."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_sliceinterp.data.phantom import write_phantoms
from tests.bundles.bundle_cases import save_weights

pytest.register_assert_rewrite("tests.bundles.bundle_commands")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of ASI, as it is not quality that is tested here."""
    return save_weights("asi", tmp_path_factory.mktemp("weights") / "model.pt")[0]


@pytest.fixture(scope="session")
def thin_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small thin-slice CT phantoms to train on."""
    folder = tmp_path_factory.mktemp("data") / "thin"
    write_phantoms(folder, "torso", range(3), shape=(40, 40, 25), spacing=(8.0, 8.0, 8.0))
    return folder
