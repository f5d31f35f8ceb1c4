from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import sentencepiece
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from src.text_encoder import (
    BPETextEncoder,
    CharTextEncoder,
    TextEncoder,
    load_text_encoder,
    normalize,
    train_bpe,
)
from src.utils.errors import TextError, UserError

CONFIGS = Path(__file__).resolve().parents[2] / "src/configs/text_encoder"
LINES = [
    "it's a small test of the thing",
    "don't take the cat's hat",
    "she sells sea shells by the sea shore",
]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bpe") / "some.model"
    path.write_bytes(train_bpe(LINES, vocab_size=48))
    return path


@pytest.fixture(scope="module", params=["characters", "bpe"])
def encoder(request: pytest.FixtureRequest, model_file: Path) -> TextEncoder:
    return CharTextEncoder() if request.param == "characters" else BPETextEncoder(model_file)


@settings(max_examples=200, deadline=None)
@given(text=st.text("abcdefghijklmnopqrstuvwxyz' .9é"))
def test_round_trip_of_every_normalised_text(encoder: TextEncoder, text: str) -> None:
    text = normalize(text)
    tokens = encoder.encode(text)
    assert encoder.decode(tokens) == text
    assert all(0 < token < encoder.vocab_size for token in tokens)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_token_sequence_decodes_to_words_with_single_spaces(
    encoder: TextEncoder, data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.integers(0, encoder.vocab_size - 1), max_size=30))
    text = encoder.decode(tokens)
    assert text == " ".join(text.split())
    assert set(text) <= set(" 'abcdefghijklmnopqrstuvwxyz")
    assert text == encoder.decode([token for token in tokens if token != 0])


def test_the_alphabet_of_the_characters_is_fixed() -> None:
    encoder = CharTextEncoder()
    assert encoder.tokens == ["<blank>", "▁", "'", *"abcdefghijklmnopqrstuvwxyz"]
    assert encoder.vocab_size == 29
    assert encoder.encode("a z'") == [3, 1, 28, 2]


def test_bpe_merges_are_targets_and_decode_as_sentencepiece_does(model_file: Path) -> None:
    encoder = BPETextEncoder(model_file)
    assert encoder.vocab_size == len(encoder.tokens) == 48
    assert encoder.tokens[0] == "<blank>" and len(set(encoder.tokens)) == 48
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    for line in LINES:
        tokens = encoder.encode(line)
        assert len(tokens) < len(line) * 0.8
        assert encoder.decode(tokens) == pieces.decode(tokens) == line


def test_text_without_tokens_is_refused_by_name(encoder: TextEncoder) -> None:
    for text, strange in (("hello 5", "5"), ("Hello", "H"), ("привет", "п")):
        with pytest.raises(TextError, match=strange):
            encoder.encode(text)


def test_save_and_load_keep_every_token(encoder: TextEncoder, tmp_path: Path) -> None:
    name = encoder.save(tmp_path / "new" / "checkpoint")
    assert [path.name for path in (tmp_path / "new" / "checkpoint").iterdir()] == [name]
    again = load_text_encoder(tmp_path / "new" / "checkpoint")
    assert type(again) is type(encoder) and again.tokens == encoder.tokens
    again.save(tmp_path)
    assert (tmp_path / name).read_bytes() == (tmp_path / "new" / "checkpoint" / name).read_bytes()


def test_encoders_reach_worker_processes(encoder: TextEncoder) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    assert again.encode(LINES[0]) == encoder.encode(LINES[0])


def test_the_file_of_characters_can_be_read_by_people(tmp_path: Path) -> None:
    CharTextEncoder(" аб").save(tmp_path)
    assert (tmp_path / "tokenizer.txt").read_text(encoding="utf-8") == "<blank>\n▁\nа\nб\n"
    assert load_text_encoder(tmp_path).encode("б а") == [3, 1, 2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.txt", b""),
        ("tokenizer.txt", b"\xff\xfe\x00"),
        ("tokenizer.txt", b"a\nb\n"),
        ("tokenizer.txt", "<blank>\n▁\na\na\n".encode()),
        ("tokenizer.txt", b"<blank>\na\nb\n"),
        ("tokenizer.txt", "<blank>\n▁\nabc\n".encode()),
        ("tokenizer.model", b""),
        ("tokenizer.model", b"not a model"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_text_encoder(tmp_path)


def test_a_model_cut_short_or_of_another_layout_is_refused(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut short"):
        load_text_encoder(tmp_path)
    sentencepiece.SentencePieceTrainer.train(  # SentencePiece's defaults: begin and end pieces
        sentence_iterator=iter(LINES), model_prefix=str(tmp_path / "tokenizer"), vocab_size=25, minloglevel=3
    )
    with pytest.raises(UserError, match="unk_id=0"):
        load_text_encoder(tmp_path)


def test_no_tokenizer_or_two(tmp_path: Path, model_file: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer"):
        load_text_encoder(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        BPETextEncoder(tmp_path / "none.model")
    CharTextEncoder().save(tmp_path)
    BPETextEncoder(model_file).save(tmp_path)
    with pytest.raises(UserError, match="both"):
        load_text_encoder(tmp_path)


def test_configs_build(model_file: Path) -> None:
    assert instantiate(OmegaConf.load(CONFIGS / "characters.yaml")).vocab_size == 29
    config = OmegaConf.load(CONFIGS / "bpe.yaml")
    assert OmegaConf.is_missing(config, "model_file")
    config.model_file = str(model_file)
    assert instantiate(config).vocab_size == 48


def test_training_ignores_nothing_long_and_refuses_sizes_that_do_not_fit() -> None:
    assert "zq" in "".join(pieces_of(["zq " * 5000], 32))  # longer than SentencePiece's own limit
    for size, message in ((5000, "give --vocab-size [0-9]+ or less"), (10, "at least 29"), (-1, "too small")):
        with pytest.raises(UserError, match=message):
            train_bpe(LINES, size)
    with pytest.raises(UserError, match="no text"):
        train_bpe(["", ""], 30)


def pieces_of(lines: list[str], vocab_size: int) -> list[str]:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=train_bpe(lines, vocab_size))
    return [pieces.id_to_piece(i) for i in range(pieces.vocab_size())]
