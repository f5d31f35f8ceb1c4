"""train.py, inference.py and calc_metrics.py, run as a person runs them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from safetensors.torch import load_file

from .conftest import LAS, PARAFORMER, ROOT, TINY, TRANSDUCER, door, tone_clip, write_corpus


def texts(folder):
    return {
        p.relative_to(folder).with_suffix("").as_posix(): p.read_text().strip() for p in folder.rglob("*.txt")
    }


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_train_transcribe_and_score(run_folder, corpus, tmp_path, decoder):
    door(
        "inference.py",
        f"checkpoint={run_folder}",
        f"data_dir={corpus}",
        f"save_dir={tmp_path}",
        f"decoder={decoder}",
    )
    expected = {name: text.lower() for name, text in texts(corpus / "transcriptions").items()}
    assert texts(tmp_path) == expected
    done = door("calc_metrics.py", "--references", corpus / "transcriptions", "--predictions", tmp_path)
    assert done.stdout.splitlines()[:2] == ["WER 0.00 %", "CER 0.00 %"]


def test_batches_workers_and_order_change_nothing(run_folder, corpus, tmp_path):
    variants = {
        "a": ["batching.batch_size=1", "num_workers=0"],
        "b": ["batching.batch_size=8", "num_workers=2"],
    }
    for name, overrides in variants.items():
        door(
            "inference.py",
            f"checkpoint={run_folder}",
            f"data_dir={corpus}",
            f"save_dir={tmp_path / name}",
            *overrides,
        )
    assert texts(tmp_path / "a") == texts(tmp_path / "b")


def test_resume_writes_only_what_is_missing(run_folder, corpus, tmp_path):
    arguments = ["inference.py", f"checkpoint={run_folder}", f"data_dir={corpus}", f"save_dir={tmp_path}"]
    door(*arguments)
    (tmp_path / "clip-1.txt").unlink()
    (tmp_path / "clip-2.txt").write_text("kept\n")
    door(*arguments, "resume=true")
    assert texts(tmp_path)["clip-2"] == "kept" and texts(tmp_path)["clip-1"] == "mid"
    door(*arguments, "resume=true")  # nothing left to do
    done = door(*arguments, "resume=true", "decoder=beam")
    assert "of another checkpoint or search" in done.stdout and texts(tmp_path)["clip-2"] == "high low mid"


def test_folder_without_transcriptions_and_with_broken_files(run_folder, tmp_path):
    data = tmp_path / "data"
    (data / "audio" / "sub").mkdir(parents=True)
    sf.write(data / "audio" / "sub" / "good.WAV", tone_clip("mid", 1), 16000, format="WAV")
    eight = np.stack([tone_clip("low high", 0)] * 8, axis=1)
    sf.write(data / "audio" / "eight.flac", eight, 16000)
    (data / "audio" / "garbage.mp3").write_bytes(b"this is not audio")
    (data / "audio" / "empty.wav").write_bytes(b"")
    sf.write(data / "audio" / "zero.wav", np.zeros(0, np.float32), 16000)
    sf.write(data / "audio" / "nan.wav", np.full(1600, np.nan, np.float32), 16000, subtype="FLOAT")
    sf.write(data / "audio" / "click.wav", np.full(40, 0.5, np.float32), 16000)  # shorter than one frame
    done = door(
        "inference.py", f"checkpoint={run_folder}", f"data_dir={data}", f"save_dir={tmp_path / 'out'}"
    )
    found = texts(tmp_path / "out")
    assert found["sub/good"] == "mid" and found["eight"] == "low high" and found["click"] == ""
    assert set(found) == {"sub/good", "eight", "click"}
    for name in ("garbage", "empty", "zero", "nan"):
        assert re.search(rf"skipped {name}: .+", done.stdout)


def test_one_file_folder(run_folder, tmp_path):
    write_corpus(tmp_path / "one", ["high"], seed=5)
    door(
        "inference.py",
        f"checkpoint={run_folder}",
        f"data_dir={tmp_path / 'one'}",
        f"save_dir={tmp_path / 'out'}",
    )
    assert texts(tmp_path / "out") == {"clip-0": "high"}


def spoken_error(*arguments) -> str:
    done = door(*arguments, code=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["checkpoint=/nowhere"], "checkpoint /nowhere does not exist"),
        (
            ["checkpoint={run}", "decoder=beam", "+search.beam_sise=5"],
            "search.beam_sise is unknown .* beam_size",
        ),
        (["checkpoint={run}", "decoder=magic"], "decoder=magic is unknown .* choose one of: beam, .*greedy"),
        (["checkpoint={run}", "colour=red"], "colour"),
        (["checkpoint={run}", "device=quantum"], "device=quantum"),
        (["checkpoint={run}", "split=holiday"], "split=holiday"),
        (["-cn=nothing"], "nothing.*configs: conformer_ctc, "),
        ([], "needs a value for checkpoint"),
    ],
)
def test_wrong_words_on_the_command_line(run_folder, corpus, tmp_path, arguments, message):
    given = [a.format(run=run_folder) for a in arguments]
    line = spoken_error("inference.py", f"data_dir={corpus}", f"save_dir={tmp_path}", *given)
    assert re.search(message, line), line


def test_data_dir_that_is_empty_or_missing(run_folder, tmp_path):
    (tmp_path / "audio").mkdir()
    arguments = ["inference.py", f"checkpoint={run_folder}", f"save_dir={tmp_path / 'out'}"]
    assert str(tmp_path) in spoken_error(*arguments, f"data_dir={tmp_path}")
    assert "/no/such/folder" in spoken_error(*arguments, "data_dir=/no/such/folder")


@pytest.fixture
def copy(run_folder, tmp_path):
    best = run_folder / "checkpoints" / (run_folder / "checkpoints" / "best").read_text().strip()
    shutil.copytree(best, tmp_path / "copy", ignore=shutil.ignore_patterns("training"))
    return tmp_path / "copy"


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("model.safetensors", None, "model.safetensors: missing"),
        ("model.safetensors", b"\x10\x00", "truncated or damaged"),
        ("config.yaml", b"model: [", "not a YAML file"),
        ("config.yaml", b"a: 1", "not a Lectern checkpoint"),
        (
            "config.yaml",
            b"model: {_target_: os.system, command: 'touch hacked'}\ndecoders: {greedy: {}}",
            "os.system",
        ),
        (
            "config.yaml",
            b"model: !!python/object/apply:os.system ['touch hacked']\ndecoders: {}",
            "not a YAML file",
        ),
        ("tokenizer.txt", None, "no tokenizer"),
    ],
)
def test_damaged_or_hostile_checkpoints(copy, corpus, tmp_path, name, content, message):
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    if name == "config.yaml" and b"greedy" in (content or b""):
        content = content.replace(b"{greedy: {}}", b"{greedy: {_target_: src.decoding.CTCGreedySearch}}")
        (copy / name).write_bytes(content)
    line = spoken_error(
        "inference.py", f"checkpoint={copy}", f"data_dir={corpus}", f"save_dir={tmp_path / 'out'}"
    )
    assert message in line, line
    assert not (tmp_path / "hacked").exists()


def test_half_written_weights_are_refused(copy, corpus, tmp_path):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    line = spoken_error(
        "inference.py", f"checkpoint={copy}", f"data_dir={corpus}", f"save_dir={tmp_path / 'out'}"
    )
    assert "truncated" in line


def train(corpus, save_dir, name, *overrides, code=0):
    return door(
        "train.py",
        *TINY,
        f"datasets.train.data_dir={corpus}",
        f"save_dir={save_dir}",
        f"run_name={name}",
        *overrides,
        code=code,
    )


def newest_weights(folder):
    step = (folder / "checkpoints" / "last").read_text().strip()
    return load_file(folder / "checkpoints" / step / "model.safetensors")


FAMILIES = {
    "ctc": [],
    "transducer": TRANSDUCER,
    "las": LAS,
    "paraformer, cif": PARAFORMER,
    "paraformer, ctc": [*PARAFORMER, "model/predictor=ctc"],
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_stopped_run_goes_on_to_the_same_weights(corpus, tmp_path, family):
    """Mid-epoch, with dropout, SpecAugment, speed perturbation, EMA and workers: bit-equal."""
    settings = [
        *family,
        "transforms=light",
        "batching.batch_size=3",
        "model.encoder.dropout=0.2",
        "trainer.ema_decay=0.9",
        "trainer.accumulate=2",
        "trainer.evaluate_every_steps=3",
        "num_workers=1",
        "trainer.max_steps=7",
    ]
    train(corpus, tmp_path, "whole", *settings)
    script = (
        "import sys, os, src.trainer.trainer as t\n"
        "save = t.Trainer._save\n"
        "def die(self, is_best):\n"
        "    save(self, is_best)\n"
        "    os._exit(9) if self.steps == 3 else None\n"
        "t.Trainer._save = die\n"
        "sys.argv[0] = 'train.py'\n"
        "import train; train.main()\n"
    )
    common = [
        *TINY,
        f"datasets.train.data_dir={corpus}",
        f"save_dir={tmp_path}",
        "run_name=killed",
        *settings,
    ]
    door("-c", script, *common, code=9)
    train(corpus, tmp_path, "killed", *settings, "trainer.resume_from=auto", "num_workers=0")
    whole, killed = newest_weights(tmp_path / "whole"), newest_weights(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    for name in whole:
        assert (whole[name] == killed[name]).all(), name


def test_a_run_is_not_overwritten_by_accident(run_folder, corpus):
    line = spoken_error(
        "train.py",
        *TINY,
        f"save_dir={run_folder.parent}",
        "run_name=tones",
        f"datasets.train.data_dir={corpus}",
    )
    assert "already holds a run" in line and "resume_from=auto" in line


def test_fine_tuning_keeps_the_encoder_and_may_change_the_tokens(run_folder, corpus, tmp_path):
    done = train(
        corpus, tmp_path, "same", f"trainer.init_from={run_folder}", "trainer.max_steps=1", "optimizer.lr=0"
    )
    assert "all its tensors taken" in done.stdout
    done = train(
        corpus,
        tmp_path,
        "other",
        f"trainer.init_from={run_folder}",
        "trainer.max_steps=1",
        "+text_encoder.alphabet=' lowmidhg'",
    )
    assert "2 start anew because the tokens differ (head)" in done.stdout
    line = spoken_error(
        "train.py",
        "-cn=one_batch",
        "model=mlp_ctc",
        "model.frontend.num_mels=40",
        f"trainer.init_from={run_folder}",
        f"save_dir={tmp_path}",
    )
    assert "its encoder is another one" in line and "_target_=src.model.encoders.ConformerEncoder" in line
    done = train(
        corpus, tmp_path, "heads", f"trainer.init_from={run_folder}", "model.encoder.num_heads=2", code=2
    )
    assert "num_heads=4" in done.stderr  # equal shapes, another meaning


@pytest.mark.parametrize("family", ["ctc", "paraformer, cif", "paraformer, ctc"])
def test_bad_training_data_is_named_and_costs_nothing_else(family, corpus, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    (data / "audio" / "broken.wav").write_bytes(b"RIFF")
    (data / "transcriptions" / "clip-0.txt").write_text("low " * 60)  # more symbols than frames
    (data / "transcriptions" / "clip-1.txt").write_text("низкий")  # letters that no token writes
    (data / "transcriptions" / "clip-2.txt").write_bytes(b"\xff\xfe\xfa")
    (data / "transcriptions" / "clip-3.txt").write_text("")
    if family != "ctc":  # a predictor may fire as often as it likes in a frame, but there has to be one
        sf.write(data / "audio" / "clip-0.flac", np.full(40, 0.5, np.float32), 16000)
    settings = [*FAMILIES[family], "trainer.max_steps=2", "trainer.evaluate_every_steps=2"]
    done = train(data, tmp_path, "run", *settings)
    said = done.stdout + done.stderr
    reason = "more symbols" if family == "ctc" else "its encoder makes no frame of it"
    assert re.search(f"clip-0: .*{reason}", said)
    assert "clip-1" in said and "clip-2" in said and "broken" in said, said


def test_a_dev_set_without_texts_is_one_line(corpus, tmp_path):
    data = write_corpus(tmp_path / "data", ["mid"])
    (data / "transcriptions" / "clip-0.txt").unlink()
    dev = "datasets.dev={_target_: src.datasets.CustomDirDataset, data_dir: " + str(data) + "}"
    settings = ["trainer.max_steps=2", "trainer.evaluate_every_steps=1"]
    done = train(corpus, tmp_path, "run", *settings, dev, code=2)
    assert "no utterance with a usable transcript" in done.stderr


def test_metrics_of_folders_that_do_not_match(corpus, tmp_path):
    (tmp_path / "elsewhere.txt").write_text("x")
    done = door(
        "calc_metrics.py", "--references", corpus / "transcriptions", "--predictions", tmp_path, code=2
    )
    assert done.stderr.count("error: ") == 1


def test_metrics_as_json(corpus, tmp_path):
    door(
        "calc_metrics.py",
        "--references",
        corpus / "transcriptions",
        "--predictions",
        corpus / "transcriptions",
        "--json",
        tmp_path / "m.json",
    )
    assert json.loads((tmp_path / "m.json").read_text())["wer"] == 0


def test_a_terminated_run_saves_and_says_how_to_go_on(corpus, tmp_path):
    settings = ["trainer.max_steps=100000", "trainer.evaluate_every_steps=2"]
    command = [*TINY, f"datasets.train.data_dir={corpus}", f"save_dir={tmp_path}", "run_name=run", *settings]
    process = subprocess.Popen(
        [sys.executable, "-u", "train.py", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        if "step 2: dev loss" in line:
            process.send_signal(signal.SIGTERM)
            break
    said = process.stdout.read()
    assert process.wait(timeout=60) == 130
    stopped_at = int((tmp_path / "run" / "checkpoints" / "last").read_text().split("-")[1])
    goes_on = f"python {shlex.join(['train.py', *map(str, command)])} trainer.resume_from=auto"
    assert f"stopped at step {stopped_at} (SIGTERM); go on with: {goes_on}" in said
    done = train(corpus, tmp_path, "run", f"trainer.max_steps={stopped_at + 1}", "trainer.resume_from=auto")
    assert f"going on from step {stopped_at}" in done.stdout


def test_no_usable_clip_at_all_is_one_line(tmp_path):
    data = write_corpus(tmp_path / "data", ["mid", "low"])
    for file in (data / "transcriptions").glob("*.txt"):
        file.write_text("низкий")
    line = spoken_error(
        "train.py", *TINY, f"datasets.train.data_dir={data}", "datasets.dev=null", f"save_dir={tmp_path}"
    )
    assert "data: none of its 2 clips has a transcript that the tokenizer can write" in line


def test_two_trainings_do_not_write_into_one_folder(corpus, tmp_path):
    command = [*TINY, f"datasets.train.data_dir={corpus}", f"save_dir={tmp_path}", "run_name=one"]
    endless = ["trainer.max_steps=100000", "trainer.evaluate_every_steps=2"]
    first = subprocess.Popen(
        [sys.executable, "train.py", *command, *endless],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert any("step 2: dev loss" in line for line in first.stdout)
        line = spoken_error("train.py", *command, "trainer.resume_from=auto")
        assert f"{tmp_path / 'one'}: another training is writing there" in line
    finally:
        first.kill()
        first.stdout.close()
        first.wait()
    # However it ended, its folder is free again.
    assert "checkpoint: " in train(corpus, tmp_path, "one", "trainer.resume_from=auto").stdout


def test_the_config_must_be_named():
    line = spoken_error("train.py", "trainer.max_steps=1")
    assert "which config? python train.py -cn=NAME" in line and "quickstart" in line
    assert "-cn=nosuch: there is no such config; configs: " in spoken_error("train.py", "-cn=nosuch")


def test_without_a_dev_set_the_last_checkpoint_is_the_result(corpus, tmp_path):
    done = train(
        corpus, tmp_path, "run", "datasets.dev=null", "trainer.max_steps=2", "trainer.evaluate_every_steps=1"
    )
    assert "step-2" in done.stdout


def test_early_stopping_after_evaluations_without_gain(corpus, tmp_path):
    settings = [
        "trainer.patience=2",
        "trainer.evaluate_every_steps=1",
        "trainer.max_steps=50",
        "optimizer.lr=0",
    ]
    train(corpus, tmp_path, "run", *settings)
    pointers = {
        name: (tmp_path / "run" / "checkpoints" / name).read_text().strip() for name in ("best", "last")
    }
    assert pointers == {"best": "step-3", "last": "step-3"}  # of equal ones the later


def test_limits_that_leave_nothing_are_one_line(corpus, tmp_path):
    line = spoken_error(
        "train.py",
        *TINY,
        f"datasets.train.data_dir={corpus}",
        "+datasets.train.max_duration_s=0.01",
        f"save_dir={tmp_path}",
    )
    assert "no training clips are left" in line


def test_references_of_a_data_set_without_text_files(run_folder, corpus, tmp_path):
    """A manifest, like LibriSpeech's tree, has no ID.txt to compare with: inference writes them."""
    manifest = tmp_path / "test.tsv"
    manifest.write_text(f"{corpus}/audio/clip-1.flac\tMid\n{corpus}/audio/clip-5.flac\tHigh\n")
    data = "datasets.test={_target_: src.datasets.ManifestDataset, path: " + str(manifest) + "}"
    references, predictions = tmp_path / "references", tmp_path / "predictions"
    where = [f"save_dir={predictions}", f"references_dir={references}"]
    door("inference.py", f"checkpoint={run_folder}", "datasets=manifest", data, *where)
    done = door("calc_metrics.py", "--references", references, "--predictions", predictions)
    assert done.stdout.startswith("WER 0.00 %")


@pytest.mark.parametrize(("model", "steps"), [("mlp_ctc", 200), ("conformer_ctc_tiny", 50)])
def test_one_batch_is_learnt_by_heart(tmp_path, model, steps):
    """The samples of the clone, as the README says: a WER of 0."""
    settings = [f"save_dir={tmp_path}", f"trainer.max_steps={steps}", "writer=none"]
    done = door(
        "train.py", "-cn=one_batch", f"model={model}", *settings, f"trainer.evaluate_every_steps={steps}"
    )
    assert "best checkpoint on dev, greedy: WER 0.00 %  CER 0.00 %" in done.stdout
    assert "best checkpoint on dev, beam: WER 0.00 %  CER 0.00 %" in done.stdout


def test_a_sweep_gives_every_job_its_own_folder(corpus, tmp_path):
    settings = [*TINY, f"datasets.train.data_dir={corpus}", f"save_dir={tmp_path}", "run_name=sweep"]
    done = door("train.py", "-m", *settings, "trainer.max_steps=1,2", "optimizer=sgd")
    assert done.stdout.count("checkpoint:") == 2
    for n in (1, 2):
        last = tmp_path / "sweep" / f"trainer.max_steps-{n}" / "checkpoints" / "last"
        assert last.read_text().strip() == f"step-{n}"
    longer = [*settings, "trainer.max_steps=1,2,3", "optimizer=sgd", "trainer.resume_from=auto"]
    done = door("train.py", "-m", *longer)
    assert done.stdout.count("at its end already") == 2  # the two from before; the third is new
    assert "nothing to go on from in" in done.stdout and done.stdout.count("checkpoint:") == 3


def test_a_sweep_without_a_needed_value_is_one_line():
    done = door("train.py", "-m", "-cn=base", "optimizer.lr=0.1,0.2", code=2)
    assert "run_name" in done.stderr.splitlines()[-1]
