"""A speech LLM: an encoder listens, a language model writes, and a projector between them is what is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.pretrained import freeze, keep_still
from src.model.projectors.projector import Projector
from src.model.speech_model import SpeechModel
from src.utils.errors import UserError
from src.utils.masks import valid_positions

PARTS = ("encoder", "projector", "writer")


class SpeechLLM(SpeechModel):
    """Encoder, projector, causal language model (the writer).

    The writer reads a chat prompt in which the projected frames stand for ``<audio>``, and answers with the text:
    ``before, projected frames, after | answer, end``. Prompts are made in one place (``prompt``), for training and for
    searches; each clip's is padded on the left, and its positions are counted from its own first token on.

    Args:
        frontend: audio -> features.
        encoder: features -> encoded; has ``dim`` and ``subsampling_factor``.
        projector: encoded -> vectors that the writer reads; its widths are those of its neighbours.
        writer: vectors -> logits of tokens; has ``dim`` and ``vocab_size``.
        vocab_size: tokens of the tokenizer; the writer may know more.
        prompt: ids ``before`` and ``after`` the speech and the ``end`` of an answer, as ``ChatTextEncoder`` has them.
        frozen: which of encoder, projector and writer are not trained (LoRA's matrices are). They stay in eval mode.

    Raises ``UserError`` for parts that do not fit together.
    """

    tells_times = False

    def __init__(
        self,
        frontend: nn.Module,
        encoder: nn.Module,
        projector: Projector,
        writer: nn.Module,
        vocab_size: int,
        prompt: Mapping[str, Any] | None = None,
        frozen: Sequence[str] = ("encoder", "writer"),
    ) -> None:
        super().__init__(frontend, encoder)
        if prompt is None:
            raise UserError(
                "a speech LLM needs a language model's tokenizer and its prompt; use text_encoder=chat"
            )
        if vocab_size > writer.vocab_size:
            raise UserError(
                f"the tokenizer has {vocab_size} tokens, but the writer knows {writer.vocab_size}; use the writer's own"
            )
        if unknown := [name for name in frozen if name not in PARTS]:
            raise UserError(f"frozen: {unknown[0]} is unknown; choose from {', '.join(PARTS)}")
        self.projector, self.writer = projector.connect(encoder.dim, writer.dim), writer
        self.vocab_size, self.end = vocab_size, prompt["end"]
        for name in ("before", "after"):
            self.register_buffer(name, torch.tensor(prompt[name], dtype=torch.long), persistent=False)
        self.frozen = tuple(frozen)
        for name in self.frozen:
            freeze(getattr(self, name))
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        # Small steps would be lost in half precision; autocast computes in it all the same.
        for weight in trained:
            weight.data = weight.data.float()
        if not trained:
            raise UserError(
                f"frozen: {', '.join(self.frozen)}: nothing is left to train; add lora, or leave one out"
            )
        self.train(self.training)

    def train(self, mode: bool = True) -> SpeechLLM:
        """As ``nn.Module.train``, but what is frozen stays in eval mode."""
        super().train(mode)
        for name in PARTS:
            keep_still(getattr(self, name), mode)
        return self

    def forward(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        tokens: Tensor | None = None,
        token_lengths: Tensor | None = None,
        **batch,
    ) -> dict[str, Tensor]:
        """features [B, T, F], and for the objective tokens [B, U] and their lengths [B] -> by name:

        encoded [B, T', D], encoded_lengths [B], projected [B, P, H], projected_lengths [B]; with tokens what
        ``answer_log_probs`` returns; and auxiliary [] in training, from a projector that has such a loss.
        """
        encoded, encoded_lengths = self.encode(features, feature_lengths)
        projected = self.projector(encoded.float(), encoded_lengths)
        outputs = {
            "encoded": encoded,
            "encoded_lengths": encoded_lengths,
            "projected": projected.vectors,
            "projected_lengths": projected.lengths,
        }
        if tokens is not None:
            outputs |= self.answer_log_probs(projected.vectors, projected.lengths, tokens, token_lengths)
            if self.training and projected.auxiliary is not None:
                outputs["auxiliary"] = projected.auxiliary
        return outputs

    def prompt(self, projected: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """projected [B, P, H], lengths [B] -> the prompts' vectors [B, L, H], padded on the left, and which are real
        [B, L]."""
        B, P, _ = projected.shape
        before, after = (self.writer.embed(ids).expand(B, -1, -1) for ids in (self.before, self.after))
        vectors = torch.cat([before, projected.to(before.dtype), after], 1)
        real = F.pad(valid_positions(lengths, P), (before.size(1), after.size(1)), value=True)
        # What is padding comes first, and all else keeps its order.
        order = real.byte().argsort(dim=1, stable=True)
        return vectors.gather(1, order.unsqueeze(2).expand_as(vectors)), real.gather(1, order)

    def looked(self, projected: Tensor, tokens: Tensor) -> Tensor:
        """projected [1, P, H] of one clip, its text [1, U] -> where each layer of the writer looks before it writes a
        token or the end, mean of its heads, [layers, U + 1, P]; what a row lacks to 1 goes to the rest of the chat."""
        P = projected.size(1)
        vectors, real = self.prompt(projected, torch.tensor([P], device=projected.device))
        vectors = torch.cat([vectors, self.writer.embed(tokens)], 1)
        weights = self.writer.looked(
            vectors, F.pad(real, (0, tokens.size(1)), value=True), tokens.size(1) + 1
        )
        return weights[0, :, :, len(self.before) : len(self.before) + P]

    def read_as(self, projected: Tensor) -> Tensor:
        """projected [..., P, H] -> cosines with the embedding of each token of the writer, [..., P, V]."""
        known = torch.arange(self.writer.vocab_size, device=projected.device)
        embeddings = F.normalize(self.writer.embed(known).float(), dim=-1)
        return F.normalize(projected.float(), dim=-1) @ embeddings.T

    def answer_log_probs(
        self, projected: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> dict[str, Tensor]:
        """projected [B, P, H], lengths [B], tokens [B, U], token_lengths [B] -> answer_log_probs [B, U + 1], of each
        token and of the end (0 beyond it), and answer_right [B, U + 1]: where these are the most probable ones."""
        vectors, real = self.prompt(projected, lengths)
        U = tokens.size(1)
        vectors = torch.cat([vectors, self.writer.embed(tokens)], 1)
        real = torch.cat([real, valid_positions(token_lengths, U)], 1)
        logits = self.writer(vectors, real, last=U + 1)
        targets = F.pad(tokens, (0, 1)).scatter(1, token_lengths[:, None], self.end)
        scored = valid_positions(token_lengths + 1, U + 1)
        losses = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
        return {
            "answer_log_probs": torch.where(scored, -losses, 0.0),
            "answer_right": scored & (logits.argmax(-1) == targets),
        }

    def search_inputs(self, outputs: dict[str, Tensor]) -> tuple[SpeechLLM, Tensor, Tensor]:
        """The model, projected [B, P, H] and projected_lengths [B]."""
        return self, outputs["projected"], outputs["projected_lengths"]
