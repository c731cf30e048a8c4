# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Bundles that are not here: from zip files and from Hugging Face, both on the loopback."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from monai_sliceinterp.bundles import BUNDLES_VARIABLE, download, find_bundles
from monai_sliceinterp.cli import main
from monai_sliceinterp.zoo import bundle_files

ROOT = Path(__file__).resolve().parents[2]
ASI = ROOT / "bundles" / "asi"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def zips(make_bundle, tmp_path, serve, monkeypatch):
    """A folder of two versions of a bundle that is served, as the place of all bundles."""
    folder = tmp_path / "zips"
    listed = {}
    for version in ("0.9.0", "0.10.0"):
        make_bundle(tmp_path / version / "tiny", version)
        file = Path(shutil.make_archive(str(folder / f"tiny_v{version}"), "zip", tmp_path / version))
        listed[f"tiny_v{version}"] = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (folder / "model_info.json").write_text(json.dumps(listed))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    monkeypatch.setattr(download, "BUNDLES_URL", serve(functools.partial(Quiet, directory=folder)))
    return folder


def version_of(folder):
    return json.loads((folder / "configs" / "metadata.json").read_text())["version"]


def test_method_is_downloaded_when_it_is_named(scan, zips, bundles, capsys):
    assert main([scan, "-m", "tiny", "-f", "2", "-o", "out"]) == 0
    assert version_of(bundles / "tiny") == "0.10.0" and [path.name for path in bundles.iterdir()] == ["tiny"]
    assert main(["bundles", "download", "tiny", "--bundle_version", "0.9.0"]) == 0  # replaces it
    assert version_of(bundles / "tiny") == "0.9.0" and [path.name for path in bundles.iterdir()] == ["tiny"]
    assert main(["bundles"]) == 0
    assert f"tiny       0.9.0   MR  {bundles / 'tiny'}" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["sum", "no sum", "name", "offline", "nowhere", "gone", "empty"])
def test_nothing_is_left_of_a_failed_download(wrong, scan, zips, bundles, capsys, monkeypatch):
    listed = json.loads((zips / "model_info.json").read_text())
    file = zips / "tiny_v0.10.0.zip"
    if wrong == "empty":
        zipfile.ZipFile(file, "w").close()
    sums = {"sum": "0" * 64, "gone": "0" * 64, "empty": hashlib.sha256(file.read_bytes()).hexdigest()}
    listed["tiny_v0.10.0"] = {"sha256": sums.get(wrong, "")}
    (zips / "model_info.json").write_text(json.dumps(listed))
    if wrong == "offline":
        monkeypatch.setattr(download, "BUNDLES_URL", "http://127.0.0.1:9")
    if wrong == "gone":
        file.unlink()
    if wrong == "nowhere":
        monkeypatch.setattr(download, "BUNDLES_URL", "")
    name = "other" if wrong == "name" else "tiny"
    assert main([scan, "-m", name, "-o", "out"]) == 1
    error = capsys.readouterr().err
    reason = {"sum": "has SHA-256", "no sum": "tells no SHA-256", "name": "has tiny_v0.10.0", "offline": "refused"}
    reason["nowhere"] = "bundles are not hosted anywhere yet"
    reason["gone"] = "cannot be downloaded (HTTP Error 404: File not found); put http"
    reason["empty"] = f"{download.BUNDLES_URL}: holds no bundle 'tiny'; expected a folder tiny/configs.\n"
    assert error.count("\n") == 1 and reason[wrong] in error
    assert wrong in ("sum", "empty") or f"{name}_v*.zip" in error
    assert wrong in ("sum", "empty") or f"into {bundles}" in error
    assert not list(bundles.iterdir())


def test_zip_file_that_was_put_where_the_line_says(scan, zips, bundles, monkeypatch):
    monkeypatch.setattr(download, "BUNDLES_URL", "http://127.0.0.1:9")
    shutil.copy(zips / "tiny_v0.9.0.zip", bundles)
    assert main([scan, "-m", "tiny", "-f", "2", "-o", "out"]) == 0 and version_of(bundles / "tiny") == "0.9.0"
    shutil.rmtree(bundles / "tiny")
    assert main([scan, "-m", str(bundles / "tiny_v0.9.0.zip"), "-f", "2", "-o", "zip"]) == 0  # for this run alone
    out, unpacked = (Path(name, "scan_interp.nii.gz").read_bytes() for name in ("out", "zip"))
    assert out == unpacked and os.listdir(bundles) == ["tiny_v0.9.0.zip"]


def test_hugging_face_without_its_package(bundles, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["bundles", "download", "asi", "--repo", "OWNER/asi"]) == 1
    reason = 'pip install "monai_sliceinterp[huggingface]" for bundles on Hugging Face'
    way = f"put OWNER/asi into {bundles}, or name the folder that has it in {BUNDLES_VARIABLE}"
    line = f"error: bundle 'asi' is not here and cannot be downloaded ({reason}); {way}.\n"
    assert capsys.readouterr().err == line


class Hub(BaseHTTPRequestHandler):
    """Hugging Face with one repository, OWNER/asi, in a folder."""

    def __init__(self, *arguments, folder):
        self.files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def do_GET(self):
        path, info = self.path.partition("?")[0], {"_id": "0", "id": "OWNER/asi", "sha": COMMIT}
        if path.startswith("/api/models/OWNER/asi"):
            info |= {"converts": [], "tags": []}
            info["branches"] = [{"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}]
            info["siblings"] = [{"rfilename": name} for name in self.files]
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
                for name, file in self.files.items()
            ]
            self.answer(json.dumps(tree if "/tree/" in path else info).encode())
        else:
            name = path.removeprefix(f"/OWNER/asi/resolve/{COMMIT}/")
            self.answer(self.files[name].read_bytes() if name in self.files else None)

    do_HEAD = do_GET

    def answer(self, content):
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET" and content:
            self.wfile.write(content)


def test_hugging_face(tmp_path, serve, bundles, capsys):
    """What ``pack`` lays out is what a download by ``monai.bundle`` brings, with a card that the site can read."""
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra huggingface")
    assert main(["pack", str(ASI), "-o", str(tmp_path / "dist"), "--huggingface", "OWNER"]) == 0
    source = tmp_path / "dist" / "huggingface" / "OWNER" / "asi"
    assert f"(to upload it: hf upload OWNER/asi {source})" in capsys.readouterr().out
    card = hub.ModelCard.load(source / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "monai")
    assert card.data.tags[:3] == ["monai", "medical", "MR"] and "](docs/asi.png)" in card.text
    environment = {**os.environ, "HF_ENDPOINT": serve(functools.partial(Hub, folder=source)), "PYTHONPATH": str(ROOT)}
    code = "import monai.bundle, sys; from monai_sliceinterp.cli import main\n"
    code += "monai.bundle.download('asi', source='huggingface_hub', repo='OWNER/asi', bundle_dir='by_monai')\n"
    code += "sys.exit(main(['bundles', 'download', 'asi', '--repo', 'OWNER/asi']))"
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert find_bundles() == {"asi": bundles / "asi"}
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert {Path(name) for name in bundle_files(ASI)} | {Path("README.md"), Path(".gitattributes")} == {*files}
    for name, content in files.items():
        for folder in (bundles, tmp_path / "by_monai"):
            assert (folder / "asi" / name).read_bytes() == content
