"""Causal language models behind our interface: that they look at no later token, and what of them is saved."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402
from support.tiny_networks import LANGUAGE, WRITERS  # noqa: E402

from src.model.writers import CausalLMWriter  # noqa: E402
from src.utils.errors import UserError  # noqa: E402
from src.utils.files import save_tensors  # noqa: E402

OTHERS = {
    "llama": {"model_type": "llama", **LANGUAGE},
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 264},
    "gemma3": {"model_type": "gemma3_text", **LANGUAGE, "head_dim": 8},
    # Without PyTorch's attention, or without any:
    "gemma2": {"model_type": "gemma2", **LANGUAGE, "head_dim": 8},
    "bloom": {"model_type": "bloom", "hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": 264},
    "mamba": {
        **{"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
        "vocab_size": 264,
    },
}


@pytest.mark.parametrize("config", [*WRITERS.values(), *OTHERS.values()], ids=[*WRITERS, *OTHERS])
@torch.no_grad()
def test_nothing_is_known_of_later_tokens(config):
    """Nor of padding on the left; positions are the class's own."""
    torch.manual_seed(0)
    writer = CausalLMWriter(config=config).eval()
    vectors = writer.embed(torch.randint(0, 264, (1, 9)))
    logits = writer(vectors, torch.ones(1, 9, dtype=torch.bool), last=9)
    theirs = writer.network(inputs_embeds=vectors).logits
    torch.testing.assert_close(logits, theirs, atol=1e-6, rtol=1e-5)
    changed = vectors.clone()
    changed[:, 6:] *= -1.0
    other = writer(changed, torch.ones(1, 9, dtype=torch.bool), last=9)
    torch.testing.assert_close(other[:, :6], logits[:, :6], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(other[:, 6:], logits[:, 6:], atol=1e-3)
    padded = torch.cat([torch.full((1, 4, writer.dim), 3.0), vectors], 1)
    real = torch.arange(13)[None] >= 4
    torch.testing.assert_close(writer(padded, real, last=9), logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_lora_is_added_to_what_was_trained_without_it():
    """Weights have the same names with it and without."""
    writers = []
    for seed, lora in enumerate((None, {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]})):
        torch.manual_seed(seed)
        writers.append(CausalLMWriter(config=WRITERS["qwen2"], lora=lora).eval())
    whole, adapted = writers
    names = adapted.state_dict().keys()
    assert names > whole.state_dict().keys() and all(
        "lora_" in name for name in names - whole.state_dict().keys()
    )
    adapted.load_state_dict({**adapted.state_dict(), **whole.state_dict()})
    vectors, real = torch.randn(1, 9, whole.dim), torch.ones(1, 9, dtype=torch.bool)
    torch.testing.assert_close(adapted(vectors, real, last=9), whole(vectors, real, last=9))
    found = adapted.state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("name", ["recurrent_gemma", "rwkv"])
def test_what_takes_no_notice_of_padding_is_refused(name):
    with pytest.raises(UserError, match=f"writer: {name} would write other texts in a batch than alone"):
        CausalLMWriter(config={"model_type": name})


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "mamba"])
@torch.no_grad()
def test_looking_changes_nothing(name):
    torch.manual_seed(0)
    writer = CausalLMWriter(config={**WRITERS, **OTHERS}[name]).eval()
    vectors, real = writer.embed(torch.randint(0, 264, (1, 9))), torch.ones(1, 9, dtype=torch.bool)
    attention = writer.network.config._attn_implementation
    weights = writer.looked(vectors, real, last=3)
    assert weights.shape == (1, 0 if name == "mamba" else 2, 3, 9)
    torch.testing.assert_close(weights.sum(3), torch.ones(weights.shape[:3]))
    assert writer.network.config._attn_implementation == attention


@pytest.mark.parametrize("name", ["bert", "roberta", "t5"])
def test_what_reads_both_ways_is_refused(name):
    """It would be told the answer while it is trained."""
    with pytest.raises(UserError, match=f"writer: {name} is no causal language model; choose another"):
        CausalLMWriter(config={"model_type": name, **LANGUAGE})


def test_a_folder_s_own_way_of_generating_is_not_taken(tmp_path):
    """Temperatures, penalties and ends of its generation_config.json: a search's settings are all its own."""
    torch.manual_seed(0)
    network = CausalLMWriter(config=WRITERS["qwen3"]).network
    for weight in network.parameters():
        weight.data.mul_(4.0)
    network.save_pretrained(tmp_path)
    real = torch.ones(1, 5, dtype=torch.bool)

    def written():
        writer = CausalLMWriter(str(tmp_path)).eval()
        return writer.generate(
            writer.embed(torch.arange(5)[None]), real, max_new_tokens=9, pad_token_id=0
        ).tolist()

    expected = written()
    own = {"repetition_penalty": 9.0, "suppress_tokens": expected[0][:3], "max_new_tokens": 2}
    (tmp_path / "generation_config.json").write_text(json.dumps(own))
    assert written() == expected and len(expected[0]) == 9


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"], ["embed_tokens"]])
def test_tied_weights_are_saved_once_whatever_lora_lies_beside(targets, tmp_path):
    pytest.importorskip("peft")
    torch.manual_seed(0)
    lora = {"rank": 2, "alpha": 4, "targets": targets}
    writer, again = (CausalLMWriter(config=WRITERS["qwen3"], lora=lora).eval() for _ in range(2))
    for weight in writer.parameters():
        weight.data.normal_()
    save_tensors(writer.state_dict(), tmp_path / "weights.safetensors")
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    tokens, real = torch.randint(0, 264, (1, 5)), torch.ones(1, 5, dtype=torch.bool)
    assert torch.equal(*(one(one.embed(tokens), real, last=5) for one in (writer, again)))
