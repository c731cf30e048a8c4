# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Score all methods on the same held-out scans and write the tables of docs/comparison.md.

Run from the root of the repository, with the folders of scans:

    python benchmarks/comparison.py --data data/ct data/cardiac_mr data/clinical_mr data/brain_mr
"""

import argparse
import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from monai_sliceinterp.evaluation.__main__ import main as evaluate

SUBJECTS = [
    "lungfcp_01_0001",
    "sunnybrook_sc_hf_i_08",
    "sunnybrook_sc_hf_ni_07",
    "sunnybrook_sc_hf_ni_14",
    "sunnybrook_sc_hyp_01",
    "sunnybrook_sc_hyp_10",
    "sunnybrook_sc_n_02",
    "sunnybrook_sc_n_06",
    "ds000011_sub03_inplaneT2",
    "ds000011_sub05",
    "ds000011_sub07",
    "ds000011_sub08",
    "openms_long01",
    "ds002748_sub03",
]
METHODS = ["linear", "cubic", "lanczos", "blurred", "motion", "asi", "saint", "saint,small", "hrinet", "vts", "mixture"]
BASELINES = ["linear", "cubic", "motion", "asi", "saint"]
NAMES = {"asi": "ASI", "saint": "SAINT", "saint_small": "SAINT, small", "hrinet": "HRINet", "vts": "VTS"}
GROUPS = {"ct": "CT", "cardiac_mr": "cardiac MR", "clinical_mr": "clinical MR", "brain_mr": "brain MR"}
METRICS = {  # of a table: how it is headed, and the decimals of each score
    "PSNR (dB) / SSIM of the synthesized slices": {"psnr": 2, "ssim": 4},
    "Sharpness / flicker": {"sharpness": 2, "flicker": 2},
}
PAGE = Path("docs") / "comparison.md"
BEGIN, END = "<!-- tables: python benchmarks/comparison.py -->", "<!-- end of the tables -->"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as text:
        return list(csv.DictReader(text))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score_tables(summary: list[dict[str, str]]) -> list[str]:
    """A table for each pair of scores; the best PSNR of a row is bold."""
    means = {(row["group"], row["protocol"], row["method"], row["metric"]): float(row["mean"]) for row in summary}
    rows = list(dict.fromkeys((row["group"], row["protocol"], row["n"]) for row in summary))
    methods = list(dict.fromkeys(row["method"] for row in summary))
    tables = []
    for title, decimals in METRICS.items():
        lines = []
        for group, protocol, n in rows:
            values = {
                method: {metric: means[group, protocol, method, metric] for metric in decimals} for method in methods
            }
            lines.append([GROUPS.get(group, group), protocol, n, *cells(values, decimals)])
        tables.append(f"{title}:\n\n{table(['group', 'protocol', 'n', *(NAMES.get(m, m) for m in methods)], lines)}")
    return tables


def cells(values: Mapping[str, Mapping[str, float]], decimals: Mapping[str, int]) -> list[str]:
    best = max(values, key=lambda method: values[method].get("psnr", 0.0)) if "psnr" in decimals else None
    shown = {
        m: " / ".join(f"{scores[name]:.{places}f}" for name, places in decimals.items()) for m, scores in values.items()
    }
    return [f"**{text}**" if method == best else text for method, text in shown.items()]


def test_table(statistics: list[dict[str, str]]) -> str:
    """What mixture gains over the others in PSNR, where n allows a test."""
    lines = []
    for row in statistics:
        if row["metric"] != "psnr" or row["method"] != "mixture" or int(row["n"]) < 5:
            continue
        gain, low, high = (f"{float(row[name]):+.2f}" for name in ("mean_difference", "low", "high"))
        baseline = NAMES.get(row["baseline"], row["baseline"])
        names = [GROUPS.get(row["group"], row["group"]), row["protocol"], baseline]
        lines.append(
            [*names, f"{gain} ({low} to {high})", f"{row['wins']} of {row['n']}", f"{float(row['p_value']):.3f}"]
        )
    head = ["group", "protocol", "mixture over", "PSNR (dB), 95 % interval", "wins", "p"]
    return f"The gain of the mixture network where there are enough scans for a test:\n\n{table(head, lines)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="folders of scans")
    parser.add_argument("--output_dir", default="comparison", help="folder of the evaluation; a run in it goes on")
    parser.add_argument("--crop", default="96", help="height and width that are scored")
    options = parser.parse_args()
    arguments = ["--data", *options.data, "--subjects", *SUBJECTS, "--methods", *METHODS, "--baselines", *BASELINES]
    arguments += [
        "--factor",
        "2",
        "4",
        "--axis",
        "2",
        "--crop",
        options.crop,
        "--quick",
        "--panels",
        "0",
        "--sweep",
        "0",
    ]
    if status := evaluate([*arguments, "--output_dir", options.output_dir]):
        raise SystemExit(status)
    folder = Path(options.output_dir)
    parts = [*score_tables(rows_of(folder / "summary.csv")), test_table(rows_of(folder / "statistics.csv"))]
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(f"{re.escape(BEGIN)}.*{re.escape(END)}", page, re.DOTALL)
    if found is None:
        raise SystemExit(f"{PAGE}: lacks the lines {BEGIN} and {END}, between which the tables go.")
    text = "\n\n".join([BEGIN, *parts, END])
    PAGE.write_text(page.replace(found[0], text), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
