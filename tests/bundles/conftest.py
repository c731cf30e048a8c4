# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What the tests of the bundles share."""

import pytest

from monai_sliceinterp.data.phantom import write_phantoms
from tests.bundles.bundle_cases import save_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Random weights of ASI, as it is not quality that is tested here."""
    return save_weights("asi", tmp_path_factory.mktemp("weights") / "model.pt")[0]


@pytest.fixture(scope="session")
def thin_volumes(tmp_path_factory):
    """A folder of small thin-slice CT phantoms to train on."""
    folder = tmp_path_factory.mktemp("data") / "thin"
    write_phantoms(folder, "torso", range(3), shape=(40, 40, 25), spacing=(8.0, 8.0, 8.0))
    return folder
