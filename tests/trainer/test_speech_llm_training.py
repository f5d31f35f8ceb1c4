"""A speech LLM's way from folders with pretrained networks to a checkpoint, through the stages, and back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

transformers = pytest.importorskip("transformers")

from support.chat_tokenizer import chat_tokenizer  # noqa: E402
from support.tiny_networks import LISTENERS, WRITERS  # noqa: E402

from src.checkpoint import Checkpoint  # noqa: E402
from src.recognizer import Recognizer  # noqa: E402
from src.trainer import build_trainer  # noqa: E402
from src.utils.errors import UserError  # noqa: E402
from src.utils.hydra_door import compose  # noqa: E402

SAMPLES = "samples"
LORA = "{rank: 2, alpha: 4, targets: [q_proj, v_proj]}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Folders as a hub has them: Whisper, and Qwen2 with its tokenizer and chat template."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("hub")
    config = transformers.AutoConfig.for_model(**LISTENERS["whisper"])
    transformers.WhisperForConditionalGeneration(config).save_pretrained(root / "whisper")
    writer = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**{**WRITERS["qwen2"], "vocab_size": 304})
    )
    for weight in writer.parameters():  # random models hardly look at their prompt
        weight.data.mul_(4.0)
    writer.save_pretrained(root / "qwen2")
    chat_tokenizer(root / "qwen2")
    return root


def training(hub, save_dir, *choices, steps=3):
    config = [
        *("+test=tiny_llm", "datasets=samples", f"datasets.train.data_dir={SAMPLES}", "writer=[none]"),
        *("model=speech_llm_whisper", "model/listener=whisper", "model/writer=qwen2"),
        *(f"model.encoder.source={hub / 'whisper'}", f"model.writer.source={hub / 'qwen2'}"),
        *("~decoders.beam", "~decoders.sample", "optimizer.lr=1.0e-2", f"save_dir={save_dir}"),
        *(f"trainer.max_steps={steps}", f"trainer.evaluate_every_steps={steps}"),
    ]
    return build_trainer(compose("speech_llm", [*config, *choices]))


def texts(model, text_encoder, search):
    files = [
        "samples/audio/" + name for name in ("f4-en-us-nyc-004-000002.flac", "aunty-en-us-000-000004.flac")
    ]
    return [
        transcript.text for transcript in Recognizer(model.eval(), text_encoder, search).transcribe(files)
    ]


def reloaded(checkpoint):
    recognizer = Recognizer.load(checkpoint, device="cpu")
    return texts(recognizer.model, recognizer.text_encoder, recognizer.search)


@pytest.fixture(scope="module")
def stage_1(hub, tmp_path_factory):
    trainer = training(hub, tmp_path_factory.mktemp("saved"))
    return trainer, trainer.run()


def test_only_what_was_trained_is_saved_and_the_text_is_the_same(hub, stage_1):
    trainer, checkpoint = stage_1
    weights = load_file(checkpoint / "model.safetensors")
    assert weights and all(name.startswith("projector.") for name in weights)
    assert (
        not (checkpoint / "training").exists()
        or sum(file.stat().st_size for file in (checkpoint / "training").iterdir())
        < 10 * (checkpoint / "model.safetensors").stat().st_size
    )
    model = Checkpoint.open(checkpoint).config["model"]
    for part, folder in (("encoder", "whisper"), ("writer", "qwen2")):
        assert model[part]["source"] == str(hub / folder) and len(model[part]["revision"]) == 32
    found = reloaded(checkpoint)
    assert found == texts(trainer.step.model, trainer.text_encoder, trainer.searches["greedy"])
    assert len(set(found)) == 2 and all(found)
    names = {name for group in trainer.optimizer.param_groups for name in map(id, group["params"])}
    assert names == {id(weight) for weight in trainer.step.model.projector.parameters()}


def test_the_run_says_what_is_trained(hub, tmp_path, capsys):
    training(hub, tmp_path, f"model.writer.lora={LORA}", steps=1).run()
    # linear 80 -> 16 between norms of 80 and 16; LoRA on 16 -> 16 and 16 -> 8 of two layers
    said = capsys.readouterr().out
    assert "1,616 of 22,912 parameters are trained (projector 1,392, writer 224), 5 clips" in said


def test_other_weights_under_it_are_refused(hub, stage_1, tmp_path):
    other = shutil.copytree(hub, tmp_path / "hub")
    checkpoint = shutil.copytree(stage_1[1], tmp_path / "checkpoint")
    config = (checkpoint / "config.yaml").read_text().replace(str(hub), str(other))
    (checkpoint / "config.yaml").write_text(config)
    assert reloaded(checkpoint) == reloaded(stage_1[1])  # the same folder elsewhere
    file = other / "qwen2" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="qwen2: holds other weights .* restore them"):
        Recognizer.load(checkpoint, device="cpu")
    shutil.rmtree(other / "qwen2")
    with pytest.raises(UserError, match="qwen2: there is no such folder; give one, or a hub id"):
        Recognizer.load(checkpoint, device="cpu")


def test_another_prompt_under_it_is_refused(stage_1, tmp_path):
    checkpoint = shutil.copytree(stage_1[1], tmp_path / "checkpoint")
    file = checkpoint / "prompt.json"
    file.write_text(file.read_text().replace("[1, ", "[2, ", 1))
    with pytest.raises(UserError, match="its prompt is not the one that the model was trained with"):
        Recognizer.load(checkpoint, device="cpu")


IDS = """
import sys
from src.model.listeners import TransformersEncoder, TransformersFrontend
from src.model.writers import CausalLMWriter
from src.text_encoder import ChatTextEncoder
parts = TransformersFrontend("some/whisper"), TransformersEncoder("some/whisper"), CausalLMWriter("some/qwen2")
assert ChatTextEncoder("some/qwen2").vocab_size == 300
print(*(part.revision for part in parts), sep="\\n")
print(CausalLMWriter("some/qwen2", revision=parts[2].revision).revision)
try:
    CausalLMWriter("some/nobody")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_hub_ids_are_kept_with_their_commits(hub, tmp_path):
    """From the cache, as a user without a connection has it."""
    commits = {"whisper": "1" * 40, "qwen2": "2" * 40}
    for name, commit in commits.items():
        place = tmp_path / f"models--some--{name}"
        shutil.copytree(hub / name, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", IDS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *revisions, line = done.stdout.splitlines()
    assert revisions == [commits["whisper"], commits["whisper"], commits["qwen2"], commits["qwen2"]]
    assert line.startswith(
        "UserError some/nobody: not in the cache, and no connection to the hub; connect once"
    )


def test_stages_follow_each_other(hub, stage_1, tmp_path):
    """LoRA behind the projector of stage 1, which stays; then both, with a rate of the writer's own."""
    lora = ["+stage=lora", f"model.writer.lora={LORA}", "optimizer.lr=1.0e-2"]
    second = training(hub, tmp_path, *lora, f"trainer.init_from={stage_1[1]}", "run_name=second")
    checkpoint = second.run()
    weights = load_file(checkpoint / "model.safetensors")
    assert {name.partition(".")[0] for name in weights} == {"projector", "writer"}
    assert all("lora_" in name for name in weights if name.startswith("writer."))
    for name, value in load_file(stage_1[1] / "model.safetensors").items():
        assert torch.equal(value, weights[name])
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    found = reloaded(checkpoint)
    assert found == texts(second.step.model, second.text_encoder, second.searches["greedy"])
    assert found != reloaded(stage_1[1])

    joint = ["+stage=joint", f"model.writer.lora={LORA}", "model.encoder.lora=" + LORA.replace("v_", "k_")]
    rates = ["optimizer.lr=1.0e-2", "+learning_rates.writer=2.0e-3"]
    third = training(hub, tmp_path, *joint, *rates, f"trainer.init_from={checkpoint}", "run_name=third")
    rate_of = {id(w): group["lr"] for group in third.optimizer.param_groups for w in group["params"]}
    names = {name: rate_of[id(w)] for name, w in third.step.model.named_parameters() if w.requires_grad}
    assert len(names) == len(rate_of)
    first = names["projector.layers.1.weight"]
    for name, rate in names.items():
        assert rate == pytest.approx(first * (0.2 if name.startswith("writer.") else 1.0))
    assert {name.partition(".")[0] for name in names} == {"encoder", "projector", "writer"}
    checkpoint = third.run()
    assert reloaded(checkpoint) == texts(third.step.model, third.text_encoder, third.searches["greedy"])


def test_what_has_no_place_in_the_next_stage_is_said(hub, tmp_path, capsys):
    """LoRA that is not there any more."""
    run = training(hub, tmp_path, f"model.writer.lora={LORA}", "run_name=a", steps=1).run()
    training(hub, tmp_path, f"trainer.init_from={run}", "run_name=b", steps=1).run()
    said = capsys.readouterr().out
    assert f"started from {run}: 4 tensors taken, 8 of its own have no place here (writer)" in said


@pytest.mark.parametrize("choice", ["run_name=b", f"model.writer.lora={LORA}"])
def test_a_writer_that_was_trained_is_not_lost_without_a_word(choice, hub, tmp_path):
    """It would come from its folder again, with LoRA beside it or not."""
    run = training(hub, tmp_path, "model.frozen=[encoder]", "run_name=a", steps=1).run()
    with pytest.raises(
        UserError, match="there the writer was trained as a whole, .* would be lost; train the writer"
    ):
        training(hub, tmp_path, f"trainer.init_from={run}", choice).run()


def test_a_run_goes_on_as_if_it_had_never_stopped(hub, tmp_path):
    lora = [
        f"model.writer.lora={LORA}",
        "trainer.ema_decay=0.9",
        "model/projector=moe",
        "model.projector.hidden_dim=16",
    ]
    schedule = ["lr_scheduler=noam", "lr_scheduler.warmup_steps=2"]
    whole = training(hub, tmp_path, *lora, *schedule, "run_name=whole", steps=4).run()
    training(hub, tmp_path, *lora, *schedule, "run_name=parts", steps=2).run()
    resumed = training(
        hub, tmp_path, *lora, *schedule, "run_name=parts", "trainer.resume_from=auto", steps=4
    ).run()
    ours, theirs = (load_file(path.parent / "step-4" / "model.safetensors") for path in (resumed, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("family", ["conformer_ctc", "conformer_rnnt", "conformer_las", "paraformer"])
def test_a_conformer_of_another_family_listens(family, hub, tmp_path, capsys):
    """Its encoder, frozen: taken with trainer.init_from, and as it was after training."""
    base = ["+test=tiny", "datasets=samples", f"datasets.train.data_dir={SAMPLES}", "writer=[none]"]
    small = ["model.encoder.dim=16", "model.encoder.subsampling_channels=4"]
    taught = [
        *base,
        f"model={family}_xs",
        *small,
        f"save_dir={tmp_path}",
        "run_name=taught",
        "trainer.ema_decay=null",
    ]
    listener = build_trainer(compose(family, taught)).run()
    llm = [*base, "model=speech_llm_conformer", "model/writer=tiny_smollm3", *small]
    llm += ["~decoders.beam", "~decoders.sample", f"trainer.init_from={listener}", f"save_dir={tmp_path}"]
    trainer = build_trainer(compose("speech_llm", llm))
    checkpoint = trainer.run()
    assert "start anew because it has no layers of these names (projector, writer)" in capsys.readouterr().out
    theirs, ours = (load_file(path / "model.safetensors") for path in (listener, checkpoint))
    taken = [name for name in theirs if name.startswith("encoder.")]
    assert taken and all(torch.equal(ours[name], theirs[name]) for name in taken)
    assert reloaded(checkpoint) == texts(trainer.step.model, trainer.text_encoder, trainer.searches["greedy"])


def test_frozen_parts_that_nobody_taught_are_said(hub, tmp_path, capsys):
    """A Conformer comes by trainer.init_from alone: without it the run would learn from a random one."""
    small = ["model.encoder.dim=16", "model.encoder.num_layers=1", "model.encoder.subsampling_channels=4"]
    base = ["+test=tiny", "datasets=samples", f"datasets.train.data_dir={SAMPLES}", "writer=[none]"]
    base += [
        "model=speech_llm_conformer",
        f"model.writer.source={hub / 'qwen2'}",
        "model/writer=qwen2",
        *small,
    ]
    base += ["~decoders.beam", "~decoders.sample", f"save_dir={tmp_path}", "run_name=deaf"]
    build_trainer(compose("speech_llm", base)).run()
    said = capsys.readouterr().out
    assert "warning: encoder: random, and frozen as such; start from a checkpoint" in said
    build_trainer(compose("speech_llm", [*base, "run_name=all", "model.frozen=[writer]"])).run()
    training(hub, tmp_path, "run_name=taught").run()
    assert "warning" not in capsys.readouterr().out


def test_learning_rates_that_nobody_has_are_one_line(hub, tmp_path):
    for choices, line in (
        (
            ["+learning_rates.writr=1.0e-3"],
            "learning_rates.writr: there is no part of that name; what is trained: projector$",
        ),
        (
            ["+learning_rates.writer=1.0e-3"],
            "learning_rates.writer: it is frozen; what is trained: projector$",
        ),
        (["+learning_rates.projector=0"], "learning_rates.projector=0 must be a number above 0"),
        (
            [f"model.writer.lora={LORA}", "+learning_rates.writer=1.0e-3", "lr_scheduler=one_cycle"],
            "OneCycleLR has one rate for all",
        ),
    ):
        with pytest.raises(UserError, match=line):
            training(hub, tmp_path, *choices)


def test_master_weights_stay_whole_under_autocast(hub, tmp_path):
    """The writer in half precision, what is trained in float32: a step that bfloat16 could not hold is taken."""
    choices = ["model.writer.dtype=bfloat16", "model.encoder.dtype=bfloat16", f"model.writer.lora={LORA}"]
    trainer = training(hub, tmp_path, *choices, "trainer.precision=bf16", "optimizer.lr=1.0e-4", steps=2)
    model = trainer.step.model
    before = {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}
    assert {w.dtype for w in before.values()} == {torch.float32}
    frozen = {w.dtype for w in model.parameters() if not w.requires_grad}
    assert frozen == {torch.bfloat16}
    trainer.run()
    norm = "projector.layers.0.weight"
    moved = (model.state_dict()[norm] - before[norm]).abs().max()
    assert 0 < float(moved) < 2**-8  # ones in bfloat16 would have stayed where they were


def test_the_whole_writer_can_be_trained_and_shared(hub, tmp_path):
    """Tied weights are saved once."""
    shutil.copytree(hub, tmp_path / "hub")
    config = transformers.AutoConfig.for_model(**{**WRITERS["qwen3"], "vocab_size": 304})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "hub" / "qwen2")
    trainer = training(tmp_path / "hub", tmp_path, "model.frozen=[encoder]")
    checkpoint = trainer.run()
    weights = load_file(checkpoint / "model.safetensors")
    assert "writer.network.model.embed_tokens.weight" in weights
    assert "writer.network.lm_head.weight" not in weights
    assert reloaded(checkpoint) == texts(trainer.step.model, trainer.text_encoder, trainer.searches["greedy"])


def test_words_are_not_asked_of_a_model_without_ctc(stage_1):
    checkpoint = stage_1[1]
    with pytest.raises(
        UserError, match="^times_from=.*: a SpeechLLM has no CTC layer to align words with; give"
    ):
        Recognizer.load(checkpoint, device="cpu", times_from=checkpoint)


def test_lora_where_there_is_none_is_told_what_it_takes():
    with pytest.raises(
        UserError, match=r"model.writer.lora is null .* as 'model.writer.lora=\{rank: ..., ...\}'"
    ):
        compose("speech_llm", ["model.writer.lora.rank=4"])
    with pytest.raises(UserError, match="stage is a group .* write .stage=lora$"):
        compose("speech_llm", ["stage=lora"])
    whole = compose("speech_llm", ["+stage=lora", "model.writer.lora.rank=4"])
    assert whole.model.writer.lora.rank == 4 and whole.model.writer.lora.alpha == 32


def test_clips_without_a_projected_frame_are_named_with_that_reason(hub, tmp_path, capsys):
    with pytest.raises(UserError, match="none of the training clips could be used"):
        training(hub, tmp_path, "model/projector=mlp", "model.projector.stack=2000", steps=1).run()
    said = capsys.readouterr().out
    assert ": too short: it makes no projected frame; its loss counts as 0" in said and "dev loss" not in said
