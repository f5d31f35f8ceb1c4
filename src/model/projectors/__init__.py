from src.model.projectors.mosa import MOSAProjector
from src.model.projectors.qformer import QFormerProjector
from src.model.projectors.stacked import LinearProjector, MLPProjector, MoEProjector, SwiGLUProjector

__all__ = [
    "LinearProjector",
    "MLPProjector",
    "MOSAProjector",
    "MoEProjector",
    "QFormerProjector",
    "SwiGLUProjector",
]
