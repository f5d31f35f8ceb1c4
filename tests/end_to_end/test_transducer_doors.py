"""A transducer behind the doors: its checkpoint, words with times, searches with language models, tuning."""

from __future__ import annotations

import shutil

import pytest
import yaml

from src.checkpoint import Checkpoint
from src.decoding import TransducerBeamSearch
from src.lm import NGramLM, TokenNGramScorer
from src.recognizer import Recognizer
from src.utils.errors import UserError

from .conftest import TINY, TRANSDUCER, door
from .test_doors import spoken_error, texts

SETTINGS = [
    *(setting for setting in TINY if not setting.startswith("optimizer.lr")),
    *TRANSDUCER,
    "model.encoder.dropout=0.0",
    "model.joint_dim=48",
    "model.predictor.dim=48",
    "+model.predictor.dropout=0.0",
    "optimizer.lr=1.0e-2",
]


def train(corpus, save_dir, *settings):
    where = [f"datasets.train.data_dir={corpus}", f"save_dir={save_dir}"]
    return door("train.py", *SETTINGS, *where, *settings)


@pytest.fixture(scope="module")
def rnnt(corpus, tmp_path_factory):
    """A run that has learnt something of the tone corpus: the loss is soon small, sure frames would take longer."""
    save_dir = tmp_path_factory.mktemp("saved_rnnt")
    done = train(corpus, save_dir, "run_name=tones", "trainer.max_steps=200")
    assert "best checkpoint on dev, beam: WER" in done.stdout
    return save_dir / "tones"


@pytest.fixture(scope="module")
def words(corpus, tmp_path_factory):
    lines = [text.lower() for text in texts(corpus / "transcriptions").values()]
    file = tmp_path_factory.mktemp("lm") / "words.safetensors"
    NGramLM.estimate(lines, order=2).save(file)
    return file


def spoken(corpus):
    return {name: text.lower() for name, text in texts(corpus / "transcriptions").items()}


def heard(checkpoint, corpus, *settings):
    """What the recogniser says by file."""
    recognizer = Recognizer.load(checkpoint, *settings)
    names = sorted(spoken(corpus))
    files = [corpus / "audio" / f"{name}.flac" for name in names]
    return dict(zip(names, recognizer.transcribe(files), strict=True))


def test_words_have_times_and_confidences(rnnt, corpus):
    """Each word is half a second of a tone, and then a tenth of silence."""
    count = 0
    for name, transcript in heard(rnnt, corpus, "beam", "cpu").items():
        seconds = 0.6 * len(spoken(corpus)[name].split())
        assert transcript.text == " ".join(word for word, *_ in transcript.words)
        starts = [start for _, start, _, _ in transcript.words]
        assert starts == sorted(starts)
        for _, start, end, confidence in transcript.words:
            assert 0 <= start < end <= seconds + 0.05 and 0 < confidence <= 1
        count += len(transcript.words)
    assert count > 3


def test_a_clip_is_the_same_alone_and_in_a_batch(rnnt, corpus):
    files = sorted((corpus / "audio").glob("*.flac"))
    recognizer = Recognizer.load(rnnt, decoder="beam", device="cpu")
    alone = [recognizer.transcribe([file])[0] for file in files]
    for ours, theirs in zip(recognizer.transcribe(files, batch_size=8), alone, strict=True):
        assert ours.text == theirs.text and ours.hypotheses[0].score == pytest.approx(
            theirs.hypotheses[0].score, abs=1e-4
        )


def test_the_decoders_for_any_checkpoint_are_for_this_family_too(rnnt, corpus, words, tmp_path):
    copied = tmp_path / "beam_word_lm.yaml"
    copied.write_text(
        open("src/configs/extra_decoders/beam_word_lm.yaml")
        .read()
        .replace("data/lm/words.safetensors", str(words))
    )
    where = [f"checkpoint={rnnt}", f"data_dir={corpus}", "num_workers=0"]
    door("inference.py", *where, f"save_dir={tmp_path / 'lm'}", f"decoder={copied}", "+search.beam_size=3")
    expected = heard(rnnt, corpus, str(copied), "cpu", {"beam_size": 3})
    assert texts(tmp_path / "lm") == {name: transcript.text for name, transcript in expected.items()}
    assert all("scorers" in transcript.hypotheses[0].parts for transcript in expected.values())
    search = Checkpoint.open(rnnt).search(str(copied))
    assert isinstance(search, TransducerBeamSearch) and (search.beam_size, search.beam_threshold) == (4, 7)
    door("inference.py", *where, f"save_dir={tmp_path / 'hot'}", "decoder=beam_hotwords")
    assert texts(tmp_path / "hot").keys() == spoken(corpus).keys()


def test_a_decoder_of_another_family_is_one_line(rnnt, corpus, tmp_path):
    decoder = tmp_path / "ctc.yaml"
    for content in (
        {"_target_": "src.decoding.CTCBeamSearch"},
        {
            "_target_": "src.decoding.NBestRescoring",
            "search": {"_target_": "src.decoding.CTCBeamSearch"},
            "scorers": [],
        },
    ):
        decoder.write_text(yaml.safe_dump(content))
        where = [f"checkpoint={rnnt}", f"data_dir={corpus}", f"save_dir={tmp_path / 'out'}", "num_workers=0"]
        line = spoken_error("inference.py", *where, f"decoder={decoder}")
        assert "CTCBeamSearch is no search for a TransducerModel" in line


def test_a_search_that_the_checkpoint_lacks_or_may_not_have(rnnt, words, tmp_path):
    decoder = tmp_path / "mine.yaml"
    decoder.write_text("search_of_checkpoint: beem\n")
    with pytest.raises(UserError, match="search_of_checkpoint='beem' is none of .*, which has: beam, greedy"):
        Checkpoint.open(rnnt).search(str(decoder))
    checkpoint = shutil.copytree(Checkpoint.open(rnnt).path, tmp_path / "checkpoint")
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    scorer = {"_target_": "src.lm.WordNGramScorer", "lm": str(words)}
    config["decoders"]["beam"]["scorers"] = [[scorer, 0.5]]
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    decoder.write_text("search_of_checkpoint: beam\n")
    with pytest.raises(UserError, match="'src.lm.WordNGramScorer' is not a class that"):
        Checkpoint.open(checkpoint).search(str(decoder))


def test_tuning_finds_weights_for_its_beam(rnnt, corpus, words, tmp_path):
    out = tmp_path / "tuned.yaml"
    grid = ["--weights", "0", "0.3", "--bonuses", "0", "--out", out]
    done = door("scripts/tune_fusion.py", rnnt, corpus, "--words", words, *grid)
    assert "without the language model: WER" in done.stdout
    settings = yaml.safe_load(out.read_text())
    assert settings["_target_"] == "src.decoding.TransducerBeamSearch" and settings["beam_size"] == 4
    where = [f"checkpoint={rnnt}", f"data_dir={corpus}", f"save_dir={tmp_path / 'texts'}", "num_workers=0"]
    door("inference.py", *where, f"decoder={out}")
    done = door(
        "calc_metrics.py", "--references", corpus / "transcriptions", "--predictions", tmp_path / "texts"
    )
    (summary,) = [line for line in out.read_text().splitlines() if line.startswith("# WER")]
    assert done.stdout.splitlines()[0] in summary  # tuning saw what inference does


def test_a_token_model_in_its_beam(rnnt, corpus):
    text_encoder = Checkpoint.open(rnnt).text_encoder()
    lines = [
        " ".join(text_encoder.tokens[i] for i in text_encoder.encode(t)) for t in spoken(corpus).values()
    ]
    scorer = TokenNGramScorer(
        NGramLM.estimate([*lines, " ".join(text_encoder.tokens[1:])], order=3), text_encoder.tokens
    )
    for transcript in heard(rnnt, corpus, "beam", "cpu", {"scorers": [(scorer, 0.3)]}).values():
        assert transcript.hypotheses[0].parts["scorers"] < 0
