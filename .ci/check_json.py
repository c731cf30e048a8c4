"""Check that the JSON files under bundles/ and tutorials/ are valid, free of duplicate keys and uniformly formatted.

The one accepted form is what ``json.dumps(..., indent=4, ensure_ascii=False)`` writes, plus a final newline.
``--fix`` rewrites the files that are valid but formatted otherwise.

    python .ci/check_json.py [--fix] [FILE_OR_FOLDER ...]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bundles", "tutorials")


def find_files(paths: list[Path]) -> Iterator[Path]:
    """Yield the given files, and from the given folders the JSON files that are sources.

    Left out are links, a bundle's configs/ folder (links to the files above it) and what runs write.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.rglob("*.json")):
            folders = file.relative_to(path).parts[:-1]
            generated = any(name in ("configs", "eval") or name.startswith(("output", ".")) for name in folders)
            if not generated and not file.is_symlink():
                yield file


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from its key-value pairs; a key that comes twice is an error."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key {key!r}")
        result[key] = value
    return result


def reject_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python reads but JSON does not have."""
    raise ValueError(f"{name} is not JSON")


def canonical(text: str) -> str:
    """Return the text in the accepted form; ValueError if it is not valid."""
    content = json.loads(text, object_pairs_hook=unique_keys, parse_constant=reject_constant)
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n"


def check(path: Path, fix: bool) -> str:
    """Return what is wrong with a file, an empty string if nothing is."""
    try:
        text = path.read_bytes().decode("utf-8")
        expected = canonical(text)
    except (OSError, ValueError) as error:
        return str(error)
    if text == expected:
        return ""
    if fix:
        path.write_bytes(expected.encode("utf-8"))
        return ""
    return "not in the form of json.dumps(indent=4, ensure_ascii=False) and a newline; --fix rewrites it"


def main() -> int:
    """Run the check from the command line."""
    parser = argparse.ArgumentParser(description="Check the format of JSON files.")
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders (default: bundles/ and tutorials/)")
    parser.add_argument("--fix", action="store_true", help="rewrite valid files that are formatted otherwise")
    args = parser.parse_args()
    files = list(find_files(args.paths or [ROOT / folder for folder in FOLDERS if (ROOT / folder).is_dir()]))
    problems = 0
    for path in files:
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        problem = check(path, args.fix)
        if problem:
            problems += 1
            print(f"{shown}: {problem}", file=sys.stderr)
    print(f"{len(files)} JSON files checked, {problems} with problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
