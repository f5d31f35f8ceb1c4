"""Stages and memory of inference."""

from __future__ import annotations

import json
import shutil

import pytest
from support.families import MODELS, recognizer

from src.datasets import BatchLimits, CustomDirDataset
from src.looking.inference_profiling import profile_inference
from src.utils.errors import UserError
from tests.conftest import ROOT

ALWAYS = {"load audio", "copying", "features", "encoder: rest", "head", "search", "text"}
OF_A_FAMILY = {
    "ctc": set(),
    "rnnt": {"predictor", "joiner"},
    "las": {"speller"},
    "lstm": {"speller", "CTC layer"},
    "cif": {"decoder", "predictor"},
    "compression": {"decoder", "predictor", "CTC layer"},
    "no predictor": {"CTC layer"},
}
LIMITS = BatchLimits(batch_size=2)


@pytest.fixture(scope="module")
def samples():
    return CustomDirDataset(ROOT / "samples")


@pytest.mark.parametrize("family", MODELS)
def test_the_stages_fill_the_time(family, samples):
    result = profile_inference(recognizer(family), samples, LIMITS)
    stages, wall_s = result["stages"], result["wall_s"]
    assert set(stages) == ALWAYS | OF_A_FAMILY[family] and all(stage["s"] > 0 for stage in stages.values())
    total = sum(stage["s"] for stage in stages.values())
    assert 0.5 * wall_s < total <= wall_s + 1e-9 and sum(s["share"] for s in stages.values()) <= 1 + 1e-9
    assert result["audio_s"] == pytest.approx(samples.durations.sum(), rel=1e-4)
    assert (
        result["real_time_factor"] == wall_s / result["audio_s"] > result["real_time_factor_without_loading"]
    )
    assert (result["clips"], result["batches"], result["skipped"]) == (5, 3, 0)
    assert json.loads(json.dumps(result)) == result


def test_memory_is_that_of_the_batch_with_the_longest_clips(samples):
    model = recognizer("ctc").model
    result = profile_inference(recognizer("ctc"), samples, LIMITS)
    second, longest = sorted(samples.durations)[-2:]
    audio, features = 4 * 2 * 16000 * longest, 4 * 2 * 20 * 100 * longest
    both_and_padded = 4 * 16000 * (second + longest) + audio
    assert result["stages"]["load audio"]["tensor_bytes"] == pytest.approx(both_and_padded, rel=0.01)
    assert result["stages"]["features"]["tensor_bytes"] > audio + features
    weights = [*model.parameters(), *model.buffers()]
    memory = result["memory_bytes"]
    assert memory["weights"] == sum(weight.nbytes for weight in weights)
    assert memory["tensors at most"] == max(s["tensor_bytes"] for s in result["stages"].values())
    assert memory["tensors at most"] < memory["peak"]


def test_what_cannot_be_read_is_left_out_and_counted(samples, tmp_path):
    (tmp_path / "audio").mkdir()
    for file in sorted((ROOT / "samples" / "audio").iterdir())[:2]:
        shutil.copy(file, tmp_path / "audio")
    dataset = CustomDirDataset(tmp_path)
    longest = tmp_path / "audio" / f"{dataset.ids[dataset.durations.argmax()]}.flac"
    longest.write_bytes(longest.read_bytes()[:100])
    for batch_size in (1, 2):  # it is a batch of its own, or spoils one
        result = profile_inference(recognizer("ctc"), dataset, BatchLimits(batch_size))
        assert (result["clips"], result["batches"], result["skipped"]) == (1, 1, 1)
        assert result["stages"]["features"]["tensor_bytes"] > 0
    for file in (tmp_path / "audio").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="none of its recordings can be read, e.g. .* is empty"):
        profile_inference(recognizer("ctc"), dataset, LIMITS)


@pytest.mark.parametrize(
    ("said", "error", "line"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", UserError, "lower --batch-size"),
        ("size mismatch", RuntimeError, "size mismatch"),
    ],
    ids=["what does not fit is spoken of", "another error is not taken for it"],
)
def test_what_breaks_while_it_is_watched(said, error, line, samples, monkeypatch):
    def broken(*_):
        raise RuntimeError(said)

    watched = recognizer("ctc")
    monkeypatch.setattr(watched, "listen", broken)
    with pytest.raises(error, match=line):
        profile_inference(watched, samples, LIMITS)
