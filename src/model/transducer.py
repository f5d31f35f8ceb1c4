"""RNN transducer (Graves, arXiv 1211.3711): an encoder hears, a predictor remembers, a joiner decides."""

from __future__ import annotations

from torch import Tensor, nn

from src.model.predictors import Predictor, State
from src.model.speech_model import SpeechModelWithCTC, require_parts
from src.utils.build import check_counts


class TransducerModel(SpeechModelWithCTC):
    """P(blank or token | frame t, tokens so far) = softmax of an output layer on tanh(encoder + predictor).

    Args:
        frontend: audio -> features.
        encoder: features -> encoded; has ``dim`` and ``subsampling_factor``.
        predictor: tokens -> one vector before each of them and after the last; has ``dim``.
        vocab_size: V, blank included (token 0).
        joint_dim: of the joiner's hidden layer, H.
        ctc: whether a CTC layer on the encoder is trained as well.

    Example:
        >>> import torch
        >>> from src.model.encoders import MLPEncoder
        >>> from src.model.predictors import StatelessPredictor
        >>> from src.transforms import LogMel
        >>> predictor = StatelessPredictor(vocab_size=29, dim=16)
        >>> model = TransducerModel(LogMel(80), MLPEncoder(80, dim=32, stack=4), predictor, vocab_size=29, joint_dim=24)
        >>> features, tokens = torch.randn(2, 100, 80), torch.tensor([[5, 6, 7], [8, 0, 0]])
        >>> outputs = model(features, torch.tensor([100, 50]), tokens)
        >>> outputs["joint_encoded"].shape, outputs["joint_predicted"].shape
        (torch.Size([2, 25, 24]), torch.Size([2, 4, 24]))
        >>> model.joint(outputs["joint_encoded"][:, 0], outputs["joint_predicted"][:, 0]).shape
        torch.Size([2, 29])
    """

    def __init__(
        self,
        frontend: nn.Module,
        encoder: nn.Module,
        predictor: Predictor,
        vocab_size: int,
        joint_dim: int = 320,
        ctc: bool = False,
    ) -> None:
        super().__init__(frontend, encoder)
        require_parts(predictor=predictor)
        check_counts(joint_dim=joint_dim)
        self.predictor = predictor
        self.from_encoder = nn.Linear(encoder.dim, joint_dim)
        self.from_predictor = nn.Linear(predictor.dim, joint_dim, bias=False)
        self.output = nn.Linear(joint_dim, vocab_size)
        self.ctc_head = nn.Linear(encoder.dim, vocab_size) if ctc else None

    def forward(
        self, features: Tensor, feature_lengths: Tensor, tokens: Tensor | None = None, **batch
    ) -> dict[str, Tensor]:
        """features [B, T, F], tokens [B, U] (for the objective) -> by name:

        encoded [B, T', D], encoded_lengths [B], joint_encoded [B, T', H]; with tokens joint_predicted [B, U + 1, H]
        and the output layer, joint_weight [V, H] and joint_bias [V], and with a CTC layer log_probs [B, T', V] and
        log_prob_lengths [B].
        """
        encoded, encoded_lengths = self.encode(features, feature_lengths)
        outputs = {
            "encoded": encoded,
            "encoded_lengths": encoded_lengths,
            "joint_encoded": self.from_encoder(encoded),
        }
        if tokens is not None:
            outputs["joint_predicted"] = self.from_predictor(self.predictor(tokens))
            outputs |= {"joint_weight": self.output.weight, "joint_bias": self.output.bias}
            outputs |= self.ctc_outputs(encoded, encoded_lengths)
        return outputs

    def joint(self, joint_encoded: Tensor, joint_predicted: Tensor) -> Tensor:
        """[..., H] of frames and of texts -> log_probs [..., V] (float32) of what comes next."""
        return self.output((joint_encoded + joint_predicted).tanh_()).float().log_softmax(-1)

    def predict(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """One more token [n] after a predictor's state -> joint_predicted [n, H], and the state after it."""
        output, state = self.predictor.step(tokens, state)
        return self.from_predictor(output), state

    def search_inputs(self, outputs: dict[str, Tensor]) -> tuple[TransducerModel, Tensor, Tensor]:
        """The model, which is asked step by step, joint_encoded [B, T', H] and encoded_lengths [B]."""
        return self, outputs["joint_encoded"], outputs["encoded_lengths"]
