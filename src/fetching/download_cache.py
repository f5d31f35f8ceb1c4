"""Downloads that are kept while there is room for them; several processes may share the folder."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from src.fetching.downloads import TIMEOUT_S, fetch, web_request
from src.utils.errors import UserError

RETRY_S = 600  # for so long a failed download is not tried again
ABANDONED_S = 86_400  # after so long nobody will go on with a broken one


class NotThere(UserError):
    """The server has no such file."""


class DownloadCache:
    """Files from the web, each downloaded by whichever process asks for it first.

    Args:
        folder: where they are kept.
        max_bytes: of all files; then the least recently used ones go. The newest one stays in any case, and what
            is being downloaded does not count yet.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.since = time.time()  # what failed in an earlier run may be there by now

    def open(self, link: str, version: str = "") -> BinaryIO:
        """The file's content, after downloading it if it is not there. Others may delete the file meanwhile.

        ``version`` tells apart what an address has had at different times. Raises ``UserError`` when it cannot be
        downloaded, and then without another attempt for ``RETRY_S`` seconds, by whichever process of the run.
        """
        file = self.folder / hashlib.sha256(f"{version} {link}".encode()).hexdigest()[:32]
        with suppress(FileNotFoundError):
            return _opened(file)
        note = file.with_name(f".{file.name}.failed")
        self._heed(note)
        with locked(file):
            self._heed(note)
            try:
                bring(link, file, show=False)
                opened = _opened(file)
            except UserError as error:
                note.write_text(f"{time.time()}\n{error}", encoding="utf-8")
                raise
        self._make_room(file)
        return opened

    def _heed(self, note: Path) -> None:
        """Raises the ``UserError`` that another process, or this one, has met not long ago."""
        try:
            date, _, reason = note.read_text(encoding="utf-8").partition("\n")
            failed_at = float(date)
        except (OSError, ValueError):  # there is none, or it is being written
            return
        if failed_at > max(self.since, time.time() - RETRY_S):
            raise UserError(reason)

    def fetch_ahead(self, link: str, version: str = "") -> None:
        """Begins to download in the background what will be asked for soon; who asks then hears of failures."""

        def run() -> None:
            with suppress(UserError, OSError):
                self.open(link, version).close()

        threading.Thread(target=run, daemon=True).start()

    def _make_room(self, newest: Path) -> None:
        files = []
        for file in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process makes room too
                status = file.stat()
                if file.name.endswith(".download") and time.time() - status.st_mtime > ABANDONED_S:
                    shutil.rmtree(file, ignore_errors=True)
                elif not file.name.startswith("."):
                    files.append((status.st_mtime_ns, status.st_size, file))
        excess = sum(size for _, size, _ in files) - self.max_bytes
        for _, size, file in sorted(files):
            if excess > 0 and file != newest:
                file.unlink(missing_ok=True)
                excess -= size


def bring(link: str, file: Path, show: bool = True) -> None:
    """Downloads ``link`` to ``file`` unless it is there; a broken download goes on where it stopped.

    Raises ``UserError`` as ``fetch`` does.
    """
    if file.exists():
        return
    staging = file.with_name(f".{file.name}.download")
    os.replace(fetch(link, staging, show=show), file)
    shutil.rmtree(staging, ignore_errors=True)


def remote_version(link: str) -> str:
    """Tells one version of a file on the web from another: ETag or date, and size. "" if a server will not say.

    Raises ``NotThere`` when there is no such file, and ``UserError`` when nobody answers.
    """
    try:
        with urllib.request.urlopen(web_request(link, "HEAD"), timeout=TIMEOUT_S) as response:
            found = [response.headers.get(name) for name in ("ETag", "Last-Modified", "Content-Length")]
            return repr(found)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 405, 501):  # an address may be signed for GET only, or need a token
            return ""
        kind = NotThere if error.code in (404, 410) else UserError
        raise kind(f"{link}: the server answers {error.code} {error.reason}; check the link") from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{link}: cannot be reached ({reason}); check the link and the network") from None


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Waits until no other process or thread works on ``file``; the lock ends with its process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _opened(file: Path) -> BinaryIO:
    content = file.open("rb")
    # The date of a file is when it was last used; the system's own clock for dates ticks too slowly.
    os.utime(content.fileno(), ns=(time.time_ns(), time.time_ns()))
    return content
