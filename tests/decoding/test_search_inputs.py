"""What goes into a search: one policy for all of them."""

from __future__ import annotations

import importlib.util
import math
import warnings

import pytest
import torch
from torch import Tensor

from src.decoding import (
    AttentionBeamSearch,
    AttentionGreedySearch,
    CTCBeamSearch,
    CTCGreedySearch,
    LengthBonus,
    ParaformerBeamSearch,
    ParaformerGreedySearch,
    ParaformerSamplingSearch,
    SpeechLLMBeamSearch,
    SpeechLLMGreedySearch,
    SpeechLLMSamplingSearch,
    TransducerBeamSearch,
    TransducerGreedySearch,
)
from src.model import (
    LASModel,
    LSTMPredictor,
    ParaformerModel,
    ParallelDecoder,
    SpeechLLM,
    SpeechModel,
    TransducerModel,
)
from src.model.encoders import MLPEncoder
from src.model.projectors import MLPProjector
from src.model.slots import CIFPredictor, CTCCompression
from src.model.spellers import LSTMSpeller, TransformerSpeller
from src.model.writers import CausalLMWriter
from src.transforms import LogMel
from src.utils.errors import UserError

D, V = 6, 5


def transducer() -> SpeechModel:
    torch.manual_seed(0)
    return TransducerModel(
        LogMel(8), MLPEncoder(8, dim=D, stack=2), LSTMPredictor(V, 4), V, joint_dim=D
    ).eval()


def las(speller: type) -> SpeechModel:
    torch.manual_seed(0)
    return LASModel(LogMel(8), MLPEncoder(8, dim=D, stack=2), speller(V, 8), V, ctc=True).eval()


def paraformer(slots: type) -> SpeechModel:
    torch.manual_seed(0)
    parts = MLPEncoder(8, dim=D, stack=2), CIFPredictor(D) if slots is CIFPredictor else slots(D, V)
    return ParaformerModel(LogMel(8), *parts, ParallelDecoder(V, dim=8, num_layers=1), V).eval()


def speech_llm() -> SpeechModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": V, "hidden_size": D, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": D}
    writer = CausalLMWriter(
        config={"model_type": "qwen3", **sizes, "num_attention_heads": 1, "num_key_value_heads": 1}
    )
    prompt = {"before": [1], "after": [2], "end": 0}
    parts = LogMel(8), MLPEncoder(8, dim=D, stack=2), MLPProjector(stack=1, hidden_dim=8), writer
    return SpeechLLM(*parts, V, prompt).eval()


SCORERS = [(LengthBonus(V), 0.5)]
SEARCHES = {
    "ctc greedy": (CTCGreedySearch(), None),
    "ctc beam": (CTCBeamSearch(4), None),
    "ctc beam, scorers": (CTCBeamSearch(4, scorers=SCORERS), None),
    "ctc beam, folding": (CTCBeamSearch(4, fold_sure=0.9), None),
    "transducer greedy": (TransducerGreedySearch(), transducer()),
    "transducer beam": (TransducerBeamSearch(4), transducer()),
    "transducer beam, scorers": (TransducerBeamSearch(4, scorers=SCORERS, beam_threshold=5.0), transducer()),
    "attention greedy, lstm": (AttentionGreedySearch(), las(LSTMSpeller)),
    "attention greedy, transformer": (AttentionGreedySearch(), las(TransformerSpeller)),
    "attention beam, lstm": (AttentionBeamSearch(4), las(LSTMSpeller)),
    "attention beam, transformer": (AttentionBeamSearch(4), las(TransformerSpeller)),
    "attention beam, ctc and all": (
        AttentionBeamSearch(
            4, 0.4, SCORERS, 1.0, 5.0, length_normalization=1.0, coverage_weight=0.1, end_threshold=1.5
        ),
        las(LSTMSpeller),
    ),
    "paraformer greedy, cif": (ParaformerGreedySearch(), paraformer(CIFPredictor)),
    "paraformer greedy, ctc": (ParaformerGreedySearch(), paraformer(CTCCompression)),
    "paraformer beam, cif": (ParaformerBeamSearch(4), paraformer(CIFPredictor)),
    "paraformer beam, ctc and all": (ParaformerBeamSearch(4, 0.3, SCORERS), paraformer(CTCCompression)),
    "paraformer sampling": (ParaformerSamplingSearch(), paraformer(CIFPredictor)),
}
if importlib.util.find_spec("transformers"):
    SEARCHES |= {
        "speech llm, greedy": (SpeechLLMGreedySearch(), speech_llm()),
        "speech llm, beam": (SpeechLLMBeamSearch(4), speech_llm()),
        "speech llm, sampling": (SpeechLLMSamplingSearch(), speech_llm()),
    }


@pytest.fixture(params=SEARCHES)
def search(request):
    """(frames [B, T, ...], lengths [B]) -> hypotheses."""
    search, model = SEARCHES[request.param]
    return lambda frames, lengths: search(*(() if model is None else (model,)), frames, torch.tensor(lengths))


@pytest.fixture
def frames(search, request) -> Tensor:
    """Two utterances of three frames, of what the search reads."""
    is_ctc = SEARCHES[request.node.callspec.params["search"]][1] is None
    values = torch.randn(2, 3, V if is_ctc else D, generator=torch.Generator().manual_seed(0))
    return values.log_softmax(-1) if is_ctc else values


def test_a_length_beyond_the_frames_is_named(search, frames):
    with pytest.raises(UserError, match=r"lengths=\[3, 4\] must be at most 3, the number of frames"):
        search(frames, [3, 4])


def test_without_frames_the_text_is_empty(search, frames):
    """And that costs what it costs beside another utterance (encoders leave zeros beyond a clip's end)."""
    frames[1] = 0.0
    (alone,), (_, beside) = search(frames[:1, :0], [0]), search(frames, [3, 0])
    assert alone[0].tokens == [] and alone[0].token_times == [] and math.isfinite(alone[0].score)
    assert [h.tokens for h in alone] == [h.tokens for h in beside]
    assert [h.score for h in alone] == pytest.approx([h.score for h in beside], abs=1e-5)


def test_without_clips_there_is_nothing(search, frames):
    assert search(frames[:0], []) == []


def test_what_is_no_number_is_impossible_and_no_other_utterance_hears_of_it(search, frames):
    broken = frames.clone()
    broken[1, 1] = math.nan
    found, whole = search(broken, [3, 3]), search(frames, [3, 3])
    assert [h.score for h in found[1]] == [-math.inf]
    assert found[0] == whole[0]


def test_no_gradients_are_kept(search, frames):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of tensors with gradients that become numbers
        assert search(frames.clone().requires_grad_(), [3, 3]) == search(frames, [3, 3])
