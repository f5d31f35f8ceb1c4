"""From a folder to a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from src.utils.errors import UserError
from src.utils.files import files_below

OF_TRAINING = "training"  # below a run's checkpoint


def push(
    folder: Path, repository: str, message: str, private: bool = False, endpoint: str | None = None
) -> str:
    """Makes the repository where there is none, and puts the folder's files into it with one commit.

    Args:
        folder: hidden files in it stay where they are, and so does ``training/``, which only resuming needs.
        repository: ``owner/name``, of models.
        message: of the commit.
        private: whether nobody else sees it, if it is made now.
        endpoint: a mirror of https://huggingface.co.

    The token is ``HF_TOKEN``, or that of ``hf auth login``. Returns the commit's address. Raises ``UserError`` for a
    folder without files, no token, and whatever the hub refuses.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi, get_token
    except ImportError:
        raise UserError(f"{repository}: the hub needs a package; pip install huggingface_hub") from None
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"{repository}: a hub repository is named owner/name")
    files = [file for file in files_below(folder) if file.relative_to(folder).parts[0] != OF_TRAINING]
    if not files:
        raise UserError(f"{folder}: holds no files; give a checkpoint directory")
    if get_token() is None:
        raise UserError(f"{repository}: no token; set HF_TOKEN to one that may write, or run: hf auth login")
    api = HfApi(endpoint=endpoint)
    additions = [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return api.create_commit(repository, additions, commit_message=message).commit_url
    # The hub's client passes on what its HTTP library and the disk raise.
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = {
            401: "set HF_TOKEN to a token that is valid",
            403: "use a token that may write there",
        }.get(status, "check the name and the connection, and run again")
        raise UserError(f"{repository}: not taken by the hub ({reason}); {remedy}") from None
