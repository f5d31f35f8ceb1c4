"""Without transformers, peft and tokenizers every other family works, and speech LLMs say what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "peft", "tokenizers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = ["train.py", *sys.argv[1:]]
"""
TRAIN = WITHOUT + "import runpy; runpy.run_path('train.py', run_name='__main__')"


def without_extras(code: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_every_room_is_imported_without_them():
    code = WITHOUT + "import src.model, src.decoding, src.loss, src.safe_build, src.recognizer, src.trainer\n"
    done = without_extras(code + "print(len(src.safe_build.allowed_targets()))")
    assert done.returncode == 0 and int(done.stdout) > 20, done.stderr


def test_they_are_not_imported_before_they_are_needed():
    names = "('transformers', 'peft', 'tokenizers')"
    code = f"import sys, src.trainer, src.recognizer\nprint([n for n in {names} if n in sys.modules])"
    assert without_extras(code).stdout.strip() == "[]"


def test_another_family_trains_and_this_one_says_what_to_install(tmp_path):
    tiny = ["datasets=samples", "writer=[none]", f"save_dir={tmp_path}"]
    done = without_extras(TRAIN, "-cn=conformer_ctc", "+test=tiny", "model=conformer_ctc_tiny", *tiny)
    assert done.returncode == 0, done.stderr
    done = without_extras(TRAIN, "-cn=speech_llm", "+test=tiny_llm", *tiny)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "speech LLMs need the package tokenizers" in line
    assert line.endswith("run: pip install -r requirements-llm.txt")
