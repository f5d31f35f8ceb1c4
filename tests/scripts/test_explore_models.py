"""scripts/count_parameters.py, explore_architecture.py and inspect_audio.py: tables, trees and a picture."""

from __future__ import annotations

import re
import sys

import pytest

from scripts import count_parameters, explore_architecture, inspect_audio
from src.recognizer import Recognizer
from tests.conftest import ROOT

DEMO, CLIP = ROOT / "checkpoints" / "demo", ROOT / "samples" / "audio" / "linda-en-002-000000.flac"


@pytest.fixture
def call(monkeypatch, capsys):
    def run(script, *words: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
        script.main()
        return capsys.readouterr().out.splitlines()

    return run


def numbers(line: str) -> list[int]:
    return [int(cell.replace(",", "")) for cell in line.split()[1:4]]


def test_parameters_of_a_checkpoint(call):
    name, heads, *rows = call(count_parameters, DEMO)
    assert name == str(DEMO) and heads.split() == ["part", "total", "trainable", "frozen", "trained"]
    head = 144 * 29 + 29
    everything = sum(weight.numel() for weight in Recognizer.load(DEMO, device="cpu").model.parameters())
    assert [numbers(row) for row in rows] == [
        [0, 0, 0],
        [everything - head, everything - head, 0],
        [head, head, 0],
        [everything, everything, 0],
    ]


def test_parameters_of_a_config_and_what_is_frozen(call):
    pytest.importorskip("transformers")
    words = ["-cn=speech_llm", "+test=tiny_llm", "datasets=samples", "model/projector=linear"]
    rows = {row.split()[0]: numbers(row) for row in call(count_parameters, *words)[2:]}
    assert rows["projector"] == [5344, 5344, 0]  # 160 and 32 of the norms, 160 x 32 weights and 32 biases
    assert rows["encoder"][1] == rows["writer"][1] == 0 and rows["encoder"][2] and rows["writer"][2]
    assert rows["all"] == [
        sum(rows[part][i] for part in ("encoder", "projector", "writer")) for i in range(3)
    ]


def test_of_a_large_network_only_the_config_is_read(call, tmp_path):
    """A folder without weights, for a writer of seven billion."""
    transformers = pytest.importorskip("transformers")
    large = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}
    transformers.Qwen2Config(**large, **heads, tie_word_embeddings=False).save_pretrained(tmp_path)
    words = ["+test=tiny_llm", "datasets=samples", "text_encoder.source=null", "model.writer.config=null"]
    rows = call(count_parameters, "-cn=speech_llm", *words, f"model.writer.source={tmp_path}")
    (writer,) = [numbers(row) for row in rows if row.startswith("writer")]
    assert writer == [7_615_616_512, 0, 7_615_616_512]


@pytest.mark.parametrize("config", ["conformer_rnnt", "las", "paraformer", "deepspeech2_ctc", "lm"])
def test_every_family_has_a_table_and_a_tree(call, config):
    data = ["datasets.train.texts=[a]", "datasets.dev.texts=b"] if config == "lm" else ["datasets=samples"]
    total = numbers(call(count_parameters, f"-cn={config}", *data)[-1])[0]
    tree = call(explore_architecture, f"-cn={config}", *data, "--depth", 1)
    root = tree[tree.index("its modules") + 1]
    assert root.split()[2] == f"{total:,}"


def test_where_the_parts_of_a_speech_llm_meet(call):
    pytest.importorskip("transformers")
    tree = call(explore_architecture, "-cn=speech_llm", "+test=tiny_llm", "datasets=samples", "--depth", 1)
    meets = tree[: tree.index("its modules")]
    assert any(line.startswith("  projector: 4 frames together, ") for line in meets)
    assert any(line.startswith("  writer: reads vectors of ") for line in meets)
    assert not any("search:" in line for line in meets)  # they count in nothing


def test_the_writer_of_a_speech_llm_reads_its_prompt(call):
    pytest.importorskip("transformers")
    words = ["+test=tiny_llm", "datasets=samples", "--run", "--depth", 1]
    tree = call(explore_architecture, "-cn=speech_llm", *words)
    before, after = next(re.findall(r"\d+", line) for line in tree if "prompt: " in line and "speech" in line)
    whole, _, encoder, projector, writer = tree[tree.index("its modules") + 1 :]
    assert "->" not in whole  # it returns several things
    assert encoder.endswith("-> [1, 50, 32]") and projector.endswith("-> [1, 12, 32]")
    assert writer.endswith(f"-> [1, {int(before) + 12 + int(after)}, 264]")


def test_the_blueprint_and_the_tree_of_the_demo(call):
    lines = call(explore_architecture, DEMO, "--run", "--depth", 3)
    assert lines[1:5] == ["model: CTCModel", "  frontend: LogMel", "    num_mels: 80", "    normalize: True"]
    assert (
        "  encoder: 4 of them make a frame of 144" in lines and "  search: counts in frames of 40 ms" in lines
    )
    (blocks,) = [line for line in lines if "ConformerBlock x 8" in line]
    (head,) = [line for line in lines if "head: Linear" in line]
    assert blocks.split()[-4:] == ["->", "[1,", "25,", "144]"]
    assert head.endswith("4,205  -> [1, 25, 29]  weight [29, 144]  bias [29]")


def test_a_recording_stage_by_stage(call, tmp_path):
    lines = call(inspect_audio, DEMO, CLIP, "--out", tmp_path)
    rows = {line[:32].strip(): line[32:].split() for line in lines}
    samples = int(rows["waveform"][0])
    assert rows["features"][0] == f"{samples // 160}x80" and rows["embeddings"][0] == f"{samples // 640}x144"
    assert float(rows["embeddings"][1]) == pytest.approx(samples / (samples // 640), abs=0.1)
    assert rows["normalised waveform"][3:5] in (["0.0000", "1.0000"], ["-0.0000", "1.0000"])
    text = Recognizer.load(DEMO, device="cpu").transcribe([CLIP])[0].text
    assert f"text: {text}" in lines and any(line.startswith("tokens (") for line in lines)
    assert lines[-1] == f"picture: {tmp_path / f'demo_{CLIP.stem}_stages.png'}"
    assert (tmp_path / f"demo_{CLIP.stem}_stages.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("script", "words", "line"),
    [
        (count_parameters, [], "give one checkpoint directory, or -cn=NAME"),
        (count_parameters, ["nowhere"], "checkpoint nowhere does not exist"),
        (count_parameters, ["-cn=inference", "checkpoint=a", "data_dir=b", "save_dir=c"], "has no model"),
        (explore_architecture, [DEMO, "--depth", "-1"], "--depth -1: give at least 0"),
        (explore_architecture, ["-cn=nothing"], "-cn=nothing: there is no such config"),
        (inspect_audio, [DEMO, "nothing.wav"], "nothing.wav: no such file"),
    ],
)
def test_mistakes_are_one_line(call, capsys, script, words, line):
    with pytest.raises(SystemExit) as stop:
        call(script, *words)
    error = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(error) == 1 and error[0].startswith("error: ") and line in error[0]
