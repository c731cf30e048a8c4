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

"""Scores of a visual Turing test: how often each candidate was chosen, by each reader and by all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from monai_sliceinterp.visual_turing.page import VERSION

__all__ = ["ALL_READERS", "Answers", "read_answers", "read_key", "score_answers"]

ALL_READERS = "all readers"

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Answers:
    """Answers of a reader: for each question the place of the stack that was chosen, from 0."""

    reader: str
    places: tuple[int, ...]


def read_key(path: str | Path) -> dict[str, Any]:
    """Read the key of a study.

    Raises:
        ValueError: with one line, if the file is missing or no key.

    Example:
        >>> read_key("nowhere_key.json")
        Traceback (most recent call last):
        ...
        ValueError: nowhere_key.json: cannot be read (No such file or directory); expected the key of a study.
    """
    key = _read(path, "the key of a study")
    try:
        if not all(len(set(question["candidates"])) >= 2 for question in key["questions"]) or not key["questions"]:
            raise ValueError
        key["study"], key["ask"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is not the key of a study; expected NAME_key.json as it was written.") from error
    return key


def read_answers(path: str | Path, key: Mapping[str, Any]) -> Answers:
    """Read the answers of a reader to a study.

    Args:
        path: file that the page saved.
        key: the key, see :func:`read_key`.

    Raises:
        ValueError: with one line that names the file, if it holds no answers, those to another study, or not all.
    """
    told = _read(path, "answers that the page saved")
    if "candidates" in str(told.get("questions", "")):
        raise ValueError(f"{path}: is the key of a study; expected answers that the page saved.")
    if told.get("study") != key["study"]:
        raise ValueError(
            f"{path}: answers study {told.get('study')!r}, the key is that of {key['study']!r}; expected answers saved "
            "from the page that was written with this key."
        )
    reader, answers, questions = told.get("reader"), told.get("answers"), key["questions"]
    if not isinstance(reader, str) or not reader.strip() or reader.strip() == ALL_READERS:
        raise ValueError(f"{path}: has {reader!r} for the name of a reader; expected a name or a number.")
    if not isinstance(answers, list) or len(answers) != len(questions):
        count = len(answers) if isinstance(answers, list) else "no"
        raise ValueError(f"{path}: has {count} answers; expected {len(questions)}, one for each question.")
    open_ = [number for number, place in enumerate(answers, 1) if place is None]
    if open_:
        raise ValueError(f"{path}: questions {', '.join(map(str, open_))} are not answered; expected all to be.")
    for number, (place, question) in enumerate(zip(answers, questions, strict=True), 1):
        most = len(question["candidates"]) - 1
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place <= most:
            raise ValueError(f"{path}: the answer to question {number} is {place!r}; expected 0 to {most}.")
    return Answers(reader.strip(), tuple(answers))


def score_answers(key: Mapping[str, Any], answers: Sequence[Answers]) -> pd.DataFrame:
    """Count how often each candidate was chosen, with exact binomial intervals.

    The share of a candidate is the "answered ratio" of the paper on VTS (section 4). The interval is that of Clopper
    and Pearson (95 %), the p-value that of the two-sided exact binomial test against chance, 1 of as many as were
    shown; both are for one candidate alone. Those of all readers together take every answer for a draw of its own,
    though readers judge the same stacks: with few questions they are too narrow.

    Args:
        key: see :func:`read_key`.
        answers: see :func:`read_answers`; each reader once.

    Returns:
        A row for each reader and candidate, and for all readers: reader, candidate, chosen, answers, share, low, high,
        chance, p_value.

    Raises:
        ValueError: if there are no answers, or a reader answers twice.

    Example:
        >>> key = {"questions": [{"candidates": ["truth", "saint"]}, {"candidates": ["saint", "truth"]}]}
        >>> table = score_answers(key, [Answers("A", (0, 1))])
        >>> table[["reader", "candidate", "chosen", "share", "low", "p_value"]].round(3).values.tolist()[:2]
        [['A', 'saint', 0, 0.0, 0.0, 0.5], ['A', 'truth', 2, 1.0, 0.158, 0.5]]
    """
    names = [one.reader for one in answers]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        raise ValueError(f"reader {twice[0]!r} answers twice." if twice else "there are no answers.")
    candidates = sorted(key["questions"][0]["candidates"])
    chosen = {
        one.reader: [question["candidates"][k] for question, k in zip(key["questions"], one.places, strict=True)]
        for one in answers
    }
    if len(answers) > 1:
        chosen[ALL_READERS] = [name for one in answers for name in chosen[one.reader]]
    rows = []
    for reader, picked in chosen.items():
        for candidate in candidates:
            test = stats.binomtest(picked.count(candidate), len(picked), 1 / len(candidates))
            interval = test.proportion_ci(_CONFIDENCE, method="exact")
            rows.append(
                {
                    "reader": reader,
                    "candidate": candidate,
                    "chosen": test.k,
                    "answers": test.n,
                    "share": test.statistic,
                    "low": interval.low,
                    "high": interval.high,
                    "chance": 1 / len(candidates),
                    "p_value": test.pvalue,
                }
            )
    return pd.DataFrame(rows)


def _read(path: str | Path, expected: str) -> dict[str, Any]:
    """Read a key or answers."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); expected {expected}.") from error
    except ValueError as error:  # neither UTF-8 nor JSON
        raise ValueError(f"{path}: is not JSON; expected {expected}.") from error
    if not isinstance(content, dict) or "visual_turing_test" not in content:
        raise ValueError(f"{path}: is something else; expected {expected}.")
    if content["visual_turing_test"] != VERSION:
        raise ValueError(f"{path}: is of version {content['visual_turing_test']!r}; expected {VERSION}.")
    return content
