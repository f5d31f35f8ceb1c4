"""Every common format becomes mono 16 kHz; whatever cannot be read is one AudioError that names the file."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import soundfile as sf

from src.datasets import load_audio, probe_duration
from src.datasets.audio_io import decode_audio
from src.utils.errors import AudioError


def peak_hertz(audio: np.ndarray, rate: int = 16000) -> float:
    return float(np.abs(np.fft.rfft(audio)).argmax() * rate / len(audio))


@pytest.mark.parametrize(
    "name,options",
    [
        ("a.wav", {}),
        ("a.WAV", {"format": "WAV", "subtype": "FLOAT"}),
        ("a.flac", {}),
        ("a.FLAC", {"format": "FLAC"}),
        ("a.mp3", {}),
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.sph", {"format": "NIST", "subtype": "PCM_16"}),
    ],
)
def test_formats(tmp_path, write_tone, name, options) -> None:
    path = write_tone(tmp_path / name, seconds=1.0, **options)
    audio = load_audio(path)
    assert audio.dtype == np.float32 and audio.ndim == 1
    assert abs(len(audio) - 16000) <= 16 and abs(probe_duration(path) - 1.0) < 0.001
    assert abs(peak_hertz(audio) - 440) < 2 and abs(audio.std() - 0.354) < 0.06
    assert np.array_equal(decode_audio(path.read_bytes(), name), audio)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_frequency_and_duration(tmp_path, write_tone, rate) -> None:
    audio = load_audio(write_tone(tmp_path / "a.wav", seconds=1.0, hertz=1000, rate=rate))
    assert abs(len(audio) - 16000) <= 1 and abs(peak_hertz(audio) - 1000) < 2
    assert abs(np.abs(audio[2000:-2000]).max() - 0.5) < 0.01


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_averaged(tmp_path, channels) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (800, channels)).astype(np.float32)
    sf.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert np.allclose(load_audio(tmp_path / "a.wav"), samples.mean(1), atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path, value) -> None:
    samples = np.zeros(100, dtype=np.float32)
    samples[50] = value
    sf.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: holds NaN or infinite"):
        load_audio(tmp_path / "a.wav")


def test_no_samples(tmp_path) -> None:
    sf.write(tmp_path / "a.wav", np.zeros(0), 16000)
    for read in (load_audio, probe_duration):
        with pytest.raises(AudioError, match=r"a\.wav: holds no samples"):
            read(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize("content", [b"", b"no audio at all, just a text that pretends " * 30])
def test_garbage(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (load_audio, probe_duration):
        with pytest.raises(AudioError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "name,options",
    [
        ("a.wav", {}),
        ("big-endian.wav", {"endian": "BIG"}),
        ("rf64.wav", {"format": "RF64", "subtype": "PCM_16"}),
        ("a.flac", {}),
        ("a.mp3", {}),
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.sph", {"format": "NIST", "subtype": "PCM_16"}),
        ("ulaw.sph", {"format": "NIST", "subtype": "ULAW"}),
        ("a.aiff", {}),
        ("a.au", {}),
        ("little-endian.au", {"endian": "LITTLE"}),
        ("a.w64", {}),
        ("a.caf", {}),
    ],
)
def test_truncated(tmp_path, write_tone, name, options) -> None:
    path = write_tone(tmp_path / name, seconds=2.00005, **options)  # an odd number of samples
    assert len(load_audio(path)) == pytest.approx(32001, abs=16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=name):
        load_audio(path)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs an ffmpeg program")
@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "w64", "ogg", "opus", "mp3"])
def test_what_ffmpeg_writes_into_a_file_or_a_pipe_is_whole(tmp_path, write_tone, suffix) -> None:
    tone = write_tone(tmp_path / "tone.wav", seconds=2.0)
    for target in (tmp_path / f"file.{suffix}", "-"):
        command = ["ffmpeg", "-v", "error", "-i", tone, "-f", suffix, target]
        streamed = subprocess.run(command, check=True, capture_output=True).stdout
    (tmp_path / f"pipe.{suffix}").write_bytes(streamed)
    for name in ("file", "pipe"):
        assert len(load_audio(tmp_path / f"{name}.{suffix}")) == pytest.approx(32000, abs=3000)


def test_a_length_that_a_flac_only_claims_or_leaves_open(tmp_path, write_tone) -> None:
    path = write_tone(tmp_path / "a.flac")
    content = bytearray(path.read_bytes())
    for length in (0xF, b"\xff" * 4), (0, bytes(4)):  # 2 ** 36 - 1 samples; not known
        content[21] = content[21] & 0xF0 | length[0]
        content[22:26] = length[1]
        path.write_bytes(content)
        with pytest.raises(AudioError, match=r"a\.flac"):
            load_audio(path)
    with pytest.raises(AudioError, match="states no length"):
        probe_duration(path)


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_a_rate_that_no_sound_has(tmp_path, write_tone, rate) -> None:
    path = write_tone(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(AudioError, match=f"a.wav: its sample rate of {rate} Hz"):
        load_audio(path)


def test_loud_channels_are_averaged_without_overflow(tmp_path) -> None:
    samples = np.array([[3e38, 3e38], [0, 0], [-3e38, 0]], np.float32)
    sf.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert load_audio(tmp_path / "a.wav").tolist() == [1.0, 0.0, -0.5]


def test_a_streamed_wav_that_states_no_length_is_whole(tmp_path, write_tone) -> None:
    path = write_tone(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # what ffmpeg writes into a pipe
    path.write_bytes(content)
    assert len(load_audio(path)) == 3200


def test_missing_folder_or_forbidden(tmp_path) -> None:
    (tmp_path / "folder.wav").mkdir()
    for name in ("missing.wav", "folder.wav", "missing.m4a"):
        with pytest.raises(AudioError, match=f"{name}: no such file"):
            load_audio(tmp_path / name)


def test_shorten_is_named(tmp_path, write_tone) -> None:
    path = write_tone(tmp_path / "a.sph", format="NIST", subtype="PCM_16")
    header, samples = path.read_bytes()[:1024], path.read_bytes()[1024:]
    header = header.replace(b"-s3 pcm", b"-s26 pcm,embedded-shorten-v2.00")[:1024]
    path.write_bytes(header + b"ajkg\x02" + samples)
    for read in (load_audio, probe_duration):
        with pytest.raises(AudioError, match="shorten.*sph2pipe"):
            read(path)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs an ffmpeg program")
@pytest.mark.parametrize("name", ["a.m4a", "A.M4A", "http:a.m4a"])
def test_m4a_where_ffmpeg_is(tmp_path, write_tone, monkeypatch, name) -> None:
    tone = write_tone(tmp_path / "tone.wav", seconds=1.0, rate=22050)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tone, f"file:{tmp_path / name}"], check=True)
    monkeypatch.chdir(tmp_path)
    for path in (name, tmp_path / name):
        audio = load_audio(path)
        assert audio.dtype == np.float32 and abs(len(audio) - 16000) < 1600  # AAC pads its ends
        assert abs(probe_duration(path) - len(audio) / 16000) < 1e-6 and abs(peak_hertz(audio) - 440) < 2


def test_a_format_without_decoder_or_a_broken_one_says_what_to_do(tmp_path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A garbage")
    with pytest.raises(AudioError, match=r"a\.m4a.*(ffmpeg|convert)"):
        load_audio(tmp_path / "a.m4a")


def test_an_odd_rate_costs_no_memory(tmp_path, write_tone):
    """An exact 44,099 to 16,000 Hz filter bank would take gigabytes."""
    assert len(load_audio(write_tone(tmp_path / "odd.wav", seconds=1.0, rate=44099))) == pytest.approx(
        16000, abs=2
    )


def test_float_files_louder_than_full_scale_are_scaled_to_it(tmp_path):
    sf.write(tmp_path / "loud.wav", np.array([0.0, 300.0, -600.0], np.float32), 16000, subtype="FLOAT")
    assert load_audio(tmp_path / "loud.wav").tolist() == [0.0, 0.5, -1.0]
