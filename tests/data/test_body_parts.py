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

from pathlib import Path

import pytest

from monai_sliceinterp.data import with_body_parts
from monai_sliceinterp.transforms.conditioning import BODY_PARTS


def parts(names, body_parts):
    return [item["body_part"] for item in with_body_parts([{"image": name} for name in names], body_parts)]


@pytest.mark.parametrize("reverse", [False, True])
def test_longest_beginning_wins(reverse):
    """In whatever order they are told."""
    told = {"ct": "chest", "ct_leg": "leg", "ct_l": "abdomen", "mr": "head"}
    if reverse:
        told = dict(reversed(told.items()))
    names = ["ct_leg_1.nii", "ct_lung.nii", "ct1.nii.gz", "mr_ct.nii", "x_ct_leg.nii", "CT_1.nii", "c.nii"]
    assert parts(names, told) == ["leg", "abdomen", "chest", "head", "", "", ""]


def test_name_without_folder():
    """Only the file's or the DICOM folder's own name counts."""
    assert parts(["leg/a.nii", "a/leg.nii", "/x/leg_series", "leg/b/"], {"leg": "leg"}) == ["", "leg", "leg", ""]
    assert parts([Path("x") / "leg_1.nii"], {"leg": "leg"}) == ["leg"]


def test_all_body_parts():
    assert parts([f"{part}_1.nii" for part in BODY_PARTS], {part: part for part in BODY_PARTS}) == list(BODY_PARTS)


def test_empty_beginning_fits_all():
    assert parts(["a.nii", "b.nii"], {"": "chest", "b": "head"}) == ["chest", "head"]


def test_nothing_told():
    assert parts(["a.nii", "b.nii"], {}) == ["", ""]
    assert with_body_parts([], {"a": "head"}) == []


def test_items_stay():
    """Other entries and the order are kept; neither the items nor the settings are modified."""
    items = [{"image": "b.nii", "label": "y"}, {"image": "a.nii", "body_part": "leg"}, {"image": "b.nii"}]
    told = {"a": "head"}
    found = with_body_parts(iter(items), told)
    assert found == [
        {"image": "b.nii", "label": "y", "body_part": ""},
        {"image": "a.nii", "body_part": "head"},
        {"image": "b.nii", "body_part": ""},
    ]
    assert items[0] == {"image": "b.nii", "label": "y"} and items[1]["body_part"] == "leg" and len(items[2]) == 1
    assert told == {"a": "head"}
    assert all(new is not old for new, old in zip(found, items, strict=True))


@pytest.mark.parametrize("part", ["thorax", "Head", "", None])
def test_unknown_part(part):
    """Refused even where no file has such a name."""
    with pytest.raises(ValueError, match="unknown body part") as caught:
        with_body_parts([{"image": "a.nii"}], {"b": "head", "c": part})
    assert str(caught.value) == f"unknown body part {part!r}; expected one of head, chest, abdomen, leg."


def test_several_unknown_parts():
    with pytest.raises(ValueError, match="unknown body part 'arm'"):
        with_body_parts([], {"a": "foot", "b": "arm", "c": "leg"})
