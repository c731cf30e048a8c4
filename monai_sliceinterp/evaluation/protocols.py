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

"""Protocols of an evaluation by name, and by the settings of bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from monai.data import MetaTensor

from monai_sliceinterp.checks import one_of, positive_integer
from monai_sliceinterp.metrics import LEAVE_ONE_OUT, Protocol
from monai_sliceinterp.transforms import FWHMDownsample, RandDegrader

__all__ = ["PROTOCOLS", "make_protocols", "read_protocols"]

PROTOCOLS = ("subsample", "fwhm", "random", "leave_one_out")
"""Names of protocols, see :func:`make_protocols`."""

_NOTES = {
    "subsample": "subsample xK: every K-th slice is kept as it is, the others are left out.",
    "fwhm": "fwhm xK: slices are averaged with a Gaussian profile, then every K-th is kept. The full width at half "
    "maximum is the thick slices' spacing where no width is named.",
    "random": "random xK: the width of the slab, the first slice and the noise are drawn for each volume, the same for "
    "every method. All slices are scored, because no thick slice shows a true one as it is.",
}

# Virtual Thin Slice's published degradation: standard deviation of the Gaussian slab in voxels, of the noise as a part
# of the range. Every method is evaluated so, whatever bundle vts is trained on: its config is not read for it.
_PUBLISHED_SLABS = {"sigma_range": [0.0, 3.2], "noise_range": [0.0, 0.005]}


def make_protocols(names: Sequence[str], factors: Sequence[int], seed: int = 0) -> list[Protocol]:
    """Make the protocols that are named, for each of several factors.

    Args:
        names: "subsample": every ``factor``-th slice is kept as it is. "fwhm": slabs, Gaussian, as wide as the thick
            slices' spacing. "random": as Virtual Thin Slice degrades, slab, first slice and noise drawn for each
            volume. "leave_one_out": every second slice of the volume is left out and synthesized, once the odd and once
            the even ones; it needs no thin slices, any scan will do, and it knows no factor.
        factors: upsampling factors, 2 or more.
        seed: of random protocols.

    Returns:
        The protocols, in the order of names, then of factors.

    Raises:
        ValueError: for an unknown name, one that is given twice, or a factor that is not an integer of at least 2.

    Example:
        >>> [protocol.title for protocol in make_protocols(["subsample", "leave_one_out"], [2, 4])]
        ['subsample x2', 'subsample x4', 'leave-one-out', 'leave-one-out from 1']
    """
    factors = [positive_integer("factor", factor, 2) for factor in factors]
    for name in names:
        one_of("protocol", name, PROTOCOLS)
    if not names or (set(names) != {"leave_one_out"} and not factors):
        raise ValueError("nothing to evaluate; expected at least one protocol and one factor.")
    for what, values in (("protocol", names), ("factor", factors)):
        twice = [value for value in values if list(values).count(value) > 1]
        if twice:
            raise ValueError(f"{what} {twice[0]!r} is given twice; expected different ones.")
    settings: dict[str, dict[str, Any]] = {
        "subsample": {"fwhm": 0},
        "fwhm": {},
        "random": {"random": {**_PUBLISHED_SLABS, "seed": seed}},
    }
    protocols: list[Protocol] = []
    for name in names:
        if name == "leave_one_out":
            protocols += LEAVE_ONE_OUT
        else:
            protocols += read_protocols([{"factor": factor, **settings[name]} for factor in factors])
    return protocols


def read_protocols(settings: Sequence[Mapping[str, Any] | Protocol]) -> list[Protocol]:
    """Make protocols from the settings that bundles have in their configs.

    Args:
        settings: for each protocol, the arguments of :class:`monai_sliceinterp.transforms.FWHMDownsample`, for instance
            ``{"factor": 2, "fwhm": 0}`` (subsample) or ``{"factor": 3}`` (Gaussian slabs). With an entry "random", the
            arguments of :class:`monai_sliceinterp.transforms.RandDegrader` but the factor, and on request a "seed":
            slabs, phase and noise are drawn for each volume, the same for every method, and all slices are scored.
            "title" names a protocol; else different ones differ in name, and settings of random ones are in it only
            where they have to be. What is a protocol already stays one.

    Raises:
        ValueError: if the settings of a protocol contradict each other.
        TypeError: for a setting that there is not.

    Example:
        >>> [protocol.title for protocol in read_protocols([{"factor": 2, "fwhm": 0}, {"factor": 3}])]
        ['subsample x2', 'fwhm x3']
    """
    titles = [_title(item) for item in settings]
    protocols = []
    for item, title in zip(settings, titles, strict=True):
        if isinstance(item, Protocol):
            protocols.append(item)
            continue
        name = title if titles.count(title) == 1 else _title(item, short=False)
        arguments = {key: value for key, value in item.items() if key != "title"}
        protocols.append(_random(name, arguments) if "random" in item else _slabs(name, arguments))
    return protocols


def _slabs(title: str, settings: dict[str, Any]) -> Protocol:
    """Make a protocol that averages slices over slabs of one width, or takes them as they are."""
    transform = FWHMDownsample(**settings)
    phase = transform.phase
    note = _NOTES["subsample" if transform.fwhm == 0 else "fwhm"]

    def degrade(thin: MetaTensor, number: int) -> tuple[MetaTensor, int]:
        return transform(thin), phase

    return Protocol(title, int(settings["factor"]), degrade, note, phase, settings=settings)


def _random(title: str, settings: dict[str, Any]) -> Protocol:
    """Make a protocol that draws its slabs for each volume."""
    ranges = dict(settings["random"])
    refused = {"factors", "factor_range", "restore_grid", "extrapolate", "prob", "axes"} & set(ranges)
    named = sorted(refused | (set(settings) - {"factor", "random"}))
    if named:
        raise ValueError(f"a random protocol takes no {named[0]!r}; expected a factor, and ranges under 'random'.")
    seed, factor = int(ranges.pop("seed", 0)), int(settings["factor"])
    degrade = partial(_degrade_at_random, RandDegrader(factors=(factor,), **ranges), seed)
    return Protocol(title, factor, degrade, _NOTES["random"], include_observed=True, by_number=True, settings=settings)


def _degrade_at_random(degrader: RandDegrader, seed: int, thin: MetaTensor, number: int) -> tuple[MetaTensor, int]:
    # volumes differ in what is drawn for them, but not with the order of protocols and methods
    degrader.set_random_state(seed=seed + 7919 * number)
    thick, _, parameters = degrader(thin)
    return thick, int(parameters["phase"])


def _title(settings: Mapping[str, Any] | Protocol, short: bool = True) -> str:
    """Name a protocol."""
    if isinstance(settings, Protocol):
        return settings.title
    if "title" in settings:
        return str(settings["title"])
    if "random" in settings:
        ranges = ", ".join(f"{name} {value}" for name, value in sorted(settings["random"].items()))
        return f"random x{settings['factor']}" + (f" ({ranges})" if ranges and not short else "")
    fwhm, phase = settings.get("fwhm"), settings.get("phase", 0)
    kind = "fwhm" if fwhm is None else f"fwhm {fwhm:g} mm" if fwhm > 0 else "subsample"
    return f"{kind} x{settings['factor']}" + (f" from {phase}" if phase else "")
