"""Every YAML composes, is built, and runs one step under +test=tiny; the files are found by themselves."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf

from src.safe_build import OWN_ROOMS, allowed_targets
from src.text_encoder import train_bpe
from src.trainer import build_trainer
from src.trainer.build import build_model
from src.utils.build import build
from src.utils.hydra_door import CONFIGS, compose

ROOT = Path(__file__).resolve().parents[1]
TRAINING = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in ("base", "inference"))
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in CONFIGS.iterdir()
    if folder.is_dir()
}
TINY = ["+test=tiny", "datasets=samples", "datasets.train.data_dir=" + str(ROOT / "samples"), "writer=[none]"]
TINY_TEXT = [
    *("+test=tiny", "~model.encoder", "model.dim=16", "writer=[none]"),
    *(f"datasets.{part}.texts={ROOT / 'samples'}" for part in ("train", "dev")),
]
TINY_LLM = [choice.replace("=tiny", "=tiny_llm") for choice in TINY]
OF_LANGUAGE_MODELS = {"lm", "lstm_lm", "next_token", "none", "texts"}  # and of no recogniser

TRANSDUCER = ["model=conformer_rnnt_xs", "objective=transducer", "decoders=transducer"]
LAS = ["model=conformer_las_xs", "objective=attention", "decoders=attention"]
PARAFORMER = ["model=paraformer_xs", "objective=paraformer", "decoders=paraformer"]
SPEECH_LLM = ["model=speech_llm", "text_encoder=chat", "objective=answer", "decoders=speech_llm"]
# What a part of a family cannot do without, by a word of its name.
FAMILIES = {
    "rnnt": TRANSDUCER,
    "transducer": TRANSDUCER,
    "attention": LAS,
    "las": LAS,
    "paraformer": PARAFORMER,
    "word_errors": [*PARAFORMER, "model.sampling_ratio=0"],
    "speech_llm": SPEECH_LLM,
    "answer": SPEECH_LLM,
    "chat": SPEECH_LLM,
}
# Stand-ins of parts that are loaded from a hub; those of tiny_llm where there is none here.
OFFLINE = {
    "speech_llm_whisper": ["model/listener=tiny_whisper", "model/writer=tiny_qwen2"],
    "speech_llm_hubert": ["model/listener=tiny_hubert", "model/writer=tiny_smollm3"],
    "speech_llm_conformer": ["model/listener=conformer_xs"],
}


def family_of(name: str) -> list[str]:
    return next((family for part, family in FAMILIES.items() if part in name), [])


@pytest.fixture(scope="module")
def bpe_file(tmp_path_factory) -> Path:
    lines = [file.read_text() for file in sorted((ROOT / "samples" / "transcriptions").glob("*.txt"))]
    file = tmp_path_factory.mktemp("bpe") / "tokenizer.model"
    file.write_bytes(train_bpe(lines, vocab_size=40))
    return file


def needed(name: str, bpe_file: Path) -> list[str]:
    """Values for what a config leaves open; the checkpoint to fine-tune has all its layers."""
    if name == "finetune":
        return ["model.encoder.num_layers=8"]
    if name == "las":  # the paper's, without CTC
        return ["objective.ctc_weight=0", "decoders.beam.ctc_weight=0"]
    needs_pieces = "bpe" in name or name.startswith("librispeech100")
    return [f"text_encoder.model_file={bpe_file}"] if needs_pieces else []


def targets(node):
    """Every mapping with a ``_target_`` in a tree."""
    if isinstance(node, dict):
        yield from [node] if "_target_" in node else []
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from targets(value)


def run_one_step(name: str, overrides: list[str], save_dir: Path) -> None:
    tiny = TINY_TEXT if name in OF_LANGUAGE_MODELS else TINY
    if "speech_llm" in name or "model=speech_llm" in overrides:
        pytest.importorskip("transformers")
        tiny = TINY_LLM
    checkpoint = build_trainer(compose(name, [*tiny, *overrides, f"save_dir={save_dir}"])).run()
    assert (checkpoint / "model.safetensors").is_file()


@pytest.mark.parametrize("name", TRAINING)
def test_training_config_runs_a_tiny_step(name, bpe_file, tmp_path):
    run_one_step(name, needed(name, bpe_file), tmp_path)


CHOICES = [
    (group, name)
    for group in ("model", "text_encoder", "transforms", "objective", "decoders", "optimizer", "lr_scheduler")
    for name in GROUPS[group]
    if group == "transforms" or name not in OF_LANGUAGE_MODELS
]


@pytest.mark.parametrize("group,name", CHOICES, ids=[f"{group}={name}" for group, name in CHOICES])
def test_choice_runs_a_tiny_step(group, name, bpe_file, tmp_path):
    choices = [*family_of(name), *OFFLINE.get(name, []), f"{group}={name}", *needed(name, bpe_file)]
    run_one_step("conformer_ctc", choices, tmp_path)


@pytest.mark.parametrize("name", GROUPS["ablation"])
def test_ablation_runs_a_tiny_step(name, tmp_path):
    overrides = [
        f"+ablation={name}",
        "datasets.train.clips=8",
        "datasets.dev.clips=4",
        "batching.batch_size=4",
    ]
    limits = [
        "trainer.max_epochs=null",
        "trainer.max_steps=1",
        "trainer.evaluate_every_epochs=null",
        "writer=none",
    ]
    checkpoint = build_trainer(compose("paraformer_toy", [*overrides, *limits, f"save_dir={tmp_path}"])).run()
    assert (checkpoint / "model.safetensors").is_file()


def test_every_ablation_builds_another_model_and_the_first_one_the_recipe():
    def built(*overrides: str) -> tuple:
        _, _, model = build_model(compose("paraformer_toy", [*overrides]))
        return str(model), model.sampling_ratio, {n: p.shape for n, p in model.named_parameters()}

    models = {name: built(f"+ablation={name}") for name in GROUPS["ablation"]}
    assert models["none"] == built()
    for name, model in models.items():
        assert [other for other in models if models[other] == model] == [name]
    assert {name.partition(".")[0] for name in models["no_predictor"][2]} == {"encoder", "ctc_head"}


@pytest.mark.parametrize("name", ["toy", "xs", "s"])
def test_the_predictor_of_a_paraformer_is_initialised_first(name):
    """So a seed gives the weights that it always gave, whichever of the choices is merged last."""
    config = compose("conformer_ctc", [*PARAFORMER, f"model=paraformer_{name}"]).model
    assert [key for key in config if OmegaConf.is_dict(config[key])] == [
        *("predictor", "decoder", "frontend", "encoder")
    ]


@pytest.mark.parametrize("name", GROUPS["stage"])
def test_stage_runs_a_tiny_step(name, tmp_path):
    run_one_step("speech_llm", [f"+stage={name}", "~decoders.beam", "~decoders.sample"], tmp_path)


@pytest.mark.parametrize("name", ["cif", "ctc", "none"])
def test_predictor_runs_a_tiny_step(name, tmp_path):
    run_one_step("conformer_ctc", [*PARAFORMER, f"model/predictor={name}"], tmp_path)


@pytest.mark.parametrize("part", ["listener", "projector", "writer"])
def test_every_part_of_a_speech_llm_composes_and_the_small_ones_run_a_step(part, tmp_path):
    names = sorted(path.stem for path in (CONFIGS / "model" / part).glob("*.yaml"))
    assert len(names) >= 6
    for name in names:
        config = OmegaConf.to_container(compose("speech_llm", [f"model/{part}={name}"]).model, resolve=True)
        named = list(targets(config))
        assert {node["_target_"] for node in named} <= set(allowed_targets())
        for node in named:
            arguments = {key: value for key, value in node.items() if key != "_target_"}
            inspect.signature(get_class(node["_target_"])).bind_partial(**arguments)
        if part == "projector" or name.startswith("tiny_"):
            choices = [f"model/{part}={name}", f"run_name={name}", "~decoders.beam", "~decoders.sample"]
            run_one_step("speech_llm", choices, tmp_path)


@pytest.mark.parametrize("name", GROUPS["writer"])
def test_writer_composes_with_another_one(name):
    config = compose("conformer_ctc", [f"writer=[local,{name}]", "datasets=samples"])
    assert {name, "local"} - {"none"} == set(config.writer)


@pytest.mark.parametrize("name", GROUPS["datasets"])
def test_datasets_name_existing_classes_and_their_arguments(name):
    overrides = [f"datasets={name}", "+data_dir=x"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(hydra_compose("conformer_ctc", overrides), resolve=True)["datasets"]
    assert set(config) <= {"train", "dev", "test", "test_clean"}

    for node in targets(config):
        arguments = {key: value for key, value in node.items() if key != "_target_"}
        inspect.signature(get_class(node["_target_"])).bind(**arguments)


@pytest.mark.parametrize("name", GROUPS["extra_decoders"])
def test_extra_decoders_name_classes_that_a_file_may_name_and_their_arguments(name):
    nodes = list(targets(yaml.safe_load((CONFIGS / "extra_decoders" / f"{name}.yaml").read_text("utf-8"))))
    assert nodes
    for node in nodes:
        arguments = {
            key: value for key, value in node.items() if key not in ("_target_", "search_of_checkpoint")
        }
        inspect.signature(allowed_targets(OWN_ROOMS)[node["_target_"]]).bind_partial(**arguments)


OWN_MODELS = {
    name for name in GROUPS["model"] if not name.startswith("speech_llm")
}  # not loaded from elsewhere


@pytest.mark.parametrize("name", sorted(OWN_MODELS - OF_LANGUAGE_MODELS))
def test_model_has_its_real_size_and_may_be_shared(name):
    """Built on the meta device, so that no size is too large; a checkpoint may name every class of it."""
    config = compose("conformer_ctc", [f"model={name}", "datasets=samples"])
    with torch.device("meta"):
        encoder = build(config.model.encoder)
    assert sum(p.numel() for p in encoder.parameters()) > 100_000

    for node in (config.model, config.decoders):
        named = {part["_target_"] for part in targets(OmegaConf.to_container(node, resolve=True))}
        assert named <= set(allowed_targets())


def test_every_yaml_begins_by_saying_what_it_is():
    for path in CONFIGS.rglob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("# "), path


def test_a_speech_llm_s_tokenizer_is_of_the_revision_of_its_writer():
    assert compose("speech_llm", []).text_encoder.revision is None
    assert compose("speech_llm", ["model.writer.revision=v1"]).text_encoder.revision == "v1"
