"""The loop itself, on a small network: kills, resumes, ends and mistakes."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from src.checkpoint import Checkpoint
from src.trainer import Interrupted, build_trainer
from src.trainer import trainer as loop
from src.trainer.evaluation import Evaluation, evaluate
from src.trainer.optimization import StepReport
from src.trainer.run_folder import RunFolder
from src.utils import devices
from src.utils.devices import ThreadTime
from src.utils.errors import UserError
from src.utils.hydra_door import compose
from src.utils.state_files import load_state, save_state

EACH = "trainer.evaluate_every_steps=1"
RESUME = "trainer.resume_from=auto"


@pytest.fixture
def dev(monkeypatch):
    """``dev.losses`` by step instead of measured ones; ``dev.trainer`` is the trainer that is running."""
    dev = SimpleNamespace(trainer=None, losses=[])

    def evaluate(step, text_encoder, searches, batches, progress=None, processes=None):
        texts = {batches.dataset.dataset.ids[0]: "a"} if dev.losses else {}
        loss = dev.losses[dev.trainer.steps - 1] if dev.losses else 0.0
        return Evaluation({"loss": loss, "wer_greedy": 1.0, "cer_greedy": 1.0}, texts, {"greedy": texts})

    monkeypatch.setattr(loop, "evaluate", evaluate)
    return dev


class Killed(BaseException):
    """Nothing may catch it."""


def test_killed_between_the_pointers_the_best_checkpoint_is_still_found(make_trainer, dev, monkeypatch):
    settings = [EACH, "trainer.monitor=loss", "trainer.max_steps=4"]
    dev.losses = [5.0, 1.0, 3.0, 4.0]
    point, moved = RunFolder._point, []

    def dying(self, pointer, name):
        moved.append((pointer, name))
        if len(moved) == 4:  # the second pointer of step 2
            raise Killed
        point(self, pointer, name)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunFolder, "_point", dying)
        dev.trainer = make_trainer(*settings)
        dev.trainer.run()
    dev.trainer = make_trainer(*settings, RESUME)
    assert dev.trainer.run().name == "step-2"
    assert dev.trainer.best == 1.0 and dev.trainer.folder.pointed("last").name == "step-4"


def test_stopped_while_its_end_is_scored_a_run_keeps_its_end(make_trainer, monkeypatch):
    trainer = make_trainer("trainer.max_steps=3", "trainer.evaluate_every_epochs=null")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "evaluate", stopped)
        trainer.run()
    assert trainer.folder.pointed("last").name == "step-3"
    again = make_trainer("trainer.max_steps=3", "trainer.evaluate_every_epochs=null", RESUME)
    assert again.run().name == "step-3" and again.evaluated_step == 3


def test_a_lost_pointer_to_the_best_is_chosen_anew(make_trainer, dev):
    settings = [EACH, "trainer.monitor=loss"]
    dev.losses = [1.0, 3.0, 2.0]
    dev.trainer = make_trainer(*settings, "trainer.max_steps=1")
    (dev.trainer.run().parent / "best").write_text("")
    dev.trainer = make_trainer(*settings, "trainer.max_steps=3", RESUME)
    assert dev.trainer.run().name == "step-3"


def test_dev_recordings_that_all_fail_cost_no_training(make_trainer, dev):
    trainer = make_trainer("trainer.max_steps=9", "trainer.evaluate_every_steps=2")
    with pytest.raises(UserError, match="no utterance of the dev set could be used"):
        trainer.run()
    assert trainer.folder.newest().name == "step-2"


def test_sets_without_texts_are_noticed_before_training(make_trainer, tmp_path):
    with pytest.raises(UserError, match="samples: none of its 5 clips has a transcript"):
        make_trainer("+text_encoder.alphabet=' xyz'")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "audio").symlink_to(Path("samples/audio").resolve())
    with pytest.raises(UserError, match="dev set has no utterance with a usable transcript"):
        make_trainer(
            f"datasets.dev={{_target_: src.datasets.CustomDirDataset, data_dir: {tmp_path / 'bare'}}}"
        )


def test_a_run_folder_that_cannot_be_is_noticed_before_training(make_trainer, tmp_path):
    (tmp_path / "run").write_text("a file")
    trainer = make_trainer()
    with pytest.raises(UserError, match=r"run: cannot be written \(.*\); choose another save_dir"):
        trainer.run()
    assert trainer.steps == 0


def finished(make_trainer, *settings: str):
    trainer = make_trainer("trainer.max_steps=2", "datasets.dev=null", *settings)
    return trainer.run()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["optimizer=sgd"], "optimizer=torch.optim.AdamW, not torch.optim.SGD"),
        (["lr_scheduler=noam"], "lr_scheduler=src.trainer.schedules.warmup_cosine, not .*noam"),
        (["lr_scheduler.warmup=0.5"], "lr_scheduler.warmup=0.1, not 0.5"),
        (["trainer.accumulate=2"], "trainer.accumulate times processes=1, not 2"),
        (["batching.batch_size=2"], "batching.batch_size=5, not 2"),
        (["seed=1"], "seed=0, not 1"),
        (["model.encoder.num_layers=2"], "model.encoder.num_layers=1, not 2"),
        (["model.frontend.normalize=false"], "model.frontend.normalize=True, not False"),
        (["optimizer.lr=1"], "optimizer.lr=.*, not 1"),
        (["trainer.monitor=loss"], "trainer.monitor=wer_greedy, not loss"),
    ],
)
def test_resuming_with_another_setting_names_it(make_trainer, tmp_path, settings, line):
    finished(make_trainer)
    with pytest.raises(UserError, match=f"step-2: was trained with {line}"):
        finished(make_trainer, RESUME, *settings)


def test_resuming_with_several_other_settings_names_all(make_trainer):
    finished(make_trainer)
    line = r"seed=0, not 1; batching.batch_size=5, not 2; .*encoder.num_layers=1, not 2: set them back"
    with pytest.raises(UserError, match=line):
        finished(make_trainer, RESUME, "seed=1", "batching.batch_size=2", "model.encoder.num_layers=2")


def test_a_run_past_its_new_end_says_so(make_trainer, capsys):
    finished(make_trainer)
    make_trainer("trainer.max_steps=1", "datasets.dev=null", RESUME).run()
    said = capsys.readouterr()
    assert "going on from step 2 of" in said.out and "at its end already: no step is left" in said.out
    assert "2/2" in said.err.splitlines()[-1]  # the bar


def test_nothing_to_go_on_from_is_said(make_trainer, capsys):
    make_trainer("trainer.max_steps=1", "datasets.dev=null", RESUME).run()
    assert "run; starting anew" in capsys.readouterr().out


def test_of_equal_checkpoints_the_later_is_the_best_but_none_of_them_a_gain(make_trainer, dev):
    settings = [EACH, "trainer.monitor=cer_greedy", "trainer.max_steps=9", "trainer.patience=3"]
    dev.losses = [4.0, 3.0, 2.0, 1.0, 0.5]
    dev.trainer = make_trainer(*settings)  # a CER of 100 % throughout
    assert dev.trainer.run().name == "step-4" and dev.trainer.steps == 4
    assert [*dev.trainer.ranking] == ["step-4"]


def test_ctrl_c_is_acknowledged_and_a_second_says_what_is_saved(make_trainer, capfd):
    trainer = make_trainer("trainer.max_steps=9", "datasets.dev=null", "trainer.save_every=0.001s")
    run, steps = trainer.optimization.run, []

    def interrupted(*given):
        steps.append(len(steps) + 1)
        if steps[-1] == 3:
            signal.raise_signal(signal.SIGINT)
            assert "Ctrl-C: stopping after this step or evaluation, and saving" in capfd.readouterr().err
            signal.raise_signal(signal.SIGINT)
        return run(*given)

    trainer.optimization.run = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    said = capfd.readouterr().out
    assert "stopped at step 2; " in said and "step-2 was saved last" in said


def test_resuming_with_tokens_in_another_order_is_refused(make_trainer):
    finished(make_trainer)
    trainer = make_trainer("trainer.max_steps=3", RESUME)
    trainer.text_encoder.tokens = [*trainer.text_encoder.tokens[:1], *trainer.text_encoder.tokens[:0:-1]]
    with pytest.raises(UserError, match="trained with other tokens"):
        trainer.run()


@pytest.mark.parametrize("text", ["{}", "null", '{"record": 5}'])
def test_a_state_without_a_record_is_one_line(make_trainer, text):
    (finished(make_trainer) / "training" / "state.json").write_text(text)
    with pytest.raises(UserError, match="does not say how it was trained.*init_from"):
        finished(make_trainer, RESUME)


def test_a_state_with_a_part_missing_is_one_line(make_trainer):
    file = finished(make_trainer) / "training" / "state.json"
    state = json.loads(file.read_text())
    del state["counters"]["best"]
    file.write_text(json.dumps(state))
    with pytest.raises(UserError, match="is damaged .'best'"):
        finished(make_trainer, RESUME)


@pytest.mark.parametrize("settings", [[], ["lr_scheduler=one_cycle"]])
def test_a_schedule_that_is_shorter_than_the_run_so_far(make_trainer, settings):
    trainer = make_trainer("datasets.dev=null", "trainer.max_steps=6", *settings)
    trainer.run()
    shorter = make_trainer("datasets.dev=null", "trainer.max_steps=3", RESUME, *settings)
    shorter.run()
    assert shorter.steps == 6


@pytest.mark.parametrize("schedule", ["warmup_cosine", "one_cycle", "noam"])
def test_epochs_of_different_lengths_are_all_whole(make_trainer, schedule):
    """Three passes of 1, 3 and 2 batches, where the first leads one to expect 3 steps."""
    trainer = make_trainer(
        "trainer.max_steps=null", "trainer.max_epochs=3", "datasets.dev=null", f"lr_scheduler={schedule}"
    )
    assert trainer.total_steps == 3
    epochs = [[[0, 5]], [[0, 2], [2, 4], [4, 5]], [[0, 3], [3, 5]]]
    trainer.train_loader.batch_sampler._plan = lambda epoch: (np.arange(5), np.array(epochs[epoch]))
    trainer.run()
    assert (trainer.steps, trainer.epoch, trainer.position) == (6, 3, 0)
    assert trainer.optimizer.param_groups[0]["lr"] > 0


def test_without_a_dev_set_the_last_checkpoint_is_the_one(make_trainer):
    trainer = make_trainer("datasets.dev=null", "trainer.max_steps=7", "trainer.evaluate_every_steps=5")
    assert trainer.run().name == "step-7" and trainer.folder.pointed("best") is None


def test_a_finished_run_is_finished(make_trainer):
    """The state at the end of the last pass says so: going on does nothing."""
    settings = ["trainer.max_steps=null", "trainer.max_epochs=2", EACH]
    make_trainer(*settings).run()
    again = make_trainer(*settings, RESUME)
    again.run()
    assert again.steps == 2 and not again.reporter.started


def test_at_its_time_limit_a_run_saves_and_goes_on_later(make_trainer):
    settings = ["trainer.max_steps=3", "trainer.evaluate_every_epochs=null", "trainer.time_limit=0.001s"]
    for step in (1, 2):
        with pytest.raises(Interrupted, match=rf"stopped at step {step} \(trainer.time_limit\)") as stop:
            make_trainer(*settings, RESUME).run()
        assert stop.value.status == 75
    assert make_trainer(*settings, RESUME).run().name == "step-3"


def test_an_evaluation_that_the_stop_came_before_is_made_up_for(make_trainer, dev):
    """Otherwise the best checkpoint would depend on where a run was stopped."""
    settings = ["trainer.evaluate_every_steps=2", "trainer.monitor=loss", "trainer.max_steps=4"]
    dev.losses = [9.0, 1.0, 9.0, 2.0]
    for time_limit in ("0.001s", "0.001s", "1h"):
        dev.trainer = make_trainer(*settings, f"trainer.time_limit={time_limit}", RESUME)
        with contextlib.suppress(Interrupted):
            best = dev.trainer.run()
    assert best.name == "step-2"


def test_saves_between_evaluations_lose_nothing_but_time(make_trainer):
    quick = make_trainer(
        "trainer.max_steps=3",
        "trainer.evaluate_every_epochs=null",
        "trainer.save_every=0.001s",
        "trainer.keep_last=9",
    )
    quick.run()
    assert sorted(path.name for path in quick.folder.checkpoints.glob("step-*")) == [
        "step-1",
        "step-2",
        "step-3",
    ]


def test_the_best_checkpoints_stay(make_trainer, dev):
    dev.losses = [3.0, 1.0, 5.0, 2.0, 4.0, 6.0]
    settings = [EACH, "trainer.monitor=loss", "trainer.max_steps=6", "trainer.keep_best=2"]
    dev.trainer = make_trainer(*settings, "trainer.keep_every_steps=3", "trainer.time_limit=0.001s")
    with pytest.raises(Interrupted):
        dev.trainer.run()
    dev.trainer = make_trainer(*settings, "trainer.keep_every_steps=3", RESUME)
    assert dev.trainer.run().name == "step-2"
    kept = sorted(path.name for path in dev.trainer.folder.checkpoints.glob("step-*"))
    assert kept == ["step-2", "step-3", "step-4", "step-6"]


def test_a_state_of_another_shape_is_one_line(make_trainer):
    """A fused optimizer reads beyond its end instead."""
    checkpoint = finished(make_trainer)
    state = load_state(checkpoint / "training" / "state")
    first = state["optimizer"]["state"][0]
    first["exp_avg"] = first["exp_avg"].flatten()[:3].clone()
    save_state(state, checkpoint / "training" / "state")
    with pytest.raises(UserError, match=r"exp_avg of the optimizer has the shape \(3,\)"):
        make_trainer("trainer.max_steps=3", RESUME).run()


def test_a_counter_that_is_no_number_is_one_line(make_trainer):
    checkpoint = finished(make_trainer)
    state = load_state(checkpoint / "training" / "state")
    state["counters"]["steps"] = "x"
    save_state(state, checkpoint / "training" / "state")
    with pytest.raises(UserError, match="is damaged"):
        make_trainer("trainer.max_steps=3", RESUME).run()


def test_on_fewer_clips_than_before_a_run_goes_on(make_trainer):
    settings = ["batching.batch_size=1", "trainer.evaluate_every_epochs=null", "trainer.max_steps=4"]
    make_trainer(*settings).run()
    fewer = make_trainer(*settings[:2], "trainer.max_steps=6", "+datasets.train.limit=3", RESUME)
    fewer.run()
    assert (fewer.steps, fewer.epoch, fewer.position) == (6, 1, 2)


@pytest.mark.parametrize("counters", [None, {}, {"ranking": 5}])
def test_a_record_that_ranks_nothing_is_one_line(make_trainer, counters):
    checkpoint = finished(make_trainer)
    state = load_state(checkpoint / "training" / "state")
    state["counters"] = counters
    save_state(state, checkpoint / "training" / "state")
    with pytest.raises(UserError, match="ranks no checkpoints"):
        RunFolder(checkpoint.parents[1]).best_steps()


def test_a_run_that_diverges_at_its_end_leaves_no_broken_checkpoint(make_trainer):
    trainer = make_trainer("trainer.max_steps=2", EACH, "optimizer.lr=1e38", "trainer.clip_norm=null")
    with pytest.raises(UserError, match=r"the weights are not finite \(.*lower optimizer.lr"):
        trainer.run()
    for checkpoint in trainer.folder.newest_steps():
        Checkpoint.open(checkpoint).weights()


def test_a_model_whose_output_is_no_number_is_not_saved(make_trainer):
    """Its weights are finite, but so large that what they make is not."""
    trainer = make_trainer("trainer.max_steps=2", EACH)
    with torch.no_grad():
        trainer.step.train().model.head.weight.uniform_(-1.6e38, 1.6e38)
    with pytest.raises(
        UserError, match=r"fails on a second of sound \(its output is NaN\): the training has diverged"
    ):
        trainer._save(is_best=False)
    assert not trainer.folder.newest_steps() and trainer.step.model.training


def test_dev_clips_too_long_for_the_memory_are_named_and_the_others_scored(make_trainer):
    trainer = make_trainer("datasets.dev=${datasets.train}", "trainer.max_steps=1")
    whole = evaluate(trainer.step, trainer.text_encoder, trainer.searches, trainer.dev_loader)
    durations = trainer.dev_loader.dataset.dataset.durations
    longest = trainer.dev_loader.dataset.dataset.ids[int(np.argmax(durations))]
    forward = trainer.step.forward

    def of_limited_memory(batch):
        if batch["audio_lengths"].max() > 16000 * sorted(durations)[-2] + 1 or len(batch["utterance_id"]) > 2:
            raise MemoryError
        return forward(batch)

    trainer.step.forward = of_limited_memory
    tight = evaluate(trainer.step, trainer.text_encoder, trainer.searches, trainer.dev_loader)
    assert {item.id: "fit into the memory" in item.reason for item in tight.skipped} == {longest: True}
    assert tight.references == {i: text for i, text in whole.references.items() if i != longest}
    assert tight.predictions["greedy"] == {i: whole.predictions["greedy"][i] for i in tight.references}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["+objective.blank=5"], "blank=5 must be 0, the blank of the model"),
        (["+decoders.greedy.blank=29"], "blank=29 must be 0"),
        (["model.encoder.num_features=40"], "do not fit together"),
        (["model.encoder.dim=0"], "would hold no numbers at all"),
    ],
)
def test_parts_that_do_not_fit_together_are_noticed_before_training(make_trainer, settings, line):
    with pytest.raises(UserError, match=line):
        make_trainer(*settings)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            ["model=conformer_rnnt_xs"],
            "decoders.greedy: CTCGreedySearch is no search for a TransducerModel; its family's are "
            "objective=transducer decoders=transducer, as -cn=conformer_rnnt has them",
        ),
        (["decoders=attention"], "AttentionGreedySearch is no search for a CTCModel; .*decoders=ctc, as"),
        (["objective=attention"], "AttentionObjective is no objective for a CTCModel; .*objective=ctc"),
        (["model=las", "objective=transducer"], "no objective for a LASModel; .*objective=attention"),
        (["model=lstm_lm"], "CTCObjective is no objective for a LSTMLanguageModel; .*objective=next_token"),
    ],
)
def test_parts_of_another_family_are_told_which_are_the_models(tmp_path, settings, line):
    folders = [f"datasets.{split}.data_dir=samples" for split in ("train", "dev")]
    with pytest.raises(UserError, match=line):
        build_trainer(compose("finetune", [*folders, f"save_dir={tmp_path}", *settings]))


@pytest.mark.parametrize("model", ["rnnt_xs", "las_xs"])
def test_fine_tuning_of_another_family_takes_its_objective_and_decoders(tmp_path, model):
    """The command of README and finetune.yaml."""
    pair = "transducer" if model == "rnnt_xs" else "attention"
    words = [f"datasets.{split}.data_dir=samples" for split in ("train", "dev")]
    words += [f"model=conformer_{model}", f"objective={pair}", f"decoders={pair}", f"save_dir={tmp_path}"]
    assert [*build_trainer(compose("finetune", words)).searches] == ["greedy", "beam"]


def test_busy_neighbours_are_named_once(make_trainer, capsys, monkeypatch):
    """Two threads that got a third of their time in 30 seconds; with one thread there is nothing to say."""
    reporter, time = make_trainer().reporter, ThreadTime()
    time.seconds, time.computed = 30.0, 20.0
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    reporter.note_neighbours(torch.device("cpu"), time)
    reporter = make_trainer().reporter
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for seconds in (10.0, 30.0, 40.0):
        time.seconds = seconds
        reporter.note_neighbours(torch.device("cpu"), time)
    assert capsys.readouterr().out.count("OMP_NUM_THREADS=1") == 1


def test_the_time_of_threads_is_that_of_the_blocks_alone(monkeypatch):
    clock = iter([10.0, 14.0, 20.0, 26.0])
    used = iter([1.0, 5.0, 50.0, 56.0])
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(devices.time, "process_time", lambda: next(used))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    time = ThreadTime()
    for _ in range(2):
        with time:
            pass
    assert time.seconds == 10.0 and time.share == 0.5


def test_the_recorded_loss_is_the_one_that_is_minimised(make_trainer):
    trainer = make_trainer("objective=ctc_consistent", "trainer.max_steps=2")
    seen = []
    run = trainer.optimization.run

    def watched(group, number):
        torch.manual_seed(0)
        report = run(group, number)
        seen.append(report)
        return report

    trainer.optimization.run = watched
    sums = []
    forward = trainer.step.forward

    def summed(batch):
        losses, outputs = forward(batch)
        if trainer.step.training:
            sums.append(float(losses["loss_sum"]))
        return losses, outputs

    trainer.step.forward = summed
    recorded = {}
    trainer.reporter.writers.scalars = lambda step, values: recorded.update(
        {(step, k): v for k, v in values.items()}
    )
    trainer.run()
    tokens = seen[0].normalizer
    assert recorded[1, "train/loss"] == pytest.approx(sums[0] / tokens, rel=1e-5)
    assert recorded[1, "train/loss_ctc"] + recorded[1, "train/loss_consistency"] == pytest.approx(
        recorded[1, "train/loss"]
    )


def test_a_record_is_the_mean_over_all_tokens_since_the_last(make_trainer):
    reporter, recorded = make_trainer().reporter, {}
    reporter.writers.scalars = lambda step, values: recorded.update(values)
    reporter.note_step(1, StepReport(normalizer=10, parts={"ctc": 30.0}), 1e-3, log=False)
    reporter.note_step(2, StepReport(), 1e-3, log=False)  # nothing usable
    reporter.note_step(3, StepReport(normalizer=30, parts={"ctc": 10.0, "more": 20.0}), 1e-3, log=True)
    assert (recorded["train/loss_ctc"], recorded["train/loss_more"], recorded["train/loss"]) == (
        1.0,
        0.5,
        1.5,
    )


def test_killed_while_its_end_is_scored_a_run_records_that_later_and_once(
    make_trainer, tmp_path, monkeypatch
):
    settings = ["datasets.dev=${datasets.train}", "trainer.max_steps=2", EACH, "writer=[local]"]
    trainer = make_trainer(*settings)

    def dying(*_):
        raise Killed

    monkeypatch.setattr(trainer.reporter, "note_final", dying)
    with pytest.raises(Killed):
        trainer.run()
    for _ in range(2):
        make_trainer(*settings, RESUME).run()
        lines = [json.loads(line) for line in (tmp_path / "run" / "scalars.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "final/loss" in line] == [2]
        assert [line["step"] for line in lines if "dev/loss" in line] == [1, 2]


def test_texts_as_a_dev_set_are_noticed_before_training(make_trainer):
    texts = "datasets.dev={_target_: src.datasets.TextDataset, texts: samples/transcriptions}"
    with pytest.raises(UserError, match="datasets.dev: a CTCModel learns from recordings"):
        make_trainer(texts)


def test_patience_needs_a_dev_set(make_trainer):
    with pytest.raises(UserError, match="trainer.patience=3 needs a dev set"):
        make_trainer("trainer.patience=3", "datasets.dev=null")


def two_clips(folder: Path, *texts: str) -> list[str]:
    """Settings of a run on a clip of 2 s and one of 0.2 s that say these, one a batch."""
    for part in "audio", "transcriptions":
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, seconds, text in zip(("good", "short"), (2.0, 0.2), texts, strict=True):
        audio = 0.1 * rng.standard_normal(int(16000 * seconds))
        soundfile.write(folder / "audio" / f"{name}.flac", audio, 16000)
        (folder / "transcriptions" / f"{name}.txt").write_text(text, encoding="utf-8")
    where = f"datasets.train={{_target_: src.datasets.CustomDirDataset, data_dir: {folder}}}"
    return [where, "datasets.dev=null", "batching.batch_size=1"]


def test_one_clip_of_two_that_cannot_be_used_stops_no_run(make_trainer, tmp_path):
    """A batch that is last in one epoch and first in the next: two empty steps in a row, of two an epoch."""
    settings = two_clips(tmp_path / "corpus", "a b", "far too many words for a fifth of it")
    trainer = make_trainer(*settings, "trainer.max_steps=16")
    trainer.run()
    assert trainer.steps == 16


def test_a_whole_epoch_without_a_usable_clip_stops_the_run(make_trainer, tmp_path):
    settings = two_clips(tmp_path / "corpus", "far too many words for two " * 9, "and for a fifth of it")
    trainer = make_trainer(*settings, "trainer.max_steps=16")
    with pytest.raises(UserError, match="none of the training clips could be used"):
        trainer.run()
    assert trainer.steps == 2


def test_a_run_without_a_usable_clip_stops_where_it_ends_before_its_first_epoch(make_trainer, tmp_path):
    settings = two_clips(tmp_path / "corpus", "far too many words for two " * 9, "and for a fifth of it")
    with pytest.raises(UserError, match="none of the training clips could be used"):
        make_trainer(*settings, "trainer.max_steps=1").run()


def test_a_dev_set_without_a_usable_clip_has_no_loss(make_trainer, tmp_path, capsys):
    """Its texts are scored all the same: nothing was heard of them."""
    spoken, short = tmp_path / "spoken", tmp_path / "short"
    settings = two_clips(spoken, "a b", "a")
    two_clips(short, "far too many words for two " * 9, "and for a fifth of it")
    dev = f"datasets.dev={{_target_: src.datasets.CustomDirDataset, data_dir: {short}}}"
    settings = [setting if "dev" not in setting else dev for setting in settings]
    make_trainer(*settings, "trainer.max_steps=2").run()
    assert "dev loss nan  greedy WER 100.00 %" in capsys.readouterr().out
