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

from torch import Tensor, nn
from tqdm import tqdm

from monai_sliceinterp.evaluation.protocols import can_score, degrade_by_protocol, protocol_titles
from monai_sliceinterp.evaluation.scores import Score, format_scores, score_volume, write_scores
from monai_sliceinterp.files import atomic_path, file_stem
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import body_mask

__all__ = ["BASELINES", "Interpolator", "MethodComparison", "compare"]

BASELINES = ("linear", "cubic", "lanczos")

Interpolator = Callable[[Tensor], Tensor | Mapping[str, Tensor]]


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
        >>> from monai.data import MetaTensor
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
    titles = protocol_titles(protocols)
    for number in tqdm(range(len(volumes)), desc="volumes", unit="volume", disable=not progress):
        thin = volumes[number]["image"]
        body = None if body_threshold is None else body_mask(thin, body_threshold)
        source = Path(str(thin.meta.get("filename_or_obj", number)))
        for protocol, title in zip(protocols, titles, strict=True):
            factor, restored = int(protocol["factor"]), "random" in protocol
            if not can_score(thin.shape[-1], protocol):
                continue
            thick, phase = degrade_by_protocol(thin, protocol, number)
            truth = thin[..., phase:]  # from the first kept slice on
            inside = None if body is None else body[..., phase:]
            for name, make in makers.items():
                result = make(factor)(thick[None])
                for part, pred in result.items() if isinstance(result, Mapping) else [(name, result)]:
                    values = score_volume(pred[0], truth, factor, data_range, inside, restored)
                    scores.append(Score(file_stem(source), source.parent.name, title, part, **values))
    return scores


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
        >>> from monai.data import MetaTensor
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
