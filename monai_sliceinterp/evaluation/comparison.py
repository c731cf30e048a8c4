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

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from monai_sliceinterp.checks import one_of, switch
from monai_sliceinterp.evaluation.protocols import read_protocols
from monai_sliceinterp.evaluation.statistics import paired_difference, score_table, signed_rank_p_value, write_table
from monai_sliceinterp.files import atomic_path, file_stem
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import Protocol, body_mask, score_reconstruction

__all__ = ["BASELINES", "Interpolator", "MethodComparison", "compare", "format_reconstruction", "format_scores"]

BASELINES = ("linear", "cubic", "lanczos")

Interpolator = Callable[[Tensor], Tensor | Mapping[str, Tensor]]


def compare(
    volumes: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Callable[[int], Interpolator]],
    protocols: Sequence[Mapping[str, Any] | Protocol],
    data_range: float = 1.0,
    progress: bool = True,
    body_threshold: float | None = None,
    reconstruct: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> pd.DataFrame:
    """Score methods and classical baselines on volumes that are degraded by protocols.

    Args:
        volumes: items with an "image" ``(C, H, W, N)``: MetaTensors with slices last, scaled to [0, ``data_range``].
        methods: by name, functions that make an interpolator ``(1, C, H, W, N) -> (1, C, H, W, M)`` from a factor. An
            interpolator with several results returns them by name. The baselines "linear", "cubic" and "lanczos" are
            added.
        protocols: see :func:`monai_sliceinterp.evaluation.read_protocols`.
        data_range: largest possible intensity difference.
        progress: show a progress bar.
        body_threshold: intensity, scaled like the volumes, above which voxels are tissue, see
            :func:`monai_sliceinterp.metrics.body_mask`; scores inside the body are added. None: they are not.
        reconstruct: by name of a method, a function that computes the slices ``(1, C, H, W, N)`` it is given anew;
            their scores are added, see :func:`monai_sliceinterp.metrics.score_reconstruction`.

    Returns:
        Scores with a row for each volume, protocol and method, see :func:`monai_sliceinterp.evaluation.score_table`. A
        protocol that a volume has too few slices for is left out for it. With several channels (frames) scores are over
        the slices of all of them.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> volume = MetaTensor(torch.rand(1, 16, 16, 7), meta={"filename_or_obj": "a/b.nii"})
        >>> compare([{"image": volume}], {}, [{"factor": 2, "fwhm": 0}], progress=False)["method"].tolist()
        ['linear', 'cubic', 'lanczos']
    """
    makers: dict[str, Callable[[int], Interpolator]] = {
        name: lambda factor, name=name: SplineSliceInferer(factor=factor, mode=name)  # type: ignore[misc]
        for name in BASELINES
    }
    makers.update(methods)
    rows = []
    parsed = read_protocols(protocols)
    for number in tqdm(range(len(volumes)), desc="volumes", unit="volume", disable=not progress):
        thin = volumes[number]["image"]
        body = None if body_threshold is None else body_mask(thin, body_threshold)
        source = Path(str(thin.meta.get("filename_or_obj", number)))
        for protocol in parsed:
            if not protocol.can_score(thin.shape[-1]):
                continue
            trial = protocol.trial(thin, number, body)
            identity = {"volume": file_stem(source), "group": source.parent.name, "protocol": protocol.title}
            for name, make in makers.items():
                result = make(trial.factor)(trial.thick[None])
                again: dict[str, float] = {}
                if reconstruct is not None and name in reconstruct:
                    computed = reconstruct[name](trial.thick[None])[0]
                    again = score_reconstruction(computed, trial.thick, data_range, detailed=True)
                for part, pred in result.items() if isinstance(result, Mapping) else [(name, result)]:
                    rows.append({**identity, "method": part, **trial.score(pred[0], data_range), **again})
    return score_table(rows)


def format_scores(table: pd.DataFrame, method: str, region: str = "slices") -> str:
    """Tabulate mean scores for each group and protocol, and test a method against the better of linear and cubic.

    Args:
        table: scores, see :func:`compare`.
        method: the method under test.
        region: "slices" or "body".

    Returns:
        A Markdown table: PSNR (dB) and SSIM of the synthesized slices of every method as mean over volumes, the gain of
        ``method`` over the better of linear and cubic, on how many volumes it wins, and the p-value of the one-sided
        Wilcoxon signed-rank test on PSNR.

    Example:
        >>> row = {"volume": "v", "group": "g", "protocol": "p", "ssim": 0.5}
        >>> values = {"linear": 20.0, "cubic": 21.0, "asi": 22.0}
        >>> scores = score_table({**row, "method": name, "psnr": value} for name, value in values.items())
        >>> print(format_scores(scores, "asi").splitlines()[-1])
        | g | p | 1 | 20.00 / 0.5000 | 21.00 / 0.5000 | 22.00 / 0.5000 | +1.00 dB over cubic | 1 of 1 | 0.5 |
    """
    suffix = {"slices": "", "body": "_body"}[one_of("region", region, ["slices", "body"])]
    names = list(table["method"].unique())
    head = ["group", "protocol", "n", *names, "gain", "wins", "p"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for (group, protocol), rows in table.groupby(["group", "protocol"], sort=False):
        psnr, ssim = (
            {name: rows.loc[rows["method"] == name, key + suffix].to_numpy() for name in names}
            for key in ("psnr", "ssim")
        )
        best = max((name for name in ("linear", "cubic") if name in psnr), key=lambda name: psnr[name].mean())
        difference = paired_difference(psnr[method], psnr[best])
        cells = [group, protocol, str(len(difference))]
        cells += [f"{psnr[name].mean():.2f} / {ssim[name].mean():.4f}" for name in names]
        cells += [f"{difference.mean():+.2f} dB over {best}", f"{int((difference > 0).sum())} of {len(difference)}"]
        lines.append("| " + " | ".join([*cells, f"{signed_rank_p_value(difference):.2g}"]) + " |")
    return "\n".join(lines)


def format_reconstruction(table: pd.DataFrame, method: str) -> str:
    """Tell the mean scores of the observed slices that a method computes itself, for each group and protocol.

    Args:
        table: scores, see :func:`compare`.
        method: the method.

    Returns:
        A line for each: PSNR (dB), SSIM and VIF, as ASI's Table I has them ("Rec").

    Example:
        >>> row = {"volume": "v", "group": "g", "protocol": "p", "method": "asi", "psnr_reconstruction": 32.83}
        >>> print(format_reconstruction(score_table([{**row, "ssim_reconstruction": 0.968}]), "asi"))
        g, p: 32.83 / 0.9680 / nan
    """
    lines = []
    for (group, protocol), rows in table[table["method"] == method].groupby(["group", "protocol"], sort=False):
        psnr, ssim, vif = (rows[f"{name}_reconstruction"].mean() for name in ("psnr", "ssim", "vif"))
        lines.append(f"{group}, {protocol}: {psnr:.2f} / {ssim:.4f} / {vif:.4f}")
    return "\n".join(lines)


class MethodComparison:
    """Comparison of a network with the classical baselines, for the ``run`` section of a bundle.

    Args:
        volumes: thin volumes, see :func:`compare`.
        network: the network.
        inferer: makes the network's inferer from a factor.
        protocols: see :func:`compare`.
        method: name of the method in the table.
        output_dir: folder for ``scores.csv`` and ``scores.md``; None writes nothing.
        body_threshold: see :func:`compare`; a second table contains the scores inside the body.
        reconstruction: also score the observed slices as the network computes them, by an inferer with
            ``keep_observed=False``.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> from monai_sliceinterp.inferers import LatentSliceInferer
        >>> from monai_sliceinterp.networks.nets import ASIAutoencoder
        >>> scan = {"image": MetaTensor(torch.rand(1, 16, 16, 5))}
        >>> protocols = [{"factor": 2, "fwhm": 0}]
        >>> comparison = MethodComparison([scan], ASIAutoencoder(), LatentSliceInferer, protocols, "asi")
        >>> print(comparison.run(progress=False).splitlines()[0])
        | group | protocol | n | linear | cubic | lanczos | asi | gain | wins | p |
    """

    def __init__(
        self,
        volumes: Sequence[Mapping[str, Any]],
        network: nn.Module,
        inferer: Callable[..., Callable[..., Tensor | Mapping[str, Tensor]]],
        protocols: Sequence[Mapping[str, Any] | Protocol],
        method: str,
        output_dir: str | Path | None = None,
        body_threshold: float | None = None,
        reconstruction: bool = False,
    ) -> None:
        self.volumes, self.network, self.inferer, self.protocols = volumes, network, inferer, protocols
        self.method, self.output_dir, self.body_threshold = method, output_dir, body_threshold
        self.reconstruction = switch("reconstruction", reconstruction)

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

        def reconstruct(volume: Tensor) -> Tensor:
            result = self.inferer(factor=1, keep_observed=False)(volume.to(device), self.network)
            return torch.as_tensor(result).cpu()

        scores = compare(
            self.volumes,
            {self.method: make},
            self.protocols,
            progress=progress,
            body_threshold=self.body_threshold,
            reconstruct={self.method: reconstruct} if self.reconstruction else None,
        )
        if scores.empty:
            raise ValueError("no volume has enough slices for any of the protocols.")
        text = format_scores(scores, self.method)
        if self.body_threshold is not None:
            text += "\n\ninside the body:\n" + format_scores(scores, self.method, "body")
        if self.reconstruction:
            text += "\n\nobserved slices as the network reconstructs them, PSNR (dB) / SSIM / VIF:\n"
            text += format_reconstruction(scores, self.method)
        if self.output_dir is not None:
            Path(self.output_dir).mkdir(parents=True, exist_ok=True)
            write_table(scores, Path(self.output_dir) / "scores.csv")
            with atomic_path(Path(self.output_dir) / "scores.md") as part:
                part.write_text(text + "\n")
        return text
