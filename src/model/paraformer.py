"""Paraformer (Gao et al., arXiv 2206.08317): hears how many tokens there are, and writes all of them at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.model.parallel_decoder import ParallelDecoder
from src.model.slots.compression import ctc_slots
from src.model.slots.slots import SlotPredictor, Slots
from src.model.speech_model import SpeechModelWithCTC, require_parts
from src.utils.errors import UserError
from src.utils.masks import valid_positions


class ParaformerModel(SpeechModelWithCTC):
    """An encoder, a predictor that makes one slot for each token, and a decoder over the slots.

    In training the decoder passes twice. What it gets wrong in the first pass, which has no gradient, decides how many
    slots show the right token in the second (glancing): ``floor(wrong * sampling_ratio)`` of them, drawn at random. So
    it learns to lean on neighbours that are right, without ever being told what it already hears. Evaluation has the
    first pass alone, in which nothing of a target is seen but its length; by a predictor that aligns the target
    (``CTCCompression``) its alignment, too, so that only a search says what such a model hears.

    Args:
        frontend: audio -> features.
        encoder: features -> encoded; has ``dim`` and ``subsampling_factor``.
        predictor: encoded -> slots. None: nothing predicts, and nothing decodes; the model is its CTC layer, what is
            written in a slot is what CTC hears there, and a greedy search writes what CTC's would.
        decoder: slots -> tokens; has ``dim`` and ``embedding``; None without a predictor.
        vocab_size: V; token 0 is CTC's blank.
        ctc: whether there is a CTC layer on the encoder.
        sampling_ratio: of the second pass; 0: none.

    Raises ``UserError`` for a predictor without a decoder, the other way round, or nothing at all.

    Example:
        >>> from src.model.encoders import MLPEncoder
        >>> from src.model.slots import CIFPredictor
        >>> from src.transforms import LogMel
        >>> parts = MLPEncoder(80, dim=32, stack=4), CIFPredictor(32), ParallelDecoder(29, dim=16, num_layers=1)
        >>> model = ParaformerModel(LogMel(80), *parts, vocab_size=29)
        >>> tokens, lengths = torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1])
        >>> model(torch.randn(2, 100, 80), torch.tensor([100, 50]), tokens, lengths)["slot_log_probs"].shape
        torch.Size([2, 3, 29])
    """

    def __init__(
        self,
        frontend: nn.Module,
        encoder: nn.Module,
        predictor: SlotPredictor | None,
        decoder: ParallelDecoder | None,
        vocab_size: int,
        ctc: bool = True,
        sampling_ratio: float = 0.5,
    ) -> None:
        super().__init__(frontend, encoder)
        if not 0 <= sampling_ratio <= 1:
            raise ValueError(f"sampling_ratio={sampling_ratio}; give a share from 0 to 1")
        self.predictor, self.decoder, self.sampling_ratio = predictor, decoder, sampling_ratio
        if predictor is not None:
            require_parts(predictor=predictor, decoder=decoder)
            self.from_encoder = nn.Linear(encoder.dim, decoder.dim)
            self.from_slots = nn.Linear(encoder.dim, decoder.dim)
        elif decoder is not None or not ctc:
            raise UserError(
                "predictor=null leaves CTC alone; set model/predictor=none, which leaves out the decoder, too, and "
                "model.ctc=true"
            )
        self.ctc_head = nn.Linear(encoder.dim, vocab_size) if ctc else None

    def forward(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        tokens: Tensor | None = None,
        token_lengths: Tensor | None = None,
        **batch,
    ) -> dict[str, Tensor]:
        """features [B, T, F], and for the objective tokens [B, U] and their lengths [B] -> by name:

        encoded [B, T', D], encoded_lengths [B]; with tokens and a CTC layer log_probs [B, T', V] and log_prob_lengths
        [B]; with tokens and a predictor slot_log_probs [B, U, V] (float32), first_tokens [B, U] (what the first pass
        wrote, unless its slots are an alignment of the tokens), where there is a second pass shown [B] (how many right
        tokens it was shown) and, from a predictor that counts, counted [B].
        """
        encoded, encoded_lengths = self.encode(features, feature_lengths)
        outputs = {"encoded": encoded, "encoded_lengths": encoded_lengths}
        if tokens is None:
            return outputs
        outputs |= self.ctc_outputs(encoded, encoded_lengths)
        if self.predictor is None:
            return outputs
        slots = self.predictor(encoded, encoded_lengths, outputs.get("log_probs"), (tokens, token_lengths))
        vectors, *others = self._decoder_inputs(slots, encoded, encoded_lengths)
        glances = self.training and self.sampling_ratio > 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and not glances):
            logits = self.decoder(vectors, *others)
        written = logits[..., 1:].argmax(-1) + 1
        if not slots.aligned:
            outputs["first_tokens"] = written
        if glances:
            vectors, outputs["shown"] = self._glanced(vectors, written, tokens, token_lengths)
            logits = self.decoder(vectors, *others)
        outputs["slot_log_probs"] = logits.float().log_softmax(-1)
        if slots.counted is not None:
            outputs["counted"] = slots.counted
        return outputs

    def _glanced(
        self, vectors: Tensor, written: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """vectors [B, U, D] with the right token's embedding in some places, by what was written [B, U]; and in how
        many [B]."""
        real = valid_positions(token_lengths, tokens.size(1))
        wrong = ((written != tokens) & real).sum(1)
        shown = (wrong * self.sampling_ratio).floor().long()
        order = torch.rand(tokens.shape, device=tokens.device).masked_fill(~real, 2.0).argsort(1).argsort(1)
        here = (order < shown[:, None]).unsqueeze(2)
        return torch.where(here, self.decoder.embedding(tokens).to(vectors.dtype), vectors), shown

    def write(self, encoded: Tensor, encoded_lengths: Tensor) -> tuple[Tensor, Slots]:
        """encoded [B, T', D], encoded_lengths [B] -> log_probs [B, U, V] (float32) of each slot, and the slots."""
        heard = self.ctc_log_probs(encoded)
        if self.predictor is None:
            slots = ctc_slots(heard, encoded_lengths)
            return slots.vectors.float().log(), slots
        slots = self.predictor(encoded, encoded_lengths, heard)
        logits = self.decoder(*self._decoder_inputs(slots, encoded, encoded_lengths))
        return logits.float().log_softmax(-1), slots

    def looked(self, slots: Slots, encoded: Tensor, encoded_lengths: Tensor) -> Tensor:
        """The slots that ``write`` returned -> where the decoder's heads look for each, [B, H, U, T']; there must be a
        decoder."""
        return self.decoder.looked(*self._decoder_inputs(slots, encoded, encoded_lengths))

    def _decoder_inputs(
        self, slots: Slots, encoded: Tensor, encoded_lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.from_slots(slots.vectors), slots.lengths, self.from_encoder(encoded), encoded_lengths

    def search_inputs(self, outputs: dict[str, Tensor]) -> tuple[ParaformerModel, Tensor, Tensor]:
        """The model, encoded [B, T', D] and encoded_lengths [B]."""
        return self, outputs["encoded"], outputs["encoded_lengths"]
