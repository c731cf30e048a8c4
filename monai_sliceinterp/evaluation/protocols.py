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

from monai_sliceinterp.transforms import FWHMDownsample, RandDegrader

__all__ = ["degrade_by_protocol", "protocol_titles"]


def degrade_by_protocol(thin: MetaTensor, protocol: Mapping[str, Any], number: int = 0) -> tuple[MetaTensor, int]:
    """Make a thick volume of a thin one.

    Args:
        thin: ``(C, H, W, N)``, slices last.
        protocol: see :func:`monai_sliceinterp.evaluation.compare`.
        number: number of the volume, from which a random protocol draws its settings.

    Returns:
        The thick volume ``(C, H, W, M)``, and the index of its first slice in ``thin``.

    Raises:
        ValueError: if the protocol has unknown or contradicting settings.

    Example:
        >>> import torch
        >>> thick, first = degrade_by_protocol(MetaTensor(torch.rand(1, 8, 8, 9)), {"factor": 2, "fwhm": 0, "phase": 1})
        >>> tuple(thick.shape), first
        ((1, 8, 8, 4), 1)
    """
    if "random" not in protocol:
        return FWHMDownsample(**protocol)(thin), int(protocol.get("phase", 0))
    settings = dict(protocol["random"])
    refused = {"factors", "factor_range", "restore_grid", "extrapolate", "prob", "axes"} & set(settings)
    if refused or set(protocol) - {"factor", "random"}:
        named = sorted(refused | set(protocol) - {"factor", "random"})
        raise ValueError(f"a random protocol takes no {named[0]!r}; expected a factor, and ranges under 'random'.")
    degrader = RandDegrader(factors=(protocol["factor"],), **{k: v for k, v in settings.items() if k != "seed"})
    # volumes differ in what is drawn for them, but not with the order of protocols and methods
    degrader.set_random_state(seed=int(settings.get("seed", 0)) + 7919 * number)
    thick, _, parameters = degrader(thin)
    return thick, int(parameters["phase"])


def protocol_titles(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name protocols: different ones differ in name; settings of random ones are told only where they have to be.

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
    if "random" in protocol:
        settings = ", ".join(f"{name} {value}" for name, value in sorted(protocol["random"].items()))
        return f"random x{protocol['factor']}" + (f" ({settings})" if settings and not plain else "")
    fwhm, phase = protocol.get("fwhm"), protocol.get("phase", 0)
    kind = "fwhm" if fwhm is None else f"fwhm {fwhm:g} mm" if fwhm > 0 else "subsample"
    return f"{kind} x{protocol['factor']}" + (f" from {phase}" if phase else "")
