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

"""Protocols: how thin volumes are made thick, so that the missing slices are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.data import MetaTensor

from monai_sliceinterp.checks import closest
from monai_sliceinterp.transforms import FWHMDownsample, RandDegrader

__all__ = ["PROTOCOLS", "can_score", "degrade_by_protocol", "make_protocols", "protocol_titles"]

PROTOCOLS = ("subsample", "fwhm", "random", "leave_one_out")
"""Names of protocols, see :func:`make_protocols`."""

VTS_SLABS = {"sigma_range": [0.0, 3.2], "noise_range": [0.0, 0.005]}
"""How bundle vts degrades: standard deviation of the Gaussian slab in voxels, of the noise as a part of the range."""


def make_protocols(names: Sequence[str], factors: Sequence[int]) -> list[dict[str, Any]]:
    """Make the protocols that are named, for each of several factors.

    Args:
        names: "subsample": every ``factor``-th slice is kept as it is. "fwhm": slabs, Gaussian, as wide as the thick
            slices' spacing. "random": as Virtual Thin Slice degrades, slab, first slice and noise drawn for each
            volume. "leave_one_out": every second slice of the volume is left out and synthesized, once the odd and once
            the even ones; it needs no thin slices, any scan will do, and it knows no factor.
        factors: upsampling factors, 2 or more.

    Returns:
        Protocols as :func:`monai_sliceinterp.evaluation.compare` takes them, in the order of names, then of factors.

    Raises:
        ValueError: for an unknown name, one that is given twice, or a factor that is not an integer of at least 2.

    Example:
        >>> protocol_titles(make_protocols(["subsample", "leave_one_out"], [2, 4]))
        ['subsample x2', 'subsample x4', 'leave-one-out', 'leave-one-out from 1']
    """
    for factor in factors:
        if not isinstance(factor, int) or factor < 2:
            raise ValueError(f"a factor must be an integer of at least 2, got {factor!r}.")
    for name in names:
        if name not in PROTOCOLS:
            near = closest(name, PROTOCOLS)
            raise ValueError(f"unknown protocol {name!r}; expected one of {', '.join(PROTOCOLS)}{near or '.'}")
    if not names or set(names) != {"leave_one_out"} and not factors:
        raise ValueError("nothing to evaluate; expected at least one protocol and one factor.")
    for what, given in (("protocol", names), ("factor", factors)):
        twice = [value for value in given if list(given).count(value) > 1]
        if twice:
            raise ValueError(f"{what} {twice[0]!r} is given twice; expected different ones.")
    made: list[dict[str, Any]] = []
    for name in names:
        if name == "leave_one_out":
            made += [
                {"factor": 2, "fwhm": 0, "phase": phase, "title": "leave-one-out" + (f" from {phase}" if phase else "")}
                for phase in (0, 1)
            ]
        elif name == "random":
            made += [{"factor": factor, "random": dict(VTS_SLABS)} for factor in factors]
        else:
            made += [{"factor": factor, **({"fwhm": 0} if name == "subsample" else {})} for factor in factors]
    return made


def can_score(num_slices: int, protocol: Mapping[str, Any]) -> bool:
    """Whether a volume has enough slices for a protocol: one gap between thick slices, whatever is drawn at random.

    Example:
        >>> [can_score(count, {"factor": 4, "fwhm": 0}) for count in (4, 5)]
        [False, True]
    """
    return num_slices - int(protocol.get("phase", 0)) > int(protocol["factor"])


def degrade_by_protocol(thin: MetaTensor, protocol: Mapping[str, Any], number: int = 0) -> tuple[MetaTensor, int]:
    """Make a thick volume of a thin one.

    Args:
        thin: ``(C, H, W, N)``, slices last.
        protocol: see :func:`monai_sliceinterp.evaluation.compare`.
        number: number of the volume, from which a random protocol draws its settings.

    Returns:
        The thick volume ``(C, H, W, M)``, and the index of its first slice in ``thin``.

    Raises:
        ValueError: if the protocol has unknown or contradicting settings, or the volume too few slices for it.

    Example:
        >>> import torch
        >>> thick, first = degrade_by_protocol(MetaTensor(torch.rand(1, 8, 8, 9)), {"factor": 2, "fwhm": 0, "phase": 1})
        >>> tuple(thick.shape), first
        ((1, 8, 8, 4), 1)
    """
    if "random" not in protocol:
        settings = {name: value for name, value in protocol.items() if name != "title"}
        return FWHMDownsample(**settings)(thin), int(protocol.get("phase", 0))
    drawn = dict(protocol["random"])
    refused = {"factors", "factor_range", "restore_grid", "extrapolate", "prob", "axes"} & set(drawn)
    unknown = set(protocol) - {"factor", "random", "title"}
    if refused or unknown:
        named = sorted(refused | unknown)
        raise ValueError(f"a random protocol takes no {named[0]!r}; expected a factor, and ranges under 'random'.")
    degrader = RandDegrader(factors=(protocol["factor"],), **{k: v for k, v in drawn.items() if k != "seed"})
    # volumes differ in what is drawn for them, but not with the order of protocols and methods
    degrader.set_random_state(seed=int(drawn.get("seed", 0)) + 7919 * number)
    thick, _, parameters = degrader(thin)
    return thick, int(parameters["phase"])


def protocol_titles(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name protocols: different ones differ in name; settings of random ones are told only where they have to be.

    A protocol that has a "title" keeps it.

    Example:
        >>> protocol_titles([{"factor": 2, "fwhm": 0}, {"factor": 3}])
        ['subsample x2', 'fwhm x3']
    """
    titles = [_title(protocol) for protocol in protocols]
    return [
        title if titles.count(title) == 1 else _title(protocol, plain=False)
        for title, protocol in zip(titles, protocols, strict=True)
    ]


def _title(protocol: Mapping[str, Any], plain: bool = True) -> str:
    """Name a protocol."""
    if "title" in protocol:
        return str(protocol["title"])
    if "random" in protocol:
        settings = ", ".join(f"{name} {value}" for name, value in sorted(protocol["random"].items()))
        return f"random x{protocol['factor']}" + (f" ({settings})" if settings and not plain else "")
    fwhm, phase = protocol.get("fwhm"), protocol.get("phase", 0)
    kind = "fwhm" if fwhm is None else f"fwhm {fwhm:g} mm" if fwhm > 0 else "subsample"
    return f"{kind} x{protocol['factor']}" + (f" from {phase}" if phase else "")
