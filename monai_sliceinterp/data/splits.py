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

"""Split of volumes into training, validation and test by subject."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_sliceinterp.files import file_stem

__all__ = ["split_volumes", "subjects_of", "tested_volumes"]


def split_volumes(
    files: Sequence[str],
    validation_subjects: Iterable[str] = (),
    test_subjects: Iterable[str] = (),
    validation_fraction: float = 0.2,
    seed: int = 0,
    training_subjects: Iterable[str] = (),
) -> dict[str, list[dict[str, str]]]:
    """Split volumes into training, validation and test by subject.

    Args:
        files: paths of volumes.
        validation_subjects: one or several beginnings of file names. Every file whose name starts with one of them is
            for validation, so that all scans of a subject stay together; ``p_1`` is not the beginning of ``p_10.nii``.
        test_subjects: likewise for testing. These are used neither for training nor for choosing a checkpoint.
        validation_fraction: where no validation subjects are named, this fraction of the subjects (at least one) is
            drawn, see :func:`subjects_of`.
        seed: seed of that draw.
        training_subjects: where given, only these subjects are trained on; one named several times is that many times
            in the list.

    Returns:
        ``{"training": [{"image": path}, ...], "validation": [...], "test": [...]}``; without test subjects, "test" is
        the validation set.

    Raises:
        ValueError: if nothing is left for training or validation, or for testing where subjects are named for it, or a
            file is named for both.

    Example:
        >>> split = split_volumes(["a_1.nii", "a_2.nii", "b_1.nii"], validation_subjects=["a_"])
        >>> [item["image"] for item in split["training"]]
        ['b_1.nii']
    """
    validation_subjects, test_subjects, training_subjects = (
        (str(subjects),) if isinstance(subjects, str | int) else tuple(map(str, subjects))
        for subjects in (validation_subjects, test_subjects, training_subjects)
    )
    test = [file for file in files if _is_of(file, test_subjects)]
    if validation_subjects:
        validation = [file for file in files if _is_of(file, validation_subjects)]
    else:
        if not 0 < validation_fraction < 1:
            raise ValueError(f"validation_fraction must be between 0 and 1, got {validation_fraction!r}.")
        rest = subjects_of(sorted(set(files) - set(test)))
        count = max(1, round(validation_fraction * len(rest)))
        drawn = random.Random(seed).sample(sorted(rest.values()), min(count, len(rest)))
        validation = sorted(file for files_ in drawn for file in files_)
    overlap = sorted(set(validation) & set(test))
    if overlap:
        raise ValueError(f"{overlap[0]}: named for validation and for testing; expected one of them.")
    training = [file for file in files if file not in set(validation) | set(test)]
    if training_subjects:
        training = [file for subject in training_subjects for file in training if _is_of(file, (subject,))]
    for name, part in (("training", training), ("validation", validation), ("testing", test or not test_subjects)):
        if not part:
            raise ValueError(f"no volume is left for {name} of {len(files)}; expected at least one for each.")
    return {
        "training": [{"image": file} for file in training],
        "validation": [{"image": file} for file in validation],
        "test": [{"image": file} for file in (test or validation)],
    }


def _is_of(file: str, subjects: Sequence[str]) -> bool:
    """Whether a file's name begins with one of the subjects; a number in the name is not cut in two."""
    name = Path(file).name
    return any(
        name.startswith(subject) and not (subject[-1:].isdigit() and name[len(subject) :][:1].isdigit())
        for subject in subjects
    )


def subjects_of(files: Sequence[str]) -> dict[str, list[str]]:
    """Group volumes by subject, as their names tell.

    The subject is BIDS's ``sub-<label>`` in the path; else the file's folder, where several folders have files of one
    name; else the beginning of the file name up to a number, the first one that not all files share; else, where
    names have no numbers, the file's folder, if there are several, or the name itself. Where this is wrong, name the
    subjects, see :func:`split_volumes`.

    Returns:
        The files of each subject.

    Example:
        >>> subjects_of(["p_1_T1.nii", "p_1_T2.nii", "p_10_T1.nii"])
        {'p_1': ['p_1_T1.nii', 'p_1_T2.nii'], 'p_10': ['p_10_T1.nii']}
    """
    folders = {str(Path(file).parent) for file in files}
    same_names = len({Path(file).name for file in files}) < len(files)
    beginnings = [_beginnings(file_stem(file)) for file in files]
    shared = set.intersection(*(set(found) for found in beginnings)) if beginnings and len(files) > 1 else set()
    groups: dict[str, list[str]] = {}
    for file, found in zip(files, beginnings, strict=True):
        bids = re.search(r"(?:^|[/\\])(sub-[A-Za-z0-9]+)(?=[/\\_.])", file)
        telling = [beginning for beginning in found if beginning not in shared]
        if bids:
            subject = bids[1]
        elif telling and not same_names:
            subject = telling[0]
        else:
            subject = str(Path(file).parent) if len(folders) > 1 else file_stem(file)
        groups.setdefault(subject, []).append(file)
    return groups


def _beginnings(stem: str) -> list[str]:
    """Return the beginnings of a name that end with a number, with the letters and digits that belong to it."""
    return [stem[: match.end()] for match in re.finditer(r"[A-Za-z]*\d+[A-Za-z0-9]*", stem)]


def tested_volumes(split: Mapping[str, Sequence[Any]]) -> str:
    """Say whose volumes the scores at the end of a training are of.

    Example:
        >>> tested_volumes({"validation": ["a"], "test": ["b"]})
        'volumes of the test subjects'
        >>> tested_volumes({"validation": ["a"], "test": ["a"]})
        'volumes of the validation subjects, which also chose the checkpoint (name test_subjects for others)'
    """
    if split["test"] == split["validation"]:
        return "volumes of the validation subjects, which also chose the checkpoint (name test_subjects for others)"
    return "volumes of the test subjects"
