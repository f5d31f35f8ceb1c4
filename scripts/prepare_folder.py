"""Turns any link (Google Drive, zip or tar address, hub, path) into a folder that inference.py reads.

    python scripts/prepare_folder.py LINK --out data/link

Links `data/link/audio` and, where there are texts, `data/link/transcriptions` to what was found. An empty
link stands for the clips in samples/.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.fetching.downloads import fetch
from src.fetching.layout import lay_out, unpack_all
from src.utils.errors import UserError, door
from src.utils.files import audio_files


def prepare(link: str, out: Path) -> Path:
    """Fetches, unpacks, lays out; returns ``out``. Downloads stay in ``out/.downloads`` and can go on."""
    cache = out / ".downloads" / hashlib.sha256(os.fsencode(link)).hexdigest()[:12]
    try:
        return lay_out(unpack_all(fetch(link, cache), cache / "unpacked"), out)
    except OSError as error:
        message = f"--out {out}: cannot be made from {link} ({error}); correct the paths or permissions"
        raise UserError(message) from None


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("link", nargs="?", default="", help="Drive link, https address, hub id or path")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # a name of a file need not be UTF-8
    link = arguments.link.strip()
    if not link:
        print(
            "No link given: using samples/. For your own paste a Drive link, an https zip or tar, or a path."
        )
    out = prepare(link or str(ROOT / "samples"), arguments.out)
    texts = out / "transcriptions"
    print(f"{len(audio_files(out / 'audio'))} recordings: {out / 'audio'} -> {(out / 'audio').resolve()}")
    if texts.exists():
        print(f"{sum(1 for _ in texts.rglob('*.txt'))} transcriptions: {texts} -> {texts.resolve()}")
    else:
        print("no transcriptions: the recordings can be transcribed, but not scored")


if __name__ == "__main__":
    main()
