"""What one micro-batch computes: audio -> features -> masks -> model -> objective, as one module."""

from __future__ import annotations

from torch import Tensor, nn

from src.model import SpeechModel
from src.transforms import SpecAugment


class TrainingStep(nn.Module):
    """Model and objective together, so that whatever they do together is synchronised when it is wrapped (DDP)."""

    def __init__(
        self, model: SpeechModel, objective: nn.Module, spec_augment: SpecAugment | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.spec_augment = spec_augment

    def forward(self, batch: dict | None) -> tuple[dict, dict[str, Tensor]]:
        """A collated batch on the device -> what the objective returns, and what the model returned.

        None stands for no clip at all: a loss of 0 that every parameter has a part in. With it a process that has
        nothing to compute takes part in exchanging gradients.
        """
        if batch is None:
            return {"loss_sum": sum(p.sum() * 0.0 for p in self.parameters() if p.requires_grad)}, {}
        features, feature_lengths = self.model.frontend(batch["audio"], batch["audio_lengths"])
        if self.spec_augment is not None and self.training:
            features = self.spec_augment(features, feature_lengths, batch["spec_draws"])
        inputs = {**batch, "features": features, "feature_lengths": feature_lengths}
        outputs = self.model(**inputs)
        return self.objective(**inputs, **outputs), outputs
