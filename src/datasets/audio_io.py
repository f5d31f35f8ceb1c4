"""Any recording -> mono float32 samples at 16 kHz. One library (soundfile) for all common formats.

What soundfile cannot decode (m4a, aac, ...) goes through torchcodec or an ffmpeg program where there is one.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile as sf

from src.utils.audio import OTHER_SUFFIXES, SAMPLE_RATE
from src.utils.errors import AudioError
from src.utils.resampling import resample


def load_audio(path: str | Path) -> np.ndarray:
    """The whole recording as float32 [N] at 16 kHz; channels are averaged.

    Raises ``AudioError`` naming the file for anything missing, unreadable, empty, or holding NaN or infinity.
    """
    path = Path(path)
    if path.suffix.lower() in OTHER_SUFFIXES:
        samples, rate = _decode_with_ffmpeg(path)
    else:
        with _open(path) as file:
            samples, rate = _decode_with_soundfile(file, str(path))
    return to_mono(samples, rate, str(path))


def decode_audio(content: bytes, name: str) -> np.ndarray:
    """``load_audio`` for the bytes of a file; ``name`` is what errors call it."""
    samples, rate = _decode_with_soundfile(io.BytesIO(content), name)
    return to_mono(samples, rate, name)


def to_mono(samples: np.ndarray, rate: int, name: str) -> np.ndarray:
    """[N] or [N, channels] float32 -> [N'] at 16 kHz. ``AudioError`` if empty or not finite."""
    if samples.shape[0] == 0:
        raise AudioError(f"{name}: holds no samples; remove it or record it again")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; export it again")
    mono = samples.mean(axis=1, dtype=np.float32) if samples.ndim == 2 else samples
    peak = np.abs(mono).max()
    if peak > 1.0:  # float files may be scaled to anything
        mono = mono / peak
    return resample(mono, rate, SAMPLE_RATE)


def probe_duration(path: str | Path) -> float:
    """Seconds, from the header where there is one. Raises ``AudioError`` for a file that is not audio."""
    path = Path(path)
    if path.suffix.lower() in OTHER_SUFFIXES:
        samples, rate = _decode_with_ffmpeg(path)
        return len(samples) / rate
    with _open(path) as file:
        return probe_file(file, str(path))


def probe_file(file: BinaryIO, name: str) -> float:
    """``probe_duration`` for an open file."""
    header = file.read(1024)
    file.seek(0)
    try:
        info = sf.info(file)
    except (sf.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(_unreadable(name, header, error)) from None
    if info.frames == 0:
        raise AudioError(f"{name}: holds no samples; remove it or record it again")
    return info.frames / info.samplerate


def _require_content(path: Path) -> None:
    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: is empty (0 bytes); copy or download it again")


def _open(path: Path) -> BinaryIO:
    _require_content(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from None


def _decode_with_soundfile(file: BinaryIO, name: str) -> tuple[np.ndarray, int]:
    header = file.read(4096)
    file.seek(0)
    try:
        with sf.SoundFile(file) as sound:
            samples, rate, declared = sound.read(dtype="float32"), sound.samplerate, sound.frames
    except (sf.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(_unreadable(name, header, error)) from None
    size = file.seek(0, io.SEEK_END)
    # Streamed wav files promise the maximum; the length of an MP3 without a tag is only estimated.
    promised = int.from_bytes(header[4:8], "little") + 8 if header[:4] == b"RIFF" else 0
    tagged = b"Xing" in header or b"Info" in header
    # Some writers count their own 8-byte chunk header; that much missing is no cut.
    if size + 8 < promised < 0x7FFF0000 or (tagged and len(samples) < 0.9 * declared):
        raise AudioError(f"{name}: is cut off (its header promises more audio); copy or download it again")
    return samples, rate


def _unreadable(name: str, header: bytes, error: Exception) -> str:
    if header.startswith(b"NIST_1A") and b"shorten" in header:
        return f"{name}: compressed with shorten, which cannot be read; convert it (sph2pipe -f wav IN OUT)"
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".") or type(error).__name__
    if getattr(error, "code", None) == 7:  # libsndfile's words for it ("no regular file") mislead
        reason = "of no known format"
    return f"{name}: cannot be read as audio ({reason}); convert it to wav or flac"


def _decode_with_ffmpeg(path: Path) -> tuple[np.ndarray, int]:
    """torchcodec when it is installed, else an ffmpeg program."""
    _require_content(path)
    if importlib.util.find_spec("torchcodec"):
        try:
            from torchcodec.decoders import AudioDecoder

            decoded = AudioDecoder(str(path)).get_all_samples()
            return decoded.data.numpy().T, decoded.sample_rate
        except Exception as error:  # torchcodec raises whatever its FFmpeg does, also when FFmpeg is missing
            if not shutil.which("ffmpeg"):
                raise AudioError(
                    f"{path}: torchcodec cannot read it ({_first_line(error)}); convert it to wav"
                ) from None
    if not shutil.which("ffmpeg"):
        raise AudioError(
            f"{path}: {path.suffix} needs ffmpeg (or pip install torchcodec); install it or convert to wav"
        )
    source = f"file:{path}"  # without file: a name with a colon would be taken for a network protocol
    output = f"-vn -ac 1 -ar {SAMPLE_RATE} -f f32le -".split()
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", source, *output]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise AudioError(
            f"{path}: ffmpeg cannot read it ({_first_line(done.stderr.decode(errors='replace'))})"
        )
    return np.frombuffer(done.stdout, dtype=np.float32).copy(), SAMPLE_RATE


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]
