"""Why a frozen language model can be taught to hear: it has to know how to write, and then a projector is enough."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

from src.decoding import SpeechLLMGreedySearch  # noqa: E402
from src.loss import AnswerObjective  # noqa: E402
from src.metrics import corpus_error_rates  # noqa: E402
from src.model import SpeechLLM  # noqa: E402
from src.model.encoders import MLPEncoder  # noqa: E402
from src.model.projectors import MLPProjector  # noqa: E402
from src.model.writers import CausalLMWriter  # noqa: E402
from src.transforms import LogMel  # noqa: E402

V, END = 8, 0
PROMPT = {"before": [V], "after": [V + 1], "end": END}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}


def texts(batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One to four tokens, no two alike in a row."""
    counts = torch.randint(1, 5, (batch,), generator=generator)
    steps = torch.randint(1, V - 1, (batch, 4), generator=generator)
    tokens = 1 + steps.cumsum(1) % (V - 1)
    return torch.where(torch.arange(4) < counts[:, None], tokens, 0), counts


def shown(tokens: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each token three times: what hears it in three frames."""
    return tokens.repeat_interleave(3, 1), 3 * counts


def untrained(seed: int) -> SpeechLLM:
    torch.manual_seed(seed)
    writer = CausalLMWriter(
        config={
            "model_type": "qwen3",
            "vocab_size": V + 2,
            **SIZES,
            **{"num_attention_heads": 2, "num_key_value_heads": 2},
        }
    )
    parts = LogMel(16), MLPEncoder(16, dim=32, stack=2), MLPProjector(stack=1, hidden_dim=32), writer
    return SpeechLLM(*parts, V + 2, PROMPT)


def taught_to_write(model: SpeechLLM, steps: int) -> SpeechLLM:
    """The writer alone, in the chat's format: repeated tokens in, clean text out."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.writer.parameters():
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.writer.parameters(), lr=3e-3)
    for _ in range(steps):
        tokens, counts = texts(32, generator)
        vectors, lengths = shown(tokens, counts)
        embedded = model.writer.embed(vectors)
        loud = embedded / embedded.square().mean(-1, keepdim=True).sqrt()  # as a projector's last norm has it
        log_probs = model.answer_log_probs(loud, lengths, tokens, counts)
        optimizer.zero_grad()
        (-log_probs["answer_log_probs"].sum() / (counts + 1).sum()).backward()
        optimizer.step()
    for weight in model.writer.parameters():
        weight.requires_grad_(False)
    return model


def spoken(batch: int, generator: torch.Generator):
    """Features [B, 24, 16] that say each token in six frames."""
    tokens, counts = texts(batch, generator)
    said = F.one_hot(tokens, 16).float() * (tokens > 0).unsqueeze(2)
    features = said.repeat_interleave(6, 1) * 3 + 0.3 * torch.randn(batch, 24, 16, generator=generator)
    return features, 6 * counts, tokens, counts


def error_rate_after_training(model: SpeechLLM, steps: int) -> float:
    """Of the projector, between a random encoder and the writer, both frozen."""
    generator, objective = torch.Generator().manual_seed(1), AnswerObjective()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert {id(weight) for weight in trained} == {id(weight) for weight in model.projector.parameters()}
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    model.train()
    for _ in range(steps):
        features, lengths, tokens, counts = spoken(16, generator)
        batch = {"tokens": tokens, "token_lengths": counts}
        losses = objective(**batch, **model(features, lengths, **batch))
        optimizer.zero_grad()
        (losses["loss_sum"] / losses["normalizer"]).backward()
        optimizer.step()
    features, lengths, tokens, counts = spoken(128, torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = SpeechLLMGreedySearch()(*model.eval().search_inputs(model(features, lengths)))
    written = [" ".join(map(str, hypotheses[0].tokens)) for hypotheses in found]
    references = [" ".join(map(str, row[:n].tolist())) for row, n in zip(tokens, counts, strict=True)]
    return corpus_error_rates(references, written)["wer"]


def test_a_projector_is_enough_if_the_writer_can_write():
    able = error_rate_after_training(taught_to_write(untrained(0), 300), 300)
    unable = error_rate_after_training(untrained(0), 300)
    assert able < 0.2 and unable > 0.5
