"""Asking a hub of models, or its cache, for what ``transformers`` loads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from src.utils.errors import UserError
from src.utils.extras import speech_llm_package


@contextmanager
def asking_the_hub(source: str | None) -> Iterator[None]:
    """While a hub id or a folder is read (None: neither) the hub's client tells nobody of its retries.

    Raises ``UserError`` for a folder that is not there, and for a hub that can neither be reached nor is in the cache.

    >>> with asking_the_hub("./does/not/exist"):
    ...     pass
    Traceback (most recent call last):
    ...
    src.utils.errors.UserError: ./does/not/exist: there is no such folder; give one, or a hub id (owner/name)
    """
    is_folder = source is None or os.path.isdir(source)
    if not is_folder and (source.startswith(("/", ".", "~")) or source.count("/") > 1):
        raise UserError(f"{source}: there is no such folder; give one, or a hub id (owner/name)")
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:
        if is_folder or not _is_unreachable(error):
            raise
        raise UserError(
            f"{source}: not in the cache, and no connection to the hub; connect once, or give a folder that holds it"
        ) from None
    finally:
        logger.setLevel(before)


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether it, or what it came of, is the client's way to say that nothing was found without a connection."""
    errors = speech_llm_package("huggingface_hub").errors
    kinds = errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False
