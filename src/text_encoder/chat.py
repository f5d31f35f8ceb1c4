"""A language model's own tokenizer, and the prompt in which its chat template puts the speech.

The prompt is made once, as token ids around the place of the speech, and is saved with the checkpoint: training and
inference cannot differ in it, and no template is run when a checkpoint is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src.text_encoder.base import TextEncoder
from src.utils.errors import TextError, UserError
from src.utils.extras import speech_llm_package
from src.utils.hub import asking_the_hub

AUDIO = "<audio>"  # where the speech stands in a prompt; no token of the vocabulary
INSTRUCTION = "Transcribe the speech to text"
ANSWER = "transcript"  # a text to find the end of the assistant's turn by
ROLES = {"start": "<|im_start|>", "end": "<|im_end|>"}  # ChatML's, of the tokenizer of bytes
# Templates that tell the date would make another prompt every day. The line break belongs to the block.
ONE_DAY = "{% macro strftime_now(form) %}21 June 2025{% endmacro %}\n"


class ChatTextEncoder(TextEncoder):
    """Tokens of a language model; a text is what it answers to the prompt ``<audio> instruction``.

    Unlike other encoders' token 0, its is a token like any other. ``prompt`` has the token ids ``before`` and ``after``
    the speech, and the one that ``end``s an answer.

    Args:
        source: a hub id or a folder with a tokenizer and its chat template; None: a token for each byte, in ChatML.
        revision: of the hub.
        instruction: what the user's turn says after the speech.

    Raises ``UserError`` for a tokenizer that is missing, or has no chat template that a user's text goes through.

    >>> encoder = ChatTextEncoder(instruction="Write")
    >>> encoder.vocab_size, encoder.decode(encoder.encode("it's a"))
    (258, "it's a")
    >>> [encoder.tokens[i] for i in encoder.prompt["before"]]
    ['<|im_start|>', 'u', 's', 'e', 'r', 'Ċ']
    """

    file_name = "tokenizer.json"
    prompt_name = "prompt.json"

    def __init__(
        self,
        source: str | None = None,
        revision: str | None = None,
        instruction: str = INSTRUCTION,
    ) -> None:
        if AUDIO in instruction:
            raise UserError(f"instruction {instruction!r}: must not hold {AUDIO}, which stands before it")
        if source is None:
            self._take(byte_tokenizer(ROLES.values()), *_chat_ml(f"{AUDIO} {instruction}"))
        else:
            self._take(*_of_transformers(source, revision, f"{AUDIO} {instruction}"))

    def _take(self, tokenizer: Any, *parts: str) -> None:
        """Parts: the template's text before the speech, after it, and after an answer."""
        tokenizer.no_padding()  # a file may ask for both, and prompts would be filled up, texts cut
        tokenizer.no_truncation()
        before, after, rest = (tokenizer.encode(part, add_special_tokens=False).ids for part in parts)
        special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        # A space or a line break before it ends nothing: texts hold spaces, too.
        ends = [i for i in rest if i in special] or rest
        if not ends:
            raise UserError("the chat template marks no end of an answer; choose another tokenizer")
        self._use(tokenizer, {"before": before, "after": after, "end": ends[0]})

    def _use(self, tokenizer: Any, prompt: dict[str, Any]) -> None:
        self._tokenizer, self.prompt = tokenizer, prompt
        known = {i: token for token, i in tokenizer.get_vocab(with_added_tokens=True).items()}
        self.tokens = [known.get(i, f"<{i}>") for i in range(max(known) + 1)]

    def for_model(self) -> dict[str, Any]:
        return {**super().for_model(), "prompt": self.prompt}

    def encode(self, text: str) -> list[int]:
        """Token ids of an answer, without its end; ``TextError`` where they would not give the text back."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self.decode(tokens) != " ".join(text.split()):
            raise TextError(
                f"{text[:60]!r}: the tokenizer cannot write it; normalise or correct the transcript"
            )
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of token ids; special tokens write nothing, spaces never double."""
        text = self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True)
        return " ".join(text.split())

    def save(self, directory: str | Path) -> str:
        """Writes ``tokenizer.json`` and, beside it, ``prompt.json``; returns the first one's name."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / self.file_name).write_text(self._tokenizer.to_str(), encoding="utf-8")
        (Path(directory) / self.prompt_name).write_text(json.dumps(self.prompt) + "\n", encoding="utf-8")
        return self.file_name

    @classmethod
    def load(cls, directory: str | Path) -> ChatTextEncoder:
        """Reads what ``save`` wrote; ``UserError`` where it is missing or damaged."""
        tokenizers = speech_llm_package("tokenizers")
        file, beside = Path(directory) / cls.file_name, Path(directory) / cls.prompt_name
        try:
            tokenizer = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
            prompt = json.loads(beside.read_text(encoding="utf-8"))
            ids = [*prompt["before"], *prompt["after"], prompt["end"]]
            if not all(isinstance(i, int) and 0 <= i < (1 << 31) for i in ids):
                raise ValueError(f"{beside.name} does not hold token ids")
        except Exception as error:  # whatever damaged bytes make two parsers throw
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{file}: no tokenizer with its prompt ({reason}); fetch the checkpoint again"
            ) from None
        encoder = cls.__new__(cls)
        encoder._use(tokenizer, prompt)
        return encoder


def byte_tokenizer(special: Iterable[str]) -> Any:
    """256 tokens, one for each byte, and special ones, such as those that mark turns."""
    tokenizers = speech_llm_package("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _chat_ml(user: str) -> tuple[str, str, str]:
    """ChatML before the speech, after it, and what ends an answer."""
    start, end = ROLES["start"], ROLES["end"]
    before, after = f"{start}user\n{user}{end}\n{start}assistant\n".split(AUDIO)
    return before, after, end


def _of_transformers(source: str, revision: str | None, user: str) -> tuple[Any, str, str, str]:
    """The fast tokenizer behind one of ``transformers``, and its template's text before the speech, after it, and after
    an answer. Thinking aloud is switched off, where the template knows of it."""
    transformers = speech_llm_package("transformers")
    try:
        with asking_the_hub(source):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                source, revision=None if Path(source).is_dir() else revision, trust_remote_code=False
            )
        backend = tokenizer.backend_tokenizer
        turns = [{"role": "user", "content": user}, {"role": "assistant", "content": ANSWER}]
        told = {"chat_template": ONE_DAY + tokenizer.get_chat_template(), "enable_thinking": False}
        answered = tokenizer.apply_chat_template(turns, tokenize=False, **told)
    except UserError:
        raise
    except Exception as error:  # whatever a library makes of a stranger's files
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{source}: no tokenizer with a chat template ({reason}); give a hub id or a folder of an instructed model"
        ) from None
    # As it shows an answer, not as it asks for one: that may leave a thought open, or a channel unnamed.
    prompt, _, rest = answered.rpartition(ANSWER)
    for whose, kept in (("user", answered.count(AUDIO) == 1), ("assistant", ANSWER in answered)):
        if not kept:
            raise UserError(
                f"{source}: its chat template does not keep the {whose}'s text; choose another tokenizer"
            )
    return backend, *prompt.rstrip(" ").split(AUDIO), rest
