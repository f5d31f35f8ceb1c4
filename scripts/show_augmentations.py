"""Makes a page on which every augmentation of a transforms YAML can be heard and seen on one clip.

    python scripts/show_augmentations.py --audio my.wav --transforms strong --out outputs/augmentations

Each augmentation is applied with probability 1, whatever the YAML says; "all together" is what training does.
"""

from __future__ import annotations

import argparse
import html
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.datasets import load_audio
from src.transforms import LogMel, SpecAugment
from src.utils.audio import SAMPLE_RATE
from src.utils.build import build
from src.utils.errors import UserError, door
from src.utils.files import audio_files
from src.utils.plots import Clip, waveform_and_spectrogram_figure
from src.utils.progress import progress_bar
from src.utils.seeding import addressed_rng

CONFIGS = ROOT / "src" / "configs"

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Augmentations: {name}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; color: #2b2d42; background: #f4f4f8; margin: 0 auto;
         max-width: 960px; padding: 24px; }}
  article {{ background: #fff; border-radius: 12px; padding: 16px 20px; margin: 20px 0;
             box-shadow: 0 1px 4px #2b2d4222; }}
  h2 {{ margin: 0; font-size: 1.15rem; }}
  code {{ color: #5a4fcf; font-size: .85rem; overflow-wrap: anywhere; }}
  img {{ width: 100%; margin-top: 8px; }}
  .players {{ display: flex; flex-wrap: wrap; gap: 8px 24px; margin-top: 10px; }}
  .players label {{ display: flex; align-items: center; gap: 10px; }}
</style>
<h1>Augmentations: {name}</h1>
<p>Clip: <code>{clip}</code>, seed {seed}. Each augmentation is applied with probability 1;
<em>all together</em> is one draw with the probabilities of <code>src/configs/transforms/{name}.yaml</code>.
Spectrograms: log-mel, 10 ms a frame.</p>
{cards}
</html>
"""


def synthetic_clip() -> np.ndarray:
    """Three seconds of harmonic chirps with pauses: rises and falls as a voice does, [N] float32."""
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    pitch = 140 + 50 * np.sin(2 * np.pi * 0.7 * time) + 20 * time
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formant = 900 + 600 * np.sin(2 * np.pi * 1.3 * time)
    clip = sum(np.exp(-(((k * pitch - formant) / 900) ** 2)) * np.sin(k * phase) for k in range(1, 30))
    syllables = np.clip(np.sin(2 * np.pi * 1.5 * time + 0.5), 0, None) ** 0.5
    clip = clip * syllables
    hiss = 1e-3 * addressed_rng("synthetic clip").standard_normal(time.size)
    return (0.6 * clip / np.abs(clip).max() + hiss).astype(np.float32)


def load_transforms(name: str) -> DictConfig:
    names = sorted(path.stem for path in (CONFIGS / "transforms").glob("*.yaml"))
    choice = f"choose one of {', '.join(names)} (src/configs/transforms)"
    if name not in names:
        raise UserError(f"--transforms {name}: no such YAML; {choice}")
    with initialize_config_dir(str(CONFIGS), version_base=None):
        config = compose(f"transforms/{name}").transforms
    if config.waveform is None and config.spec_augment is None:
        raise UserError(f"--transforms {name}: holds no augmentation; {choice}")
    return config


def choose_clip(path: Path | None) -> tuple[str, np.ndarray]:
    """The clip that is asked for, else the first one of samples/, else a synthetic one."""
    if path is None:
        samples = audio_files(ROOT / "samples" / "audio")
        if not samples:
            return "synthetic chirps", synthetic_clip()
        path = samples[0]
    return path.name, load_audio(path)


def features_of(audio: np.ndarray, normalize: bool) -> np.ndarray:
    features, _ = LogMel(normalize=normalize)(torch.from_numpy(audio)[None], torch.tensor([audio.size]))
    return features[0].numpy()


def masked_features(augment: SpecAugment, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    draws = torch.from_numpy(rng.random((1, augment.draws_per_utterance), dtype=np.float32))
    return augment(torch.from_numpy(features)[None], torch.tensor([len(features)]), draws)[0].numpy()


def severity(config: DictConfig) -> str:
    """'p: 0.5, snr_db: [5, 30]' for a page, from the augmentation's YAML."""
    settings = {key: value for key, value in OmegaConf.to_container(config).items() if key != "_target_"}
    return ", ".join(f"{key}: {value}" for key, value in settings.items() if value is not None)


def card(name: str, settings: str, players: dict[str, str]) -> str:
    sounds = "".join(
        f'<label>{label} <audio controls preload="none" src="{html.escape(file)}"></audio></label>'
        for label, file in players.items()
    )
    title = html.escape(name.replace("_", " ").capitalize())
    return (
        f"<article><h2>{title}</h2><code>{html.escape(settings)}</code>"
        f'<div class="players">{sounds}</div>'
        f'<img src="{html.escape(name)}.png" alt="{title}, before and after" loading="lazy"></article>'
    )


def make_gallery(
    config: DictConfig, name: str, clip_name: str, audio: np.ndarray, seed: int, out: Path
) -> int:
    """Writes NAME.wav and NAME.png for each augmentation, and index.html; returns how many there are."""
    waveform, spec_augment = build(config.waveform), build(config.spec_augment)
    before = Clip("before", audio, features_of(audio, normalize=False))
    soundfile.write(out / "original.wav", audio, SAMPLE_RATE)
    cards = []

    def show(step: str, settings: str, first: Clip, second: Clip, sound: bool = True) -> None:
        players = {}
        if sound:
            soundfile.write(out / f"{step}.wav", second.audio, SAMPLE_RATE)
            players = {"before": "original.wav", "after": f"{step}.wav"}
        figure = waveform_and_spectrogram_figure([first, second])
        figure.savefig(out / f"{step}.png", dpi=110)
        cards.append(card(step, settings, players))

    if waveform is not None:
        together = waveform(audio, addressed_rng(seed, "all_together"))
        for step, augmentation in progress_bar(waveform.augmentations.items(), unit="augmentation"):
            augmentation.p = 1.0
            changed = augmentation(audio, addressed_rng(seed, step))
            after = Clip("after", changed, features_of(changed, normalize=False))
            show(step, severity(config.waveform.augmentations[step]), before, after)
        after = Clip("after", together, features_of(together, normalize=False))
        show("all_together", "each with its own probability", before, after)
    if spec_augment is not None:
        spec_augment.p = 1.0
        features = features_of(audio, normalize=True)
        masked = masked_features(spec_augment, features, addressed_rng(seed, "spec_augment"))
        first, second = Clip("before (normalised)", audio, features), Clip("after", audio, masked)
        show("spec_augment", severity(config.spec_augment), first, second, sound=False)

    page = PAGE.format(name=html.escape(name), clip=html.escape(clip_name), seed=seed, cards="\n".join(cards))
    (out / "index.html").write_text(page, encoding="utf-8")
    return len(cards)


@door
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audio", type=Path, help="the clip (default: one of samples/audio, else chirps)")
    parser.add_argument("--transforms", default="strong", help="name of a YAML in src/configs/transforms")
    parser.add_argument("--out", type=Path, default=Path("outputs/augmentations"), help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other draws")
    arguments = parser.parse_args()

    config = load_transforms(arguments.transforms)
    clip_name, audio = choose_clip(arguments.audio)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"--out {arguments.out}: cannot be made ({error.strerror}); choose another folder"
        raise UserError(message) from None
    count = make_gallery(config, arguments.transforms, clip_name, audio, arguments.seed, arguments.out)
    print(f"{count} augmentations of {clip_name}: open {arguments.out / 'index.html'}")


if __name__ == "__main__":
    main()
