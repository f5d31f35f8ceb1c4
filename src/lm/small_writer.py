"""A small causal language model for speech LLMs, trained where no hub is: from the tokens that an encoder would hear to
clean text, in the chat prompt that the speech LLM has.

What an encoder with CTC hears of a text are its tokens, each for a frame or two, with pauses about the spaces and
mistakes here and there. A model that turns such a line of tokens into the text can be frozen: what remains for a
projector is to put frames in the place of tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.text_encoder import ChatTextEncoder
from src.text_encoder.chat import INSTRUCTION, byte_tokenizer
from src.utils.extras import speech_llm_package

USER, ASSISTANT, END, SILENCE = SPECIAL = ("<|user|>", "<|assistant|>", "<|end|>", "<|silence|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def save_tokenizer(folder: str | Path) -> None:
    """A token for each byte, and one for each thing that a prompt has beside the speech; with a chat template, as a hub
    has it. So short a prompt leaves most of the time to the text."""
    tokenizers, transformers = (speech_llm_package(name) for name in ("tokenizers", "transformers"))
    tokenizer = byte_tokenizer(SPECIAL)
    tokenizer.add_tokens([tokenizers.AddedToken(INSTRUCTION, lstrip=True)])
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(folder)


def small_network(vocab_size: int, dim: int, num_layers: int) -> nn.Module:
    """A random Qwen3. Its embeddings are as loud as what a projector's last norm makes: of variance 1."""
    transformers = speech_llm_package("transformers")
    config = transformers.AutoConfig.for_model(
        "qwen3",
        vocab_size=vocab_size,
        hidden_size=dim,
        intermediate_size=3 * dim,
        num_hidden_layers=num_layers,
        num_attention_heads=dim // 32,
        num_key_value_heads=dim // 32,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id")),
    )
    network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    nn.init.normal_(network.get_input_embeddings().weight)
    return network


class Exercises:
    """What the model practises on: batches of ``before, heard, after, answer, end`` without an end.

    Its ranges are those of a Conformer's CTC, at 25 frames a second, on AN4's training clips: 97 % of the letters last
    one frame or two, all but 0.3 % of the spaces one to four; half of the spaces' sides have silence, 2 % more than ten
    frames of it; 99 % of the clips start with 8 to 30 silent frames, 98 % end in at most ten.

    Args:
        texts: clean, as in training.
        encoder: with the prompt.
        silence: the token that stands for it.
        rng: what draws.
        most_repeats: a letter is heard in 1 to so many frames, a space in up to twice as many.
        most_silence: half of the time, 1 to so many silent frames are before a space, and likewise after it; the text
            ends in up to as many and starts with up to three times as many.
        errors: share of tokens that are misheard: another, none, or one or a silence too many.
        invented: share of texts whose words are drawn one by one from all texts, so that there is no reciting.
    """

    def __init__(
        self,
        texts: Sequence[str],
        encoder: ChatTextEncoder,
        silence: int,
        rng: random.Random,
        most_repeats: int = 2,
        most_silence: int = 10,
        errors: float = 0.05,
        invented: float = 0.5,
    ) -> None:
        self.texts, self.encoder, self.silence, self.rng = list(texts), encoder, silence, rng
        self.most_repeats, self.most_silence = most_repeats, most_silence
        self.errors, self.invented = errors, invented
        self.space = encoder.encode(" ")[0]
        self.words = [word for text in texts for word in text.split()]
        self.letters = sorted({token for text in texts for token in encoder.encode(text)})

    def text(self) -> str:
        """One of the texts, or words of them."""
        text = self.rng.choice(self.texts)
        if self.rng.random() >= self.invented:
            return text
        return " ".join(self.rng.choices(self.words, k=len(text.split())))

    def heard(self, tokens: Sequence[int]) -> list[int]:
        """What an encoder would hear of tokens, one a frame."""
        frames = self._silent(0, 3 * self.most_silence)
        for token in tokens:
            spoken = [token]
            if self.rng.random() < self.errors:
                other = self.rng.choice(self.letters)
                spoken = self.rng.choice(([other], [], [token, other], [token, self.silence]))
            for one in spoken:
                if one == self.space:
                    lasting = [one] * self.rng.randint(1, 2 * self.most_repeats)
                    frames += [*self._pause(), *lasting, *self._pause()]
                else:
                    # Two alike are told from one that lasts by the silence between them, as CTC does.
                    frames += [self.silence] * (frames[-1:] == [one])
                    frames += [one] * self.rng.randint(1, self.most_repeats)
        return frames + self._silent(0, self.most_silence)

    def _silent(self, least: int, most: int) -> list[int]:
        return [self.silence] * self.rng.randint(least, most)

    def _pause(self) -> list[int]:
        return self._silent(1, self.most_silence) if self.rng.random() < 0.5 else []

    def batches(self, size: int, pool: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
        """ids [B, L] and targets [B, L] (-100 where nothing is asked), clips of similar length together."""
        prompt = self.encoder.prompt
        while True:
            drawn = []
            for _ in range(size * pool):
                answer = self.encoder.encode(self.text())
                asked = [*prompt["before"], *self.heard(answer), *prompt["after"]]
                drawn.append((asked, [*answer, prompt["end"]]))
            drawn.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
            groups = [drawn[i : i + size] for i in range(0, len(drawn), size)]
            self.rng.shuffle(groups)
            yield from map(self._collated, groups)

    def _collated(self, pairs: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
        longest = max(len(asked) + len(answer) for asked, answer in pairs)
        ids = torch.full((len(pairs), longest), self.encoder.prompt["end"])
        targets = torch.full((len(pairs), longest), -100)
        for row, (asked, answer) in enumerate(pairs):
            ids[row, : len(asked) + len(answer)] = torch.tensor([*asked, *answer])
            # The token before an answer's says it.
            targets[row, len(asked) - 1 : len(asked) - 1 + len(answer)] = torch.tensor(answer)
        return ids, targets


def answer_loss(network: Any, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """ids and targets [B, L] -> mean cross-entropy of the targets [], and the share of them that come first []."""
    asked = targets >= 0
    hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state[asked]
    logits = network.lm_head(hidden).float()
    right = (logits.argmax(-1) == targets[asked]).float().mean()
    return F.cross_entropy(logits, targets[asked]), right
