"""From transcripts to a tuned search: train_lm.py, tune_fusion.py, and inference.py with the decoder that it wrote."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from src.checkpoint import Checkpoint
from src.lm import NGramLM
from src.utils.errors import UserError

from .conftest import door
from .test_doors import spoken_error, texts


@pytest.fixture(scope="module")
def words(corpus, tmp_path_factory):
    file = tmp_path_factory.mktemp("lm") / "words.safetensors"
    door("scripts/train_lm.py", corpus / "transcriptions", "--order", "2", "--out", file)
    return file


@pytest.fixture(scope="module")
def tuned(run_folder, corpus, words, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "beam_words.yaml"
    grid = ["--weights", "0", "0.5", "--bonuses", "0", "20", "--beam-size", "4"]
    done = door("scripts/tune_fusion.py", run_folder, corpus, "--words", words, *grid, "--out", out)
    assert "without the language model: WER" in done.stdout and "WER 0.00 %" in done.stdout
    assert "the largest one tried" not in done.stdout
    again = door("scripts/tune_fusion.py", run_folder, corpus, "--words", words, *grid, "--out", out)
    assert "acoustic scores from" in again.stdout
    return out


def test_tuning_writes_a_search_a_table_and_a_picture(tuned, words):
    settings = yaml.safe_load(tuned.read_text())
    (lm, weight), (_, bonus) = settings["scorers"]
    assert lm["lm"] == str(words) and bonus == 0
    table = json.loads(tuned.with_suffix(".json").read_text())
    assert len(table["rows"]) == 4
    by_point = {(row["weight"], row["bonus"]): row["wer"] for row in table["rows"]}
    assert by_point[weight, bonus] == table["best"]["wer"] == min(by_point.values()) < by_point[0, 20]
    assert tuned.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_a_best_point_at_the_edge_of_the_grid_is_said_so(run_folder, corpus, words, tmp_path):
    grid = ["--weights", "0", "--bonuses", "-20", "0", "--beam-size", "4", "--out", tmp_path / "beam.yaml"]
    done = door("scripts/tune_fusion.py", run_folder, corpus, "--words", words, *grid)
    assert "note: the best bonus is the largest one tried" in done.stdout and "best weight" not in done.stdout


def test_inference_takes_the_tuned_search(tuned, run_folder, corpus, tmp_path):
    where = [f"checkpoint={run_folder}", f"data_dir={corpus}", f"save_dir={tmp_path}", "num_workers=0"]
    door("inference.py", *where, f"decoder={tuned}", "+search.beam_size=3")
    assert texts(tmp_path) == {name: text.lower() for name, text in texts(corpus / "transcriptions").items()}
    # Another search under the same name: its texts are not the old ones.
    settings = yaml.safe_load(tuned.read_text())
    settings["scorers"][1][1] = 50.0
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(settings))
    door("inference.py", *where, f"decoder={mine}", "resume=true")
    assert texts(tmp_path) != {name: text.lower() for name, text in texts(corpus / "transcriptions").items()}


def test_texts_of_another_language_model_in_the_same_file_are_not_taken_over(run_folder, corpus, tmp_path):
    lm, decoder, out = tmp_path / "lm.safetensors", tmp_path / "decoder.yaml", tmp_path / "out"
    scorer = {"_target_": "src.lm.WordNGramScorer", "lm": str(lm), "unknown_penalty": -1000.0}
    settings = {"_target_": "src.decoding.CTCBeamSearch", "scorers": [[scorer, 1.0]]}
    decoder.write_text(yaml.safe_dump(settings))
    where = [f"checkpoint={run_folder}", f"data_dir={corpus}", f"save_dir={out}", "num_workers=0"]
    spoken = texts(corpus / "transcriptions").values()
    for known in ({word for text in spoken for word in text.lower().split()}, {"low"}):
        NGramLM.estimate([" ".join(known)], order=1).save(lm)
        door("inference.py", *where, f"decoder={decoder}", "resume=true")
        assert {word for text in texts(out).values() for word in text.split()} <= known


def test_what_tuning_cannot_use_is_named_before_anything_is_heard(run_folder, corpus, words, tmp_path):
    tune = ["scripts/tune_fusion.py", run_folder, corpus, "--words", words, "--out", tmp_path / "beam.yaml"]
    assert "beam_size=0 must be" in spoken_error(*tune, "--beam-size", "0")
    assert "the weight of WordNGramScorer=nan must be a number from -1000000 to 1000000" in spoken_error(
        *tune, "--weights", "nan"
    )
    assert "--search beam: means nothing without --rescore" in spoken_error(*tune, "--search", "beam")
    assert not list(tmp_path.iterdir())
    for name in ("beam.json", "beam.yaml"):
        (tmp_path / name).mkdir()
        assert f"--out {tmp_path / name}: cannot be written" in spoken_error(*tune)


def test_hotwords_are_no_files(run_folder, corpus, tmp_path):
    """The folder of the tests is called so."""
    decoder = tmp_path / "decoder.yaml"
    hotwords = {"_target_": "src.decoding.Hotwords", "phrases": ["tests"]}
    decoder.write_text(
        yaml.safe_dump({"_target_": "src.decoding.CTCBeamSearch", "scorers": [[hotwords, 1.0]]})
    )
    where = [
        f"checkpoint={run_folder}",
        f"data_dir={corpus}",
        f"save_dir={tmp_path / 'out'}",
        "num_workers=0",
    ]
    assert "8 transcripts" in door("inference.py", *where, f"decoder={decoder}").stdout


def test_a_damaged_cache_is_made_anew(run_folder, corpus, words, tmp_path):
    grid = ["--weights", "0", "--bonuses", "0", "--beam-size", "4", "--out", tmp_path / "beam.yaml"]
    tune = ["scripts/tune_fusion.py", run_folder, corpus, "--words", words, *grid]
    door(*tune)
    (cache,) = tmp_path.glob("acoustic_scores_*")
    whole = cache.read_bytes()
    cache.write_bytes(whole[:100])
    assert "acoustic scores from" not in door(*tune).stdout and cache.read_bytes() == whole


@pytest.mark.parametrize(
    "content,message",
    [
        (None, "there is no such file"),
        ("[1, 2]", "has no _target_"),
        ("a: [", "not a YAML file"),
        ("_target_: os.system", "is not a class that"),
        ("{_target_: src.lm.NGramLM, words: []}", "cannot be built"),
        (
            "{_target_: src.decoding.CTCBeamSearch, scorers: [[{_target_: src.lm.WordNGramScorer, lm: no.arpa}, 1]]}",
            "no.arpa: no language model can be read",
        ),
    ],
)
def test_a_decoder_file_that_is_none(run_folder, tmp_path, content, message):
    file = tmp_path / "decoder.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        Checkpoint.open(run_folder).search(str(file))


def test_a_strangers_checkpoint_opens_no_language_model(run_folder, words, tmp_path):
    checkpoint = shutil.copytree(Checkpoint.open(run_folder).path, tmp_path / "checkpoint")
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    scorer = {"_target_": "src.lm.WordNGramScorer", "lm": str(words)}
    config["decoders"]["beam"]["scorers"] = [[scorer, 0.5]]
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="'src.lm.WordNGramScorer' is not a class that"):
        Checkpoint.open(checkpoint).search("beam")


def test_a_model_of_the_wrong_kind_is_refused(run_folder, corpus, words, tmp_path):
    out = tmp_path / "beam.yaml"
    tune = ["scripts/tune_fusion.py", run_folder, corpus, "--out", out]
    assert "train_lm.py --tokens" in spoken_error(*tune, "--tokens", words)
    pieces = tmp_path / "pieces.safetensors"
    door("scripts/train_lm.py", corpus / "transcriptions", "--tokens", run_folder, "--out", pieces)
    assert "is one of tokens (such as '▁')" in spoken_error(*tune, "--words", pieces)
    russian = tmp_path / "ru.safetensors"
    NGramLM.estimate(["привет мир"], order=1).save(russian)
    assert "cannot be written with the tokenizer's letters" in spoken_error(*tune, "--words", russian)
