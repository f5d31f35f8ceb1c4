"""Mistakes in the words after train.py and inference.py, each answered by one line that names it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import train
from src.trainer import build_trainer
from src.utils.build import build
from src.utils.errors import UserError, spoken_errors
from src.utils.hydra_door import compose

from .conftest import ROOT, TINY, door

SAMPLES = f"datasets.train.data_dir={ROOT / 'samples'}"

TRAIN = [
    *[(f"trainer.{name}=abc", f"trainer.{name}=abc must be")
      for name in ("max_steps", "accumulate", "clip_norm", "ema_decay")],
    ("trainer.accumulate=1.5", "trainer.accumulate=1.5 must be"),
    ("trainer.max_steps=1.5", "trainer.max_steps=1.5 must be"),
    ("trainer.log_every_steps=null", "trainer.log_every_steps=null must be"),
    ("trainer.ema_decay=2", "trainer.ema_decay=2 must be"),
    ("trainer.init_from=123", "trainer.init_from=123 must be"),
    ("+trainer.typo=3", "trainer.typo is unknown; choose one of: max_epochs"),
    ("trainer=null", "trainer=null takes the place of several settings; set one of them, such as trainer.max_epochs"),
    ("batching=null", "batching=null takes the place"),
    ("batching=5", "batching=5 takes the place"),
    ("trainer.max_step=5", "did you mean trainer.max_steps?"),
    ("stage=lora", "stage is a group that -cn=one_batch chooses nothing of; to add a choice, write +stage=lora"),
    ("optimiser.lr=1", "optimiser.lr is unknown to -cn=one_batch; did you mean optimizer.lr?"),
    ("model.encoder={odd: 1}", "write '~model.encoder' '+model.encoder=...'"),
    ("+optimiser.lr=1", "optimiser is read by nothing of -cn=one_batch; did you mean optimizer?"),
    ("model=conformer_rnn", "did you mean conformer_rnnt_s? model has: conformer_ctc_l, "),
    ("device=cpu", "device is unknown to -cn=one_batch; did you mean trainer.device?"),
    ("+lr=1", "lr is read by nothing of -cn=one_batch; did you mean optimizer.lr?"),
    ("+nonsense=1", "nonsense is read by nothing of -cn=one_batch; leave it out"),
    ("nonsense.of.mine=1", "nonsense.of.mine is unknown to -cn=one_batch; it has: model, text_encoder"),
    ("datasets.train.data_dir=README.md", "data_dir=README.md is a file; scripts/prepare_folder.py"),
    ("optimizer.learning_rate=1", "optimizer has: _target_, lr, betas"),
    ("batching.typo=3", "max_batch_duration_s, clips_by_length; to add it all the same, write +batching.typo"),
    ("+batching.typo=3", "batching.typo is unknown; choose one of: batch_size, max_batch_duration_s"),
    ("batching.batch_size=abc", "batching.batch_size=abc must be"),
    ("batching.batch_size=-1", "batching.batch_size=-1 must be"),
    ("batching.max_batch_duration_s=abc", "batching.max_batch_duration_s=abc must be"),
    ("seed=abc", "seed=abc must be"),
    ("seed=null", "seed=null must be"),
    ("seed=1e30", "seed=1e+30 must be"),
    ("num_workers=-1", "num_workers=-1 must be"),
    ("run_name=2024", "run_name=2024 must be a text"),
    ("run_name=null", "run_name=null must be"),
    ("run_name=''", "run_name= must be a text that is not empty"),
    ("save_dir=5", "save_dir=5 must be a text"),
    ("trainer.device=mps", "device=mps is unknown"),
    *[(f"{group}=null", group)
      for group in ("optimizer", "lr_scheduler", "writer", "decoders", "objective", "model", "text_encoder",
                    "datasets")],
    ("writer=[]", "writer=null takes the place of several settings"),
    ("optimizer.lr=abc", "AdamW"),
    ("lr_scheduler.warmup=2", "lr_scheduler.warmup=2 must be"),
    ("transforms.waveform=5", "transforms.waveform: 5 is not what is needed"),
    ("datasets.dev=5", "datasets.dev: 5 is not what is needed"),
    ("decoders.greedy=null", "decoders.greedy: null is not what is needed"),
    ("~model._target_", "model: a dict is not what is needed"),
    ("seed=1,2", "a run takes one value of each setting; train.py -m sweeps over several"),
    ("save_dir=/a(b", "quote a value"),
    ("save_dir=a,b", "quote a value"),
    ("save_dir=a=b", "quote a value"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "line"), TRAIN, ids=[word for word, _ in TRAIN])
def test_a_wrong_word_after_train(tmp_path, word, line):
    given = word if word.startswith("save_dir") else f"save_dir={tmp_path}"
    with pytest.raises(UserError) as error:
        build_trainer(compose(TINY[0].removeprefix("-cn="), [*TINY[1:], SAMPLES, given, word]))
    assert line in str(error.value), error.value


INFERENCE = [
    ("batching=null", "batching=null takes the place of several settings"),
    ("search=null", "search=null takes the place of several settings"),
    ("datasets=null", "datasets=null"),
    ("datasets.test=5", "datasets.test=5 takes the place of several settings"),
]


@pytest.mark.parametrize(("word", "line"), INFERENCE, ids=[word for word, _ in INFERENCE])
def test_a_wrong_word_after_inference(word, line):
    with pytest.raises(UserError) as error:
        compose("inference", ["checkpoint=x", "save_dir=y", "data_dir=z", word])
    assert line in str(error.value), error.value


def test_a_config_that_is_not_there_is_told_the_most_similar_training():
    with pytest.raises(UserError, match="no such config; did you mean conformer_rnnt") as error:
        compose("conformer_rnt", [])
    assert "inference" not in str(error.value)


def test_folders_of_inference_are_none_of_a_training():
    line = (
        "-cn=conformer_ctc has no data_dir, .*; datasets=custom_dir is for inference.py, .* datasets=folders"
    )
    with pytest.raises(UserError, match=line):
        compose("conformer_ctc", ["datasets=custom_dir"])


@pytest.mark.parametrize("flag", ["--cfg", "--info"])
def test_a_sweep_has_no_config_to_show(monkeypatch, capsys, flag):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "-cn=paraformer_toy", "seed=1,2", flag, "job"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: -m makes many configs") and said.count("\n") == 1


def test_what_may_be_left_out_or_quoted():
    config = compose(
        "conformer_ctc", ["datasets.dev=null", "writer=none", "save_dir='a,(b)=c'", "run_name='2024'"]
    )
    assert config.datasets.dev is None and config.writer == {}
    assert (config.save_dir, config.run_name) == ("a,(b)=c", "2024")


def test_a_part_that_is_a_number_is_one_line():
    with pytest.raises(UserError, match="5 stands where a part is needed"):
        build(5)


def test_what_the_system_refuses_is_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop, spoken_errors():
        (tmp_path / "nowhere" / "file").write_text("x")
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1


def test_a_reader_that_stops_reading_is_no_error():
    script = "from src.utils.errors import door; door(lambda: [print(i) for i in range(100000)])()"
    reader = ["bash", "-c", '"$0" -c "$1" | head -n 1; exit ${PIPESTATUS[0]}', sys.executable, script]
    done = subprocess.run(reader, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


def test_a_save_dir_that_is_a_file_is_one_line_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    done = door("train.py", *TINY, SAMPLES, f"save_dir={tmp_path / 'file'}", code=2)
    assert "cannot be written" in done.stderr.splitlines()[-1]


def test_a_sweep_checks_its_words_too(tmp_path):
    words = ["trainer=null", "seed=1,2", f"save_dir={tmp_path}"]
    done = door("train.py", "-m", *TINY, SAMPLES, *words, code=2)
    assert "trainer=null takes the place of several settings" in done.stderr.splitlines()[-1]
