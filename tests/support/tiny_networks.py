"""Sizes of small random networks of ``transformers``, one of each kind."""

from __future__ import annotations

BLOCK = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WAVES = {
    **BLOCK,
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 4, 4],
    "conv_stride": [5, 4, 4],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 8,
}
BY_LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

LISTENERS = {
    "whisper": {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32,
        **{"vocab_size": 8, "pad_token_id": 0},
        "num_mel_bins": 16,
        "max_source_positions": 50,
    },
    "glm_asr": {
        "model_type": "glmasr_encoder",
        **BLOCK,
        "num_mel_bins": 16,
        "max_position_embeddings": 50,
    },
    "hubert": {"model_type": "hubert", **WAVES, **BY_LAYER},
    "hubert, group norm": {"model_type": "hubert", **WAVES, "feat_extract_norm": "group"},
    "wav2vec2": {"model_type": "wav2vec2", **WAVES, **BY_LAYER},
    "wav2vec2, group norm": {"model_type": "wav2vec2", **WAVES, "feat_extract_norm": "group"},
}
LANGUAGE = {**BLOCK, "num_key_value_heads": 1, "vocab_size": 264, "max_position_embeddings": 1024}
WRITERS = {
    "qwen2": {"model_type": "qwen2", **LANGUAGE, "tie_word_embeddings": False},
    "qwen3": {"model_type": "qwen3", **LANGUAGE, "head_dim": 8, "tie_word_embeddings": True},
    "smollm3": {"model_type": "smollm3", **LANGUAGE, "tie_word_embeddings": True},
}
