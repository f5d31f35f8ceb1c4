"""A speech LLM's text while it is being written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread

import torch
from torch import Tensor

from src.decoding.speech_llm_search import Guard, PromptedModel, SpeechLLMGreedySearch


class _Telling(Guard):
    """Tells what is written so far [u], before each token."""

    def __init__(
        self, model: PromptedModel, limits: Tensor, times: int, tell: Callable[[list[int]], None]
    ) -> None:
        super().__init__(model, limits, times)
        self.tell = tell

    def __call__(self, written: Tensor, scores: Tensor) -> Tensor:
        if written.size(1):
            self.tell(written[0].tolist())
        return super().__call__(written, scores)


def written_so_far(
    search: SpeechLLMGreedySearch, model: PromptedModel, projected: Tensor, lengths: Tensor
) -> Iterator[list[int]]:
    """projected [1, P, H], lengths [1] -> the tokens after each step of a greedy search, and at last those it returns.

    ``generate`` runs in a thread of its own; whoever stops listening stops it, a token later.
    """
    told: SimpleQueue = SimpleQueue()
    limits = search.limits(lengths).clone()
    guard = _Telling(model, limits, search.max_repeats, told.put)

    @torch.inference_mode()
    def write() -> None:
        try:
            told.put(search.written(model, projected, lengths, guard)[0].tokens)
        except BaseException as error:  # it belongs to whoever listens
            told.put(error)
        told.put(None)

    thread = Thread(target=write, daemon=True)
    thread.start()
    try:
        while (news := told.get()) is not None:
            if isinstance(news, BaseException):
                raise news
            yield news
    finally:
        limits.zero_()
        thread.join()
