"""Any recording -> mono float32 samples at 16 kHz. One library (soundfile) for all common formats.

What soundfile cannot decode (m4a, aac, ...) goes through torchcodec or an ffmpeg program where there is one.
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile as sf

from src.utils.audio import OTHER_SUFFIXES, SAMPLE_RATE
from src.utils.errors import AudioError
from src.utils.resampling import resample

UNKNOWN_FRAMES = 1 << 62  # a flac written to a pipe states no length; soundfile says 2 ** 63 - 1


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
    """[N] or [N, channels] float32 -> [N'] at 16 kHz. ``AudioError`` if empty, not finite or too long."""
    try:
        return _to_mono(samples, rate)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from None
    except (MemoryError, RuntimeError):  # torch says that memory is short with a RuntimeError
        raise AudioError(f"{name}: does not fit into the memory; cut it into shorter recordings") from None


def _to_mono(samples: np.ndarray, rate: int) -> np.ndarray:
    if samples.shape[0] == 0:
        raise AudioError("holds no samples; remove it or record it again")
    # The sum of two large float32 may be no float32.
    mono = samples.mean(axis=1, dtype=np.float64) if samples.ndim == 2 else samples
    if not np.isfinite(mono).all():
        raise AudioError("holds NaN or infinite samples; export it again")
    peak = np.abs(mono).max()
    if peak > 1.0:  # float files may be scaled to anything
        mono = mono / peak
    return resample(mono.astype(np.float32, copy=False), rate, SAMPLE_RATE)


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
    _check_frames(info.frames, name)
    return info.frames / info.samplerate


def _check_frames(frames: int, name: str) -> None:
    if frames >= UNKNOWN_FRAMES:
        raise AudioError(f"{name}: states no length and was written to a pipe; convert it to wav")


def _require_content(path: Path) -> None:
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError) as error:  # a name that no file can have
        raise AudioError(f"{path}: cannot be opened ({error}); rename it or check the path") from None
    if size is None:
        raise AudioError(f"{path}: no such file; check the path")
    if size == 0:
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
            _check_frames(sound.frames, name)
            samples, rate, declared = sound.read(dtype="float32"), sound.samplerate, sound.frames
            exact = sound.format != "MP3" or b"Xing" in header or b"Info" in header
    except (sf.LibsndfileError, RuntimeError, OSError, ValueError, MemoryError) as error:
        raise AudioError(_unreadable(name, header, error)) from None
    # The length of an MP3 without a tag is only estimated.
    if _is_cut_off(file, header) or (exact and len(samples) < 0.9 * declared):
        raise AudioError(f"{name}: is cut off (its header promises more audio); copy or download it again")
    return samples, rate


def _is_cut_off(file: BinaryIO, header: bytes) -> bool:
    """Whether the file ends before its own headers say. A size that they leave open is no promise."""
    size = file.seek(0, io.SEEK_END)
    if header[:4] == b"OggS":
        return _ends_within_an_ogg_page(file, size)
    promised, unknown = _promised_bytes(header)
    # Some writers count their own 8-byte chunk header; that much missing is no cut.
    return size + 8 < promised < unknown


def _promised_bytes(header: bytes) -> tuple[int, int]:
    """The bytes of the whole file, and from which number on that means "not known" (streamed files)."""

    def number(start: int, size: int = 4, order: str = "little") -> int:
        return int.from_bytes(header[start : start + size], order)

    kind = header[:4]
    if kind in (b"riff", b"RF64"):  # W64 keeps its size in its first chunk, RF64 in ds64
        return (number(16, 8) if kind == b"riff" else number(20, 8) + 8), 1 << 62
    if kind in (b".snd", b"dns."):
        order = "big" if kind == b".snd" else "little"
        return number(4, order=order) + number(8, order=order), 0x7FFF0000
    if kind == b"NIST":
        fields = dict(re.findall(rb"(\w+) -\w+ (\d+)", header))
        data = [int(fields.get(key, 0)) for key in (b"sample_count", b"sample_n_bytes", b"channel_count")]
        size = re.match(rb" *(\d+)", header[8:16])
        return int(size[1] if size else 0) + math.prod(data), 1 << 62
    if kind in (b"RIFF", b"RIFX", b"FORM"):
        return number(4, order="little" if kind == b"RIFF" else "big") + 8, 0x7FFF0000
    return 0, 0


def _ends_within_an_ogg_page(file: BinaryIO, size: int) -> bool:
    """A page is at most 65,307 bytes. Streams cut at a page's end are left alone: live recordings end so."""
    file.seek(max(0, size - (1 << 16)))
    tail = file.read()
    page = tail[max(tail.rfind(b"OggS"), 0) :]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) < 27 + len(lengths) + sum(lengths) if page[:4] == b"OggS" else False


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
