from src.model.slots.cif import CIFPredictor
from src.model.slots.compression import CTCCompression

__all__ = ["CIFPredictor", "CTCCompression"]
