"""Every YAML composes, is built, and runs one step under +test=tiny; the files are found by themselves."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf

from src.text_encoder import train_bpe
from src.trainer import build_trainer
from src.utils.build import build
from src.utils.hydra_door import CONFIGS, compose
from src.utils.safe_build import allowed_targets

ROOT = Path(__file__).resolve().parents[1]
TRAINING = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in ("base", "inference"))
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in CONFIGS.iterdir()
    if folder.is_dir()
}
TINY = ["+test=tiny", "datasets=samples", "datasets.train.data_dir=" + str(ROOT / "samples"), "writer=[none]"]


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
    return [f"text_encoder.model_file={bpe_file}"] if "bpe" in name else []


def run_one_step(name: str, overrides: list[str], save_dir: Path) -> None:
    checkpoint = build_trainer(compose(name, [*TINY, *overrides, f"save_dir={save_dir}"])).run()
    assert (checkpoint / "model.safetensors").is_file()


@pytest.mark.parametrize("name", TRAINING)
def test_training_config_runs_a_tiny_step(name, bpe_file, tmp_path):
    run_one_step(name, needed(name, bpe_file), tmp_path)


CHOICES = [
    (group, name)
    for group in ("model", "text_encoder", "transforms", "objective", "decoders", "optimizer", "lr_scheduler")
    for name in GROUPS[group]
]


@pytest.mark.parametrize("group,name", CHOICES, ids=[f"{group}={name}" for group, name in CHOICES])
def test_choice_runs_a_tiny_step(group, name, bpe_file, tmp_path):
    run_one_step("conformer_ctc", [f"{group}={name}", *needed(name, bpe_file)], tmp_path)


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

    def check(node) -> None:
        if isinstance(node, dict):
            if "_target_" in node:
                target = get_class(node["_target_"])
                inspect.signature(target).bind(**{k: v for k, v in node.items() if k != "_target_"})
            for value in node.values():
                check(value)

    for part in config.values():
        check(part)


@pytest.mark.parametrize("name", GROUPS["model"])
def test_model_has_its_real_size_and_may_be_shared(name):
    """Built on the meta device, so that no size is too large; a checkpoint may name every class of it."""
    config = compose("conformer_ctc", [f"model={name}", "datasets=samples"])
    with torch.device("meta"):
        encoder = build(config.model.encoder)
    assert sum(p.numel() for p in encoder.parameters()) > 100_000

    def targets(node):
        if isinstance(node, dict):
            yield from ([node["_target_"]] if "_target_" in node else [])
            for value in node.values():
                yield from targets(value)

    allowed = allowed_targets()
    for node in (config.model, config.decoders):
        assert set(targets(OmegaConf.to_container(node, resolve=True))) <= set(allowed)


def test_every_yaml_begins_by_saying_what_it_is():
    for path in CONFIGS.rglob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("# "), path
