"""What one micro-batch computes: audio -> features -> masks -> model -> objective, as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.lm import LSTMLanguageModel
from src.model import SpeechModel
from src.transforms import SpecAugment


class TrainingStep(nn.Module):
    """Model and objective together, so that whatever they do together is synchronised when it is wrapped (DDP).

    An objective may ask for several ``views`` of each clip: it then gets, in training, that many batches in one,
    each with masks of its own.
    """

    def __init__(
        self,
        model: SpeechModel | LSTMLanguageModel,
        objective: nn.Module,
        spec_augment: SpecAugment | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.spec_augment = spec_augment
        self.views = getattr(objective, "views", 1)

    @property
    def draws_per_clip(self) -> int:
        """How many uniform numbers (``spec_draws``) the masks of one clip take."""
        return self.views * self.spec_augment.draws_per_utterance if self.spec_augment else 0

    def forward(self, batch: dict | None) -> tuple[dict, dict[str, Tensor]]:
        """A collated batch on the device -> what the objective returns, and what the model returned.

        None stands for no clip at all: a loss of 0 that every parameter has a part in. With it a process that has
        nothing to compute takes part in exchanging gradients.
        """
        if batch is None:
            return {"loss_sum": sum(p.sum() * 0.0 for p in self.parameters() if p.requires_grad)}, {}
        inputs = batch
        if "audio" in batch:  # a language model's batch is text alone
            features, feature_lengths = self.model.frontend(batch["audio"], batch["audio_lengths"])
            inputs = {**batch, "features": features, "feature_lengths": feature_lengths}
            if self.training:
                inputs = self._views(inputs)
        outputs = self.model(**inputs)
        return self.objective(**inputs, **outputs), outputs

    def _views(self, inputs: dict) -> dict:
        """The batch with masked features, ``views`` times over, one after the other."""
        views = [inputs] * self.views
        if self.spec_augment is not None:
            draws = inputs["spec_draws"].chunk(self.views, dim=1)
            masked = [self.spec_augment(inputs["features"], inputs["feature_lengths"], d) for d in draws]
            views = [{**inputs, "features": features} for features in masked]
        if self.views == 1:
            return views[0]
        unread = ("audio", "audio_lengths", "spec_draws")
        tensors = [key for key, value in inputs.items() if isinstance(value, Tensor) and key not in unread]
        return {key: torch.cat([view[key] for view in views]) for key in tensors}
