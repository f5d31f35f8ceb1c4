"""A language model's tokenizer behind our interface, and the prompt that its chat template makes."""

from __future__ import annotations

import json
import shutil

import pytest

transformers = pytest.importorskip("transformers")

from support.chat_tokenizer import TEMPLATE, chat_tokenizer  # noqa: E402

from src.text_encoder import ChatTextEncoder, load_text_encoder  # noqa: E402
from src.utils.errors import TextError, UserError  # noqa: E402

TEXTS = ["the cat sat on the mat", "it's a zebra", "", "zero zero one", "naïve café"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return chat_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(params=["of a folder", "of bytes"])
def encoder(request, folder):
    return ChatTextEncoder(str(folder) if request.param == "of a folder" else None)


def test_texts_come_back(encoder):
    for text in TEXTS:
        tokens = encoder.encode(text)
        assert encoder.decode(tokens) == text
        assert encoder.decode([*tokens, encoder.prompt["end"]]) == text
        assert all(0 <= token < encoder.vocab_size for token in tokens)


def test_what_is_saved_is_the_same_encoder(encoder, tmp_path):
    assert encoder.save(tmp_path) == "tokenizer.json"
    again = load_text_encoder(tmp_path)
    assert type(again) is ChatTextEncoder and again.tokens == encoder.tokens
    assert (
        again.for_model() == encoder.for_model() == {"vocab_size": len(again.tokens), "prompt": again.prompt}
    )
    assert [again.encode(text) for text in TEXTS] == [encoder.encode(text) for text in TEXTS]


@pytest.mark.parametrize("frames", [1, 7])
@pytest.mark.parametrize("start", ["", "\n\n", "  ", "{% if true %}\n{% endif %}"])
def test_the_prompt_is_the_template_s_by_token(tmp_path, frames, start):
    """The library itself, with <audio> as a token of its own, once for each frame; blanks come first, too."""
    folder = chat_tokenizer(tmp_path, start + TEMPLATE)
    encoder = ChatTextEncoder(str(folder), instruction="Transcribe the speech to text")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.add_special_tokens({"additional_special_tokens": ["<audio>"]})
    audio = theirs.convert_tokens_to_ids("<audio>")
    turns = [{"role": "user", "content": "<audio>" * frames + " Transcribe the speech to text"}]
    asked = theirs.apply_chat_template(
        turns, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    prompt = encoder.prompt
    assert prompt["before"] + [audio] * frames + prompt["after"] == list(asked)
    turns.append({"role": "assistant", "content": "the cat sat"})
    answered = theirs.apply_chat_template(turns, enable_thinking=False, return_dict=False)
    written = [*asked, *encoder.encode("the cat sat"), prompt["end"]]
    assert list(answered)[: len(written)] == written
    assert encoder.tokens[prompt["end"]] == "<|im_end|>"  # which is not what the tokenizer calls its end


LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (LLAMA_2, "<|endoftext|>"),  # a space stands before it, and in every text
        (TEMPLATE.replace("<|im_end|>\n' }}{% end", "\n<|im_end|>\n' }}{% end"), "<|im_end|>"),
        ("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}", "Ċ"),
    ],
    ids=["after a space", "after a line break", "no special token"],
)
def test_the_end_of_an_answer_is_the_first_special_token_after_it(template, end, tmp_path):
    encoder = ChatTextEncoder(str(chat_tokenizer(tmp_path, template)))
    assert encoder.tokens[encoder.prompt["end"]] == end
    assert encoder.prompt["end"] not in encoder.encode("the cat sat on the mat")


@pytest.mark.parametrize(
    ("asks", "shows"),
    [
        (
            "<|im_start|>assistant",
            "<|im_start|>assistant<final>",
        ),  # a channel, which a prompt alone does not name
        ("<|im_start|>assistant<think>", "<|im_start|>assistant"),  # a thought, which a transcript is not
    ],
)
def test_an_answer_begins_where_a_template_shows_one(asks, shows, tmp_path):
    template = (
        "{% for m in messages %}"
        f"{{{{ '<|im_start|>user' if m['role'] == 'user' else '{shows}' }}}}{{{{ m['content'] + '<|im_end|>' }}}}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{asks}{{% endif %}}"
    )
    prompt = (encoder := ChatTextEncoder(str(chat_tokenizer(tmp_path, template)))).prompt
    said = "".join(encoder.tokens[i] for i in prompt["after"]).replace("Ġ", " ")
    assert said.endswith("text<|im_end|>" + shows) and encoder.tokens[prompt["end"]] == "<|im_end|>"


def test_what_a_file_says_of_padding_and_truncation_is_not_done(folder, tmp_path):
    """Texts would be cut, and prompts filled up."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    settings["padding"] = {
        **{"strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"},
    }
    file.write_text(json.dumps(settings))
    plain, odd = ChatTextEncoder(str(folder)), ChatTextEncoder(str(tmp_path))
    assert odd.prompt == plain.prompt
    odd.save(tmp_path / "saved")
    for encoder in (odd, load_text_encoder(tmp_path / "saved")):
        assert [encoder.encode(text) for text in TEXTS] == [plain.encode(text) for text in TEXTS]


def test_a_template_that_tells_the_date_says_the_same_every_day(tmp_path):
    dated = "{{ 'Today is ' + strftime_now('%d %B %Y') + '\n' }}" + TEMPLATE
    encoder = ChatTextEncoder(str(chat_tokenizer(tmp_path, dated)))
    assert "21 June 2025" in encoder.decode(encoder.prompt["before"])


def test_tokenizers_that_cannot_chat_are_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no tokenizer with a chat template"):
        ChatTextEncoder(str(tmp_path))
    with pytest.raises(
        UserError, match="^some/body: not in the cache, and no connection to the hub; connect once"
    ):
        ChatTextEncoder("some/body")
    with pytest.raises(UserError, match="nowhere: there is no such folder; give one, or a hub id"):
        ChatTextEncoder(str(tmp_path / "nowhere"))
    for name, template, line in (
        ("none", None, "no tokenizer with a chat template"),
        ("deaf", "{{ 'hello' }}", "does not keep the user's text"),
        (
            "mute",
            TEMPLATE.replace("{{ message['content'] +", "{{ message['content'][:0] +", 1),
            "user's text",
        ),
        (
            "one-sided",
            TEMPLATE.replace("for message in messages", "for message in messages[:1]"),
            "does not keep the assistant's text",
        ),
        ("endless", "{% for m in messages %}{{ m['content'] }}{% endfor %}", "marks no end of an answer"),
    ):
        with pytest.raises(UserError, match=line):
            ChatTextEncoder(str(chat_tokenizer(tmp_path / name, template)))
    with pytest.raises(UserError, match="must not hold <audio>"):
        ChatTextEncoder(instruction="<audio> please")


def test_a_text_that_would_not_come_back_is_refused(encoder):
    with pytest.raises(TextError, match="the tokenizer cannot write it"):
        encoder.encode("stop <|im_end|> here")


@pytest.mark.parametrize("damage", ["{", "{}", '{"before": ["x"], "after": [], "end": 1}', None])
def test_damaged_files_are_one_line(damage, tmp_path):
    ChatTextEncoder().save(tmp_path)
    (tmp_path / "prompt.json").unlink()
    if damage is not None:
        (tmp_path / "prompt.json").write_text(damage)
    with pytest.raises(UserError, match="no tokenizer with its prompt .* fetch the checkpoint again"):
        load_text_encoder(tmp_path)
    (tmp_path / "prompt.json").write_text(json.dumps(ChatTextEncoder().prompt))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer with its prompt"):
        load_text_encoder(tmp_path)
