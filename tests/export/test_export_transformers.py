"""Directories that ``transformers`` loads: in a process of their own, without the project, with the same texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.families import MODELS, SEARCHES

transformers = pytest.importorskip("transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")

from safetensors.torch import load_file  # noqa: E402
from support.tiny_networks import LISTENERS, WRITERS  # noqa: E402

from scripts import export_transformers  # noqa: E402
from src.checkpoint import write_checkpoint  # noqa: E402
from src.datasets import load_audio  # noqa: E402
from src.export.directory import export_for_transformers, modeling_source  # noqa: E402
from src.recognizer import Recognizer  # noqa: E402
from src.safe_build import safe_build  # noqa: E402
from src.text_encoder import CharTextEncoder, ChatTextEncoder  # noqa: E402
from tests.conftest import ROOT  # noqa: E402

DEMO, CLIPS = ROOT / "checkpoints" / "demo", sorted((ROOT / "samples" / "audio").glob("*.flac"))
# Loads the directory, transcribes one by one and in a batch, saves it and loads it again.
ELSEWHERE = """
import json, sys
import numpy as np
from transformers import pipeline

def load(folder):
    return pipeline("automatic-speech-recognition", model=folder, trust_remote_code=True, device="cpu")

recognise = load(sys.argv[1])
clips = list(np.load(sys.argv[2], allow_pickle=False).values())
result = {"alone": [recognise(clip)["text"] for clip in clips]}
result["together"] = [found["text"] for found in recognise(clips, batch_size=3)]
result["words"] = recognise(clips[0], return_timestamps="word").get("chunks")
result["cut"] = recognise(clips[0], chunk_length_s=1.5)["text"]
recognise.save_pretrained("saved")
result["again"] = load("saved")(clips[0])["text"]
result["modules"] = [name for name in sys.modules if name.split(".")[0] in ("src", "hydra", "omegaconf")]
result["weights"] = sum(weight.numel() for weight in recognise.model.parameters())
print(json.dumps(result))
"""


def elsewhere(folder: Path, clips: list[np.ndarray], tmp_path: Path) -> dict:
    """What a process says that has only the directory."""
    np.savez(tmp_path / "clips.npz", *clips)
    place = tmp_path / "elsewhere"
    place.mkdir()
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    settings |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ELSEWHERE, str(folder), str(tmp_path / "clips.npz")]
    done = subprocess.run(command, cwd=place, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(result: dict, recognizer: Recognizer, clips: list[np.ndarray]) -> None:
    ours = recognizer.transcribe(clips)
    texts = [transcript.text for transcript in ours]
    assert result["alone"] == result["together"] == texts and any(texts)
    assert result["again"] == texts[0] and result["modules"] == []
    assert result["cut"] == recognizer.transcribe(clips[:1], longest_s=1.5)[0].text
    words = [{"text": word, "timestamp": [start, end]} for word, start, end, _ in ours[0].words]
    assert result["words"] == words


def test_ctc(tmp_path, monkeypatch, capsys):
    out = tmp_path / "demo"
    command = ["export_transformers.py", DEMO, "--out", out, "--decoder", "beam"]
    monkeypatch.setattr(sys, "argv", [*map(str, command)])
    export_transformers.main()
    assert f"{out}/modeling_lectern.py" in capsys.readouterr().out
    clips = [load_audio(clip) for clip in CLIPS]
    result = elsewhere(out, clips, tmp_path)
    check(result, Recognizer.load(DEMO, "beam", "cpu"), clips)
    assert len(result["words"]) > 3
    export_transformers.main()  # an older one is replaced


def speech_llm_checkpoint(folder: Path, writer: dict, lora: dict | None = None) -> Path:
    text_encoder = ChatTextEncoder()
    listener = {"config": LISTENERS["glm_asr"]}
    model = {
        "_target_": "src.model.SpeechLLM",
        "frontend": {"_target_": "src.model.listeners.TransformersFrontend", **listener},
        "encoder": {"_target_": "src.model.listeners.TransformersEncoder", **listener},
        "projector": {"_target_": "src.model.projectors.MLPProjector", "stack": 4, "hidden_dim": 16},
        "writer": {"_target_": "src.model.writers.CausalLMWriter", **writer, "lora": lora},
        **text_encoder.for_model(),
    }
    torch.manual_seed(0)
    built = safe_build(model, "model")
    for weight in built.parameters():
        if weight.requires_grad or "config" in writer:  # random models hardly look at their prompt
            weight.data.mul_(4.0).add_(torch.randn_like(weight) * 0.1)
    if "source" in writer:
        model["writer"]["revision"] = built.writer.revision
    model = json.loads(json.dumps(model))  # without aliases in YAML
    config = {"model": model, "decoders": {"greedy": {"_target_": "src.decoding.SpeechLLMGreedySearch"}}}
    folder.mkdir()
    write_checkpoint(folder, built, config, text_encoder, "# A model\n")
    return folder


@pytest.fixture
def clips():
    generator = np.random.default_rng(0)
    return [(generator.standard_normal(n) * 0.1).astype(np.float32) for n in (40_000, 12_345, 16_000, 30_000)]


def test_a_speech_llm_with_tied_weights(tmp_path, clips):
    """The embeddings are saved once, and are the output layer's again; in a folder whose name needs care."""
    checkpoint, out = (
        speech_llm_checkpoint(tmp_path / "llm", {"config": WRITERS["qwen3"]}),
        tmp_path / "a b.c (1)",
    )
    export_for_transformers(checkpoint, out)
    names = load_file(out / "model.safetensors").keys()
    assert any("embed_tokens" in name for name in names) and not any("lm_head" in name for name in names)
    recognizer = Recognizer.load(checkpoint, device="cpu")
    result = elsewhere(out, clips, tmp_path)
    check(result, recognizer, clips)
    assert result["weights"] == sum(weight.numel() for weight in recognizer.model.parameters())


def save_writer(folder: Path) -> None:
    torch.manual_seed(1)
    sizes = transformers.AutoConfig.for_model(**{**WRITERS["qwen3"], "pad_token_id": None})
    network = transformers.AutoModelForCausalLM.from_config(sizes)
    for weight in network.parameters():
        weight.data.mul_(4.0)
    network.save_pretrained(folder)


@pytest.mark.parametrize("whole", [False, True], ids=["named", "whole"])
def test_a_hub_s_frozen_writer_is_named_or_comes_along(whole, tmp_path, clips, monkeypatch):
    """The hub is what the cache holds of it."""
    commit, hub = "3" * 40, tmp_path / "hub"
    save_writer(hub / "models--some--writer" / "snapshots" / commit)
    for name, value in {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": True}.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv(name, str(value))
    checkpoint = speech_llm_checkpoint(tmp_path / "llm", {"source": "some/writer", "revision": commit})
    export_for_transformers(checkpoint, tmp_path / "out", whole=whole)
    recognizer = Recognizer.load(checkpoint, device="cpu")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["lectern"]["model"]["writer"]
    named = None if whole else "some/writer", None if whole else commit
    assert (config["source"], config["revision"]) == named
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert any("embed_tokens" in name for name in names) is whole
    if whole:
        hub.rename(tmp_path / "gone")
    check(elsewhere(tmp_path / "out", clips, tmp_path), recognizer, clips)


def test_a_folder_s_frozen_writer_comes_along(tmp_path, clips):
    """With LoRA on it, which alone was saved; afterwards the folder may go."""
    save_writer(tmp_path / "writer")
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]}
    checkpoint = speech_llm_checkpoint(tmp_path / "llm", {"source": str(tmp_path / "writer")}, lora)
    assert not any("embed_tokens" in name for name in load_file(checkpoint / "model.safetensors"))
    export_for_transformers(checkpoint, tmp_path / "out")
    recognizer = Recognizer.load(checkpoint, device="cpu")
    (tmp_path / "writer").rename(tmp_path / "gone")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["lectern"]["model"]["writer"]
    assert config["source"] is config["revision"] is None and config["config"]["model_type"] == "qwen3"
    check(elsewhere(tmp_path / "out", clips, tmp_path), recognizer, clips)


@pytest.mark.parametrize("family", MODELS)
def test_every_family_s_parts_make_one_file(family):
    """It stands alone, in Python's eyes: every name in it is defined."""
    model = MODELS[family]()
    kinds = {type(module) for module in model.modules() if type(module).__module__.startswith("src.")}
    source = modeling_source(
        {f"{kind.__module__}.{kind.__name__}": kind for kind in {*kinds, SEARCHES[family], CharTextEncoder}}
    )
    assert "from src" not in "\n".join(line for line in source.splitlines() if ">>>" not in line)
    compile(source, "modeling_lectern.py", "exec")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "F821,F811", "--ignore-noqa", "--isolated", "-"],
        input=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_what_cannot_be_shared_is_one_line(tmp_path, monkeypatch, capsys):
    """A YAML of one's own may name language models, which are files of this machine."""
    monkeypatch.chdir(tmp_path)
    own = "own.yaml"
    Path(own).write_text("search_of_checkpoint: beam\n")
    somebody = tmp_path / "somebody's network"
    somebody.mkdir()
    for name in ("config.json", "model.safetensors"):
        (somebody / name).write_text("{}")
    for words, line in (
        ([DEMO, "--decoder", "nothing"], "decoder=nothing is unknown"),
        ([DEMO, "--decoder", own], "decoder=own.yaml: give one of the checkpoint's own: beam, greedy"),
        (["nowhere"], "checkpoint nowhere does not exist"),
        ([DEMO, "--out", tmp_path], "is there already, and no such directory"),
        ([DEMO, "--out", somebody], "is there already, and no such directory"),
    ):
        monkeypatch.setattr(
            sys, "argv", ["export_transformers.py", "--out", str(tmp_path / "x"), *map(str, words)]
        )
        with pytest.raises(SystemExit) as stop:
            export_transformers.main()
        error = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and len(error) == 1 and line in error[0]
    assert not (tmp_path / "x").exists() and (somebody / "model.safetensors").exists()
