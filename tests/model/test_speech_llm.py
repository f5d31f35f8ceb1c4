"""Speech LLMs: one prompt in training and searches, clips that are alone in any batch, parts that stay frozen."""

from __future__ import annotations

import threading

import pytest
import torch

transformers = pytest.importorskip("transformers")

from support.chat_tokenizer import chat_tokenizer  # noqa: E402
from support.tiny_networks import LISTENERS, WRITERS  # noqa: E402

from src.decoding import (  # noqa: E402
    SpeechLLMBeamSearch,
    SpeechLLMGreedySearch,
    SpeechLLMSamplingSearch,
)
from src.decoding.speech_llm_search import said_once  # noqa: E402
from src.decoding.streaming import written_so_far  # noqa: E402
from src.loss import AnswerObjective  # noqa: E402
from src.model import SpeechLLM  # noqa: E402
from src.model.listeners import TransformersEncoder, TransformersFrontend  # noqa: E402
from src.model.projectors import (  # noqa: E402
    LinearProjector,
    MLPProjector,
    MoEProjector,
    SwiGLUProjector,
)
from src.model.writers import CausalLMWriter  # noqa: E402
from src.recognizer import Recognizer  # noqa: E402
from src.text_encoder import ChatTextEncoder  # noqa: E402
from src.utils.errors import UserError  # noqa: E402

LENGTHS = torch.tensor([24_000, 9_999, 16_000, 640, 0, 12_345])
SEARCHES = {
    "greedy": SpeechLLMGreedySearch(),
    "beam": SpeechLLMBeamSearch(beam_size=3),
    "sample": SpeechLLMSamplingSearch(samples=3),
}


def speech_llm(
    writer: str = "qwen3",
    listener: str = "glm_asr",
    text_encoder=None,
    lora=None,
    dtype="float32",
    **settings,
) -> SpeechLLM:
    torch.manual_seed(0)
    text_encoder = text_encoder or ChatTextEncoder()
    config = LISTENERS[listener]
    parts = {"projector": MLPProjector(stack=4, hidden_dim=16), "frozen": ["encoder", "writer"], **settings}
    model = SpeechLLM(
        TransformersFrontend(config=config),
        TransformersEncoder(config=config, lora=lora, dtype=dtype),
        writer=CausalLMWriter(config=WRITERS[writer], dtype=dtype),
        **text_encoder.for_model(),
        **parts,
    )
    for weight in model.writer.parameters():  # random models hardly look at their prompt
        weight.data.mul_(4.0)
    return model.eval()


def outputs_of(model, audio, lengths, texts=None):
    batch = {}
    if texts is not None:
        tokens = [torch.tensor(text, dtype=torch.long) for text in texts]
        batch["tokens"] = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        batch["token_lengths"] = torch.tensor([len(text) for text in texts])
    return batch, model(*model.frontend(audio, lengths), **batch)


@pytest.fixture(params=WRITERS)
def model(request):
    return speech_llm(request.param)


@pytest.fixture
def audio():
    return torch.randn(len(LENGTHS), 24_000, generator=torch.Generator().manual_seed(1)) * 0.1


@torch.no_grad()
def test_a_clip_alone_is_as_in_any_batch(model, audio):
    """Its answer's probabilities and what every search writes; batches are padded on the left."""
    texts = [[5, 6, 7], [8], [9, 10], [], [11, 12, 13, 14], [15]]
    _, together = outputs_of(model, audio, LENGTHS, texts)
    found = {name: search(*model.search_inputs(together)) for name, search in SEARCHES.items()}
    for row, length in enumerate(LENGTHS.tolist()):
        _, alone = outputs_of(model, audio[row : row + 1, :length], LENGTHS[row : row + 1], [texts[row]])
        n = len(texts[row]) + 1
        torch.testing.assert_close(
            alone["answer_log_probs"][0, :n], together["answer_log_probs"][row, :n], atol=1e-4, rtol=1e-4
        )
        assert not together["answer_log_probs"][row, n:].any()
        for name, search in SEARCHES.items():
            (ours,) = search(*model.search_inputs(alone))
            assert [h.tokens for h in ours] == [h.tokens for h in found[name][row]]
            assert [h.score for h in ours] == pytest.approx([h.score for h in found[name][row]], abs=1e-3)
    assert all(hypotheses[0].tokens == [] for hypotheses in (found[name][4] for name in SEARCHES))
    assert len({tuple(hypotheses[0].tokens) for hypotheses in found["greedy"]}) > 2  # they hear something


@torch.no_grad()
def test_the_writer_sees_the_template_s_prompt_by_token(tmp_path, audio):
    """The library's own template, by token, embedded, with a projected frame in each place of <audio>: in training and
    in searches."""
    folder = chat_tokenizer(tmp_path, vocab_size=264)
    encoder = ChatTextEncoder(str(folder))
    model = speech_llm(text_encoder=encoder)
    _, outputs = outputs_of(model, audio[:1], LENGTHS[:1], [encoder.encode("the cat")])
    frames = int(outputs["projected_lengths"])
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.add_special_tokens({"additional_special_tokens": ["<audio>"]})
    turns = [{"role": "user", "content": "<audio>" * frames + " Transcribe the speech to text"}]
    turns.append({"role": "assistant", "content": "the cat"})
    ids = theirs.apply_chat_template(turns, enable_thinking=False, return_dict=False)
    ids = torch.tensor(ids[: ids.index(encoder.prompt["end"], len(ids) - 4) + 1])
    is_audio = ids == theirs.convert_tokens_to_ids("<audio>")
    embeddings = model.writer.embed(ids.masked_fill(is_audio, 0))
    embeddings[is_audio] = outputs["projected"][0]
    n = len(encoder.encode("the cat"))
    prompt, real = model.prompt(outputs["projected"], outputs["projected_lengths"])
    assert real.all()
    torch.testing.assert_close(prompt[0], embeddings[: -n - 1])
    # The library's loss with labels on the answer and its end alone.
    labels = torch.where(torch.arange(len(ids)) < len(ids) - n - 1, -100, ids)
    loss = model.writer.network(inputs_embeds=embeddings[None], labels=labels[None]).loss
    assert float(loss) == pytest.approx(-float(outputs["answer_log_probs"].sum()) / (n + 1), rel=1e-4)


@torch.no_grad()
def test_greedy_takes_the_best_token_again_and_again(model, audio):
    """Without a cache, a row at a time; its score is what the model gives the text and its end."""
    _, outputs = outputs_of(model, audio, LENGTHS)
    found = SpeechLLMGreedySearch(max_tokens_per_frame=1.0, max_repeats=1000)(*model.search_inputs(outputs))
    for row, (hypothesis,) in enumerate(found):
        P = int(outputs["projected_lengths"][row])
        vectors, _ = model.prompt(outputs["projected"][row : row + 1, :P], torch.tensor([P]))
        tokens = []
        while len(tokens) < P:
            written = torch.cat([vectors, model.writer.embed(torch.tensor([tokens], dtype=torch.long))], 1)
            logits = model.writer.network(inputs_embeds=written).logits[0, -1]
            best = int(logits[: model.vocab_size].argmax())  # beyond it are no tokens
            if best == model.end:
                break
            tokens.append(best)
        assert hypothesis.tokens == tokens
        scored = model.answer_log_probs(
            outputs["projected"][row : row + 1],
            torch.tensor([P]),
            torch.tensor([tokens], dtype=torch.long),
            torch.tensor([len(tokens)]),
        )
        theirs = scored["answer_log_probs"][0]
        assert hypothesis.score == pytest.approx(float(theirs.sum()), abs=1e-3)
        assert hypothesis.token_log_probs == pytest.approx(theirs[: len(tokens)].tolist(), abs=1e-3)


@torch.no_grad()
def test_beams_are_sorted_and_scored_by_the_model(model, audio):
    _, outputs = outputs_of(model, audio, LENGTHS)
    inputs = model.search_inputs(outputs)
    greedy = SpeechLLMGreedySearch()(*inputs)
    wide = SpeechLLMBeamSearch(beam_size=8, length_penalty=0.0)(*inputs)
    for row, hypotheses in enumerate(wide):
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True) and len({tuple(h.tokens) for h in hypotheses}) == len(
            scores
        )
        assert all(sum(h.parts.values()) == pytest.approx(h.score, abs=1e-6) for h in hypotheses)
        assert scores[0] >= greedy[row][0].score - 1e-3
    normalised = SpeechLLMBeamSearch(beam_size=2, length_penalty=1.0)(*inputs)
    for hypothesis in (hypotheses[0] for hypotheses in normalised):
        expected = hypothesis.parts["acoustic"] / (len(hypothesis.tokens) + 1)
        assert hypothesis.score == pytest.approx(expected)
    alone = SpeechLLMBeamSearch(beam_size=1)(*inputs)
    assert [h.tokens for (h,) in alone] == [h.tokens for (h,) in greedy]


@torch.no_grad()
def test_a_beam_is_pruned_by_what_it_is_ranked_by(audio, monkeypatch):
    model = speech_llm()
    inputs = model.search_inputs(outputs_of(model, audio, LENGTHS)[1])
    asked, generate = [], model.writer.generate
    monkeypatch.setattr(
        model.writer,
        "generate",
        lambda *args, **settings: asked.append(settings) or generate(*args, **settings),
    )
    SpeechLLMBeamSearch(beam_size=3, length_penalty=0.3)(*inputs)
    assert asked[0]["length_penalty"] == 0.3 and asked[0]["num_beams"] == 3


@torch.no_grad()
def test_another_seed_draws_other_texts(audio):
    model = speech_llm()
    inputs = model.search_inputs(outputs_of(model, audio, LENGTHS)[1])
    drawn = [
        [h.tokens for (h,) in SpeechLLMSamplingSearch(1, 2.0, 1.0, seed)(*inputs)]
        for seed in (0, 0, 1, (1 << 40) - 1)
    ]
    assert drawn[0] == drawn[1] and drawn[0] != drawn[2] != drawn[3] != drawn[0]
    with pytest.raises(UserError, match="seed=1099511627776 must be a whole number from 0 to below 2"):
        SpeechLLMSamplingSearch(seed=1 << 40)


def test_frozen_parts_stay_as_they_are(model, audio):
    """In eval mode after train(), without gradients, out of the optimizer; one step moves the projector alone."""
    model.train()
    assert model.training and model.projector.training
    assert not any(module.training for part in (model.encoder, model.writer) for module in part.modules())
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning and all(name.startswith("projector.") for name in learning)
    before = {name: value.clone() for name, value in model.named_parameters()}
    batch, outputs = outputs_of(model, audio, LENGTHS, [[5, 6]] * len(LENGTHS))
    assert not outputs["encoded"].requires_grad
    losses = AnswerObjective()(**batch, **outputs)
    losses["loss_sum"].backward()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == learning
    assert losses["too_short"].tolist() == [False, False, False, True, True, False]
    assert int(losses["normalizer"]) == 4 * 3


@pytest.mark.parametrize("listener", LISTENERS)
def test_every_listener_can_be_trained_as_a_whole_or_with_lora(listener, audio):
    """Short clips among them; with LoRA everything but its dropout stays in eval mode, named as frozen or not."""
    texts = [[5, 6]] * len(LENGTHS)
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "k_proj"], "dropout": 0.1}
    whole = speech_llm(listener=listener, frozen=["writer"]).train()
    adapted = speech_llm(listener=listener, lora=lora).train()
    assert all(module.training for module in whole.encoder.modules())
    for model in (adapted, speech_llm(listener=listener, lora=lora, frozen=["writer"]).train()):
        learning = {name for name, module in model.encoder.named_modules() if module.training}
        assert learning and all("lora_" in name for name in learning)
    for model in (whole, adapted):
        batch, outputs = outputs_of(model, audio, LENGTHS, texts)
        AnswerObjective()(**batch, **outputs)["loss_sum"].backward()
        gradients = {name: w.grad for name, w in model.encoder.named_parameters() if w.requires_grad}
        assert gradients and all(gradient is not None for gradient in gradients.values()), listener
        assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert all("lora_" in name for name in gradients)
    assert not any("masked_spec_embed" in name for name, _ in whole.named_parameters())


@pytest.mark.parametrize("trained", ["encoder", "writer"])
def test_what_is_trained_is_float32_whatever_the_rest_is(trained):
    model = speech_llm(dtype="bfloat16", frozen=[name for name in ("encoder", "writer") if name != trained])
    assert {weight.dtype for weight in getattr(model, trained).parameters()} == {torch.float32}
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj"]}
    adapted = speech_llm(dtype="bfloat16", lora=lora)
    for one in (model, adapted):
        assert {w.dtype for w in one.parameters() if w.requires_grad} == {torch.float32}
        assert {w.dtype for w in one.parameters() if not w.requires_grad} == {torch.bfloat16}


def test_a_mixture_s_auxiliary_loss_is_added_in_training_alone(audio):
    model = speech_llm(projector=MoEProjector(stack=4, hidden_dim=16))
    texts = [[5, 6]] * len(LENGTHS)
    batch, outputs = outputs_of(model, audio, LENGTHS, texts)
    assert "auxiliary" not in outputs
    batch, outputs = outputs_of(model.train(), audio, LENGTHS, texts)
    losses = AnswerObjective()(**batch, **outputs)
    assert float(losses["loss_sum"].detach()) == pytest.approx(float(sum(losses["parts"].values())), rel=1e-5)
    assert float(losses["parts"]["auxiliary"]) == pytest.approx(outputs["auxiliary"].item() * 12, rel=1e-5)


@torch.no_grad()
def test_no_search_goes_on_for_ever(audio):
    """A writer that never ends, and one that says the same again and again."""
    model = speech_llm()
    _, outputs = outputs_of(model, audio, LENGTHS)
    model.end = 263  # beyond the tokenizer: never the best, nor allowed before it has to be
    for search in (
        SpeechLLMGreedySearch(2.0, 1000),
        SpeechLLMBeamSearch(2, 1.0, 2.0, 1000),
        SpeechLLMSamplingSearch(2, 1.0, 0.5, 0, 2.0, 1000),
    ):
        for hypotheses, length in zip(
            search(*model.search_inputs(outputs)), outputs["projected_lengths"].tolist(), strict=True
        ):
            assert all(len(hypothesis.tokens) <= 2 * length for hypothesis in hypotheses)
    head = model.writer.network.lm_head.weight  # tied: a model that says its own input again
    head.copy_(torch.randn(head.shape) * 10)
    for search in (SpeechLLMGreedySearch(100.0, 3), SpeechLLMBeamSearch(2, 1.0, 100.0, 3)):
        for hypotheses in search(*model.search_inputs(outputs)):
            assert all(len(hypothesis.tokens) < 60 for hypothesis in hypotheses)


@torch.no_grad()
def test_a_text_cut_where_it_goes_round_is_scored_as_it_is_left(audio):
    """Its tokens and its end, by the model: not those of the text that went on."""
    model = speech_llm()
    head = model.writer.network.lm_head.weight  # tied: it says its own input again
    head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(0)) * 10)
    projected, lengths = model.search_inputs(outputs_of(model, audio, LENGTHS)[1])[1:]
    whole = SpeechLLMGreedySearch(20.0, 1000)(model, projected, lengths)
    for search in (
        SpeechLLMGreedySearch(20.0, 2),
        SpeechLLMBeamSearch(2, 0.0, 20.0, 2),
        SpeechLLMSamplingSearch(2, 1e-3, 0.5, 0, 20.0, 2),
    ):
        found = search(model, projected, lengths)
        lengths_found = [(len(b[0].tokens), len(a[0].tokens)) for b, a in zip(whole, found, strict=True)]
        assert any(after < before for before, after in lengths_found)
        for row, hypotheses in enumerate(found):
            for hypothesis in hypotheses:
                assert said_once(hypothesis.tokens, 2) == hypothesis.tokens
                tokens = torch.tensor([hypothesis.tokens], dtype=torch.long)
                counts, one = torch.tensor([len(hypothesis.tokens)]), slice(row, row + 1)
                theirs = model.answer_log_probs(projected[one], lengths[one], tokens, counts)
                theirs = theirs["answer_log_probs"][0]
                assert hypothesis.score == pytest.approx(float(theirs.sum()), abs=1e-3)
                assert hypothesis.token_log_probs == pytest.approx(theirs[:-1].tolist(), abs=1e-3)


def test_a_text_can_be_read_while_it_is_written(model, audio):
    """Every step adds a token; the end is what greedy returns. Whoever stops listening stops the writer."""
    threads = threading.active_count()
    search, text_encoder = SpeechLLMGreedySearch(max_repeats=1000), ChatTextEncoder()
    recognizer = Recognizer(model, text_encoder, search)
    with torch.inference_mode():
        inputs = model.search_inputs(outputs_of(model, audio[:1], LENGTHS[:1])[1])
        steps = list(written_so_far(search, *inputs))
        (whole,) = search(*inputs)
        assert len(whole[0].tokens) > 2 and steps[-1] == whole[0].tokens
        assert all(step == whole[0].tokens[: len(step)] for step in steps)
        assert [len(step) for step in steps[:-1]] == list(range(1, len(steps)))
    texts = list(recognizer.stream(audio[0].numpy()))
    assert texts[-1] == recognizer.transcribe([audio[0].numpy()])[0].text
    model.end = 263  # never the best: it would write on and on
    limit = 40 * int(inputs[2])
    asked = []
    model.writer.network.register_forward_hook(lambda *_: asked.append(1))
    listening = Recognizer(model, text_encoder, SpeechLLMGreedySearch(40.0, 1000)).stream(audio[0].numpy())
    next(listening)
    listening.close()
    assert threading.active_count() == threads
    assert len(asked) < limit // 2
    with pytest.raises(UserError, match="SpeechLLMBeamSearch writes nothing step by step"):
        next(Recognizer(model, text_encoder, SpeechLLMBeamSearch()).stream(audio[0].numpy()))


def test_a_writer_that_breaks_says_so_to_who_listens(model):
    projected = torch.zeros(1, 3, model.writer.dim + 1)
    with pytest.raises(RuntimeError):
        list(written_so_far(SpeechLLMGreedySearch(), model, projected, torch.tensor([3])))


def test_parts_that_do_not_fit_are_one_line():
    for settings, line in (
        ({"frozen": ["encoder", "head"]}, "frozen: head is unknown; choose from encoder, projector, writer"),
        ({"frozen": ["encoder", "projector", "writer"]}, "nothing is left to train"),
    ):
        with pytest.raises(UserError, match=line):
            speech_llm(**settings)
    parts = [LISTENERS["glm_asr"], WRITERS["qwen3"]]
    frontend, encoder = TransformersFrontend(config=parts[0]), TransformersEncoder(config=parts[0])
    writer = CausalLMWriter(config=parts[1])
    with pytest.raises(UserError, match="use text_encoder=chat"):
        SpeechLLM(frontend, encoder, MLPProjector(), writer, vocab_size=29)
    with pytest.raises(UserError, match="the tokenizer has 300 tokens, but the writer knows 264"):
        SpeechLLM(frontend, encoder, MLPProjector(), writer, 300, ChatTextEncoder().prompt)


def test_trainable_weights_of_the_second_generation():
    """HuBERT extra large and SmolLM3 with LoRA, and the gated network between them: built on the meta device."""
    sizes = {
        "hidden_size": 1280,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
    }
    hubert = {"model_type": "hubert", **sizes, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
    smollm3 = {"model_type": "smollm3"}  # the class's own sizes are those of the model with 3 billion weights
    with torch.device("meta"):
        model = SpeechLLM(
            TransformersFrontend(config=hubert),
            TransformersEncoder(config=hubert, lora={"rank": 8, "alpha": 8, "targets": ["q_proj", "k_proj"]}),
            SwiGLUProjector(stack=5, hidden_dim=8192),
            CausalLMWriter(config=smollm3, lora={"rank": 64, "alpha": 32, "targets": ["q_proj", "v_proj"]}),
            **ChatTextEncoder().for_model(),
        )
    trained = {
        name: sum(weight.numel() for weight in part.parameters() if weight.requires_grad)
        for name, part in model.named_children()
    }
    expected = {"encoder": 1_966_080, "projector": 121_643_264, "writer": 15_335_424}
    assert trained == {"frontend": 0, **expected}
    assert sum(trained.values()) == 138_944_768


def test_trainable_weights_of_the_other_generations():
    whisper = {"model_type": "whisper", "d_model": 1280, "encoder_layers": 1, "encoder_attention_heads": 20}
    glm_asr = {"model_type": "glmasr_encoder", "num_hidden_layers": 1}
    qwen2 = {"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 1, "num_attention_heads": 28}
    qwen3 = {"model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 16}
    for listener, projector, writer, expected in (
        (whisper, LinearProjector(stack=5), {**qwen2, "num_key_value_heads": 4}, 22_951_168),
        (glm_asr, MLPProjector(stack=4, hidden_dim=2048), {**qwen3, "num_key_value_heads": 8}, 12_585_984),
    ):
        frontend = TransformersFrontend(config=listener)
        with torch.device("meta"):
            encoder = TransformersEncoder(config=listener)
            writer = CausalLMWriter(config=writer)
            model = SpeechLLM(frontend, encoder, projector, writer, **ChatTextEncoder().for_model())
        assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == expected


def test_searches_refuse_settings():
    for make, line in (
        (lambda: SpeechLLMGreedySearch(max_tokens_per_frame=0), "max_tokens_per_frame=0"),
        (lambda: SpeechLLMGreedySearch(max_repeats=1), "max_repeats=1"),
        (lambda: SpeechLLMBeamSearch(beam_size=0), "beam_size=0"),
        (lambda: SpeechLLMBeamSearch(length_penalty="x"), "length_penalty='x'"),
        (
            lambda: SpeechLLMBeamSearch(length_penalty=1000),
            "length_penalty=1000 must be a number from -5 to 5",
        ),
        (lambda: SpeechLLMSamplingSearch(samples=0), "samples=0"),
        (lambda: SpeechLLMSamplingSearch(temperature=0), "temperature=0"),
        (lambda: SpeechLLMSamplingSearch(top_p=0), "top_p=0"),
        (lambda: SpeechLLMSamplingSearch(seed=-1), "seed=-1"),
    ):
        with pytest.raises(UserError, match=line):
            make()
