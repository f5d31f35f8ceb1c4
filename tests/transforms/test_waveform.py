"""Each waveform augmentation against what can be measured on its result."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from src.transforms import (
    BandLimit,
    Clipping,
    Compose,
    DropOuts,
    Gain,
    Noise,
    Pitch,
    Reverb,
    Speed,
    Tempo,
    TimeShift,
)
from src.transforms.waveform.filters import convolve
from src.transforms.waveform.folder import AudioFolder
from src.transforms.waveform.noise import coloured_noise
from src.utils.errors import AudioError, UserError
from src.utils.seeding import addressed_rng

RATE = 16000
AUGMENTATIONS = [Gain, Noise, Reverb, Speed, Tempo, Pitch, BandLimit, Clipping, TimeShift, DropOuts]


def rng(*address):
    return addressed_rng("test", *address)


def sine(hz: float, seconds: float = 1.0, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def white(seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return (level * rng("white").standard_normal(round(seconds * RATE))).astype(np.float32)


def peak_hz(audio: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(audio.size), 1 << 18))
    return float(np.fft.rfftfreq(1 << 18, 1 / RATE)[spectrum.argmax()])


def band_db(audio: np.ndarray, low: float, high: float) -> float:
    """Energy between two frequencies, in decibels; the window keeps the clip's ends from leaking."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(audio.size))) ** 2
    frequency = np.fft.rfftfreq(audio.size, 1 / RATE)
    return 10 * math.log10(spectrum[(frequency >= low) & (frequency < high)].sum() + 1e-20)


def db(power_ratio: float) -> float:
    return 10 * math.log10(power_ratio)


# ---- what holds for all of them ----


@settings(max_examples=25, deadline=None)
@given(
    augmentation=st.sampled_from(AUGMENTATIONS),
    size=st.sampled_from([1, 2, 3, 127, 160, 1000, 4001]),
    content=st.sampled_from(["silence", "constant", "tiny", "full scale", "noise"]),
    seed=st.integers(0, 1000),
)
def test_result_is_finite_bounded_and_reproducible(augmentation, size, content, seed):
    audio = {
        "silence": np.zeros(size),
        "constant": np.full(size, 0.5),
        "tiny": np.full(size, 1e-30),
        "full scale": np.where(np.arange(size) % 2, 1.0, -1.0),
        "noise": rng(seed).uniform(-1, 1, size),
    }[content].astype(np.float32)
    before = audio.copy()
    augment = augmentation(p=1.0)
    first, second = augment(audio, rng(seed)), augment(audio, rng(seed))
    assert first.dtype == np.float32 and first.ndim == 1 and first.size >= 1
    assert np.isfinite(first).all() and np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(audio, before)  # the input belongs to the caller


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_every_size_from_one_sample_on(augmentation):
    augment = augmentation(p=1.0)
    for size in (*range(1, 40), 255, 256, 257, 383, 384, 511, 512, 513):
        assert np.isfinite(augment(np.ones(size, np.float32), rng(size))).all()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_probability(augmentation):
    audio = white(0.1)
    assert augmentation(p=0.0)(audio, rng(1)) is audio
    changed = [not np.array_equal(augmentation(p=1.0)(audio, rng(seed)), audio) for seed in range(5)]
    assert any(changed)
    empty = np.zeros(0, np.float32)
    assert augmentation(p=1.0)(empty, rng(1)).size == 0


def test_probability_is_met_on_average():
    applied = sum(Gain(p=0.3, gain_db=-6)(sine(100, 0.01), rng(i)).max() < 0.2 for i in range(2000))
    assert 0.26 < applied / 2000 < 0.34


def test_another_address_another_result():
    audio = white(0.2)
    for augmentation in (Gain, Noise, Reverb, Clipping, DropOuts):
        results = [augmentation(p=1.0)(audio, rng(seed)).tobytes() for seed in range(4)]
        assert len(set(results)) == 4


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Gain(p=1.5), "p=1.5"),
        (lambda: Gain(p=float("nan")), "p=nan"),
        (lambda: Gain(p="often"), "often"),
        (lambda: Gain(gain_db=[6, -6]), "gain_db"),
        (lambda: Noise(snr_db=[0, 10, 20]), "snr_db"),
        (lambda: Noise(snr_db="loud"), "loud"),
        (lambda: Noise(exponent=[0, float("nan")]), "exponent"),
        (lambda: Reverb(rt60_s=0), "rt60_s"),
        (lambda: Speed(factors=[]), "factors"),
        (lambda: Speed(factors=[0.1]), "factors"),
        (lambda: Speed(factors=[0.933]), "0.933"),
        (lambda: Pitch(semitones=40), "semitones"),
        (lambda: Tempo(factor=9), "factor"),
        (lambda: BandLimit(low_pass_hz=[4000, 9000]), "low_pass_hz"),
        (lambda: BandLimit(telephone=2), "telephone"),
        (lambda: Clipping(peak_fraction=0), "peak_fraction"),
        (lambda: TimeShift(shift_s=[0.2, -0.2]), "shift_s"),
        (lambda: DropOuts(gaps=-1), "gaps"),
    ],
)
def test_invalid_severity_is_spoken(build, named):
    with pytest.raises(UserError, match=named):
        build()


# ---- Compose ----


def test_compose_takes_mappings_and_lists_and_leaves_out_none():
    audio = sine(440, 0.1)
    halved = Compose({"gain": Gain(1.0, gain_db=-6.0206), "off": None})(audio, rng(0))
    np.testing.assert_allclose(halved, audio / 2, rtol=1e-4)
    quarter = Compose([Gain(1.0, gain_db=-6.0206), Gain(1.0, gain_db=-6.0206)])(audio, rng(0))
    np.testing.assert_allclose(quarter, audio / 4, rtol=1e-4)
    assert Compose([])(audio, rng(0)) is audio


def test_compose_gives_each_augmentation_its_own_address():
    seen = {}

    def spy(name):
        def call(audio, generator):
            seen.setdefault(name, []).append(generator.random())
            return audio

        return call

    audio = sine(440, 0.1)
    Compose({"a": spy("a"), "b": spy("b"), "c": spy("c")})(audio, rng(0))
    Compose({"c": spy("c"), "b": None, "a": spy("a")})(audio, rng(0))
    Compose({"a": spy("a")})(audio, rng(1))
    assert seen["a"][0] == seen["a"][1] != seen["a"][2]
    assert seen["c"][0] == seen["c"][1] != seen["a"][0]


# ---- level ----


def test_gain_is_what_was_asked_and_never_clips():
    audio = sine(300)
    quieter = Gain(1.0, gain_db=-20)(audio, rng(0))
    assert db(np.mean(quieter**2) / np.mean(audio**2)) == pytest.approx(-20, abs=1e-3)
    louder = Gain(1.0, gain_db=40)(audio, rng(0))
    np.testing.assert_allclose(louder, audio / np.abs(audio).max(), atol=1e-6)


def test_clipping_flattens_at_a_fraction_of_the_peak():
    audio = np.float32([0.1, -0.8, 0.3, 0.5])
    clipped = Clipping(1.0, peak_fraction=0.5)(audio, rng(0))
    np.testing.assert_allclose(clipped, [0.1, -0.4, 0.3, 0.4], atol=1e-6)


# ---- noise ----


@pytest.mark.parametrize("snr_db", [-5, 0, 10, 30])
def test_noise_has_the_snr_that_was_asked(snr_db):
    audio = sine(500, amplitude=0.05)
    noise = Noise(1.0, snr_db=snr_db)(audio, rng(snr_db)) - audio
    assert db(np.mean(audio**2.0) / np.mean(noise**2.0)) == pytest.approx(snr_db, abs=0.05)


@pytest.mark.parametrize(("exponent", "slope_db_per_octave"), [(0, 0.0), (1, -3.01), (2, -6.02)])
def test_coloured_noise_falls_by_its_exponent(exponent, slope_db_per_octave):
    noise = coloured_noise(1 << 17, exponent, rng(exponent))
    density = [band_db(noise, f, 2 * f) - db(f) for f in (125, 250, 500, 1000, 2000, 4000)]
    assert np.polyfit(range(6), density, 1)[0] == pytest.approx(slope_db_per_octave, abs=0.15)
    assert np.mean(noise**2.0) == pytest.approx(1, rel=0.2)


def test_noise_from_files_is_an_excerpt_or_repeats(tmp_path):
    (tmp_path / "deep").mkdir()
    recording = white(2.0)
    soundfile.write(tmp_path / "deep" / "long.WAV", recording, RATE, subtype="FLOAT")
    audio = sine(500, 0.5)
    added = Noise(1.0, snr_db=0, noise_dir=tmp_path)(audio, rng(3)) - audio
    match = np.correlate(recording, added, "valid")
    start = int(match.argmax())
    excerpt = recording[start : start + audio.size]
    assert np.corrcoef(excerpt, added)[0, 1] > 0.999

    soundfile.write(tmp_path / "deep" / "long.WAV", recording[:1000], RATE, subtype="FLOAT")
    added = Noise(1.0, snr_db=0, noise_dir=tmp_path)(audio, rng(3)) - audio
    np.testing.assert_allclose(added[:1000], added[1000:2000], atol=1e-6)


def test_noise_files_of_another_rate_and_stereo(tmp_path):
    hum = np.sin(2 * np.pi * 1000 * np.arange(88200) / 44100)
    soundfile.write(tmp_path / "hum.flac", np.stack([hum, np.zeros_like(hum)], axis=1), 44100)
    audio = white(0.5, 0.01)
    noisy = Noise(1.0, snr_db=-20, noise_dir=tmp_path)(audio, rng(0))
    assert peak_hz(noisy) == pytest.approx(1000, abs=2)


def test_hidden_files_are_no_noises_and_linked_folders_are_followed(tmp_path):
    for name in ("real/a.wav", "real/._a.wav", "noises/b.WAV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, sine(440), RATE)
    (tmp_path / "noises" / "more").symlink_to(tmp_path / "real")
    assert [file.name for file in AudioFolder(tmp_path / "noises").files] == ["b.WAV", "a.wav"]


def test_bad_noise_folders_are_spoken(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=folder.name):
            Noise(noise_dir=folder)
        with pytest.raises(UserError, match=folder.name):
            Reverb(rir_dir=folder)
    (tmp_path / "broken.wav").write_bytes(b"RIFF but not really")
    with pytest.raises(AudioError, match="broken.wav"):
        Noise(1.0, noise_dir=tmp_path)(white(0.1), rng(0))
    soundfile.write(tmp_path / "broken.wav", np.zeros(0), RATE)
    with pytest.raises(AudioError, match="broken.wav"):
        Reverb(1.0, rir_dir=tmp_path)(white(0.1), rng(0))


# ---- filters ----


def test_convolve_equals_numpy():
    audio, kernel = white(0.05), rng("kernel").standard_normal(301).astype(np.float32)
    expected = np.convolve(audio.astype(np.float64), kernel)[40 : 40 + audio.size]
    np.testing.assert_allclose(convolve(audio, kernel, origin=40), expected, atol=1e-5)


def test_simulated_reverb_keeps_timing_length_and_energy():
    audio = np.zeros(RATE, np.float32)
    audio[4000] = 0.5
    wet = Reverb(1.0, rt60_s=0.3, direct_to_reverb_db=3)(audio, rng(0))
    assert wet.size == audio.size
    assert np.abs(wet).argmax() == 4000 and np.abs(wet[:4000]).max() < 1e-6
    assert np.mean(wet**2.0) == pytest.approx(np.mean(audio**2.0), rel=1e-3)
    tail = wet[4001:].astype(np.float64)
    assert db(wet[4000] ** 2.0 / (tail**2).sum()) == pytest.approx(3, abs=0.5)


def test_simulated_reverb_decays_by_60_db_in_rt60():
    audio = np.zeros(RATE, np.float32)
    audio[0] = 0.9
    rt60 = 0.4
    wet = Reverb(1.0, rt60_s=rt60, direct_to_reverb_db=10)(audio, rng(5)).astype(np.float64)
    remaining = np.cumsum(wet[:0:-1] ** 2)[::-1]  # Schroeder's backward integration
    early, late = round(0.1 * rt60 * RATE), round(0.6 * rt60 * RATE)
    assert db(remaining[early] / remaining[late]) == pytest.approx(30, abs=2)


def test_reverb_from_files_aligns_the_direct_path(tmp_path):
    response = np.zeros(3000)  # a measured response starts with the sound's way to the microphone
    response[700], response[1500] = -0.8, 0.3
    soundfile.write(tmp_path / "room.wav", response, RATE, subtype="FLOAT")
    audio = white(0.5)
    wet = Reverb(1.0, rir_dir=tmp_path)(audio, rng(0)).astype(np.float64)
    echo = np.concatenate([np.zeros(800), audio])[: audio.size]
    expected = -0.8 * audio + 0.3 * echo
    expected *= np.sqrt(np.mean(audio**2.0) / np.mean(expected**2))
    np.testing.assert_allclose(wet, expected, atol=1e-5)


def test_telephone_keeps_its_band_and_silences_the_rest():
    audio = white(2.0)
    limited = BandLimit(1.0, telephone=1.0)(audio, rng(0))
    change = {band: band_db(limited, *band) - band_db(audio, *band) for band in
              [(0, 150), (500, 3200), (3700, 8000)]}  # fmt: skip
    assert change[0, 150] < -35 and change[3700, 8000] < -50
    assert abs(change[500, 3200]) < 0.2


def test_low_pass_cuts_above_its_frequency_without_delay():
    audio = white(2.0)
    limited = BandLimit(1.0, low_pass_hz=3000, telephone=0)(audio, rng(0))
    assert band_db(limited, 3300, 8000) - band_db(audio, 3300, 8000) < -50
    assert abs(band_db(limited, 0, 2800) - band_db(audio, 0, 2800)) < 0.1
    lag = np.correlate(limited, audio[200:-200], "valid").argmax()
    assert lag == 200


# ---- rate ----


@pytest.mark.parametrize("factor", [0.85, 0.9, 1.0, 1.1])
def test_speed_changes_length_and_frequency_by_the_factor(factor):
    audio = sine(1000)
    faster = Speed(1.0, factors=[factor])(audio, rng(0))
    assert faster.size == math.ceil(audio.size / factor)
    assert peak_hz(faster) == pytest.approx(1000 * factor, abs=0.5)
    assert np.mean(faster**2.0) == pytest.approx(np.mean(audio**2.0), rel=0.01)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.25, 1.6])
def test_tempo_changes_length_by_the_factor_and_keeps_frequency_and_order(factor):
    audio = np.concatenate([sine(1000, 1.0), np.zeros(RATE // 2, np.float32), sine(600, 1.0)])
    faster = Tempo(1.0, factor=factor)(audio, rng(0))
    assert faster.size == math.ceil(audio.size / factor) and faster.dtype == np.float32
    first, last = np.split(faster, [faster.size // 2])
    assert peak_hz(first) == pytest.approx(1000, rel=0.003) and peak_hz(last) == pytest.approx(600, rel=0.003)
    loud = np.flatnonzero(np.abs(last) > 0.1)
    assert abs(loud[0] / RATE - 0.25 / factor) < 0.03


@pytest.mark.parametrize("semitones", [-4, -1, 2, 5])
def test_pitch_keeps_length_and_moves_frequency(semitones):
    audio = sine(1000)
    shifted = Pitch(1.0, semitones=semitones)(audio, rng(0))
    assert shifted.size == audio.size
    assert peak_hz(shifted) == pytest.approx(1000 * 2 ** (semitones / 12), rel=0.002)
    assert abs(db(np.mean(shifted**2.0) / np.mean(audio**2.0))) < 1


@pytest.mark.parametrize("semitones", [-3, 3])
def test_pitch_keeps_the_time_of_events(semitones):
    audio = np.zeros(2 * RATE, np.float32)
    audio[12000:20000] = sine(600, 0.5)
    shifted = Pitch(1.0, semitones=semitones)(audio, rng(0))
    loud = np.flatnonzero(np.abs(shifted) > 0.1)
    assert abs(loud[0] - 12000) < 0.025 * RATE and abs(loud[-1] - 20000) < 0.025 * RATE


# ---- timing ----


def test_time_shift_later_pads_and_earlier_cuts_only_the_quiet_lead():
    lead, speech = 0.001 * white(0.25), sine(300, 0.5)
    audio = np.concatenate([lead, speech])
    later = TimeShift(1.0, shift_s=0.1)(audio, rng(0))
    np.testing.assert_array_equal(later, np.concatenate([np.zeros(1600, np.float32), audio]))
    np.testing.assert_array_equal(TimeShift(1.0, shift_s=-0.1)(audio, rng(0)), audio[1600:])
    cut = TimeShift(1.0, shift_s=-1)(audio, rng(0))
    assert abs(cut.size - speech.size) < 5  # a sine starts at zero
    silence = np.zeros(100, np.float32)
    np.testing.assert_array_equal(TimeShift(1.0, shift_s=-1)(silence, rng(0)), silence)


def test_drop_outs_are_as_many_and_as_long_as_asked():
    audio = np.full(RATE, 0.5, np.float32)
    for seed in range(20):
        dropped = DropOuts(1.0, gaps=[2, 3], gap_s=[0.01, 0.02])(audio, rng(seed))
        zero = np.diff(np.concatenate([[0], dropped == 0, [0]]).astype(int))
        starts, ends = np.flatnonzero(zero == 1), np.flatnonzero(zero == -1)
        assert 1 <= starts.size <= 3 and (ends - starts).min() >= 160  # overlapping gaps merge
        assert (ends - starts).sum() <= 3 * 320
    np.testing.assert_array_equal(DropOuts(1.0, gaps=0)(audio, rng(0)), audio)
