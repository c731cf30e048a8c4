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

"""Compare methods on volumes whose missing slices are known: degrade, interpolate, score, test, tabulate."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from scipy import stats
from torch import Tensor, nn
from tqdm import tqdm

from monai_sliceinterp.files import atomic_path, file_stem
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import body_mask, slice_score, synthesized_pairs
from monai_sliceinterp.metrics.slices import SLICE_SCORES
from monai_sliceinterp.transforms import FWHMDownsample, RandDegrader

__all__ = [
    "BASELINES",
    "Interpolator",
    "MethodComparison",
    "Score",
    "compare",
    "format_scores",
    "score_volume",
    "write_scores",
]

BASELINES = ("linear", "cubic", "lanczos")

REGIONS = ("slices", "body")
"""What scores are about: whole synthesised slices, or what of them lies inside the body."""

Interpolator = Callable[[Tensor], Tensor | Mapping[str, Tensor]]


@dataclass(frozen=True)
class Score:
    """Scores of one method on one volume under one protocol.

    Attributes:
        volume: file name without suffix.
        group: what the volume belongs to, for instance its folder.
        protocol: how it was degraded, for instance "subsample x2".
        method: name of the method.
        psnr: PSNR of the synthesised slices together, in dB.
        ssim: mean SSIM of the synthesised slices.
        psnr_volume: PSNR over all voxels, observed slices included, in dB.
        psnr_body: like ``psnr``, inside the body only; NaN where no body was asked for.
        ssim_body: like ``ssim``, inside the body only.
    """

    volume: str
    group: str
    protocol: str
    method: str
    psnr: float
    ssim: float
    psnr_volume: float
    psnr_body: float = float("nan")
    ssim_body: float = float("nan")


def score_volume(
    pred: Tensor,
    truth: Tensor,
    factor: int,
    data_range: float = 1.0,
    body: Tensor | None = None,
    observed: bool = False,
) -> dict[str, float]:
    """Score an interpolated volume.

    Args:
        pred: ``(C, H, W, M)``, interpolated from every ``factor``-th slice of ``truth``.
        truth: ``(C, H, W, N)``.
        factor: the upsampling factor.
        data_range: largest possible intensity difference; intensities are clipped to [0, ``data_range``].
        body: mask of the body, of the truth's shape; the scores inside it are added where it is given.
        observed: score the slices at observed positions too, which thick slices do not show as they are.

    Returns:
        "psnr" and "ssim" of the synthesised slices, "psnr_volume" and so on, see :class:`Score`.

    Example:
        >>> import torch
        >>> truth = torch.zeros(1, 16, 16, 5)
        >>> round(score_volume(truth + 0.1, truth, factor=2)["psnr"], 3)
        20.0
    """
    pred, truth = (volume.as_tensor() if isinstance(volume, MetaTensor) else volume for volume in (pred, truth))
    pred, truth = pred.float().clamp(0, data_range), truth.float().clamp(0, data_range)
    first, second = synthesized_pairs(pred, truth, factor, observed)
    mse = float(((pred - truth[..., : pred.shape[-1]]).double() ** 2).mean())
    scores = {name: float(slice_score(first, second, name, data_range)) for name in SLICE_SCORES}
    scores["psnr_volume"] = float(10 * np.log10(data_range**2 / mse)) if mse > 0 else float("inf")
    if body is not None:
        mask, _ = synthesized_pairs(body[..., : pred.shape[-1]], body, factor, observed)
        for name in SLICE_SCORES:
            scores[f"{name}_body"] = float(slice_score(first, second, name, data_range, mask))
    return scores


def compare(
    volumes: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Callable[[int], Interpolator]],
    protocols: Sequence[Mapping[str, Any]],
    data_range: float = 1.0,
    progress: bool = True,
    body_threshold: float | None = None,
) -> list[Score]:
    """Score methods and classical baselines on thin volumes thinned by protocols.

    Args:
        volumes: items with an "image" ``(C, H, W, N)``: MetaTensors with slices last, scaled to [0, ``data_range``].
        methods: by name, what makes an interpolator ``(1, C, H, W, N) -> (1, C, H, W, M)`` from a factor. An
            interpolator that gives several results returns them by name. The baselines "linear", "cubic" and
            "lanczos" are added.
        protocols: arguments of :class:`monai_sliceinterp.transforms.FWHMDownsample`, for instance
            ``{"factor": 2, "fwhm": 0}`` (subsample) or ``{"factor": 3}`` (Gaussian slabs). With an entry "random", the
            arguments of :class:`monai_sliceinterp.transforms.RandDegrader` but the factor, and on request a "seed":
            slabs, phase and noise are drawn for each volume, the same for every method, and all slices are scored.
        data_range: largest possible intensity difference.
        progress: show a progress bar.
        body_threshold: intensity, scaled like the volumes, above which voxels are tissue, see
            :func:`monai_sliceinterp.metrics.body_mask`; scores inside the body are added. None: they are not.

    Returns:
        One score for each volume, protocol and method. A protocol a volume has too few slices for is left out for it.
        With several channels (frames) scores are over the slices of all of them.

    Example:
        >>> import torch
        >>> volume = MetaTensor(torch.rand(1, 16, 16, 7), meta={"filename_or_obj": "a/b.nii"})
        >>> [score.method for score in compare([{"image": volume}], {}, [{"factor": 2, "fwhm": 0}], progress=False)]
        ['linear', 'cubic', 'lanczos']
    """
    makers: dict[str, Callable[[int], Interpolator]] = {
        name: lambda factor, name=name: SplineSliceInferer(factor=factor, mode=name)  # type: ignore[misc]
        for name in BASELINES
    }
    makers.update(methods)
    scores = []
    titles = _titles(protocols)
    for number in tqdm(range(len(volumes)), desc="volumes", unit="volume", disable=not progress):
        thin = volumes[number]["image"]
        body = None if body_threshold is None else body_mask(thin, body_threshold)
        source = Path(str(thin.meta.get("filename_or_obj", number)))
        for protocol, title in zip(protocols, titles, strict=True):
            factor, restored = int(protocol["factor"]), "random" in protocol
            if thin.shape[-1] - int(protocol.get("phase", 0)) < factor + 1:
                continue
            thick, phase = _degrade(thin, protocol, number)
            truth = thin[..., phase:]  # from the first kept slice on
            inside = None if body is None else body[..., phase:]
            for name, make in makers.items():
                result = make(factor)(thick[None])
                for part, pred in result.items() if isinstance(result, Mapping) else [(name, result)]:
                    values = score_volume(pred[0], truth, factor, data_range, inside, restored)
                    scores.append(Score(file_stem(source), source.parent.name, title, part, **values))
    return scores


def _degrade(thin: MetaTensor, protocol: Mapping[str, Any], number: int) -> tuple[MetaTensor, int]:
    """Apply a protocol to the volume of a number; also return the index of the first kept slice."""
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


def _titles(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name protocols: different ones differ in name; settings of random ones are told only where they have to be."""
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


def format_scores(scores: Sequence[Score], method: str, region: str = "slices") -> str:
    """Tabulate mean scores for each group and protocol, and test a method against the better of linear and cubic.

    Args:
        scores: as :func:`compare` returns them.
        method: the method under test.
        region: "slices" or "body".

    Returns:
        A Markdown table: PSNR (dB) and SSIM of the synthesised slices of every method as mean over volumes, the gain of
        ``method`` over the better of linear and cubic, on how many volumes it wins, and the p-value of the one-sided
        Wilcoxon signed-rank test on PSNR.

    Example:
        >>> rows = [
        ...     Score("v", "g", "p", name, 20.0 + k, 0.5, 20.0) for k, name in enumerate(["linear", "cubic", "asi"])
        ... ]
        >>> print(format_scores(rows, "asi").splitlines()[-1])
        | g | p | 1 | 20.00 / 0.5000 | 21.00 / 0.5000 | 22.00 / 0.5000 | +1.00 dB over cubic | 1 of 1 | 0.5 |
    """
    if region not in REGIONS:
        raise ValueError(f"unknown region {region!r}; expected one of {', '.join(REGIONS)}.")
    suffix = "_body" if region == "body" else ""
    names = list(dict.fromkeys(score.method for score in scores))
    head = ["group", "protocol", "n", *names, "gain", "wins", "p"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for group, protocol in dict.fromkeys((score.group, score.protocol) for score in scores):
        rows = [score for score in scores if (score.group, score.protocol) == (group, protocol)]
        psnr, ssim = (
            {name: np.array([getattr(row, key) for row in rows if row.method == name]) for name in names}
            for key in ("psnr" + suffix, "ssim" + suffix)
        )
        best = max((name for name in ("linear", "cubic") if name in psnr), key=lambda name: psnr[name].mean())
        tied = psnr[method] == psnr[best]  # also where both are infinite
        difference = np.subtract(psnr[method], psnr[best], out=np.zeros(len(tied)), where=~tied)
        p_value = float(stats.wilcoxon(difference, alternative="greater").pvalue) if difference.any() else 1.0
        cells = [group, protocol, str(len(difference))]
        cells += [f"{psnr[name].mean():.2f} / {ssim[name].mean():.4f}" for name in names]
        cells += [f"{difference.mean():+.2f} dB over {best}", f"{int((difference > 0).sum())} of {len(difference)}"]
        lines.append("| " + " | ".join([*cells, f"{p_value:.2g}"]) + " |")
    return "\n".join(lines)


def write_scores(scores: Sequence[Score], path: str | Path) -> None:
    """Write scores as CSV, one row for each volume, protocol and method.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> write_scores([Score("v", "g", "p", "linear", 20.0, 0.5, 20.0)], file)
        >>> file.read_text().splitlines()[1]
        'v,g,p,linear,20.0,0.5,20.0,nan,nan'
    """
    with atomic_path(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(Score.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(score) for score in scores)


class MethodComparison:
    """Compare a network with the classical baselines and print the table; for the ``run`` section of a bundle.

    Args:
        volumes: thin volumes, see :func:`compare`.
        network: the network.
        inferer: makes the network's inferer from a factor.
        protocols: see :func:`compare`.
        method: name of the method in the table.
        output_dir: folder for ``scores.csv`` and ``scores.md``; None writes nothing.
        body_threshold: see :func:`compare`; a second table tells the scores inside the body.

    Example:
        >>> import torch
        >>> from monai_sliceinterp.inferers import LatentSliceInferer
        >>> from monai_sliceinterp.networks.nets import ASIAutoencoder
        >>> scan = {"image": MetaTensor(torch.rand(1, 16, 16, 5))}
        >>> comparison = MethodComparison(
        ...     [scan], ASIAutoencoder(), LatentSliceInferer, [{"factor": 2, "fwhm": 0}], "asi"
        ... )
        >>> print(comparison.run(progress=False).splitlines()[0])
        | group | protocol | n | linear | cubic | lanczos | asi | gain | wins | p |
    """

    def __init__(
        self,
        volumes: Sequence[Mapping[str, Any]],
        network: nn.Module,
        inferer: Callable[..., Callable[..., Tensor | Mapping[str, Tensor]]],
        protocols: Sequence[Mapping[str, Any]],
        method: str,
        output_dir: str | Path | None = None,
        body_threshold: float | None = None,
    ) -> None:
        self.volumes, self.network, self.inferer, self.protocols = volumes, network, inferer, protocols
        self.method, self.output_dir, self.body_threshold = method, output_dir, body_threshold

    def run(self, progress: bool = True) -> str:
        """Compare, write the scores, and return the table."""
        self.network.eval()
        device = next(self.network.parameters()).device

        def make(factor: int) -> Interpolator:
            inferer = self.inferer(factor=factor)

            def interpolate(volume: Tensor) -> Tensor | Mapping[str, Tensor]:
                result = inferer(volume.to(device), self.network)
                if isinstance(result, Mapping):
                    return {name: output.cpu() for name, output in result.items()}
                return result.cpu()

            return interpolate

        scores = compare(
            self.volumes, {self.method: make}, self.protocols, progress=progress, body_threshold=self.body_threshold
        )
        if not scores:
            raise ValueError("no volume has enough slices for any of the protocols.")
        table = format_scores(scores, self.method)
        if self.body_threshold is not None:
            table += "\n\ninside the body:\n" + format_scores(scores, self.method, "body")
        if self.output_dir is not None:
            Path(self.output_dir).mkdir(parents=True, exist_ok=True)
            write_scores(scores, Path(self.output_dir) / "scores.csv")
            with atomic_path(Path(self.output_dir) / "scores.md") as part:
                part.write_text(table + "\n")
        return table
