"""What a model does with one recording, in pictures: for every family what there is to see of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from src.looking.model_plots import (
    Heard,
    cosines_figure,
    heads_figure,
    lattice_figure,
    posteriors_figure,
    slots_figure,
)
from src.looking.token_names import names_of
from src.loss.fused_transducer import joined_arcs
from src.loss.lattice import best_path, transducer_arcs
from src.model import LASModel, ParaformerModel, SpeechLLM, SpeechModel, TransducerModel
from src.model.ctc_alignment import ctc_alignment
from src.model.projectors import QFormerProjector
from src.model.slots import CIFPredictor
from src.model.speech_model import SpeechModelWithCTC
from src.recognizer import Recognizer, Transcript
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError
from src.utils.plots import drawable

LAYERS_SHOWN = 3  # of a writer


@dataclass(frozen=True)
class Picture:
    """A figure, the word for it in a file's name, and what one sees in it."""

    name: str
    about: str
    figure: Figure


@torch.inference_mode()
def inspect_recording(
    recognizer: Recognizer, audio: np.ndarray, name: str, model_name: str
) -> tuple[Transcript, list[Picture]]:
    """Audio [N] at 16 kHz, its name and the model's -> what was understood, and the pictures of how.

    CTC: posteriors. Transducers: the lattice of the text. Attention models: where each head looks. Paraformer: the
    predictor's weights and slots, and where each head looks. Speech LLMs: which tokens the projected frames are like,
    and where the layers look that look at them most. Of the other families' CTC layers the posteriors, too.

    Raises ``UserError`` for a recording without a single frame.
    """
    model = recognizer.model
    lengths = torch.tensor([len(audio)])
    batch = {"utterance_id": [name], "audio": torch.from_numpy(audio)[None], "audio_lengths": lengths}
    outputs = recognizer.listen(batch)
    if not int(outputs["encoded_lengths"]):
        raise UserError(f"{name}: {len(audio)} samples are too short for a frame; give a longer recording")
    transcript = recognizer.decode(outputs, [name])[0]
    features, _ = model.frontend(batch["audio"].to(model.device), lengths.to(model.device))
    return transcript, [*_Inspection(recognizer, features, outputs, transcript, model_name).pictures()]


class _Inspection:
    """One recording (B = 1), what the model returned for it, and the best text."""

    def __init__(
        self,
        recognizer: Recognizer,
        features: Tensor,
        outputs: dict[str, Tensor],
        transcript: Transcript,
        model_name: str,
    ) -> None:
        self.model: SpeechModel = recognizer.model
        self.names = [drawable(name) for name in names_of(recognizer.text_encoder.tokens)]
        self.outputs, self.transcript, self.model_name = outputs, transcript, model_name
        self.best = transcript.hypotheses[0]
        self.lengths = outputs["encoded_lengths"]
        self.encoded = outputs["encoded"][:, : int(self.lengths)]
        self.tokens = torch.tensor([self.best.tokens], dtype=torch.long, device=self.model.device)
        self.token_lengths = torch.tensor([self.tokens.size(1)], device=self.model.device)
        self.heard = Heard(
            _array(features[0]),
            1000 * self.model.frontend.hop / SAMPLE_RATE,
            1000 * self.model.frame_s,
            int(self.lengths),
            [self.names[token] for token in self.best.tokens],
        )

    def pictures(self) -> Iterator[Picture]:
        if isinstance(self.model, ParaformerModel):
            yield from self.of_a_paraformer(self.model)
        elif isinstance(self.model, TransducerModel):
            yield self.of_a_transducer(self.model)
        elif isinstance(self.model, LASModel):
            yield self.of_an_attention_model(self.model)
        elif isinstance(self.model, SpeechLLM):
            yield from self.of_a_speech_llm(self.model)
        if "log_probs" in self.outputs:
            yield self.of_ctc(self.outputs["log_probs"], self.outputs["log_prob_lengths"])
        elif isinstance(self.model, SpeechModelWithCTC):
            log_probs = self.model.ctc_log_probs(self.encoded)
            if log_probs is not None:
                yield self.of_ctc(log_probs, self.lengths)

    def of_ctc(self, log_probs: Tensor, lengths: Tensor) -> Picture:
        """log_probs [1, T', V]; a token is where the text's best alignment begins it."""
        T = int(lengths)
        positions = ctc_alignment(log_probs, lengths, self.tokens, self.token_lengths)[0].tolist()
        there = set(positions) >= set(range(len(self.best.tokens)))
        starts = [positions.index(u) for u in range(len(self.best.tokens))] if there else []
        about = "CTC's posteriors, and where the text's best alignment begins its tokens"
        heard = replace(self._heard(about, starts), frames=T)
        return Picture("ctc", about, posteriors_figure(heard, _array(log_probs[0, :T].exp()), self.names))

    def of_a_transducer(self, model: TransducerModel) -> Picture:
        joint_predicted = model.from_predictor(model.predictor(self.tokens))
        inputs = self.outputs["joint_encoded"], joint_predicted, model.output.weight, model.output.bias
        arcs = joined_arcs(*inputs, self.tokens, self.lengths, self.token_lengths)
        blank, label = (arc[:, : int(self.lengths)] for arc in arcs)
        lattice = transducer_arcs(blank, label, self.lengths, self.token_lengths)
        path = best_path(blank[0], label[0])
        about = "the text's lattice, how probable each node is given the text, and the best path"
        figure = lattice_figure(self._heard(about, path), _array((lattice.blank + lattice.label)[0]), path)
        return Picture("lattice", about, figure)

    def of_an_attention_model(self, model: LASModel) -> Picture:
        heads = _array(model.looked(self.encoded, self.lengths, self.tokens)[0])
        about = "where the speller's attention looks for each token"
        heard = self._heard(about, self.best.token_times)
        return Picture("attention", about, heads_figure(heard, heads, [*heard.tokens, "end"]))

    def of_a_speech_llm(self, model: SpeechLLM) -> Iterator[Picture]:
        P = int(self.outputs["projected_lengths"])
        if not P:
            return
        projected = self.outputs["projected"][:, :P]
        queries, covered_s = 1, self.heard.duration_s
        if isinstance(model.projector, QFormerProjector):  # all queries of a window hear all of it
            queries = model.projector.num_queries
            covered_s = P // queries * model.projector.window * model.frame_s
        cosines = model.read_as(projected)[0, :, : len(self.names)]
        nearest = [*dict.fromkeys(cosines.argmax(1).tolist())]  # in the order of time
        alike = _array(cosines[:, nearest]).reshape(-1, queries, len(nearest)).transpose(1, 2, 0)
        about = f"cosines of the {P} projected frames with the tokens that one of them is most like"
        names, panels = [self.names[token] for token in nearest], ["like the token"]
        if queries > 1:
            about += f"; {queries} queries hear each window of {model.projector.window} frames"
            panels = [f"query {number}" for number in range(1, queries + 1)]
        figure = cosines_figure(self._heard(about, ()), alike, names, panels, covered_s)
        yield Picture("projected", about, figure)
        layers = _array(model.looked(projected, self.tokens))
        if not len(layers):
            return
        most = sorted(np.argsort(-layers.sum((1, 2)), kind="stable")[:LAYERS_SHOWN])
        about = "where the writer looks before each token"
        if len(most) < len(layers):
            about += f", in the {len(most)} of its {len(layers)} layers that look most at the speech"
        if queries > 1:
            about += f"; weights of a window's {queries} queries added up"
        layers = layers.reshape(*layers.shape[:2], -1, queries).sum(3)
        heard, names = self._heard(about, ()), [f"layer {layer + 1}" for layer in most]
        figure = heads_figure(heard, layers[most], [*heard.tokens, "end"], names, covered_s)
        yield Picture("attention", about, figure)

    def of_a_paraformer(self, model: ParaformerModel) -> Iterator[Picture]:
        _, slots = model.write(self.encoded, self.lengths)
        parts = _array(slots.weights[0])
        integrates = isinstance(model.predictor, CIFPredictor)
        if integrates:
            weights = _array(model.predictor.weights(self.encoded, self.lengths)[0])
            sums = f"sum {weights.sum():.2f}, with the tail's {model.predictor.tail:g}: {len(parts)} slots"
            about = f"the predictor's weights ({sums})"
        else:
            weights = 1 - _array(model.ctc_log_probs(self.encoded)[0, :, 0].exp())
            about = f"the frames of CTC's tokens ({len(parts)} slots)"
        middles = parts @ np.arange(parts.shape[1])
        heard = self._heard(about, slots.times[0].tolist(), middles.tolist())
        if len(heard.tokens) != len(parts):  # a search writes nothing where a slot has no possible token
            heard = replace(heard, tokens=["?"] * len(parts))
        weight_name = "weight" if integrates else "1 - P(blank)"
        yield Picture("slots", about, slots_figure(heard, weights, weight_name, parts, integrates))
        if len(parts) and model.decoder is not None:
            about = "where the decoder's last layer looks for each slot"
            heads = _array(model.looked(slots, self.encoded, self.lengths)[0])
            heard = replace(self._heard(about, heard.borders, heard.labels), tokens=heard.tokens)
            yield Picture("attention", about, heads_figure(heard, heads, heard.tokens))

    def _heard(self, about: str, borders: Sequence[float], labels: Sequence[float] | None = None) -> Heard:
        title = f"{self.transcript.id}, heard by {self.model_name}: {about}\n{self.transcript.text}"
        return replace(self.heard, title=title, borders=borders, labels=borders if labels is None else labels)


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
