"""Index -> utterance -> batch."""

from src.datasets.an4 import An4Dataset
from src.datasets.audio_io import load_audio, probe_duration
from src.datasets.collate import collate
from src.datasets.common_voice import CommonVoiceDataset
from src.datasets.custom_dir import CustomDirDataset
from src.datasets.hugging_face import HuggingFaceDataset
from src.datasets.index import Entry, Skipped
from src.datasets.librispeech import LibriSpeechDataset
from src.datasets.loading import build_loader, recordings_of
from src.datasets.manifest import ManifestDataset
from src.datasets.mixture import MixtureDataset
from src.datasets.prepared import PreparedDataset
from src.datasets.samplers import BatchLimits, BucketBatchSampler
from src.datasets.shards import ShardsDataset
from src.datasets.speech_dataset import SpeechDataset, Utterance
from src.datasets.text_dataset import TextDataset
from src.datasets.tones import TonesDataset, tones_of

__all__ = [
    "An4Dataset",
    "BatchLimits",
    "BucketBatchSampler",
    "CommonVoiceDataset",
    "CustomDirDataset",
    "Entry",
    "HuggingFaceDataset",
    "LibriSpeechDataset",
    "ManifestDataset",
    "MixtureDataset",
    "PreparedDataset",
    "ShardsDataset",
    "Skipped",
    "SpeechDataset",
    "TextDataset",
    "TonesDataset",
    "Utterance",
    "build_loader",
    "collate",
    "load_audio",
    "probe_duration",
    "recordings_of",
    "tones_of",
]
