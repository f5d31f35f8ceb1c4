"""Pretrained encoders behind our interface: their features, their lengths, and that a clip is alone in any batch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")

from support.tiny_networks import LISTENERS  # noqa: E402

from src.model.listeners import TransformersEncoder, TransformersFrontend  # noqa: E402
from src.model.listeners.frontends import WhisperLogMel  # noqa: E402
from src.utils.errors import UserError  # noqa: E402


@pytest.fixture(params=LISTENERS)
def name(request):
    return request.param


def listener(name: str, **settings):
    torch.manual_seed(0)
    config = LISTENERS[name]
    return TransformersFrontend(config=config), TransformersEncoder(config=config, **settings).eval()


def heard(parts, audio, lengths):
    frontend, encoder = parts
    with torch.no_grad():
        return encoder(*frontend(audio, lengths))


def test_a_clip_alone_is_as_in_any_batch(name):
    """Long, short, too short for a frame, and none at all, with garbage behind the end."""
    parts = listener(name)
    lengths = torch.tensor([24_000, 9_999, 16_000, 50, 0, 9_999, 30_000])
    audio = torch.randn(len(lengths), 30_000) * 0.1
    encoded, counts = heard(parts, audio, lengths)
    assert encoded.shape == (len(lengths), int(counts.max()), parts[1].dim) and encoded.isfinite().all()
    assert counts[0] > counts[2] > counts[1] > 0 and counts[4] == 0
    for row, length, ours, count in zip(audio, lengths.tolist(), encoded, counts.tolist(), strict=True):
        assert not ours[count:].any()
        alone, (n,) = heard(parts, row[None, :length], torch.tensor([length]))
        assert int(n) == count
        torch.testing.assert_close(alone[0, :count], ours[:count], atol=2e-5, rtol=1e-4)


def test_autocast_and_half_precision(name):
    """Frozen weights may be of half precision; what is heard then is about the same."""
    audio, lengths = torch.randn(2, 16_000) * 0.1, torch.tensor([16_000, 9_000])
    expected, _ = heard(listener(name), audio, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast, _ = heard(listener(name), audio, lengths)
        features, _ = listener(name)[0](audio, lengths)
    torch.testing.assert_close(features, listener(name)[0](audio, lengths)[0], atol=0, rtol=0)
    frontend, encoder = listener(name, dtype="bfloat16")
    encoder.load_state_dict(listener(name)[1].state_dict())
    half, _ = heard((frontend, encoder), audio, lengths)
    assert half.dtype == torch.bfloat16
    for found in (under_autocast, half):
        torch.testing.assert_close(found.float(), expected, atol=0.2, rtol=0.1)


def test_sizes_are_read_from_the_config(name):
    frontend, encoder = listener(name)
    waves = "conv_dim" in LISTENERS[name]
    assert encoder.dim == 16
    assert frontend.hop * encoder.subsampling_factor == (80 if waves else 320)  # samples a frame
    encoded, counts = heard((frontend, encoder), torch.randn(1, 16_000), torch.tensor([16_000]))
    assert counts.tolist() == [199 if waves else 50]
    short = heard((frontend, encoder), torch.randn(5, 481), torch.tensor([481, 321, 161, 160, 1]))[1]
    assert short.tolist() == (
        [5, 3, 1, 1, 0] if waves else [2, 2, 1, 1, 1]
    )  # half a step of Whisper's is one


def test_batch_norm_in_hubert_s_positions_sees_no_padding():
    torch.manual_seed(0)
    config = {**LISTENERS["hubert"], "conv_pos_batch_norm": True}
    parts = TransformersFrontend(config=config), TransformersEncoder(config=config).eval()
    for name, buffer in parts[1].named_buffers():
        if "running_mean" in name:
            buffer.fill_(1.0)  # zeros are no longer zeros behind it
    audio, lengths = torch.randn(2, 9_000) * 0.1, torch.tensor([9_000, 4_000])
    (_, together), (_, n) = heard(parts, audio, lengths)
    alone, _ = heard(parts, audio[1:, :4_000], lengths[1:])
    torch.testing.assert_close(together[:n], alone[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_whisper_hears_as_the_class_itself(name):
    """A clip as long as a window, through the library's own feature extractor and class."""
    if name not in ("whisper", "glm_asr"):
        return
    frontend, encoder = listener(name)
    audio = torch.randn(1, 16_000) * 0.1
    extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    features = extractor(audio.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    ours, lengths = frontend(audio, torch.tensor([16_000]))
    torch.testing.assert_close(ours.transpose(1, 2), features, atol=1e-4, rtol=1e-4)
    theirs = encoder.network(features).last_hidden_state
    torch.testing.assert_close(encoder(ours, lengths)[0], theirs, atol=1e-4, rtol=1e-3)


def test_log_mel_is_whisper_s_also_of_short_clips():
    audio = np.random.default_rng(0).standard_normal(9_999).astype(np.float32) * 0.1
    theirs = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=2)(
        audio, sampling_rate=16_000
    )
    ours, lengths = WhisperLogMel(80, 200)(torch.from_numpy(audio)[None], torch.tensor([9_999]))
    assert ours.shape == (1, 200, 80) and lengths.tolist() == [63]
    np.testing.assert_allclose(ours[0].T, theirs["input_features"][0], atol=1e-4)


@torch.no_grad()
def test_hubert_hears_as_the_class_itself(name):
    if "conv_dim" not in LISTENERS[name]:
        return
    frontend, encoder = listener(name)
    audio = torch.randn(1, 16_000) * 3 + 1
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(audio.numpy(), sampling_rate=16_000, return_tensors="pt").input_values.view(1, -1)
    ours, lengths = frontend(audio, torch.tensor([16_000]))
    torch.testing.assert_close(ours.squeeze(2), values, atol=1e-4, rtol=1e-4)
    theirs = encoder.network(values).last_hidden_state
    torch.testing.assert_close(encoder(ours, lengths)[0], theirs, atol=1e-4, rtol=1e-3)


def test_a_long_clip_loses_nothing(name):
    """Three and a half windows: frames for all of it, and its first windows as if nothing followed."""
    if name not in ("whisper", "glm_asr"):
        return
    parts = listener(name)
    audio = torch.randn(1, 56_000) * 0.1
    encoded, counts = heard(parts, audio, torch.tensor([56_000]))
    assert counts.tolist() == [175]
    first, _ = heard(parts, audio[:, :32_000], torch.tensor([32_000]))
    torch.testing.assert_close(encoded[:, :100], first, atol=1e-5, rtol=1e-4)


WHOLE = {
    "whisper": lambda config: transformers.WhisperForConditionalGeneration(config),
    "glm_asr": lambda config: transformers.GlmAsrForConditionalGeneration(
        transformers.GlmAsrConfig(
            audio_config=LISTENERS["glm_asr"],
            text_config={
                "model_type": "llama",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "vocab_size": 59_300,
            },
        )
    ),
    "hubert": lambda config: transformers.HubertForCTC(config),
    "wav2vec2, group norm": lambda config: transformers.Wav2Vec2Model(config),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_encoder_is_taken_out_of_a_folder_with_more(name, tmp_path, caplog):
    torch.manual_seed(1)
    sizes = LISTENERS[name]
    whole = WHOLE[name](transformers.AutoConfig.for_model(**sizes))
    whole.save_pretrained(tmp_path)
    caplog.clear()
    verbosity = transformers.logging.get_verbosity()
    encoder = TransformersEncoder(str(tmp_path))
    assert not caplog.records and transformers.logging.get_verbosity() == verbosity  # no list of what is left
    theirs = {
        "whisper": lambda: whole.model.encoder,
        "glm_asr": lambda: whole.model.audio_tower,
        "hubert": lambda: whole.hubert,
        "wav2vec2, group norm": lambda: whole,
    }[name]()
    ours = dict(encoder.network.named_parameters())
    assert ours and all(
        torch.equal(value, dict(theirs.named_parameters())[key]) for key, value in ours.items()
    )
    assert TransformersFrontend(str(tmp_path)).hop == (160 if name in ("whisper", "glm_asr") else 1)
    assert len(encoder.revision) == 32
    assert TransformersEncoder(str(tmp_path), revision=encoder.revision).revision == encoder.revision
    with pytest.raises(UserError, match="holds other weights .* restore them"):
        TransformersEncoder(str(tmp_path), revision="0" * 32)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "layer_norm_eps": 0.5}))
    with pytest.raises(
        UserError, match="holds other weights .* restore them"
    ):  # the same ones, read otherwise
        TransformersEncoder(str(tmp_path), revision=encoder.revision)


def test_waveforms_are_normalised_as_the_folder_says(tmp_path):
    transformers.AutoConfig.for_model(**LISTENERS["hubert"]).save_pretrained(tmp_path)
    audio, lengths = torch.full((1, 100), 0.5), torch.tensor([100])
    assert not TransformersFrontend(str(tmp_path))(audio, lengths)[0].any()
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    assert (TransformersFrontend(str(tmp_path))(audio, lengths)[0] == 0.5).all()
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(
        UserError, match="whether its waveforms are normalised, .* cannot be read; restore the file"
    ):
        TransformersFrontend(str(tmp_path))


def test_whether_waveforms_are_normalised_is_never_guessed(tmp_path, monkeypatch):
    """Without a connection the cache knows whether a hub's network has the file, if it was ever asked."""
    commit = "0" * 40
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--some--body"
    transformers.AutoConfig.for_model(**LISTENERS["hubert"]).save_pretrained(cached / "snapshots" / commit)
    with pytest.raises(
        UserError, match="some/body: whether its waveforms .* cannot be read; restore the file, or load"
    ):
        TransformersFrontend("some/body", revision=commit)
    nothing = cached / ".no_exist" / commit
    nothing.mkdir(parents=True)
    (nothing / "preprocessor_config.json").touch()
    audio, lengths = torch.full((1, 100), 0.5), torch.tensor([100])
    assert not TransformersFrontend("some/body", revision=commit)(audio, lengths)[0].any()


def test_what_cannot_be_loaded_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments, line in (
        ({}, "^model.encoder: give either source .* or config"),
        (
            {"source": "x", "config": {}},
            "^model.encoder.source=x stands .* choose: model.encoder.config=null, or",
        ),
        ({"source": "./x"}, "^./x: there is no such folder; give one, or a hub id"),
        ({"source": "some/x"}, "^some/x: not in the cache, and no connection to the hub; connect once, or"),
        ({"source": str(tmp_path)}, "cannot be made .* give a hub id, or a folder that holds it"),
        ({"config": {"model_type": "qwen3"}}, "model_type=qwen3 is no listener; choose whisper"),
        ({"config": {"model_type": "nobody"}}, "config: cannot be made .*; correct its sizes"),
        ({"config": LISTENERS["whisper"], "dtype": "int8"}, "dtype=int8 is unknown; choose one of: float32"),
        ({"config": {**LISTENERS["wav2vec2"], "add_adapter": True}}, "add_adapter=true is not supported"),
        (
            {"config": LISTENERS["whisper"], "lora": {"rank": 2, "alpha": 4, "targets": ["nothing"]}},
            "^lora.targets: there is no layer nothing; linear layers here: fc1, fc2, k_proj, out_proj, q_proj, v_proj$",
        ),
        (
            {"config": LISTENERS["whisper"], "lora": {"rank": 4}},
            "^lora: alpha and targets missing; give rank, alpha and targets .*, or choose .stage=lora$",
        ),
    ):
        with pytest.raises(UserError, match=line):
            TransformersEncoder(**arguments)


def test_a_folder_cannot_bring_code_or_kernels(tmp_path):
    """Neither its auto_map nor an attention of its choice: both would be downloaded and run."""
    whole = transformers.HubertModel(transformers.AutoConfig.for_model(**LISTENERS["hubert"]))
    whole.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {
        "auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"},
        "attn_implementation": "somebody/kernel",
        "_attn_implementation": "somebody/kernel",
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    encoder = TransformersEncoder(str(tmp_path))
    assert encoder.network.config._attn_implementation == "sdpa"
    random = TransformersEncoder(config={**LISTENERS["hubert"], "attn_implementation": "somebody/kernel"})
    assert random.network.config._attn_implementation == "sdpa"


def test_a_pickle_is_not_opened(tmp_path):
    whole = transformers.HubertModel(transformers.AutoConfig.for_model(**LISTENERS["hubert"]))
    whole.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(whole.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        UserError, match="cannot be made .*; its weights must be safetensors, as .*save_pretrained"
    ):
        TransformersEncoder(str(tmp_path))


def test_missing_weights_are_said(tmp_path):
    from safetensors.torch import load_file, save_file

    whole = transformers.HubertModel(transformers.AutoConfig.for_model(**LISTENERS["hubert"]))
    whole.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "layers.1" in name)
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"has not all weights of a HubertModel .*{name}"):
        TransformersEncoder(str(tmp_path))


def test_a_frozen_one_s_running_statistics_are_not_saved_either(tmp_path):
    from src.model.pretrained import freeze

    config = transformers.AutoConfig.for_model(**LISTENERS["hubert"], conv_pos_batch_norm=True)
    transformers.HubertModel(config).save_pretrained(tmp_path)
    encoder = TransformersEncoder(str(tmp_path))
    assert any("running_mean" in name for name in encoder.state_dict())
    freeze(encoder)
    assert not encoder.state_dict() and not encoder.load_state_dict({}).missing_keys


def test_frozen_ones_are_not_saved_and_lora_alone_is(tmp_path):
    from src.model.pretrained import freeze

    config = transformers.AutoConfig.for_model(**LISTENERS["whisper"])
    transformers.WhisperForConditionalGeneration(config).save_pretrained(tmp_path)
    whole = TransformersEncoder(str(tmp_path))
    assert len(whole.state_dict()) == len(whole.network.state_dict())
    freeze(whole)
    assert not whole.state_dict() and not whole.load_state_dict({}).missing_keys
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "k_proj"]}
    adapted = TransformersEncoder(str(tmp_path), lora=lora)
    saved = adapted.state_dict()
    assert len(saved) == 2 * 2 * 2 and all("lora_" in name for name in saved)  # A and B, layers, targets
    for value in saved.values():
        value.normal_()
    again = TransformersEncoder(str(tmp_path), lora=lora)
    again.load_state_dict(saved)
    features = torch.randn(1, 100, 16)
    lengths = torch.tensor([100])
    assert torch.equal(adapted(features, lengths)[0], again(features, lengths)[0])
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict(dict([*saved.items()][1:]))
