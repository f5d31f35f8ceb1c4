"""Downloads parts of LibriSpeech (OpenSLR 12), checks and unpacks them.

    python scripts/download_librispeech.py train-clean-100 dev-clean dev-other test-other --out data

An interrupted download goes on where it stopped when the same command runs again; parts that are there
already are left alone. A mirror that is dead, or sends something else than its own md5sum.txt states, makes
room for the next.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.fetching.archives import unpack
from src.fetching.downloads import fetch
from src.utils.errors import UserError, door

PARTS = {  # GB of the archive
    "dev-clean": 0.34,
    "dev-other": 0.31,
    "test-clean": 0.35,
    "test-other": 0.33,
    "train-clean-100": 6.3,
    "train-clean-360": 23,
    "train-other-500": 30,
}
MIRRORS = (
    "https://www.openslr.org/resources/12",
    "https://us.openslr.org/resources/12",
    "https://openslr.elda.org/resources/12",
    "https://openslr.trmal.net/resources/12",
)


def download(
    parts: Sequence[str], out: Path, mirrors: Sequence[str] = MIRRORS, pause_s: float = 1.0
) -> list[Path]:
    """Makes ``out/LibriSpeech/PART`` of every part and returns these folders.

    Raises:
        UserError: an unknown part, or one that no mirror hands out whole; the message has every mirror's
            reason.
    """
    for part in parts:
        if part not in PARTS:
            raise UserError(f"{part}: no part of LibriSpeech; choose from: {', '.join(PARTS)}")
    return [_bring(part, out, mirrors, pause_s) for part in parts]


def _bring(part: str, out: Path, mirrors: Sequence[str], pause_s: float) -> Path:
    target, staging = out / "LibriSpeech" / part, out / ".librispeech"
    if target.is_dir():
        print(f"{target} is there already")
        return target
    archive = _archive(part, staging, mirrors, pause_s)
    unpacked = unpack(archive, staging / part) / "LibriSpeech"
    if not (unpacked / part).is_dir():
        raise UserError(f"{archive}: holds no LibriSpeech/{part}; delete it and try another --mirror")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The notes beside the part (SPEAKERS.TXT ...) first, then the part in one move.
    for file in unpacked.iterdir():
        if file.is_file():
            os.replace(file, target.parent / file.name)
    os.replace(unpacked / part, target)
    shutil.rmtree(staging / part)
    archive.unlink()
    return target


def _archive(part: str, staging: Path, mirrors: Sequence[str], pause_s: float) -> Path:
    """The checked archive of a part, from the first mirror that has it."""
    name = f"{part}.tar.gz"
    for mirror in mirrors:
        address = mirror.rstrip("/")
        try:
            expected = _checksum(fetch(f"{address}/md5sum.txt", staging, pause_s=pause_s), name)
            archive = staging / name
            if not archive.is_file():  # it is, when an earlier run was stopped while it unpacked
                archive = fetch(f"{address}/{name}", staging, pause_s=pause_s)
            found = _md5(archive)
            if found == expected:
                return archive
            archive.unlink()
            raise UserError(f"{address}/{name}: MD5 is {found}, md5sum.txt says {expected}")
        except UserError as error:
            print(f"{error}" + ("; trying the next mirror" if mirror != mirrors[-1] else ""), file=sys.stderr)
    raise UserError(
        f"{part}: no mirror could give it whole, as said above; check the connection, or give --mirror URL"
    )


def _checksum(listing: Path, name: str) -> str:
    """The MD5 of ``name`` in an ``md5sum`` listing."""
    match = re.search(
        rf"^([0-9a-f]{{32}})\s+\*?(?:\./)?{re.escape(name)}\s*$", listing.read_text(errors="replace"), re.M
    )
    if match is None:
        raise UserError(f"{listing}: states no MD5 of {name}")
    return match.group(1)


def _md5(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ", ".join(f"{name} ({size:g} GB)" for name, size in PARTS.items())
    parser.add_argument("parts", nargs="+", metavar="PART", help=sizes)
    parser.add_argument(
        "--out", type=Path, default=Path("data"), help="LibriSpeech/PART is made in it (default: data)"
    )
    parser.add_argument(
        "--mirror", action="append", metavar="URL", help="folder of the archives; may be repeated"
    )
    arguments = parser.parse_args()
    folders = download(arguments.parts, arguments.out, arguments.mirror or MIRRORS)
    for folder in folders:
        recordings = sum(1 for _ in folder.rglob("*.flac"))
        print(f"made {folder}: {recordings} recordings")
    root = arguments.out / "LibriSpeech"
    roots = f"datasets.train.root={root} datasets.dev.root={root}"
    print(f"use it: python train.py -cn=conformer_ctc datasets=librispeech_100 {roots}")


if __name__ == "__main__":
    main()
