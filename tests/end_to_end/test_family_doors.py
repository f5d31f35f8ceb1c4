"""Transducers and attention models behind the doors: checkpoints, words with times, searches with language models,
tuning, pictures; and what every family makes of nothing."""

from __future__ import annotations

import json
import shutil

import matplotlib.image
import numpy as np
import pytest
import yaml

from src.checkpoint import Checkpoint
from src.datasets.audio_io import load_audio
from src.lm import NGramLM, TokenNGramScorer
from src.recognizer import Recognizer
from src.utils.errors import UserError

from .conftest import LAS, PARAFORMER, TINY, TRANSDUCER, door
from .test_doors import spoken_error, texts

FAMILIES = {
    "transducer": [
        *TRANSDUCER,
        "model.joint_dim=48",
        "model.predictor.dim=48",
        "+model.predictor.dropout=0.0",
        "optimizer.lr=1.0e-2",
    ],
    "las": [*LAS, "model.speller.dropout=0.0"],
    "paraformer, cif": [*PARAFORMER, "model.decoder.dropout=0.0"],
    "paraformer, ctc": [*PARAFORMER, "model/predictor=ctc", "model.decoder.dropout=0.0"],
}
MODEL = {"transducer": "TransducerModel", "las": "LASModel", "paraformer": "ParaformerModel"}
SEARCH = {
    "transducer": {"_target_": "src.decoding.TransducerBeamSearch", "beam_size": 4, "beam_threshold": 5},
    "las": {
        "_target_": "src.decoding.AttentionBeamSearch",
        "beam_size": 8,
        "ctc_weight": 0.3,
        "beam_threshold": 10,
    },
    "paraformer": {"_target_": "src.decoding.ParaformerBeamSearch", "beam_size": 8, "ctc_weight": 0.3},
}


def kind(family: str) -> str:
    """Without the variant."""
    return family.split(",")[0]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def run(family, corpus, tmp_path_factory):
    """A run that has learnt something of the tone corpus: the loss is soon small, sure frames would take longer."""
    save_dir = tmp_path_factory.mktemp("saved")
    steps = ["trainer.max_steps=200", "trainer.evaluate_every_steps=200", "writer=[local]"]
    where = [f"datasets.train.data_dir={corpus}", f"save_dir={save_dir}", "run_name=tones"]
    done = door("train.py", *TINY, *FAMILIES[family], "model.encoder.dropout=0.0", *steps, *where)
    assert "best checkpoint on dev, beam: WER" in done.stdout and "decoder=beam" in done.stdout
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


def test_words_have_times_and_confidences(run, corpus):
    """Each word is half a second of a tone, and then a tenth of silence."""
    count = 0
    for name, transcript in heard(run, corpus, "beam", "cpu").items():
        seconds = 0.6 * len(spoken(corpus)[name].split())
        assert transcript.text == " ".join(word for word, *_ in transcript.words)
        starts = [start for _, start, _, _ in transcript.words]
        assert starts == sorted(starts)
        for _, start, end, confidence in transcript.words:
            assert 0 <= start < end <= seconds + 0.05 and 0 < confidence <= 1
        count += len(transcript.words)
    assert count > 3


def test_a_clip_is_the_same_alone_and_in_a_batch(run, corpus):
    """Beside clips of other lengths, and beside one of four times the longest."""
    files = sorted((corpus / "audio").glob("*.flac"))
    clips = [load_audio(file) for file in files]
    clips.append(np.tile(max(clips, key=len), 4))
    for decoder in Checkpoint.open(run).config["decoders"]:
        recognizer = Recognizer.load(run, decoder, device="cpu")
        alone = [recognizer.transcribe([clip])[0] for clip in clips]
        for ours, theirs in zip(recognizer.transcribe(clips, batch_size=len(clips)), alone, strict=True):
            assert ours.text == theirs.text and ours.hypotheses[0].score == pytest.approx(
                theirs.hypotheses[0].score, abs=1e-4
            )


def test_the_decoders_for_any_checkpoint_are_for_this_family_too(family, run, corpus, words, tmp_path):
    copied = tmp_path / "beam_word_lm.yaml"
    copied.write_text(
        open("src/configs/extra_decoders/beam_word_lm.yaml")
        .read()
        .replace("data/lm/words.safetensors", str(words))
    )
    where = [f"checkpoint={run}", f"data_dir={corpus}", "num_workers=0"]
    door("inference.py", *where, f"save_dir={tmp_path / 'lm'}", f"decoder={copied}", "+search.beam_size=3")
    expected = heard(run, corpus, str(copied), "cpu", {"beam_size": 3})
    assert texts(tmp_path / "lm") == {name: transcript.text for name, transcript in expected.items()}
    assert all("scorers" in transcript.hypotheses[0].parts for transcript in expected.values())
    search = Checkpoint.open(run).search(str(copied))
    kept = {name: value for name, value in SEARCH[kind(family)].items() if name != "_target_"}
    assert f"src.decoding.{type(search).__name__}" == SEARCH[kind(family)]["_target_"]
    assert {name: getattr(search, name) for name in kept} == kept
    door("inference.py", *where, f"save_dir={tmp_path / 'hot'}", "decoder=beam_hotwords")
    assert texts(tmp_path / "hot").keys() == spoken(corpus).keys()


def test_a_decoder_of_another_family_is_one_line(family, run, corpus, tmp_path):
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
        where = [f"checkpoint={run}", f"data_dir={corpus}", f"save_dir={tmp_path / 'out'}", "num_workers=0"]
        line = spoken_error("inference.py", *where, f"decoder={decoder}")
        assert f"CTCBeamSearch is no search for a {MODEL[kind(family)]}" in line


def test_a_search_that_the_checkpoint_lacks_or_may_not_have(run, words, tmp_path):
    decoder = tmp_path / "mine.yaml"
    decoder.write_text("search_of_checkpoint: beem\n")
    with pytest.raises(UserError, match="search_of_checkpoint='beem' is none of .*, which has: beam, greedy"):
        Checkpoint.open(run).search(str(decoder))
    checkpoint = shutil.copytree(Checkpoint.open(run).path, tmp_path / "checkpoint")
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    scorer = {"_target_": "src.lm.WordNGramScorer", "lm": str(words)}
    config["decoders"]["beam"]["scorers"] = [[scorer, 0.5]]
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    decoder.write_text("search_of_checkpoint: beam\n")
    with pytest.raises(UserError, match="'src.lm.WordNGramScorer' is not a class that"):
        Checkpoint.open(checkpoint).search(str(decoder))


def test_tuning_finds_weights_for_its_beam(family, run, corpus, words, tmp_path):
    out = tmp_path / "tuned.yaml"
    grid = ["--weights", "0", "0.3", "--bonuses", "0", "--out", out]
    done = door("scripts/tune_fusion.py", run, corpus, "--words", words, *grid)
    assert "without the language model: WER" in done.stdout
    settings = yaml.safe_load(out.read_text())
    assert settings.items() >= SEARCH[kind(family)].items()
    where = [f"checkpoint={run}", f"data_dir={corpus}", f"save_dir={tmp_path / 'texts'}", "num_workers=0"]
    door("inference.py", *where, f"decoder={out}")
    done = door(
        "calc_metrics.py", "--references", corpus / "transcriptions", "--predictions", tmp_path / "texts"
    )
    (summary,) = [line for line in out.read_text().splitlines() if line.startswith("# WER")]
    assert done.stdout.splitlines()[0] in summary  # tuning saw what inference does


def test_a_token_model_in_its_beam(run, corpus):
    text_encoder = Checkpoint.open(run).text_encoder()
    lines = [
        " ".join(text_encoder.tokens[i] for i in text_encoder.encode(t)) for t in spoken(corpus).values()
    ]
    scorer = TokenNGramScorer(
        NGramLM.estimate([*lines, " ".join(text_encoder.tokens[1:])], order=3), text_encoder.tokens
    )
    for transcript in heard(run, corpus, "beam", "cpu", {"scorers": [(scorer, 0.3)]}).values():
        assert transcript.hypotheses[0].parts["scorers"] < 0


def test_the_samples_page_shows_where_an_attention_model_looked(family, run):
    """Below the spectrogram, token by token: such a picture is higher than that of a training clip."""
    lines = (run / "samples" / "entries.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]

    def height(image):
        return len(matplotlib.image.imread(run / "samples" / image))

    (plain,) = {height(entry["image"]) for entry in entries if "image" in entry}
    shown = [height(row["image"]) for entry in entries for row in entry.get("rows", [])]
    assert len(shown) > 1
    assert all(rows > plain for rows in shown) if family == "las" else set(shown) == {plain}


def assert_hears_nothing(checkpoint):
    """And of less than a frame, and of one of the encoder's."""
    empty, silence = np.zeros(0, np.float32), np.zeros(16000, np.float32)
    click, blip = np.full(40, 0.5, np.float32), silence[:700]
    for decoder in Checkpoint.open(checkpoint).config["decoders"]:
        recognizer = Recognizer.load(checkpoint, decoder, "cpu")
        heard = recognizer.transcribe([silence, empty, click, blip])
        assert all(nothing.text == "" and nothing.words == [] for nothing in heard[1:3])
        assert all(0 <= start < end <= 1.05 for _, start, end, _ in heard[0].words)
        for recording, together in zip((silence, empty, click, blip), heard, strict=True):
            (alone,) = recognizer.transcribe([recording])
            assert alone.text == together.text
            assert alone.hypotheses[0].score == pytest.approx(together.hypotheses[0].score, abs=1e-4)


def test_silence_and_nothing_at_all_are_heard_by_every_search(run):
    assert_hears_nothing(run)


def test_silence_and_nothing_at_all_are_heard_by_every_ctc_search(run_folder):
    assert_hears_nothing(run_folder)
