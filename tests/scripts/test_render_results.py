from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from src.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("render_results", ROOT / "scripts" / "render_results.py")
render_results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(render_results)


@pytest.mark.parametrize("file", list(render_results.PAGES), ids=lambda file: file.name)
def test_the_pages_show_what_results_say(file):
    assert file.read_text(encoding="utf-8") == render_results.rendered(file)


def test_a_page_without_markers_is_named(tmp_path):
    with pytest.raises(UserError, match="has no markers"):
        render_results.insert("no table here", "x", tmp_path / "page.md")
