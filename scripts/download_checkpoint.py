"""Downloads a checkpoint, a language model or logs, checks and unpacks them.

    python scripts/download_checkpoint.py owner/name --out checkpoints/name
    python scripts/download_checkpoint.py https://example.org/model.tar.gz --sha256 HEX \\
        --out checkpoints/model

SOURCE is a Hugging Face id or address, any https address, a Google Drive link, or a path. zip and tar are
unpacked; an archive's single top folder is left out, so that `--out` is the checkpoint itself. Nothing that
was downloaded is run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.fetching.archives import archive_kind, unpack
from src.fetching.downloads import fetch
from src.utils.errors import UserError, door


def download(source: str, out: Path, sha256: str | None = None, endpoint: str | None = None) -> list[Path]:
    """Puts what ``source`` names into ``out`` and returns the files. An interrupted one goes on.

    Raises:
        UserError: see ``fetch`` and ``unpack``; or ``out`` is a file.
    """
    staging = out / ".download"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give --out a folder")
    fetched = fetch(source, staging, sha256, endpoint)
    mine = staging in fetched.parents
    if fetched.is_file() and archive_kind(fetched):
        fetched, mine = unpack(fetched, staging / "unpacked"), True
        inside = list(fetched.iterdir())
        if len(inside) == 1 and inside[0].is_dir():
            fetched = inside[0]
    hub_notes = {".cache"}  # what huggingface_hub leaves in a folder for its own resuming
    if fetched.is_file():
        files = [Path(fetched.name)]
        fetched = fetched.parent
    else:
        files = [f.relative_to(fetched) for f in sorted(fetched.rglob("*")) if f.is_file()]
        files = [file for file in files if file.parts[0] not in hub_notes]
    try:
        for file in files:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (os.replace if mine else shutil.copy2)(fetched / file, out / file)
    except shutil.SameFileError:
        raise UserError(f"{source}: lies in --out {out} already; give another folder") from None
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error}); choose another folder") from None
    shutil.rmtree(staging, ignore_errors=True)
    return [out / file for file in files]


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="hub id, https address, Google Drive link or path")
    parser.add_argument("--out", type=Path, required=True, help="folder to put it into")
    parser.add_argument("--sha256", help="expected checksum of the downloaded file")
    parser.add_argument("--endpoint", help="mirror of https://huggingface.co")
    arguments = parser.parse_args()
    files = download(arguments.source, arguments.out, arguments.sha256, arguments.endpoint)
    for file in files[:20]:
        print(f"{file.stat().st_size / 2**20:9.2f} MiB  {file}")
    if len(files) > 20:
        print(f"... and {len(files) - 20} more files")
    print(f"made {arguments.out}: {len(files)} files")
    if (arguments.out / "model.safetensors").exists():
        print(
            f"use it: python inference.py checkpoint={arguments.out} data_dir=DIR save_dir=DIR decoder=greedy"
        )


if __name__ == "__main__":
    main()
