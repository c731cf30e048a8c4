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

"""``sliceinterp interpolate``: each scan through the inference config of the method that is chosen for it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_sliceinterp.bundles import CLASSICAL, find_bundles, parse_method, read_metadata
from monai_sliceinterp.bundles.download import opened_bundle
from monai_sliceinterp.checks import chosen_device
from monai_sliceinterp.cli.bundles import modality_of
from monai_sliceinterp.cli.sources import Source, open_sources
from monai_sliceinterp.command_line import INPUT_ERRORS, check_writable, one_line, report
from monai_sliceinterp.failures import write_failures
from monai_sliceinterp.files import printable
from monai_sliceinterp.inferers.base import SliceInterpolationInferer
from monai_sliceinterp.interpolation.choice import choose_method
from monai_sliceinterp.interpolation.configs import ADAPTABLE, adapted_method, parsed, read_inference
from monai_sliceinterp.interpolation.estimate import duration, estimate_seconds
from monai_sliceinterp.interpolation.scan import MODALITIES, ScanFacts, scan_facts
from monai_sliceinterp.progress import LINES
from monai_sliceinterp.transforms import LoadVolume, LoadVolumed, SaveInterpolatedd

__all__ = ["run_scans"]


def run_scans(options: argparse.Namespace) -> int:
    """Interpolate every scan, report what fails, and go on with the others.

    Args:
        options: see :func:`monai_sliceinterp.cli.interpolate.make_parser`.

    Returns:
        The exit status: 0, or 1 if a scan failed.
    """
    failures: list[tuple[str, str]] = []
    count = 0
    with _one_line_warnings():
        try:
            device = chosen_device(options.device)
            check_writable(options.output)
            with open_sources(options.inputs, options.output, options.series) as sources:
                count = len(sources)
                for number, source in enumerate(sources, 1):
                    if count > 1:
                        _print(f"[{number}/{count}]")
                    if reason := _run_scan(source, options, device):
                        failures.append((source.path, reason))
                if count > 1 and (path := write_failures(options.output, failures)):
                    _print(f"{len(failures)} failures are listed in {path}")
        except (*INPUT_ERRORS, ImportError) as error:
            report(error)
            return 1
    if failures and count > 1:
        print(f"error: {len(failures)} of {count} scans failed, see above.", file=sys.stderr)
    return 1 if failures else 0


def _run_scan(source: Source, options: argparse.Namespace, device: torch.device) -> str:
    """Interpolate one scan; the reason why it failed, nothing where it did not."""
    try:
        _interpolate(source, options, device)
        return ""
    except SystemExit as error:  # told already, of one scan
        if not isinstance(error.code, str):  # an interruption, which ends them all
            raise
        return str(error.code).partition(" failed: ")[2].removeprefix(f"{source.path}: ") or "failed, see the log"
    except (*INPUT_ERRORS, ImportError) as error:
        line = one_line(error).replace("another output_dir, or --overwrite true", "another --output, or --overwrite")
        report(error, f"error: {line if source.path in line else f'{source.path}: {line}'}")
        return line.removeprefix(f"{source.path}: ")


def _interpolate(source: Source, options: argparse.Namespace, device: torch.device) -> None:
    """Interpolate one scan, or tell why there is nothing to do."""
    values = _values(source, options, device)
    saving = _saving(values)
    load = LoadVolume(options.spacing_in, allow_nan=True, series=source.series, max_gap_mm=options.max_gap_mm)
    if options.resume and saving.is_finished(source.path):
        _print(f"{source.path}: is finished already")
        if options.preview and not _has_preview(source):
            named = "" if options.method == "auto" else options.method
            _write_preview(source, saving.output_files(source.path)[0], load, named)
        return
    saving.check(source.path)
    if options.preview:
        _check_preview(source, options)
    reading = [load(source.path)]
    if options.slice_thickness is not None:
        reading[0].meta["slice_thickness"] = options.slice_thickness
    scan = scan_facts(reading[0], options.axis, options.modality or "")
    _print(f"{source.path}: {scan}")
    ratio = scan.ratio(options.factor, options.spacing)
    name, reason = options.method, "as you say"
    if name == "auto" and options.adapt:
        name, reason = ADAPTABLE, "which can be adapted"
    if name == "auto":
        if len(scan.grid(options.factor, options.spacing)) == scan.num_slices:
            _nothing_to_do(source, scan)
            return
        choice = choose_method(scan, find_bundles(), device.type != "cpu", ratio)
        name, reason = choice.method, choice.reason
        if choice.missing:
            reason += f"; better, but not here: sliceinterp bundles download {' '.join(choice.missing)}"
    method = parse_method(name)
    if options.adapt:
        method = adapted_method(method)
    _print(f"method: {name}, {reason}")
    with opened_bundle(method.source) as bundle:
        if bundle is not None:
            made_for = modality_of(read_metadata(bundle))
            if made_for in MODALITIES and scan.modality != made_for:
                _print(f"warning: {method.source} was trained on {made_for}, this scan is {scan.modality}", sys.stderr)
        parser = read_inference(method, bundle, values)
        where = str(bundle or method.source)
        inferer, network = parsed(parser, "inferer", where), parsed(parser, "network", where)
        if not isinstance(inferer, SliceInterpolationInferer):
            raise ValueError(f"{where}: its inferer is a {type(inferer).__name__}; expected one of this package.")
        grid = scan.grid(options.factor, options.spacing, inferer.default_spacing)
        if len(grid) == scan.num_slices and options.factor is None and options.spacing is None:
            _nothing_to_do(source, scan)
            return
        seconds = None if method.source in CLASSICAL[:3] else estimate_seconds(inferer, network, scan, device)
        if seconds is not None:
            _print(f"{len(grid)} slices, {duration(seconds)} on {device}")
        _run(parser, source, reading, options, name, where)


def _nothing_to_do(source: Source, scan: ScanFacts) -> None:
    _print(
        f"{source.path}: its slices are {scan.geometry.slice_spacing:g} mm apart, as fine as they are made unasked: "
        "nothing is written; --factor or --spacing asks for more."
    )


def _run(
    parser: ConfigParser,
    source: Source,
    reading: list[MetaTensor],
    options: argparse.Namespace,
    method: str,
    where: str,
) -> None:
    """Run a config on a scan that was read already; a failure has been reported when it raises SystemExit."""
    for step in parser.get_parsed_content("preprocessing").transforms:
        if isinstance(step, LoadVolumed):  # the scan is kept in memory where it is shown afterwards
            step.transform = lambda path: reading[0].clone() if options.preview else reading.pop()
    steps = parsed(parser, "run", where, deliberate=True)
    if not isinstance(steps, list) or not steps or not isinstance(steps[-1], list):
        raise ValueError(f"{where}: its run ends without files that are written; expected a bundle of this package.")
    written = steps[-1]
    files = parser.get_parsed_content("postprocessing").output_files(source.path)
    for file in files:
        if file.name.endswith("_quality.json"):
            _print(_quality(json.loads(file.read_text(encoding="utf-8"))))
    for file in files:
        if str(file) not in map(str, written):
            _print(f"beside it: {file}")
    if options.preview:
        _write_preview(source, Path(written[0]), lambda path: reading[0], method)


def _quality(scores: Mapping[str, Any]) -> str:
    """Tell the leave-one-out quality in a line."""
    if "reason" in scores:
        return f"quality: {scores['reason']}"
    psnr, linear = ("exact" if scores[name] is None else f"{scores[name]:.2f} dB" for name in ("psnr", "linear_psnr"))
    return (
        f"quality: {psnr} where its own slices were left out, linear interpolation {linear} ({scores['slices']} slices)"
    )


def _has_preview(source: Source) -> bool:
    """Whether the picture and the page are there."""
    from monai_sliceinterp.preview.files import preview_files

    return all(path.exists() for path in preview_files(source.path, source.output))


def _check_preview(source: Source, options: argparse.Namespace) -> None:
    """Check that the picture and the page can be written, before the scan is interpolated."""
    from monai_sliceinterp.preview.files import check_preview_files

    check_preview_files(source.path, source.output, options.overwrite or options.resume)


def _write_preview(source: Source, output: Path, load: Callable[[str | Path], MetaTensor], method: str) -> None:
    """Write a picture and a page beside the result; that they may be replaced was checked before."""
    from monai_sliceinterp.preview.files import write_preview_files

    files = write_preview_files(source.path, output, output.parent, method=method, load=load, overwrite=True)
    for path in files:
        _print(f"beside it: {path}")


def _values(source: Source, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return the options of the config."""
    names = ("factor", "spacing", "axis", "quality", "provenance", "overwrite", "resume", "spacing_in", "max_gap_mm")
    return {
        **{name: getattr(options, name) for name in names},
        "input": [source.path],
        "output_dir": str(source.output),
        "output_format": options.format,
        "label": options.label or "",
        "series": source.series,
        "device": device,
        "progress": LINES if options.progress_lines else os.isatty(2),
        **({} if options.adapt_steps is None else {"adapt_steps": options.adapt_steps}),
        **({} if options.amp is None else {"amp": options.amp}),
    }


def _saving(values: Mapping[str, Any]) -> SaveInterpolatedd:
    """Make the end of the pipeline alone, which knows what will be written."""
    names = ("output_dir", "output_format", "label", "provenance", "quality", "overwrite", "resume")
    inferer: Any = None
    return SaveInterpolatedd("pred", Compose([]), inferer, None, **{name: values[name] for name in names})


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Show this package's warnings in a line each, and neither others nor the logs of readers."""

    def show(message: Warning | str, *_: Any) -> None:
        _print(f"warning: {message}", sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=r"monai_sliceinterp(\.|$)")
        warnings.showwarning = show  # type: ignore[assignment]
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def _print(line: str, stream: Any = None) -> None:
    print(printable(line), file=stream or sys.stdout, flush=True)
