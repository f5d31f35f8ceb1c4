"""Starting from another checkpoint's weights, possibly with another tokenizer."""

from __future__ import annotations

from src.checkpoint import Checkpoint
from src.model import SpeechModel
from src.text_encoder import TextEncoder
from src.utils.errors import UserError


def initialise_from(model: SpeechModel, checkpoint_dir: str, text_encoder: TextEncoder) -> list[str]:
    """Copies the checkpoint's weights into ``model``; returns the names of those that start anew.

    The encoder must be the same. What depends on the vocabulary is copied only when both tokenizers have the
    same tokens. Raises ``UserError`` for a checkpoint with another encoder, naming the first difference.
    """
    checkpoint = Checkpoint.open(checkpoint_dir)
    theirs, ours = checkpoint.weights(), model.state_dict()
    for name, value in ours.items():
        if name.startswith("encoder.") and (name not in theirs or theirs[name].shape != value.shape):
            found = tuple(theirs[name].shape) if name in theirs else "missing"
            raise UserError(
                f"init_from={checkpoint.path}: its encoder is another one ({name}: {found}, this model has "
                f"{tuple(value.shape)}); use the model config that it was trained with"
            )
    same_tokens = checkpoint.text_encoder().tokens == text_encoder.tokens
    taken = {
        name: theirs[name]
        for name, value in ours.items()
        if name in theirs
        and theirs[name].shape == value.shape
        and (same_tokens or name.startswith("encoder."))
    }
    model.load_state_dict({**ours, **taken})
    fresh = sorted(set(ours) - set(taken))
    print(
        f"started from {checkpoint.path}: {len(taken)} tensors taken, {len(fresh)} new ({', '.join(fresh) or 'none'})"
    )
    return fresh
