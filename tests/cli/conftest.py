# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""A small scan, a study of DICOM series, and a folder of bundles that is not this checkout's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_sliceinterp.bundles import BUNDLES_VARIABLE, finding
from monai_sliceinterp.networks.nets import ASIAutoencoder

ASI = Path(__file__).resolve().parents[2] / "bundles" / "asi"


@pytest.fixture(scope="session")
def image():
    """12 x 10 x 4 voxels of 1 x 1 x 4 mm, of an MR."""
    values = np.random.default_rng(0).integers(0, 900, (12, 10, 4)).astype(np.int16)
    return nib.Nifti1Image(values, np.diag([1.0, 1.0, 4.0, 1.0]))


@pytest.fixture
def scan(image, tmp_path, monkeypatch):
    """The scan in a file of the current folder."""
    monkeypatch.chdir(tmp_path)
    nib.save(image, "scan.nii.gz")
    return "scan.nii.gz"


@pytest.fixture(scope="session")
def make_bundle():
    """Make the bundle asi in a folder, with a tiny network and changes."""

    def make(folder, version="0.1.0", **changes):
        config = json.loads((ASI / "inference.json").read_text())
        config["network_def"].update(channels=[2], latent_channels=2)
        metadata = {**json.loads((ASI / "metadata.json").read_text()), "version": version}
        metadata["weights"] = {}  # the sums of others
        for name in ("configs", "models"):
            (folder / name).mkdir(parents=True)
        (folder / "configs" / "inference.json").write_text(json.dumps({**config, **changes}))
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
        torch.save(ASIAutoencoder(channels=(2,), latent_channels=2).state_dict(), folder / "models" / "model.pt")
        return folder

    return make


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    """The one folder in which bundles are looked for; it is empty."""
    folder = tmp_path / "my #1 @bundles"
    monkeypatch.setitem(os.environ, BUNDLES_VARIABLE, str(folder))
    monkeypatch.setattr(finding, "bundle_roots", lambda: [folder])
    folder.mkdir()
    return folder
