from __future__ import annotations

import math

import pytest
import torch

from src.trainer.ema import EMA
from src.trainer.options import TrainerOptions
from src.trainer.run_folder import RunFolder
from src.trainer.schedules import noam, warmup_cosine
from src.utils.devices import choose_device, choose_precision
from src.utils.errors import UserError
from src.utils.files import atomic_directory
from src.utils.state_files import load_state, save_state


def rates(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_warmup_cosine_by_hand():
    seen = rates(lambda o: warmup_cosine(o, total_steps=12, warmup=1 / 6, final_ratio=0.1), 13)
    assert seen[:3] == pytest.approx([1.0, 2.0, 2.0])  # two warm-up steps to the peak
    assert seen[7] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way down
    assert seen[12] == pytest.approx(0.2)


def test_noam_peaks_at_the_lr_and_falls_with_the_root():
    seen = rates(lambda o: noam(o, total_steps=0, warmup_steps=4), 16)
    assert seen[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert seen[15] == pytest.approx(2.0 * math.sqrt(4 / 16))


def test_ema_is_the_average_by_hand_and_gives_the_weights_back():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = EMA(model, decay=0.5)
    model.weight.data.fill_(3.0)
    ema.update(model, step=10)  # 11 / 20 > 0.5, so 0.5 * 1 + 0.5 * 3
    with ema.applied_to(model):
        assert model.weight.item() == 2.0
    assert model.weight.item() == 3.0


def test_ema_begins_with_short_averages_and_keeps_the_share_of_the_past():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = EMA(model, decay=0.9)
    model.weight.data.fill_(3.0)
    ema.update(model, step=0)
    assert ema.average["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 3)  # (1 + 0) / (10 + 0)
    ema.average["weight"].fill_(1.0)
    ema.update(model, step=1000)
    assert ema.average["weight"].item() == pytest.approx(0.9 * 1 + 0.1 * 3)


def test_ema_copies_whole_numbers_and_shares_no_memory():
    model = torch.nn.BatchNorm1d(2)
    ema = EMA(model, decay=0.5)
    model(torch.randn(4, 2))
    ema.update(model, step=0)
    assert ema.average["num_batches_tracked"].item() == 1
    state = {name: value.clone() for name, value in model.state_dict().items()}
    ema.load_state_dict(state)
    state["weight"].fill_(7.0)
    model.weight.data.fill_(9.0)
    assert ema.average["weight"].tolist() == [1.0, 1.0]


def test_state_round_trip_keeps_types_and_bits(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9))
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    tree = {
        "optimizer": optimizer.state_dict(),
        "none": None,
        "flag": True,
        "inf": float("inf"),
        "pair": (1, [2.5]),
    }
    save_state(tree, tmp_path / "state")
    back = load_state(tmp_path / "state")
    assert back["pair"] == (1, [2.5]) and back["flag"] is True and back["inf"] == float("inf")
    assert set(back["optimizer"]["state"]) == {0, 1}  # integer keys stay integers
    for index, entry in tree["optimizer"]["state"].items():
        for name, value in entry.items():
            assert torch.equal(back["optimizer"]["state"][index][name], value)
    torch.optim.AdamW(model.parameters()).load_state_dict(back["optimizer"])


def test_state_refuses_what_it_cannot_keep(tmp_path):
    with pytest.raises(TypeError, match="cannot save a set"):
        save_state({"x": {1, 2}}, tmp_path / "state")


def write_nothing(directory):
    (directory / "config.yaml").write_text("model: {}\n")


def test_pointers_and_rotation(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.newest() is None
    folder.save(1, write_nothing, {"n": 1}, is_best=True)
    folder.save(2, write_nothing, {"n": 2}, is_best=False)
    folder.save(3, write_nothing, {"n": 3}, is_best=False)
    assert sorted(p.name for p in folder.checkpoints.glob("step-*")) == ["step-1", "step-3"]
    assert folder.pointed("best").name == "step-1" and folder.newest().name == "step-3"
    assert folder.load(folder.newest()) == {"n": 3}
    (folder.checkpoints / "last").unlink()
    assert folder.newest().name == "step-3"


def test_a_damaged_training_state_is_one_line(tmp_path):
    folder = RunFolder(tmp_path)
    path = folder.save(1, write_nothing, {"x": torch.zeros(3)}, is_best=False)
    (path / "training" / "state.safetensors").write_bytes(b"abc")
    with pytest.raises(UserError, match="step-1: its training state cannot be read"):
        folder.load(path)


def test_names_that_only_look_like_steps_are_left_alone(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("step-4-backup", "step-6 copy", "step-x", "step-"):
        (folder.checkpoints / name).mkdir(parents=True)
    assert folder.newest() is None
    for step in (9, 10):
        folder.save(step, write_nothing, {}, is_best=False)
    (folder.checkpoints / "last").unlink()
    assert folder.newest().name == "step-10"
    assert {"step-4-backup", "step-6 copy", "step-x"} < {path.name for path in folder.checkpoints.iterdir()}


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"..", b"step-4 copy", b"step-99", b"a\0b"])
def test_a_broken_pointer_means_the_newest_step(tmp_path, content):
    folder = RunFolder(tmp_path)
    folder.save(1, write_nothing, {}, is_best=True)
    folder.save(2, write_nothing, {}, is_best=False)
    (folder.checkpoints / "step-4 copy").mkdir()
    for pointer in ("last", "best"):
        (folder.checkpoints / pointer).write_bytes(content)
    assert folder.newest().name == "step-2" and folder.pointed("best") is None


def test_a_full_disk_is_one_line_that_names_the_last_good_checkpoint(tmp_path):
    def full(directory):
        (directory / "config.yaml").write_text("")
        raise OSError(28, "No space left on device")

    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match="step-1: .*No space left.*there is no checkpoint yet"):
        folder.save(1, full, {}, is_best=True)
    folder.save(2, write_nothing, {}, is_best=True)
    with pytest.raises(UserError, match="step-3: .*No space left.*last good checkpoint is .*step-2"):
        folder.save(3, full, {}, is_best=True)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["best", "last", "step-2"]


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path):
    target = tmp_path / "checkpoint"
    with atomic_directory(target) as unfinished:
        (unfinished / "a").write_text("old")
    with pytest.raises(OSError), atomic_directory(target) as unfinished:
        (unfinished / "a").write_text("new")
        raise OSError("no space left on device")
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({}, "neither max_epochs nor max_steps"),
        ({"max_steps": 1, "resume_from": "there"}, "resume_from=there"),
        ({"accumulate": 0}, "trainer.accumulate=0 must be a whole number of at least 1$"),
        ({"accumulate": 1.5}, "accumulate=1.5 must be a whole number"),
        ({"accumulate": True}, "accumulate=True must be"),
        ({"max_steps": "abc"}, "max_steps=abc must be a whole number of at least 1, or null"),
        ({"max_steps": 1.5}, "max_steps=1.5"),
        ({"clip_norm": "abc"}, "clip_norm=abc must be a number above 0, or null"),
        ({"clip_norm": -1}, "clip_norm=-1"),
        ({"clip_norm": float("nan")}, "clip_norm=nan"),
        ({"ema_decay": "abc"}, "ema_decay=abc"),
        ({"ema_decay": 2}, "ema_decay=2 must be a number from 0 to 1"),
        ({"log_every_steps": None}, "log_every_steps=null"),
        ({"max_bad_steps": None}, "max_bad_steps=null"),
        ({"num_samples": -1}, "num_samples=-1 must be a whole number of at least 0"),
        ({"init_from": 123}, "init_from=123 must be a text"),
        ({"monitor": None}, "monitor=null"),
        (
            {"time_limit": "soon"},
            "time_limit=soon must be a length of time above 0 such as 11h30m, .*, or null",
        ),
        ({"time_limit": 90}, "time_limit=90 must be a length of time"),
        ({"save_every": "0s"}, "save_every=0s"),
        ({"save_every": "30m1h"}, "save_every=30m1h"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        TrainerOptions(**options)


@pytest.mark.parametrize(
    "call", [lambda o: warmup_cosine(o, 9, warmup=2), lambda o: noam(o, 9, warmup_steps=0)]
)
def test_impossible_schedules_are_named(call):
    with pytest.raises(UserError, match="lr_scheduler.warmup"):
        rates(call, 1)


def test_devices_and_precisions():
    cpu = choose_device("cpu")
    assert choose_precision("auto", cpu) == torch.float32
    assert choose_precision("bf16", cpu) == torch.bfloat16
    for call in (
        lambda: choose_device("tpu9"),
        lambda: choose_device("mps"),
        lambda: choose_device("meta"),
        lambda: choose_device(None),
        lambda: choose_precision("fp8", cpu),
        lambda: choose_precision("fp16", cpu),
    ):
        with pytest.raises(UserError):
            call()


@pytest.mark.parametrize("capability,expected", [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_a_t4_gets_fp16_and_an_ampere_bf16(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda")) == expected


def test_a_checkpoint_moved_aside_by_a_killed_save_is_put_back(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save(4, write_nothing, {"n": 4}, is_best=True)
    (folder.checkpoints / "step-4").rename(folder.checkpoints / ".step-4.replaced")
    (folder.checkpoints / ".step-5.unfinished").mkdir()
    again = RunFolder(tmp_path)  # only looking at it may be another process than the one that saves
    assert (again.checkpoints / ".step-5.unfinished").exists()
    again.prepare()
    assert again.load(again.newest()) == {"n": 4}
    assert sorted(p.name for p in again.checkpoints.iterdir()) == [".lock", "best", "last", "step-4"]
