"""Brings a path, a web address, a Google Drive link or a Hugging Face repository into a folder.

The web part is the standard library alone: a download that breaks goes on where it stopped (HTTP ranges, and
only if the server vouches that the file is still the same), a finished one is checked. The packages for Drive
and the hub are needed by their own links only. All retries are bounded; every failure is one line.
"""

from __future__ import annotations

import hashlib
import http.client
import inspect
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from tqdm import tqdm

from src.utils.errors import UserError
from src.utils.progress import progress_bar

ATTEMPTS = 5
TIMEOUT_S = 60
CHUNK = 1 << 18
HUB_HOSTS = ("huggingface.co", "hf.co")
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w.-]+)?")
_DRIVE_FILE = re.compile(r"/file/(?:u/\d+/)?d/([\w-]{10,})|[?&]id=([\w-]{10,})")
_DRIVE_FOLDER = re.compile(r"/folders/([\w-]{10,})")


def fetch(
    link: str,
    into_dir: Path,
    sha256: str | None = None,
    endpoint: str | None = None,
    pause_s: float = 1.0,
    show: bool = True,
) -> Path:
    """Makes what ``link`` names available on this disk and returns its path, a file or a folder.

    ``link``: a local path or ``file://`` (returned as it is, not copied); ``http(s)://``; a Google Drive file
    or folder link; ``hf://owner/name[@revision]``, ``owner/name[@revision]`` or a huggingface.co address, of
    a repository or of one file. ``endpoint`` replaces ``https://huggingface.co`` by a mirror. ``pause_s``
    doubles from retry to retry; ``show`` a progress bar of a web download.

    Raises:
        UserError: nothing there, no access, a web page instead of a file, a wrong checksum, a missing
        package.
    """
    link = link.strip()
    try:
        parsed = urllib.parse.urlsplit(link)
    except ValueError as error:
        raise UserError(f"{link}: not a link ({error})") from None
    host = (parsed.hostname or "").removeprefix("www.")
    local = Path(
        urllib.request.url2pathname(parsed.path) if parsed.scheme == "file" else os.path.expanduser(link)
    )
    if not link:
        raise UserError("no link given; give a path, a web address or owner/name of a hub repository")
    if parsed.scheme == "file" or (not parsed.scheme and os.path.exists(local)):
        path = local
    elif parsed.scheme == "hf" or host in HUB_HOSTS or (not parsed.scheme and _HUB_ID.fullmatch(link)):
        path = _fetch_hub(link, into_dir, endpoint)
    elif host in ("drive.google.com", "docs.google.com", "drive.usercontent.google.com"):
        path = _fetch_drive(link, into_dir)
    elif parsed.scheme in ("http", "https"):
        path = _fetch_http(link, into_dir, pause_s, show)
    else:
        raise UserError(
            f"{link}: no such file or folder, and no link that can be downloaded (https, Drive, hf://)"
        )
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if sha256 is not None:
        _check_sha256(path, sha256, downloaded=path != local)
    return path


def _check_sha256(path: Path, expected: str, downloaded: bool) -> None:
    if path.is_dir():
        raise UserError(
            f"{path}: a checksum is for one file, this is a folder; leave it out or name the file"
        )
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    actual = digest.hexdigest()
    if actual != expected.lower():
        if downloaded:
            path.unlink()  # so that the next try does not meet it
        raise UserError(
            f"{path}: SHA-256 is {actual}, expected {expected}; try again or correct the checksum"
        )


class _Interrupted(Exception):
    """The transfer broke; what has arrived is kept, another attempt may finish it."""


@dataclass
class _Part:
    """A partial download: the bytes, and beside them what identifies the remote file (ETag or date)."""

    data: Path
    note: Path

    def validator(self) -> str | None:
        if self.data.exists() and self.note.exists():
            with suppress(ValueError):  # cut off by a kill: begin anew
                return json.loads(self.note.read_text(encoding="utf-8"))
        return None

    def discard(self) -> None:
        self.data.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _fetch_http(link: str, into_dir: Path, pause_s: float, show: bool) -> Path:
    into_dir.mkdir(parents=True, exist_ok=True)
    stem = into_dir / f".{hashlib.sha256(link.encode()).hexdigest()[:16]}"
    part = _Part(stem.with_suffix(".part"), stem.with_suffix(".note"))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _transfer(link, into_dir, part, show)
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429) and error.code < 500:
                raise UserError(
                    f"{link}: the server answers {error.code} {error.reason}; check the link"
                ) from None
            failure: Exception = error
        except (
            _Interrupted,
            urllib.error.URLError,
            http.client.HTTPException,
            TimeoutError,
            ConnectionError,
        ) as error:
            failure = error
        except (OSError, ValueError) as error:
            raise UserError(f"{link}: cannot be downloaded into {into_dir} ({error})") from None
        if attempt < ATTEMPTS:
            time.sleep(pause_s * 2 ** (attempt - 1))
    reason = getattr(failure, "reason", failure)
    raise UserError(f"{link}: no complete download in {ATTEMPTS} attempts ({reason}); run again to go on")


def web_request(link: str, method: str = "GET", **headers: str) -> urllib.request.Request:
    """A request as all of ours are; what an address may not hold is quoted."""
    url = urllib.parse.quote(link, safe="%/:=&?~#+!$,;'@()*[]")
    headers |= {"User-Agent": "lectern", "Accept-Encoding": "identity"}
    return urllib.request.Request(url, headers=headers, method=method)


def _transfer(link: str, into_dir: Path, part: _Part, show: bool) -> Path:
    """One attempt; goes on after the bytes that ``part`` holds where the server allows it."""
    headers = {}
    validator = part.validator()
    if validator is not None:
        headers = {"Range": f"bytes={part.data.stat().st_size}-", "If-Range": validator}
    try:
        response = urllib.request.urlopen(web_request(link, **headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left to send, or another file: begin anew
            part.discard()
            raise _Interrupted("the server refused to go on") from None
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise UserError(f"{link}: answers with a web page, not a file; use the direct download link")
        done = _range_start(response.headers) if response.status == 206 else 0
        if response.status == 206 and done != part.data.stat().st_size:
            part.discard()
            raise _Interrupted("the server sent another range")
        if not done:
            part.discard()
        remember = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if remember and not remember.startswith("W/"):
            part.note.write_text(json.dumps(remember), encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        name = _file_name(response.headers, response.url)
        with part.data.open("r+b" if done else "wb") as file, _bar(name, total, done, show) as bar:
            file.seek(done)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.data.stat().st_size < total:
        raise _Interrupted(f"the connection broke after {part.data.stat().st_size} of {total} bytes")
    target = into_dir / name
    part.data.replace(target)
    part.discard()
    return target


def _bar(name: str, total: int | None, done: int, show: bool) -> tqdm:
    units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    return progress_bar(desc=name, total=total, initial=done, disable=not show, **units)


def _range_start(headers: Message) -> int:
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(match.group(1)) if match else -1


def _file_name(headers: Message, url: str) -> str:
    """A name without folders, from the server's header or the address."""
    name = headers.get_filename() or urllib.parse.unquote(urllib.parse.urlsplit(url).path)
    name = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    name = name.replace("\0", "").lstrip(".")
    return name.encode()[-150:].decode(errors="ignore") or "download"  # file systems count bytes


def _fetch_drive(link: str, into_dir: Path) -> Path:
    """A shared file or folder of Google Drive through gdown, which reads folders of any size since 6.0."""
    try:
        import gdown
    except ImportError:
        raise UserError(f'{link}: Google Drive needs the gdown package; pip install "gdown>=6.4"') from None
    if "retries" not in inspect.signature(gdown.download_folder).parameters:
        raise UserError(f'{link}: gdown {gdown.__version__} is too old for Drive; pip install "gdown>=6.4"')
    folder, file = _DRIVE_FOLDER.search(link), _DRIVE_FILE.search(link)
    if not folder and not file:
        raise UserError(f"{link}: not a link to a Drive file or folder; use Share > Copy link")
    into_dir.mkdir(parents=True, exist_ok=True)
    options = {"use_cookies": False, "resume": True, "retries": ATTEMPTS - 1, "timeout": TIMEOUT_S}
    try:
        if folder:
            target = into_dir / folder.group(1)
            gdown.download_folder(id=folder.group(1), output=str(target), **options)
            return target
        # The trailing slash asks gdown to take the name that Drive gives.
        return Path(gdown.download(id=file.group(1) or file.group(2), output=f"{into_dir}/", **options))
    # gdown passes on what requests, the parser and the disk raise.
    except Exception as error:
        raise UserError(
            f'{link}: Drive refuses ({_first_line(error)}); share it with "Anyone with the link" or as a zip'
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _fetch_hub(link: str, into_dir: Path, endpoint: str | None) -> Path:
    """A repository of the Hugging Face hub, or one file of it (``/resolve/`` and ``/blob/`` addresses)."""
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
    except ImportError:
        raise UserError(f"{link}: the hub needs a package; pip install huggingface_hub") from None
    repository, kind, revision, file = _parse_hub(link)
    folder = into_dir / repository.replace("/", "--")
    options = {"repo_type": kind, "revision": revision, "endpoint": endpoint, "local_dir": folder}
    try:
        if file:
            return Path(hf_hub_download(repository, file, **options))
        return Path(snapshot_download(repository, **options))
    # The hub's client passes on what its HTTP library and the disk raise.
    except Exception as error:
        raise UserError(
            f"{link}: neither a path here nor handed out by the hub ({_first_line(error)}); "
            "check name and revision, set HF_TOKEN if it is private"
        ) from None


def _parse_hub(link: str) -> tuple[str, str, str | None, str | None]:
    """(owner/name, repository type, revision, file).

    >>> _parse_hub("hf://someone/conformer@v2")
    ('someone/conformer', 'model', 'v2', None)
    >>> _parse_hub("https://huggingface.co/datasets/a/b/resolve/main/dev/x.zip?download=true")
    ('a/b', 'dataset', 'main', 'dev/x.zip')
    >>> _parse_hub("hf://someone/lms/3-gram.arpa.gz")
    ('someone/lms', 'model', None, '3-gram.arpa.gz')
    """
    path = re.sub(r"^(hf://|https?://[^/]+/)", "", link).split("?")[0].split("#")[0].strip("/")
    kind = "model"
    for prefix, name in (("datasets/", "dataset"), ("spaces/", "space"), ("models/", "model")):
        if path.startswith(prefix):
            path, kind = path.removeprefix(prefix), name
    parts = [urllib.parse.unquote(part) for part in path.split("/")]
    if len(parts) < 2:
        raise UserError(f"{link}: a hub repository is named owner/name")
    name, _, revision = parts[1].partition("@")
    file = "/".join(parts[2:]) if link.startswith("hf://") else None
    if len(parts) > 3 and parts[2] in ("resolve", "blob", "raw", "tree"):
        revision = parts[3]
        file = "/".join(parts[4:]) if parts[2] != "tree" else None
    return f"{parts[0]}/{name}", kind, revision or None, file or None
