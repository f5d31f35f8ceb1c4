"""Activation checkpointing of the Conformer: the same training, bit for bit, in less memory."""

from __future__ import annotations

import pytest
import torch

from src.checkpoint import Checkpoint
from src.model.encoders import ConformerEncoder
from src.safe_build import safe_build
from src.utils.memory import SavedForBackward

LENGTHS = torch.tensor([120, 77])
FEATURES = torch.randn(2, 120, 20, generator=torch.Generator().manual_seed(1))


def conformer(checkpoint_activations: bool, **settings) -> ConformerEncoder:
    torch.manual_seed(0)
    sizes = {"dim": 16, "num_layers": 3, "num_heads": 2, "kernel_size": 5, "dropout": 0.2} | settings
    return ConformerEncoder(20, **sizes, checkpoint_activations=checkpoint_activations)


def trained(encoder: ConformerEncoder, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """What one forward and backward pass gives and leaves behind, and what the pass after it would draw."""
    torch.manual_seed(2)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        encoded, _ = encoder(FEATURES, LENGTHS)
    loss = encoded.float().square().sum()
    loss.backward()
    gradients = {f"gradient of {name}": p.grad for name, p in encoder.named_parameters()}
    return {"loss": loss.detach(), "next draw": torch.rand(3), **gradients, **dict(encoder.named_buffers())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("settings", [{"norm": "batch"}, {"attention": "relative"}], ids=str)
def test_loss_gradients_and_statistics_are_the_same_bits(settings, dtype):
    """Dropout is on; batch norm's running statistics would move twice if the repetition counted."""
    plain, checkpointed = (trained(conformer(flag, **settings), dtype) for flag in (False, True))
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        assert torch.equal(value, checkpointed[name]), name


def test_running_statistics_move_once_a_step_in_the_steps_after_it_too():
    encoder = conformer(True, norm="batch")
    trained(encoder)
    after_one = encoder.blocks[0].convolution.depthwise_norm.running_mean.clone()
    trained(encoder)
    twice = conformer(False, norm="batch")
    trained(twice), trained(twice)
    assert not torch.equal(after_one, encoder.blocks[0].convolution.depthwise_norm.running_mean)
    for ours, plain in zip(encoder.buffers(), twice.buffers(), strict=True):
        assert torch.equal(ours, plain)


def bytes_held_for_backward(encoder: ConformerEncoder) -> int:
    with SavedForBackward() as saved:
        encoded, _ = encoder(FEATURES, LENGTHS)
    assert encoded.grad_fn is not None
    return saved.bytes_without(encoder.parameters())


def test_less_memory_is_held_for_the_backward_pass():
    plain, checkpointed = (bytes_held_for_backward(conformer(flag, num_layers=8)) for flag in (False, True))
    assert checkpointed < plain / 4


def test_evaluation_and_weights_know_nothing_of_it():
    plain, checkpointed = conformer(False).eval(), conformer(True).eval()
    plain.load_state_dict(checkpointed.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(FEATURES, LENGTHS)[0], checkpointed(FEATURES, LENGTHS)[0])
    target = "src.model.encoders.ConformerEncoder"
    node = {
        "_target_": target,
        "num_features": 20,
        "dim": 16,
        "num_layers": 1,
        "checkpoint_activations": True,
    }
    assert safe_build(node, "config.yaml").checkpoint_activations


def test_a_run_goes_on_with_the_other_setting_and_ends_in_the_same_weights(make_trainer):
    """It is no property of the weights: neither resuming nor starting from a checkpoint asks for it."""

    def trained(run_name: str, steps: int, flag: bool, *settings: str) -> Checkpoint:
        model = ["model=conformer_ctc_s", "model.encoder.num_heads=2", "model.encoder.dropout=0.1"]
        run = ["datasets.dev=null", "lr_scheduler=noam", f"run_name={run_name}", f"trainer.max_steps={steps}"]
        flag = f"model.encoder.checkpoint_activations={flag}"
        return Checkpoint.open(make_trainer(*model, *run, flag, *settings).run())

    straight = trained("straight", 2, False)
    trained("run", 1, True)
    resumed = trained("run", 2, False, "trainer.resume_from=auto")
    assert resumed.fingerprint() == straight.fingerprint()
    started = trained("started", 1, True, f"trainer.init_from={resumed.path}")
    assert started.model().encoder.checkpoint_activations
