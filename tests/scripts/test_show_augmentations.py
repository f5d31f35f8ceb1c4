"""The gallery: a wav and a picture for each augmentation, and a page that shows them all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[2]


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "show_augmentations.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_gallery_of_a_clip(tmp_path):
    soundfile.write(tmp_path / "a & b.wav", 0.2 * np.sin(np.arange(8000) / 5), 16000)
    result = run(tmp_path, "--audio", "a & b.wav", "--transforms", "light", "--out", "made")
    assert result.returncode == 0, result.stderr
    assert "index.html" in result.stdout
    page = (tmp_path / "made" / "index.html").read_text()
    files = set(re.findall(r'src="([^"]+)"', page))
    expected = {"original.wav", "spec_augment.png"}
    for step in ("speed", "gain", "noise", "time_shift", "all_together"):
        expected |= {f"{step}.wav", f"{step}.png"}
    assert files == expected
    assert all((tmp_path / "made" / file).stat().st_size > 500 for file in files)
    assert "a &amp; b.wav" in page
    quieter, rate = soundfile.read(tmp_path / "made" / "gain.wav")
    assert rate == 16000 and len(quieter) == 8000


def test_unknown_and_empty_transforms_are_spoken(tmp_path):
    for name in ("loud", "none"):
        result = run(tmp_path, "--transforms", name)
        assert result.returncode == 2 and "light" in result.stderr and "Traceback" not in result.stderr


def test_a_file_as_the_target_is_spoken(tmp_path):
    (tmp_path / "file").write_text("kept")
    result = run(tmp_path, "--out", "file")
    assert result.returncode == 2 and result.stderr.startswith("error: --out file: cannot be made")
    assert (tmp_path / "file").read_text() == "kept"
