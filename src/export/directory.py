"""From a checkpoint to a directory that ``transformers`` loads, on a machine that has not the project."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from src.checkpoint import CARD, WEIGHTS, Checkpoint
from src.export.flattening import CannotFlatten, flatten
from src.model import SpeechModel
from src.model.pretrained import Pretrained
from src.safe_build import allowed_class
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError
from src.utils.files import atomic_directory, save_tensors

MODELING = "modeling_lectern"
CLASSES = ("LecternConfig", "LecternModel", "LecternPipeline")
# What reads recordings, checkpoints and other people's texts stays at home.
AT_HOME = ("src.checkpoint", "src.datasets", "src.text_encoder.normalizer")
LISTENS = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "sampling_rate": SAMPLE_RATE,
    "padding_value": 0.0,
    "do_normalize": False,
    "return_attention_mask": True,
}
CARD_HEAD = """---
library_name: transformers
pipeline_tag: automatic-speech-recognition
---

```python
from transformers import pipeline

recognise = pipeline("automatic-speech-recognition", model="THIS DIRECTORY OR ITS HUB ID", trust_remote_code=True)
print(recognise("recording.wav")["text"])
```

Files are read by the program ffmpeg; arrays of samples at 16 kHz do, too. Long recordings are cut at pauses with
`chunk_length_s=30`; words and their times, where the model knows them, come with `return_timestamps="word"`.

`modeling_lectern.py` is all the code there is; it needs {packages}.

"""


def export_for_transformers(
    source: str | Path, out: Path, decoder: str = "greedy", whole: bool = False
) -> None:
    """Writes a directory that ``transformers.pipeline`` loads: weights, code, config, tokenizer and card.

    Args:
        source: a checkpoint, of any family.
        out: the directory, whole or not at all.
        decoder: the search that it will have, one of the checkpoint's own.
        whole: with the weights of frozen networks of a hub, too, which are else named and downloaded where it is
            loaded. Those of a local folder always come along.

    Raises ``UserError`` for a checkpoint or a search that cannot be shared.
    """
    checkpoint = Checkpoint.open(source)
    model, text_encoder = checkpoint.model(), checkpoint.text_encoder()
    checkpoint.search(decoder)  # refuses what does not fit
    own = checkpoint.config["decoders"]
    if decoder not in own:  # others may name files of this machine
        raise UserError(f"decoder={decoder}: give one of the checkpoint's own: {', '.join(sorted(own))}")
    search = own[decoder]
    model_config = _with_its_networks(checkpoint.config["model"], model, whole)
    encoder_class = type(text_encoder)
    classes = {target: allowed_class(target) for target in _targets([model_config, search])}
    classes[f"src.text_encoder.{encoder_class.__name__}"] = encoder_class
    code = modeling_source(classes)
    with atomic_directory(out) as directory:
        text_encoder.save(directory)
        files = sorted(file.name for file in directory.iterdir())
        state = {f"model.{name}": value for name, value in model.state_dict().items()}  # below LecternModel
        weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        save_tensors(weights, directory / WEIGHTS, {"format": "pt"})
        (directory / f"{MODELING}.py").write_text(code, encoding="utf-8")
        parts = {
            "model": model_config,
            "search": search,
            "text_encoder": f"src.text_encoder.{encoder_class.__name__}",
            "files": files,
        }
        _write_json(directory / "config.json", _config(parts))
        _write_json(directory / "preprocessor_config.json", LISTENS)
        card = checkpoint.path / CARD
        told = card.read_text(encoding="utf-8") if card.is_file() else ""
        head = CARD_HEAD.format(packages=", ".join(_packages(code)))
        (directory / CARD).write_text(head + told, encoding="utf-8")


def modeling_source(classes: dict[str, type]) -> str:
    """The one file of code: these classes by the names that a config gives them, and what ``transformers`` asks for.

    Raises ``UserError`` for a class whose module cannot be put into it.
    """
    ours = "src.export.transformers_model"
    needed = [(ours, name) for name in CLASSES]
    needed += [(kind.__module__, kind.__name__) for kind in classes.values()]
    try:
        code = flatten(needed, without=AT_HOME)
    except CannotFlatten as error:
        raise UserError(f"this model cannot be written as one file ({error}); report it") from None
    table = "".join(f'    "{target}": {kind.__name__},\n' for target, kind in sorted(classes.items()))
    about = (
        '"""A speech recogniser, made by Lectern (MIT licence) of its own sources: those that one needs."""'
    )
    return f"{about}\n\n# ruff: noqa\n{code}\n\nCLASSES.update(\n    {{\n{table}    }}\n)\n"


def _config(parts: dict[str, Any]) -> dict[str, Any]:
    config, model, pipeline = (f"{MODELING}.{name}" for name in CLASSES)
    return {
        "model_type": "lectern",
        "architectures": [CLASSES[1]],
        "auto_map": {"AutoConfig": config, "AutoModel": model},
        "custom_pipelines": {"automatic-speech-recognition": {"impl": pipeline, "pt": ["AutoModel"]}},
        "lectern": parts,
    }


def _with_its_networks(config: dict[str, Any], model: SpeechModel, whole: bool) -> dict[str, Any]:
    """The model's config, in which networks that come along are sizes; their weights are saved from now on."""
    config = dict(config)
    for name, part in model.named_children():
        if not isinstance(part, Pretrained) or not part.is_elsewhere:
            continue
        source = config[name]["source"]
        if not whole and not Path(source).is_dir():
            continue
        sizes = _sizes(part.network)
        here = {"source": None, "revision": None, "config": sizes}
        config[name] = {**config[name], **here}
        part.is_elsewhere = False
        if name == "encoder":
            if getattr(getattr(model.frontend, "features", None), "normalize", True) is False:
                raise UserError(
                    f"{source}: its waveforms are not normalised, which sizes do not say; put it on a hub and name it"
                )
            config["frontend"] = {**config["frontend"], **here}
    return config


def _sizes(network: nn.Module) -> dict[str, Any]:
    """A network's config without what says where it came from."""
    sizes = json.loads(network.config.to_json_string(use_diff=False))
    for key in ("architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        sizes.pop(key, None)
    return sizes


def _targets(node: Any) -> Iterator[str]:
    """Every class that a tree names."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _packages(code: str) -> list[str]:
    """What else has to be installed."""
    imports = [
        line.split()[1].partition(".")[0]
        for line in code.splitlines()
        if line.startswith(("import ", "from "))
    ]
    known = ("numpy", "peft", "sentencepiece", "tokenizers", "torch", "torchaudio", "transformers")
    asked = [name for name in known if f'("{name}")' in code]  # inside functions
    return [name for name in known if name in imports or name in asked]


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
