"""A small untrained recogniser of each family, which writes something of noise."""

from __future__ import annotations

import torch

from src.decoding import (
    AttentionGreedySearch,
    CTCGreedySearch,
    ParaformerGreedySearch,
    TransducerGreedySearch,
)
from src.model import (
    CTCModel,
    LASModel,
    ParaformerModel,
    ParallelDecoder,
    StatelessPredictor,
    TransducerModel,
)
from src.model.encoders import MLPEncoder
from src.model.slots import CIFPredictor, CTCCompression
from src.model.spellers import LSTMSpeller, TransformerSpeller
from src.recognizer import Recognizer
from src.text_encoder import CharTextEncoder
from src.transforms import LogMel

V, D = 29, 16


def encoder() -> tuple[LogMel, MLPEncoder]:
    return LogMel(20), MLPEncoder(20, dim=D, stack=4)


def decoder() -> ParallelDecoder:
    return ParallelDecoder(V, D, num_layers=2, num_heads=2)


MODELS = {
    "ctc": lambda: CTCModel(*encoder(), V, upsampling=2),
    "rnnt": lambda: TransducerModel(*encoder(), StatelessPredictor(V, D), V, joint_dim=D, ctc=True),
    "las": lambda: LASModel(*encoder(), TransformerSpeller(V, D, num_layers=2, num_heads=2), V),
    "lstm": lambda: LASModel(*encoder(), LSTMSpeller(V, D), V, ctc=True),
    "cif": lambda: ParaformerModel(*encoder(), CIFPredictor(D), decoder(), V, ctc=False),
    "compression": lambda: ParaformerModel(*encoder(), CTCCompression(D, V), decoder(), V),
    "no predictor": lambda: ParaformerModel(*encoder(), None, None, V),
}
SEARCHES = {
    "ctc": CTCGreedySearch,
    "rnnt": TransducerGreedySearch,
    "las": AttentionGreedySearch,
    "lstm": AttentionGreedySearch,
    "cif": ParaformerGreedySearch,
    "compression": ParaformerGreedySearch,
    "no predictor": ParaformerGreedySearch,
}


def recognizer(family: str) -> Recognizer:
    torch.manual_seed(1)
    return Recognizer(MODELS[family]().eval(), CharTextEncoder(), SEARCHES[family]())
