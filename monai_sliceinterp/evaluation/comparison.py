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
from monai_sliceinterp.metrics import slice_score, synthesized_pairs
from monai_sliceinterp.transforms import FWHMDownsample

__all__ = ["BASELINES", "MethodComparison", "Score", "compare", "format_scores", "score_volume", "write_scores"]

BASELINES = ("linear", "cubic", "lanczos")


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
    """

    volume: str
    group: str
    protocol: str
    method: str
    psnr: float
    ssim: float
    psnr_volume: float


def score_volume(pred: Tensor, truth: Tensor, factor: int, data_range: float = 1.0) -> dict[str, float]:
    """Score an interpolated volume.

    Args:
        pred: ``(C, H, W, M)``, interpolated from every ``factor``-th slice of ``truth``.
        truth: ``(C, H, W, N)``.
        factor: the upsampling factor.
        data_range: largest possible intensity difference; intensities are clipped to [0, ``data_range``].

    Returns:
        "psnr" and "ssim" of the synthesised slices and "psnr_volume", see :class:`Score`.

    Example:
        >>> import torch
        >>> truth = torch.zeros(1, 16, 16, 5)
        >>> round(score_volume(truth + 0.1, truth, factor=2)["psnr"], 3)
        20.0
    """
    pred, truth = (volume.as_tensor() if isinstance(volume, MetaTensor) else volume for volume in (pred, truth))
    pred, truth = pred.float().clamp(0, data_range), truth.float().clamp(0, data_range)
    first, second = synthesized_pairs(pred, truth, factor)
    mse = float(((pred - truth[..., : pred.shape[-1]]).double() ** 2).mean())
    return {
        "psnr": float(slice_score(first, second, "psnr", data_range)),
        "ssim": float(slice_score(first, second, "ssim", data_range)),
        "psnr_volume": float(10 * np.log10(data_range**2 / mse)) if mse > 0 else float("inf"),
    }


def compare(
    volumes: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Callable[[int], Callable[[Tensor], Tensor]]],
    protocols: Sequence[Mapping[str, Any]],
    data_range: float = 1.0,
    progress: bool = True,
) -> list[Score]:
    """Score methods and classical baselines on thin volumes thinned by protocols.

    Args:
        volumes: items with an "image" ``(C, H, W, N)``: MetaTensors with slices last, scaled to [0, ``data_range``].
        methods: by name, what makes an interpolator ``(1, C, H, W, N) -> (1, C, H, W, M)`` from a factor. The baselines
            "linear", "cubic" and "lanczos" are added.
        protocols: arguments of :class:`monai_sliceinterp.transforms.FWHMDownsample`, for instance
            ``{"factor": 2, "fwhm": 0}`` (subsample) or ``{"factor": 3}`` (Gaussian slabs).
        data_range: largest possible intensity difference.
        progress: show a progress bar.

    Returns:
        One score for each volume, protocol and method. A protocol a volume has too few slices for is left out for it.
        With several channels (frames) scores are over the slices of all of them.

    Example:
        >>> import torch
        >>> volume = MetaTensor(torch.rand(1, 16, 16, 7), meta={"filename_or_obj": "a/b.nii"})
        >>> [score.method for score in compare([{"image": volume}], {}, [{"factor": 2, "fwhm": 0}], progress=False)]
        ['linear', 'cubic', 'lanczos']
    """
    makers: dict[str, Callable[[int], Callable[[Tensor], Tensor]]] = {
        name: lambda factor, name=name: SplineSliceInferer(factor=factor, mode=name)  # type: ignore[misc]
        for name in BASELINES
    }
    makers.update(methods)
    scores = []
    for number in tqdm(range(len(volumes)), desc="volumes", unit="volume", disable=not progress):
        thin = volumes[number]["image"]
        source = Path(str(thin.meta.get("filename_or_obj", number)))
        for protocol in protocols:
            factor = int(protocol["factor"])
            truth = thin[..., int(protocol.get("phase", 0)) :]  # from the first kept slice on
            if truth.shape[-1] < factor + 1:
                continue
            thick = FWHMDownsample(**protocol)(thin)
            for name, make in makers.items():
                pred = make(factor)(thick[None])[0]
                values = score_volume(pred, truth, factor, data_range)
                scores.append(Score(file_stem(source), source.parent.name, _title(protocol), name, **values))
    return scores


def _title(protocol: Mapping[str, Any]) -> str:
    """Name a protocol: different ones differ in name."""
    fwhm, phase = protocol.get("fwhm"), protocol.get("phase", 0)
    kind = "fwhm" if fwhm is None else f"fwhm {fwhm:g} mm" if fwhm > 0 else "subsample"
    return f"{kind} x{protocol['factor']}" + (f" from {phase}" if phase else "")


def format_scores(scores: Sequence[Score], method: str) -> str:
    """Tabulate mean scores for each group and protocol, and test a method against the better of linear and cubic.

    Args:
        scores: as :func:`compare` returns them.
        method: the method under test.

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
    names = list(dict.fromkeys(score.method for score in scores))
    head = ["group", "protocol", "n", *names, "gain", "wins", "p"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for group, protocol in dict.fromkeys((score.group, score.protocol) for score in scores):
        rows = [score for score in scores if (score.group, score.protocol) == (group, protocol)]
        psnr = {name: np.array([row.psnr for row in rows if row.method == name]) for name in names}
        ssim = {name: np.array([row.ssim for row in rows if row.method == name]) for name in names}
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
        'v,g,p,linear,20.0,0.5,20.0'
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
        inferer: Callable[..., Callable[..., Tensor]],
        protocols: Sequence[Mapping[str, Any]],
        method: str,
        output_dir: str | Path | None = None,
    ) -> None:
        self.volumes, self.network, self.inferer, self.protocols = volumes, network, inferer, protocols
        self.method, self.output_dir = method, output_dir

    def run(self, progress: bool = True) -> str:
        """Compare, write the scores, and return the table."""
        self.network.eval()
        device = next(self.network.parameters()).device

        def make(factor: int) -> Callable[[Tensor], Tensor]:
            inferer = self.inferer(factor=factor)
            return lambda volume: inferer(volume.to(device), self.network).cpu()

        scores = compare(self.volumes, {self.method: make}, self.protocols, progress=progress)
        if not scores:
            raise ValueError("no volume has enough slices for any of the protocols.")
        table = format_scores(scores, self.method)
        if self.output_dir is not None:
            Path(self.output_dir).mkdir(parents=True, exist_ok=True)
            write_scores(scores, Path(self.output_dir) / "scores.csv")
            with atomic_path(Path(self.output_dir) / "scores.md") as part:
                part.write_text(table + "\n")
        return table
