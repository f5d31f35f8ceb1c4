"""Index -> utterance -> batch."""

from src.datasets.audio_io import load_audio, probe_duration
from src.datasets.collate import collate
from src.datasets.custom_dir import CustomDirDataset
from src.datasets.index import Entry, Skipped
from src.datasets.loading import build_loader
from src.datasets.prepared import PreparedDataset
from src.datasets.samplers import BucketBatchSampler
from src.datasets.speech_dataset import SpeechDataset, Utterance

__all__ = [
    "BucketBatchSampler",
    "CustomDirDataset",
    "Entry",
    "PreparedDataset",
    "Skipped",
    "SpeechDataset",
    "Utterance",
    "build_loader",
    "collate",
    "load_audio",
    "probe_duration",
]
