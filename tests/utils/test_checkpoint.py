"""A checkpoint from a stranger: whatever is wrong with it ends in one line, and nothing in it is executed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from src.checkpoint import Checkpoint, find_checkpoint, write_checkpoint
from src.model import CTCModel
from src.model.encoders import MLPEncoder
from src.recognizer import Recognizer
from src.safe_build import safe_build
from src.text_encoder import CharTextEncoder, train_bpe
from src.transforms import LogMel
from src.utils.errors import UserError
from src.utils.files import save_tensors

CONFIG = {
    "model": {
        "_target_": "src.model.CTCModel",
        "frontend": {"_target_": "src.transforms.LogMel", "num_mels": 20},
        "encoder": {"_target_": "src.model.encoders.MLPEncoder", "num_features": 20, "dim": 8},
        "vocab_size": 29,
    },
    "decoders": {
        "greedy": {"_target_": "src.decoding.CTCGreedySearch"},
        "beam": {"_target_": "src.decoding.CTCBeamSearch", "beam_size": 4},
    },
}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("original")
    torch.manual_seed(0)
    model = CTCModel(LogMel(num_mels=20), MLPEncoder(20, dim=8), vocab_size=29)
    write_checkpoint(directory, model, CONFIG, CharTextEncoder(), "card")
    return directory


@pytest.fixture
def checkpoint(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "checkpoint"))


def refusal(path: Path, **arguments) -> str:
    """The one line in which loading ends; anything but a ``UserError`` is a traceback."""
    with pytest.raises(UserError) as caught:
        Recognizer.load(path, device="cpu", **arguments)
    return str(caught.value)


@pytest.mark.parametrize("number", ["1e5", "1.0e5", "+1E+5", "1.e5", "1.0e+5", "100000.0"])
def test_numbers_in_a_decoder_file_are_read_as_on_the_command_line(checkpoint, number):
    """YAML 1.1 takes those without a point, or without a sign after the e, for texts."""
    file = checkpoint.parent / "decoder.yaml"
    scorer = "{_target_: src.decoding.LengthBonus}"
    file.write_text(f"{{_target_: src.decoding.CTCBeamSearch, scorers: [[{scorer}, {number}]]}}")
    assert Checkpoint.open(checkpoint).search_settings(str(file))["scorers"][0][1] == 1e5
    Checkpoint.open(checkpoint).search(str(file))


def test_a_sound_checkpoint_loads_and_transcribes(checkpoint):
    for decoder in ("greedy", "beam"):
        recognizer = Recognizer.load(checkpoint, decoder=decoder, device="cpu")
        assert not recognizer.model.training
        (transcript,) = recognizer.transcribe([torch.zeros(1600).numpy()])
        assert isinstance(transcript.text, str)


def edited(keys: str, value) -> dict:
    """``CONFIG`` with one entry replaced."""
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    node = config
    *path, last = keys.split(".")
    for key in path:
        node = node[key]
    node[last] = value
    return config


SEARCH, LOG_MEL = CONFIG["decoders"]["greedy"], CONFIG["model"]["frontend"]
MISFITS = [
    ("decoders", None, "no 'model' and 'decoders'"),
    ("decoders", ["greedy"], "no 'model' and 'decoders'"),
    ("decoders", {"greedy": SEARCH, 1: dict(SEARCH)}, "'decoders' are not mappings by name"),
    ("decoders.greedy", "greedy", "'decoders' are not mappings by name"),
    ("decoders.greedy", {}, "decoder greedy is a dict, not a search"),
    ("decoders.greedy", LOG_MEL, "decoder greedy is a LogMel, not a search"),
    ("decoders.greedy", {"_target_": "src.decoding.LengthBonus", "vocab_size": 29}, "LengthBonus, not a"),
    ("decoders.greedy", {**SEARCH, "blank": "x"}, "config.yaml: src.decoding.CTCGreedySearch .*blank='x'"),
    ("model", None, "no 'model' and 'decoders'"),
    ("model", {}, "has no frontend and encoder"),
    ("model.frontend", "x", "CTCModel.* has no frontend and encoder"),
    ("model.frontend", {"_target_": "src.transforms.SpecAugment"}, "SpecAugment' is not a class"),
    ("model.frontend", {**LOG_MEL, "num_mels": 40}, "fails on a second of sound"),
    ("model.frontend", {**LOG_MEL, "hop_ms": 0}, "config.yaml: src.transforms.LogMel .*hop_ms=0"),
    ("model.frontend", {"num_mels": 20}, "CTCModel cannot be built: frontend=.* must be a part of the model"),
    ("model.encoder", LOG_MEL, "CTCModel cannot be built"),
    ("model._target_", "src.transforms.LogMel", "LogMel cannot be built"),
    ("model.vocab_size", 30, "does not fit the model"),
    ("model.vocab_size", "many", "cannot be built"),
    ("model._partial_", True, "key '_partial_' is not allowed"),
]


@pytest.mark.parametrize("keys,value,message", MISFITS, ids=[f"{k}={str(v)[:40]}" for k, v, _ in MISFITS])
def test_a_config_whose_parts_do_not_fit(checkpoint, keys, value, message):
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(edited(keys, value)))
    with pytest.raises(UserError, match=message):
        Recognizer.load(checkpoint, device="cpu")


TEXTS = {
    "an alias that holds itself": "model: &a {_target_: src.model.CTCModel, frontend: *a, encoder: {}}\ndecoders: {}",
    "aliases that grow": "a: &a [1, 1]\nb: &b [*a, *a]\nmodel: {frontend: {b: *b}, encoder: {}}\ndecoders: {}",
    "1200 brackets": "[" * 1200,
    "no such date": "model: 2001-99-99",
    "no integer": "model: !!int abc",
    "no boolean": "model: !!bool abc",
    "5000 digits": "model: " + "9" * 5000,
    "nothing": "",
    "not UTF-8": b"\xff\xfe\xff",
    "deep": "model: {frontend: {a: " + "[" * 60 + "]" * 60 + "}, encoder: {}}\n"
    "decoders: {greedy: {_target_: src.decoding.CTCGreedySearch}}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_config_that_no_parser_likes(checkpoint, text):
    (checkpoint / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refusal(checkpoint)
    assert line.startswith(f"{checkpoint / 'config.yaml'}: ") and len(line) < 500


def test_a_tree_that_holds_itself_is_not_built():
    tree: dict = {}
    tree["frontend"] = tree
    with pytest.raises(UserError, match="model: is nested more than"):
        safe_build(tree, "model")


def test_a_config_opens_no_file_of_this_machine(checkpoint, tmp_path):
    secret = tmp_path / "secret.model"
    secret.write_bytes(train_bpe(["some text of the user"], 32))
    node = {"_target_": "src.text_encoder.BPETextEncoder", "model_file": str(secret)}
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(edited("model.encoder", node)))
    assert "'src.text_encoder.BPETextEncoder' is not a class" in refusal(checkpoint)


@pytest.mark.parametrize("alphabet", [" abc", " 'abcdefghijklmnopqrstuvwxyzé"])
def test_a_tokenizer_of_another_size(checkpoint, alphabet):
    CharTextEncoder(alphabet).save(checkpoint)
    line = refusal(checkpoint)
    assert "tokenizer.txt: has" in line and "vocab_size is 29" in line


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(checkpoint, number):
    weights = load_file(checkpoint / "model.safetensors")
    weights["head.bias"][3] = number
    save_file(weights, checkpoint / "model.safetensors")
    assert "head.bias holds NaN or infinite numbers" in refusal(checkpoint)
    with pytest.raises(UserError, match="head.bias"):
        Checkpoint.open(checkpoint).weights()


def test_weights_that_overflow(checkpoint):
    weights = {name: value * 1e30 for name, value in load_file(checkpoint / "model.safetensors").items()}
    save_file(weights, checkpoint / "model.safetensors")
    assert "fails on a second of sound (its output is NaN)" in refusal(checkpoint)


def test_pointers_and_runs_lead_to_the_same_directory(original, tmp_path):
    step = shutil.copytree(original, tmp_path / "run/checkpoints/step-3")
    for name in ("last", "best"):
        (tmp_path / "run/checkpoints" / name).write_text("step-3\n")
    for path in ("run", "run/checkpoints", "run/checkpoints/best", "run/checkpoints/last"):
        assert find_checkpoint(tmp_path / path) == step


@pytest.mark.parametrize("content", [b"", b"\n", b"best", b".", b"last", b"\xff" * 300, b"a\0b", b"step-9"])
def test_a_pointer_that_leads_nowhere(original, tmp_path, content):
    shutil.copytree(original, tmp_path / "checkpoints/step-3")
    (tmp_path / "checkpoints/last").write_text("step-3\n")
    (tmp_path / "checkpoints/best").write_bytes(content)
    for path in (tmp_path, tmp_path / "checkpoints/best"):
        with pytest.raises(UserError, match="best: names no checkpoint"):
            find_checkpoint(path)


def test_paths_that_cannot_be(tmp_path):
    for name in ("none", "x" * 300, "a\0b"):
        with pytest.raises(UserError, match="does not exist"):
            find_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match="has no config.yaml"):
        find_checkpoint(tmp_path)


def test_a_decoder_whose_class_is_a_list_is_one_line(checkpoint):
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(edited("decoders.greedy", {"_target_": ["a"]})))
    with pytest.raises(UserError, match="is not a class that"):
        Checkpoint.open(checkpoint).search("greedy", {"x": 1})


def test_a_setting_of_the_command_line_is_not_blamed_on_the_checkpoint(checkpoint):
    with pytest.raises(UserError, match="^decoder=beam with search.beam_size=0: .*beam_size=0 must be"):
        Checkpoint.open(checkpoint).search("beam", {"beam_size": 0})


@pytest.mark.parametrize(("family", "offered"), [("CTCModel", True), ("LASModel", False)])
def test_what_is_for_ctc_alone_is_offered_to_ctc_alone(checkpoint, family, offered):
    opened = Checkpoint.open(checkpoint)
    opened.config["model"]["_target_"] = f"src.model.{family}"
    with pytest.raises(UserError, match="decoder=beem is unknown to .* beam, beam_hotwords") as error:
        opened.search("beem")
    assert ("pyctcdecode" in str(error.value)) == offered


def test_a_search_without_scorers_is_offered_none(checkpoint):
    """As a speech LLM's beam has none; its n-best list can be rescored all the same."""
    own = {"greedy": {"_target_": "src.decoding.SpeechLLMGreedySearch"}}
    own["beam"] = {"_target_": "src.decoding.SpeechLLMBeamSearch", "beam_size": 2}
    opened = Checkpoint.open(checkpoint)
    opened.config["model"]["_target_"] = "src.model.SpeechLLM"
    opened.config["decoders"] = own
    with pytest.raises(UserError, match="choose one of: beam, beam_rescored, greedy, or give a YAML file$"):
        opened.search("beem")
    expected = (
        "^decoder=beam_hotwords: SpeechLLMBeamSearch takes no scorers; leave it out, or choose one of: "
        "beam, beam_rescored, greedy$"
    )
    with pytest.raises(UserError, match=expected):
        opened.search("beam_hotwords")
    del own["beam"]
    with pytest.raises(UserError, match="choose one of: greedy, or give a YAML file$"):
        opened.search("beem")


def test_what_a_search_of_ones_own_does_not_take_is_one_line(checkpoint, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("{_target_: src.decoding.NBestRescoring, search: {search_of_checkpoint: beam, beams: 3}}")
    with pytest.raises(UserError, match="own.yaml: CTCBeamSearch takes no beams; leave it out, or choose"):
        Checkpoint.open(checkpoint).search(str(file))


@pytest.mark.parametrize(
    ("decoder", "remedy"),
    [
        ("{_target_: src.lm.WordNGramScorer, lm: FILE}", "scripts/train_lm.py"),
        ("{_target_: src.lm.WordNGramScorer, lm: FILE.safetensors}", "scripts/train_lm.py"),
        ("{_target_: src.lm.NeuralScorer, lm: FILE}", "train.py -cn=lm trains one"),
    ],
)
def test_a_language_model_that_is_not_there_is_told_how_to_make_it(checkpoint, tmp_path, decoder, remedy):
    scorer = decoder.replace("FILE", str(tmp_path / "nothing"))
    file = tmp_path / "own.yaml"
    file.write_text(f"search_of_checkpoint: beam\nscorers: [[{scorer}, 0.5]]\n")
    with pytest.raises(UserError, match=f"nothing.*{remedy}"):
        Checkpoint.open(checkpoint).search(str(file))


def test_weights_given_for_a_checkpoint_are_not_printed(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"Pq\x00\x00{weights}")
    with pytest.raises(
        UserError, match=r"model.safetensors: names no checkpoint; give the checkpoint's directory"
    ):
        find_checkpoint(file)


def test_others_may_read_weights_as_they_may_read_any_new_file(tmp_path):
    save_tensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    (tmp_path / "plain").touch()
    modes = {(tmp_path / name).stat().st_mode for name in ("a.safetensors", "plain")}
    assert len(modes) == 1
