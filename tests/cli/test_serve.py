# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The options of ``sliceinterp serve``: wrong ones are told in a line before anything listens."""

import socket
import sys
from pathlib import Path

import pytest
import yaml

from monai_sliceinterp.cli import main
from monai_sliceinterp.cli.serve import make_parser, settings_of
from monai_sliceinterp.dicom_node.settings import NodeSettings, Peer

DOCS = Path(__file__).resolve().parents[2] / "docs" / "pacs_node"
GOOD = {"--from": "PACS", "--to": "PACS@127.0.0.1:104", "--health": "127.0.0.1:0", "--port": "0"}


def serve(folder, changes):
    return main(["serve", "--folder", str(folder), *(word for pair in {**GOOD, **changes}.items() for word in pair)])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"--to": "PACS"}, "--to PACS: expected AETITLE@HOST:PORT, such as ORTHANC@localhost:4242."),
        ({"--to": "PACS@host:0"}, "--to PACS@host:0: expected AETITLE@HOST:PORT"),
        ({"--from": "A" * 17}, "is no AE title; expected 1 to 16 characters of ASCII"),
        ({"--from": "b\\c"}, "is no AE title"),
        ({"--ae-title": "PACS"}, "--to PACS: is this node itself"),
        ({"--health": "8112"}, "--health 8112: expected HOST:PORT"),
        ({"--port": "70000"}, "--port 70000: expected 1 to 65535"),
        ({"--stable-age": "0"}, "--stable-age must be a positive number"),
        ({"--max-series": "0"}, "--max-series must be"),
        ({"--min-free": "-1"}, "--min-free must be"),
        ({"--spacing": "nan"}, "--spacing must be a positive number"),
        ({"--factor": "0"}, "--factor must be"),
        ({"--method": "cubik"}, "--method cubik: is not here; expected one of auto, linear, cubic"),
    ],
)
def test_wrong_options(tmp_path, capsys, changes, error):
    assert serve(tmp_path / "queue", changes) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ") and error in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "queue").exists()


def test_nobody_may_send(tmp_path):
    with pytest.raises(ValueError, match=r"^no --from is given; expected the AE title of each node that may send\.$"):
        NodeSettings(tmp_path, Peer("PACS", "127.0.0.1", 104), callers=())


def test_what_cannot_be_used(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    assert serve(tmp_path / "file", {}) == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serve(tmp_path / "queue", {"--port": str(port)}) == 1
        assert serve(tmp_path / "queue", {"--health": f"127.0.0.1:{port}"}) == 1
    for name in ("node", "storage", "sending"):
        monkeypatch.delitem(sys.modules, f"monai_sliceinterp.dicom_node.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    assert serve(tmp_path / "queue", {}) == 1
    *errors, missing = capsys.readouterr().err.splitlines()
    assert missing == 'error: serve needs pynetdicom; expected pip install "monai_sliceinterp[dicom-node]".'
    monkeypatch.setitem(sys.modules, "monai_sliceinterp.dicom_node.node", None)
    with pytest.raises(ModuleNotFoundError, match="dicom_node.node"):  # which pip does not install
        serve(tmp_path / "queue", {})
    for line, part in zip(
        errors, ("file: cannot be used", f"--port {port}: 127.0.0.1", "--health 127.0.0.1"), strict=True
    ):
        assert line.startswith("error: ") and part in line and "expected" in line


def test_documented_command():
    """The example for Docker Compose is one that this version takes, and its files are there."""
    services = yaml.safe_load((DOCS / "docker-compose.yml").read_text())["services"]
    command = services["sliceinterp"]["command"].split()
    settings = settings_of(make_parser().parse_args(command[1:]))
    assert command[0] == "serve" and settings.callers == ("ORTHANC",) and settings.destination.port == 4242
    for volume in services["orthanc"]["volumes"][:2]:
        assert (DOCS / volume.split(":")[0]).is_file()
