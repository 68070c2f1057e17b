"""The server of the live page: it reads runs when it is asked, and answers only to whom knows its token."""

import contextlib
import hashlib
import hmac
import secrets
import threading
import urllib.parse
import warnings
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from experiments.report.content import as_json, content
from experiments.report.found_runs import folders, read_runs
from experiments.report.html_page import html_page
from fl_sim.errors import ConfigError

FILES = ("config.toml", "rounds.jsonl", "events.jsonl", "summary.json", "partition.json")
"""The files of a run whose change changes the page."""


class Watched:
    """The runs below some paths, as data of the page, made anew when a file has changed.

    Parameters
    ----------
    paths : sequence of str or Path
        Run folders, or folders of runs at any depth, where runs may be added.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = list(paths)
        self._folders = folders(self.paths)
        self._seen: list[tuple[str, int, int]] | None = None
        self._data, self.tag = b"", ""
        self._lock = threading.Lock()

    def data(self) -> tuple[bytes, str]:
        """The page's data as JSON, and a tag that is the same as long as they are."""
        with self._lock:
            with contextlib.suppress(ValueError, OSError):  # all runs may be away for a moment; the last ones are known
                self._folders = folders(self.paths)
            seen = [entry for folder in self._folders for entry in _state(folder)]
            if seen != self._seen:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what warnings say of runs is on the page
                    page = content(read_runs(self._folders, checked=False))
                self._data, self._seen = as_json(page).encode(), seen
                self.tag = hashlib.sha256(repr(seen).encode()).hexdigest()[:16]
            return self._data, self.tag


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """What shows that a file of a run has changed: its name, size and time."""
    found = [(str(folder), 0, 0)]
    for name in FILES:
        with contextlib.suppress(OSError):
            stat = (folder / name).stat()
            found.append((name, stat.st_size, stat.st_mtime_ns))
    return found


class Server(ThreadingHTTPServer):
    """Serves the page on 127.0.0.1 to whom knows the token.

    Parameters
    ----------
    watched : Watched
        The runs.
    port : int
        0 takes a free one.
    every : float
        Seconds after which the page asks for new numbers.
    """

    daemon_threads = True

    def __init__(self, watched: Watched, port: int = 0, every: float = 2.0) -> None:
        names = [Path(path).name or str(path) for path in watched.paths]
        title = names[0] if len(names) == 1 else f"{len(names)} runs"
        self.watched, self.token = watched, secrets.token_urlsafe(16)
        self.page = html_page(f"{title} (live)", {"live": every}, live=True).encode()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.server_address[1]}/?token={self.token}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET of ``/`` (the page) and ``/data`` (JSON); nothing is written, and nothing else is read."""

    server: Server
    server_version = "fl-sim"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a request."""
        asked = urllib.parse.urlsplit(self.path)
        token = urllib.parse.parse_qs(asked.query).get("token", [""])[0]
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN, b"use the whole address that experiments.watch printed", "text/plain")
        elif asked.path == "/":
            self._answer(HTTPStatus.OK, self.server.page, "text/html")
        elif asked.path == "/data":
            data, tag = self.server.watched.data()
            if self.headers.get("If-None-Match") == tag:
                self._answer(HTTPStatus.NOT_MODIFIED, b"", "application/json", tag)
            else:
                self._answer(HTTPStatus.OK, data, "application/json", tag)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there is / and /data", "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, tag: str = "") -> None:
        with contextlib.suppress(OSError):  # the browser went away
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("X-Frame-Options", "DENY")
            if tag:
                self.send_header("ETag", tag)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not reported."""


def server_of(watched: Watched, port: int, every: float) -> Server:
    """The server. Raises ConfigError where the port is taken."""
    try:
        return Server(watched, port, every)
    except OSError as error:
        raise ConfigError(f"port = {port}: cannot be used ({error.strerror}); leave it out for a free one") from error
