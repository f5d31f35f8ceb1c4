"""-cn=lm: the same trainer on text, and what it makes in a search."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import yaml

from src.checkpoint import Checkpoint
from src.decoding import NBestRescoring
from src.lm import LSTMLanguageModel
from src.metrics import corpus_error_rates
from src.recognizer import Recognizer
from src.trainer.initialise import initialise_from
from src.utils.errors import UserError

from .conftest import door
from .test_doors import spoken_error, texts

SMALL = [
    "-cn=lm",
    "model.dim=24",
    "model.num_layers=1",
    "writer=[local]",
    "num_workers=0",
    "batching.batch_size=4",
    "trainer.ema_decay=null",
    "optimizer.lr=2e-2",
    "trainer.max_epochs=null",
]


@pytest.fixture(scope="module")
def lm_run(corpus, tmp_path_factory):
    save_dir = tmp_path_factory.mktemp("saved")
    where = [f"save_dir={save_dir}", f"datasets.train.texts={corpus}", f"datasets.dev.texts={corpus}"]
    done = door("train.py", *SMALL, *where, "trainer.max_steps=60", "trainer.evaluate_every_steps=20")
    scores = [float(score) for score in re.findall(r"perplexity ([\d.]+)", done.stdout)]
    assert scores[0] > scores[-1] and scores[-1] < 10  # of 29 tokens
    assert "8 lines" in done.stdout
    return save_dir / "lm"


def test_a_killed_run_goes_on(lm_run, corpus):
    where = [f"save_dir={lm_run.parent}", f"datasets.train.texts={corpus}", f"datasets.dev.texts={corpus}"]
    done = door("train.py", *SMALL, *where, "trainer.max_steps=70", "trainer.resume_from=auto")
    assert "going on from step 60" in done.stdout


def test_it_serves_in_a_beam_and_for_rescoring(lm_run, run_folder, corpus, tmp_path):
    assert isinstance(Checkpoint.open(lm_run).model(LSTMLanguageModel), LSTMLanguageModel)
    scorers = [[{"_target_": "src.lm.NeuralScorer", "lm": str(lm_run)}, 0.3]]
    beam = {"_target_": "src.decoding.CTCBeamSearch", "beam_size": 4}
    for name, settings in {
        "fused": {**beam, "scorers": scorers},
        "rescored": {"_target_": "src.decoding.NBestRescoring", "search": beam, "scorers": scorers},
    }.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        where = [f"checkpoint={run_folder}", f"data_dir={corpus}", f"save_dir={tmp_path / name}"]
        door("inference.py", *where, f"decoder={file}", "num_workers=0")
        heard = texts(tmp_path / name)
        assert heard == {i: text.lower() for i, text in texts(corpus / "transcriptions").items()}
    assert isinstance(Checkpoint.open(run_folder).search(str(tmp_path / "rescored.yaml")), NBestRescoring)


@pytest.mark.parametrize("point", [("0.3", "0"), ("2", "25")])
def test_tuned_rescoring_is_what_inference_then_does(lm_run, run_folder, corpus, tmp_path, point):
    out = tmp_path / "rescored.yaml"
    given = [
        "--rescore",
        lm_run,
        "--search",
        "beam",
        "--weights",
        point[0],
        "--bonuses",
        point[1],
        "--out",
        out,
    ]
    door("scripts/tune_fusion.py", run_folder, corpus, *given)
    where = [f"checkpoint={run_folder}", f"data_dir={corpus}", f"save_dir={tmp_path / 'texts'}"]
    door("inference.py", *where, f"decoder={out}", "num_workers=0")
    heard, said = texts(tmp_path / "texts"), texts(corpus / "transcriptions")
    rates = corpus_error_rates([said[name].lower() for name in said], [heard[name] for name in said])
    tuned = json.loads(out.with_suffix(".json").read_text())["best"]
    assert (rates["wer"], rates["cer"]) == (tuned["wer"], tuned["cer"])
    assert (rates["wer"] == 0) == (point[1] == "0")


def test_it_is_no_recogniser_and_takes_no_other_tokens(lm_run, run_folder, corpus, tmp_path):
    error = spoken_error("inference.py", f"checkpoint={lm_run}", f"data_dir={corpus}", f"save_dir={tmp_path}")
    assert "is a language model, which hears nothing" in error
    with pytest.raises(UserError, match="holds a LSTMLanguageModel, and a SpeechModel is needed"):
        Checkpoint.open(lm_run).model()
    other = shutil.copytree(Checkpoint.open(lm_run).path, tmp_path / "other")
    tokens = (other / "tokenizer.txt").read_text(encoding="utf-8")
    (other / "tokenizer.txt").write_text(tokens.replace("'\n", "é\n"), encoding="utf-8")
    settings = {
        "_target_": "src.decoding.CTCBeamSearch",
        "scorers": [[{"_target_": "src.lm.NeuralScorer"}, 0.3]],
    }
    settings["scorers"][0][0]["lm"] = str(other)
    file = tmp_path / "beam.yaml"
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="its tokens are not the recogniser's"):
        Recognizer.load(run_folder, decoder=str(file))


@pytest.mark.parametrize(
    "overrides,message",
    [
        (["datasets.train.texts=/nowhere"], "/nowhere: no text here"),
        (["datasets.train.texts=[]"], "no texts are given"),
    ],
)
def test_texts_that_are_not_there(corpus, tmp_path, overrides, message):
    where = [f"save_dir={tmp_path}", f"datasets.train.texts={corpus}", f"datasets.dev.texts={corpus}"]
    assert message in spoken_error("train.py", *SMALL, "trainer.max_steps=1", *where, *overrides)


def test_models_and_data_that_do_not_fit_each_other(corpus, tmp_path):
    where = [f"save_dir={tmp_path}", "writer=[none]", "trainer.max_steps=1"]
    folders = [f"datasets.{part}.data_dir={corpus}" for part in ("train", "dev")]
    error = spoken_error("train.py", "-cn=lm", *where, "datasets=folders", *folders)
    assert "a LSTMLanguageModel learns from texts (datasets=texts)" in error
    lines = [f"datasets.{part}.texts={corpus}" for part in ("train", "dev")]
    error = spoken_error("train.py", "-cn=conformer_ctc", "run_name=x", *where, "datasets=texts", *lines)
    assert "a CTCModel learns from recordings" in error


def test_another_size_is_not_started_from(lm_run, corpus, tmp_path):
    where = [f"save_dir={tmp_path}", f"datasets.train.texts={corpus}", f"datasets.dev.texts={corpus}"]
    small = [*SMALL, "trainer.max_steps=1"]
    assert "all its tensors taken" in door("train.py", *small, *where, f"trainer.init_from={lm_run}").stdout
    error = spoken_error(
        "train.py", *small, *where, "run_name=b", f"trainer.init_from={lm_run}", "model.dim=16"
    )
    assert "its language model is another one (dim=24)" in error


def test_with_other_tokens_its_recurrence_is_taken(lm_run):
    model = LSTMLanguageModel(vocab_size=29, dim=24, num_layers=1)
    config = {**Checkpoint.open(lm_run).config["model"], "vocab_size": 29}
    other = SimpleNamespace(tokens=[f"piece{number}" for number in range(29)])
    line = initialise_from(model, str(lm_run), other, config)
    assert line.endswith("4 tensors taken, 2 start anew because the tokens differ (bias, embedding)")
    theirs = Checkpoint.open(lm_run).weights()
    assert (model.lstm.weight_hh_l0 == theirs["lstm.weight_hh_l0"]).all()
    assert not (model.embedding.weight == theirs["embedding.weight"]).all()
