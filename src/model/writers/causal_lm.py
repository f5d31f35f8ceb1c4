"""A causal language model of ``transformers``, which writes after a prompt of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from src.model.pretrained import Pretrained, Source
from src.utils.errors import UserError
from src.utils.extras import speech_llm_package

PADDING_CHANGES = ("recurrent_gemma", "rwkv")  # what they write: they take no notice of masks


class CausalLMWriter(Pretrained):
    """Any class of ``AutoModelForCausalLM`` that takes padding on the left: Qwen2, Qwen3, SmolLM3, Llama, Gemma ...

    Args:
        source: a hub id (``Qwen/Qwen3-0.6B``), or a folder.
        revision: its commit, or the folder's fingerprint; None: what is there now.
        config: instead of a source, ``model_type`` and sizes of a random one.
        dtype: of its weights: float32, bfloat16 or float16.
        lora: see ``Pretrained``.

    Raises ``UserError`` for what cannot be loaded or is no causal language model.
    """

    def __init__(
        self,
        source: str | None = None,
        revision: str | None = None,
        config: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        lora: Mapping[str, Any] | None = None,
    ) -> None:
        transformers = speech_llm_package("transformers")
        names = speech_llm_package("transformers.models.auto.modeling_auto")
        origin = Source(source, revision, config, "writer")
        both_ways = origin.config.model_type in names.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        if origin.config.is_encoder_decoder or (both_ways and not origin.config.is_decoder):
            raise UserError(f"writer: {origin.config.model_type} is no causal language model; choose another")
        if origin.config.model_type in PADDING_CHANGES:
            raise UserError(
                f"writer: {origin.config.model_type} would write other texts in a batch than alone; choose another"
            )
        network = origin.network(transformers.AutoModelForCausalLM, origin.config, dtype)
        network.generation_config = transformers.GenerationConfig()  # a search's settings are all its own
        embeddings = network.get_input_embeddings()  # LoRA beside them would not tell their size
        super().__init__(origin, network, lora)
        self.vocab_size, self.dim = embeddings.num_embeddings, embeddings.embedding_dim

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens [...] -> vectors [..., H], in the writer's dtype."""
        return self.network.get_input_embeddings()(tokens)

    def forward(self, vectors: Tensor, real: Tensor, last: int) -> Tensor:
        """vectors [B, L, H], which of them are real [B, L] -> logits [B, last, V] after each of the ``last`` ones."""
        return self._after(vectors, real, last).logits

    def _after(self, vectors: Tensor, real: Tensor, last: int, **settings: Any) -> Any:
        return self.network(
            inputs_embeds=vectors,
            attention_mask=real.long(),
            position_ids=(real.long().cumsum(1) - 1).clamp_min(0),
            logits_to_keep=last,
            use_cache=False,
            **settings,
        )

    def looked(self, vectors: Tensor, real: Tensor, last: int) -> Tensor:
        """As ``forward`` -> where it looks from each of the ``last`` ones, mean of all heads, [B, layers, last, L].

        Of a network without attention, such as Mamba, there are no layers.
        """
        attention = self.network.config._attn_implementation
        self.network.set_attn_implementation("eager")  # the one that tells
        try:
            outputs = self._after(vectors, real, last, output_attentions=True)
        finally:
            self.network.set_attn_implementation(attention)
        layers = getattr(outputs, "attentions", None)
        if not layers:
            return vectors.new_zeros(len(vectors), 0, last, vectors.size(1))
        return torch.stack([weights[:, :, -last:].float().mean(1) for weights in layers], 1)

    def generate(self, vectors: Tensor, real: Tensor, **settings: Any) -> Tensor:
        """What ``transformers`` generates after vectors [B, L, H], padded on the left: new tokens [B (n), U]."""
        config = speech_llm_package("transformers").GenerationConfig(
            **{name: value for name, value in settings.items() if name != "logits_processor"}
        )
        return self.network.generate(
            inputs_embeds=vectors,
            attention_mask=real.long(),
            generation_config=config,
            logits_processor=settings.get("logits_processor"),
        )
