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

"""The health page of the PACS node: counts as JSON over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["start_health"]


def start_health(address: tuple[str, int], report: Callable[[], Mapping[str, Any]]) -> ThreadingHTTPServer:
    """Answer GET requests for ``/`` and ``/health`` in a thread: 200, or 503 where the status is not "ok".

    Args:
        address: host and port; port 0 takes a free one.
        report: makes the content, with its "status".

    Raises:
        ValueError: if the address cannot be listened on.

    Example:
        >>> import urllib.request
        >>> server = start_health(("127.0.0.1", 0), lambda: {"status": "ok", "done": 3})
        >>> with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/health") as answer:
        ...     answer.status, json.load(answer)
        (200, {'status': 'ok', 'done': 3})
        >>> server.shutdown()
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path not in ("/", "/health"):
                self.send_error(404)
                return
            content = report()
            body = json.dumps(content, indent=2).encode() + b"\n"
            self.send_response(200 if content["status"] == "ok" else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """The log is for series."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        daemon_threads = True

    try:
        server = Server(address, Handler)
    except OSError as error:
        text = f"{address[0]}:{address[1]}"
        raise ValueError(f"--health {text}: cannot be listened on ({error.strerror}); expected a free port.") from error
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
