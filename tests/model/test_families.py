"""What every family can learn, and what it cannot: texts that are said, and texts that nothing says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.decoding import (
    AttentionBeamSearch,
    AttentionGreedySearch,
    CTCBeamSearch,
    CTCGreedySearch,
    ParaformerBeamSearch,
    ParaformerGreedySearch,
    SpeechLLMBeamSearch,
    SpeechLLMGreedySearch,
    TransducerBeamSearch,
    TransducerGreedySearch,
)
from src.loss import (
    AnswerObjective,
    AttentionObjective,
    CTCObjective,
    ParaformerObjective,
    TransducerObjective,
)
from src.metrics import corpus_error_rates
from src.model import (
    CTCModel,
    LASModel,
    LSTMPredictor,
    ParaformerModel,
    ParallelDecoder,
    SpeechLLM,
    SpeechModel,
    StatelessPredictor,
    TransducerModel,
)
from src.model.encoders import MLPEncoder, PyramidalEncoder
from src.model.projectors import MLPProjector
from src.model.slots import CIFPredictor, CTCCompression
from src.model.spellers import LSTMSpeller, TransformerSpeller
from src.model.writers import CausalLMWriter
from src.transforms import LogMel

V = 6


@dataclass
class Family:
    model: Callable[[nn.Module, nn.Module], SpeechModel]  # of a frontend and an encoder
    objective: Callable[[], nn.Module]
    searches: list[Any]
    steps: int = 400


TRANSDUCER_SEARCHES = [
    TransducerGreedySearch(),
    TransducerBeamSearch(4, beam_threshold=10),
    TransducerGreedySearch(4),
    TransducerBeamSearch(8, max_symbols_per_frame=4),
]
ATTENTION_SEARCHES = [AttentionGreedySearch(), AttentionBeamSearch(4, ctc_weight=0.3, beam_threshold=10)]
PARAFORMER_SEARCHES = [ParaformerGreedySearch(), ParaformerBeamSearch(4, ctc_weight=0.3)]
FAMILIES = {
    "ctc": Family(
        lambda *parts: CTCModel(*parts, V),
        CTCObjective,
        [CTCGreedySearch(), CTCBeamSearch(4)],
    ),
    "transducer, lstm": Family(
        lambda *parts: TransducerModel(*parts, LSTMPredictor(V, 16, dropout=0.0), V, joint_dim=32, ctc=True),
        lambda: TransducerObjective(ctc_weight=0.3),
        TRANSDUCER_SEARCHES,
    ),
    "transducer, stateless": Family(
        lambda *parts: TransducerModel(
            *parts, StatelessPredictor(V, 16, dropout=0.0), V, joint_dim=32, ctc=True
        ),
        lambda: TransducerObjective(ctc_weight=0.3),
        TRANSDUCER_SEARCHES,
    ),
    "las, lstm": Family(  # with its listener: where to look is not to be told from single frames
        lambda frontend, _: LASModel(
            frontend,
            PyramidalEncoder(8, 16, 1, dropout=0.0),
            LSTMSpeller(V, 32, 1, 32, dropout=0.0, sampling=0.1),
            V,
            ctc=True,
        ),
        lambda: AttentionObjective(0.3, label_smoothing=0.0),
        ATTENTION_SEARCHES,
        steps=250,
    ),
    "paraformer, cif": Family(
        lambda *parts: ParaformerModel(
            *parts, CIFPredictor(32), ParallelDecoder(V, 32, 2, 2, dropout=0.0), V
        ),
        lambda: ParaformerObjective(0.3, label_smoothing=0.0),
        PARAFORMER_SEARCHES,
    ),
    "paraformer, ctc": Family(
        lambda *parts: ParaformerModel(
            *parts, CTCCompression(32, V), ParallelDecoder(V, 32, 2, 2, 4, 3, 0.0), V
        ),
        lambda: ParaformerObjective(0.3, label_smoothing=0.0),
        PARAFORMER_SEARCHES,
    ),
    "paraformer, no predictor": Family(
        lambda *parts: ParaformerModel(*parts, None, None, V), ParaformerObjective, PARAFORMER_SEARCHES
    ),
    "las, transformer": Family(
        lambda *parts: LASModel(*parts, TransformerSpeller(V, 32, 2, 2, dropout=0.0), V, ctc=True),
        lambda: AttentionObjective(0.3, label_smoothing=0.0),
        ATTENTION_SEARCHES,
    ),
}
if importlib.util.find_spec("transformers"):
    WRITER = {
        "model_type": "qwen3",
        "vocab_size": V + 2,
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16},
        **{"num_attention_heads": 2, "num_key_value_heads": 2},
    }
    FAMILIES["speech llm"] = Family(  # all of it is trained: a random writer knows nothing to build on
        lambda *parts: SpeechLLM(
            *parts,
            MLPProjector(stack=2, hidden_dim=32),
            CausalLMWriter(config=WRITER),
            V + 2,
            prompt={"before": [V], "after": [V + 1], "end": 0},
            frozen=[],
        ),
        AnswerObjective,
        [SpeechLLMGreedySearch(), SpeechLLMBeamSearch(4)],
    )


def spoken(batch: int, generator: torch.Generator, noise_only: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts of one to four tokens, no two alike in a row, and features [B, 24, 8], six frames a token; or noise."""
    counts = torch.randint(1, 5, (batch,), generator=generator)
    steps = torch.randint(1, V - 1, (batch, 4), generator=generator)
    tokens = 1 + steps.cumsum(1) % (V - 1)
    tokens = torch.where(torch.arange(4) < counts[:, None], tokens, 0)
    features = torch.randn(batch, 24, 8, generator=generator)
    if not noise_only:
        features = 0.1 * features
        said = torch.nn.functional.one_hot(tokens, 8).float() * (tokens > 0).unsqueeze(2)
        features[:, 2::6] += 3 * said
        features[:, 3::6] += 3 * said
    return features, torch.full((batch,), 24), tokens, counts


def trained(
    family: Family, steps: int, clips: Callable[[], tuple[Tensor, Tensor, Tensor, Tensor]]
) -> SpeechModel:
    torch.manual_seed(0)
    model, objective = family.model(LogMel(8), MLPEncoder(8, dim=32, stack=2)), family.objective()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    for _ in range(steps):
        features, lengths, tokens, counts = clips()
        batch = {"tokens": tokens, "token_lengths": counts}
        result = objective(**batch, **model(features, lengths, **batch))
        optimizer.zero_grad()
        (result["loss_sum"] / result["normalizer"]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def error_rate(model: SpeechModel, search: Any, clips: tuple[Tensor, Tensor, Tensor, Tensor]) -> float:
    """Of tokens, of texts that the search finds by itself."""
    features, lengths, tokens, counts = clips
    with torch.no_grad():
        found = search(*model.search_inputs(model(features, lengths)))
    texts = [" ".join(map(str, hypotheses[0].tokens)) for hypotheses in found]
    references = [" ".join(map(str, row[:n].tolist())) for row, n in zip(tokens, counts, strict=True)]
    return corpus_error_rates(references, texts)["wer"]


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def test_it_learns_to_write_what_is_said(family):
    """From clips that are new in every step, and of clips that it never heard."""
    generator = torch.Generator().manual_seed(0)
    model = trained(family, family.steps, lambda: spoken(16, generator, noise_only=False))
    for search in family.searches:
        assert (
            error_rate(model, search, spoken(64, torch.Generator().manual_seed(1), noise_only=False)) < 0.05
        )


def test_one_batch_is_learnt_by_heart(family):
    """Even of noise: there is a way from every target to every weight that it takes."""
    batch = spoken(6, torch.Generator().manual_seed(2), noise_only=True)
    model = trained(family, 300, lambda: batch)
    for search in family.searches:
        if getattr(search, "max_symbols_per_frame", 4) == 1:
            continue  # the loss knows no such limit: it may put two tokens into a frame
        assert error_rate(model, search, batch) == 0


def test_from_pure_noise_it_learns_nothing(family):
    """Whoever saw the targets it is to predict would write them: a leak. Guessing one of four tokens is right at most
    in a quarter of the places, and texts of other lengths are worse."""
    generator = torch.Generator().manual_seed(0)
    model = trained(family, 150, lambda: spoken(16, generator, noise_only=True))
    for search in family.searches:
        assert error_rate(model, search, spoken(64, torch.Generator().manual_seed(1), noise_only=True)) > 0.7


def test_a_ctc_layer_beside_is_asked_where_there_are_texts_to_learn(family):
    torch.manual_seed(0)
    model = family.model(LogMel(8), MLPEncoder(8, dim=32, stack=2))
    if getattr(model, "ctc_head", None) is None:
        return  # there is none beside
    features, lengths, tokens, counts = spoken(2, torch.Generator().manual_seed(0), noise_only=True)
    with_texts, without = model(features, lengths, tokens, token_lengths=counts), model(features, lengths)
    assert with_texts["log_probs"].shape[::2] == (2, V)
    assert {"log_probs", "log_prob_lengths"}.isdisjoint(without)
