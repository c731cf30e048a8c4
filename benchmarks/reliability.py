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

"""What the reader of scans does with files that are wrong, counted.

    python benchmarks/reliability.py [--count 1000] [--seed 0]

Run from the root of the repository. Files with one wrong field (those of ``tests/transforms/test_bad_headers.py``) and,
of each format, headers of which one to four bytes are changed at random, some of them cut. Prints for each group how
many were refused in one line that names the file, how many were taken as a volume, and how many ended otherwise; then
the longest time and the peak memory. The status is 1 if any ended otherwise.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import peak_memory_mb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from monai_sliceinterp.transforms import LoadVolume
from tests.dicom_series import write_series
from tests.transforms.test_bad_headers import AFFINE, CASES, FORMATS, SHAPE, STORED, VOXELS

KINDS = {"a.nii": "NIfTI-1", "b.nii": "NIfTI-2", "c.mha": "mha", "d.nrrd": "nrrd", "e.mha": "mha, compressed"}
OUTCOMES = ("refused", "taken", "other")


def outcome(source: Path) -> str:
    """How reading ends."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            LoadVolume()(source)
    except ValueError as error:
        return "refused" if str(source) in str(error) and "\n" not in str(error) else "other"
    except Exception:  # what must not be
        return "other"
    return "taken"


def damaged(content: bytes, header: int, rng: np.random.Generator) -> bytes:
    """The file with some bytes of its header changed; every fourth is cut."""
    changed = bytearray(content)
    for place in rng.integers(0, header, rng.integers(1, 5)):
        changed[place] = rng.choice([0, 32, 45, 48, 57, 127, 128, 255]) if rng.random() < 0.5 else rng.integers(256)
    return bytes(changed if rng.random() < 0.75 else changed[: rng.integers(1, len(changed))])


def count(group: str, files: Callable[[], list[tuple[Path, Path, bytes]]]) -> bool:
    """Write and read the files of a group ``(source, file, content)``; whether none ended otherwise."""
    found: Counter[str] = Counter()
    longest = 0.0
    for source, file, content in files():
        file.write_bytes(content)
        start = time.process_time()
        found[outcome(source)] += 1
        longest = max(longest, time.process_time() - start)
    cells = " | ".join(str(found[name]) for name in OUTCOMES)
    print(f"| {group} | {sum(found.values())} | {cells} | {longest:.2f} |", flush=True)
    return not found["other"]


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="damaged headers of each format")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    logging.disable()  # nibabel tells what it corrects
    print("| group | files | refused | taken | other | longest (s) |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        good = [count("one wrong field", lambda: [(root / name, root / name, x) for name, x in CASES.items()])]
        for name, (whole, header) in FORMATS.items():
            path = root / name
            group = f"damaged at random, {KINDS[name]}"
            good.append(
                count(group, lambda: [(path, path, damaged(whole, header, rng)) for _ in range(options.count)])  # noqa: B023
            )
        series = write_series(root / "series", VOXELS, AFFINE)
        whole, header = series[2].read_bytes(), series[2].stat().st_size - len(STORED) // SHAPE[2]
        good.append(
            count(
                "damaged at random, a file of a DICOM series",
                lambda: [(root / "series", series[2], damaged(whole, header, rng)) for _ in range(options.count)],
            )
        )
    print(f"\npeak memory {peak_memory_mb():.0f} MB, that of the imports included")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
