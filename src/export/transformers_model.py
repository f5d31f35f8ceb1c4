"""A model that ``transformers.pipeline("automatic-speech-recognition", trust_remote_code=True)`` loads.

With the parts of one checkpoint this becomes the file ``modeling_lectern.py`` of a directory, where ``CLASSES`` has
what its ``config.json`` names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutomaticSpeechRecognitionPipeline, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from src.recognizer import Recognizer

CLASSES: dict[str, type] = {}
WEIGHTS_FILE = "model.safetensors"
# What from_pretrained may be told of where a model lies; all else it hears concerns loading that is not done here.
WHERE = ("revision", "token", "cache_dir", "force_download", "local_files_only", "subfolder")


class LecternConfig(PreTrainedConfig):
    """``lectern``: the model and its search as trees of classes, the tokenizer's class, and its files."""

    model_type = "lectern"

    def __init__(self, lectern: Mapping[str, Any] | None = None, **others: Any) -> None:
        super().__init__(**others)
        self.lectern = dict(lectern or {})


class LecternModel(PreTrainedModel):
    """The model, with its search and its tokenizer: 16 kHz samples in, transcripts out."""

    config_class = LecternConfig
    main_input_name = "input_values"

    def __init__(self, config: LecternConfig, text_encoder: Any = None) -> None:
        super().__init__(config)
        self.model = built(config.lectern["model"], {})
        given = (
            {}
            if text_encoder is None
            else {"tokens": text_encoder.tokens, "vocab_size": text_encoder.vocab_size}
        )
        search = built(config.lectern["search"], given)
        self.recognizer = Recognizer(self.model, text_encoder, search)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, *_: Any, config: LecternConfig | None = None, **others: Any
    ) -> LecternModel:
        """A folder or a hub id; the weights are float32, whatever ``dtype`` asks for, but of frozen networks that the
        config says otherwise of. Raises ``OSError`` for files that are missing or do not fit."""
        where = {key: others[key] for key in WHERE if others.get(key) is not None}
        if config is None:
            config = LecternConfig.from_pretrained(pretrained_model_name_or_path, **where)
        files = [
            cached_file(pretrained_model_name_or_path, name, **where)
            for name in [*config.lectern["files"], WEIGHTS_FILE]
        ]
        text_encoder = CLASSES[config.lectern["text_encoder"]].load(Path(files[0]).parent)
        model = cls(config, text_encoder)
        try:
            model.load_state_dict(load_file(files[-1]))
        except RuntimeError as error:
            raise OSError(
                f"{files[-1]}: does not fit config.json ({str(error).splitlines()[-1].strip()})"
            ) from None
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **settings: Any) -> None:
        """As every model of ``transformers``, and the tokenizer."""
        super().save_pretrained(save_directory, **settings)
        self.recognizer.text_encoder.save(save_directory)

    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Samples [B, N] at 16 kHz, and which of them are real [B, N] -> what the model returns, by name."""
        lengths = torch.full((len(input_values),), input_values.size(1), device=input_values.device)
        if attention_mask is not None:
            lengths = attention_mask.sum(1)
        return self.model(*self.model.frontend(input_values, lengths))


class LecternPipeline(AutomaticSpeechRecognitionPipeline):
    """Files, bytes or samples -> text; with ``return_timestamps="word"`` also when each word was said, where the model
    knows. ``chunk_length_s``: what is longer is cut at pauses, and put together again."""

    _load_tokenizer = False
    _pipeline_calls_generate = False

    def _sanitize_parameters(
        self, chunk_length_s: float | None = None, return_timestamps: Any = None, **others: Any
    ) -> tuple[dict, dict, dict]:
        if others:
            raise ValueError(
                f"{', '.join(others)}: unknown; there are chunk_length_s and return_timestamps='word'"
            )
        if return_timestamps not in (None, False, True, "word"):
            raise ValueError(f"return_timestamps={return_timestamps!r}: only 'word' is known")
        return {}, {"longest_s": chunk_length_s}, {"return_timestamps": return_timestamps}

    def _forward(self, model_inputs: dict[str, Any], longest_s: float | None = None) -> dict[str, Any]:
        audio, real = model_inputs.pop("input_values"), model_inputs.pop("attention_mask", None)
        lengths = [audio.size(1)] * len(audio) if real is None else real.sum(1).tolist()
        clips = [
            (str(row), samples[:length].float().cpu().numpy())
            for row, (samples, length) in enumerate(zip(audio, lengths, strict=True))
        ]
        return {**model_inputs, "found": self.model.recognizer.transcribe_clips(clips, longest_s=longest_s)}

    def postprocess(
        self, model_outputs: list[dict[str, Any]], return_timestamps: Any = None
    ) -> dict[str, Any]:
        found = model_outputs[0]["found"]
        transcript = found[0] if isinstance(found, list) else found  # batches arrive here one by one
        if not return_timestamps:
            return {"text": transcript.text}
        words = [{"text": word, "timestamp": (start, end)} for word, start, end, _ in transcript.words]
        return {"text": transcript.text, "chunks": words}


def built(node: Any, given: Mapping[str, Any]) -> Any:
    """The object that a tree of ``config.json`` describes; ``given`` goes to every class that has such an argument."""
    if isinstance(node, list):
        return [built(value, given) for value in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: built(value, given) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return arguments
    kind = CLASSES[node["_target_"]]
    wanted = inspect.signature(kind).parameters
    return kind(**{key: value for key, value in given.items() if key in wanted} | arguments)
