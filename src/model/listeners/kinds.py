"""The classes of ``transformers`` that can listen, and in what they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from src.utils.errors import UserError

WAVEFORMS = "wav2vec2", "hubert"


@dataclass(frozen=True)
class Kind:
    """How an encoder is made and fed."""

    module: str  # below transformers.models
    class_name: str
    rename: dict[str, str] | None  # of tensors in a larger network's files
    way: str  # "windows": of one fixed length; "masked": it takes a mask; "by_length": clips of one length together
    window_frames: int | None = None  # of features, where it listens in windows
    num_mels: int | None = None  # of features; None: waveforms


def listener_config(config: Any) -> Any:
    """The part of a network's config that is about listening."""
    return config.audio_config if config.model_type == "glmasr" else config


def kind_of(config: Any) -> Kind:
    """Of a listener's config. Raises ``UserError`` for a class that is not known to listen."""
    name = config.model_type
    if name == "whisper":
        rename = {r"^(model\.)?encoder\.": ""}
        frames, mels = 2 * config.max_source_positions, config.num_mel_bins
        return Kind("whisper.modeling_whisper", "WhisperEncoder", rename, "windows", frames, mels)
    if name == "glmasr_encoder":
        rename = {r"^(model\.)?audio_tower\.": ""}
        frames, mels = 2 * config.max_position_embeddings, config.num_mel_bins
        return Kind("glmasr.modeling_glmasr", "GlmAsrEncoder", rename, "windows", frames, mels)
    if name in WAVEFORMS:
        if getattr(config, "add_adapter", False):
            raise UserError(f"{name} with add_adapter=true is not supported; choose one without")
        # Group norm and batch norm see padding, and a mask does not help.
        sees_padding = config.feat_extract_norm == "group" or getattr(config, "conv_pos_batch_norm", False)
        class_name = {"wav2vec2": "Wav2Vec2Model", "hubert": "HubertModel"}[name]
        way = "by_length" if sees_padding else "masked"
        return Kind(f"{name}.modeling_{name}", class_name, None, way)
    raise UserError(f"model_type={name} is no listener; choose whisper, glmasr, hubert or wav2vec2")
