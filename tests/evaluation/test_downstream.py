# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Segmentations of results on the thick volume's slices: of what is brighter than 500, in another order of axes."""

import math
import sys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.evaluation.downstream import dice_on_slices, segment
from monai_sliceinterp.evaluation.methods import find_methods
from monai_sliceinterp.evaluation.settings import EvaluationSettings
from monai_sliceinterp.evaluation.volume import evaluate_volume
from tests.volumes import write_nifti

AFFINE = np.diag([-1, -1, 4, 1])
PROGRAM = """import sys, nibabel as nib, numpy as np
image = nib.as_closest_canonical(nib.load(sys.argv[1]))
nib.save(nib.Nifti1Image((image.get_fdata() > 500).astype(np.uint8), image.affine), sys.argv[2])
"""


@pytest.fixture
def scan(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    values = np.random.default_rng(0).integers(0, 1001, (14, 13, 7)).astype(np.float32)
    write_nifti(tmp_path / "scan.nii.gz", values, AFFINE)
    return values


def evaluate(folder, **settings):
    fast = {"factors": [2], "quick": True, "panels": 0, "window": (0.0, 1000.0), "device": "cpu"}
    settings = EvaluationSettings([str(folder / "scan.nii.gz")], ["linear"], folder / "out", **fast, **settings)
    return evaluate_volume(settings.volumes()[0], settings, find_methods(settings.methods))


def test_dice(scan, tmp_path):
    """On observed slices the truth's segmentation is met; of a reference that has one of them alone, its part."""
    command = f"{sys.executable} {tmp_path}/program.py {{input}} {{output}}"
    assert evaluate(tmp_path, segment=command).scores[0]["dice"] == 1.0
    labels = tmp_path / "labels"
    labels.mkdir()
    bright = scan > 500
    write_nifti(labels / "scan.nii.gz", (bright * np.array([1, 1, 0, 1, 0, 1, 0])).astype(np.uint8), AFFINE)
    first, every = bright[..., 0].sum(), bright[..., ::2].sum()
    (row,) = evaluate(tmp_path, segment=command, labels=str(labels)).scores
    assert row["dice"] == pytest.approx(2 * first / (first + every))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segment": "segmenter {input}"}, r"needs \{input\} and \{output\}"),
        (
            {"segment": "segmenter '{input}"},
            r"^--segment \"segmenter '\{input\}\": cannot be read.*; expected for instance",
        ),
        ({"segment": "segmenter {input"}, r"^--segment 'segmenter \{input': cannot be read.*; expected for instance"),
        ({"segment": "no_such {input} {output}"}, "there is no program 'no_such' here"),
        ({"labels": "labels"}, "expected --segment COMMAND beside --labels"),
    ],
)
def test_bad_settings(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path, **settings)


def test_program_fails(scan, tmp_path):
    result = evaluate(tmp_path, segment=f"{sys.executable} -c 'raise SystemExit(3)' {{input}} {{output}}")
    assert "ended with status 3 and no segmentation: it wrote nothing" in result.failures[0]


def test_unusable(scan, tmp_path):
    """A label of part of the scan, a scan with frames, and a reference with nothing to find."""
    program = f"{sys.executable} {tmp_path}/program.py {{input}} {{output}}"
    (tmp_path / "program.py").write_text(PROGRAM.replace("> 500)", "> 500)[:9]"))
    volume = MetaTensor(torch.as_tensor(scan)[None], affine=torch.as_tensor(AFFINE))
    with pytest.raises(ValueError, match=r"python\S* wrote labels of shape \(9, 13, 7\); expected \(14, 13, 7\)\.$"):
        segment(volume, program)
    with pytest.raises(ValueError, match=r"^has 2 frames; expected one to segment\.$"):
        segment(MetaTensor(torch.cat([volume, volume]), affine=volume.affine), program)
    assert math.isnan(dice_on_slices(volume > 500, 0 * volume, volume))
