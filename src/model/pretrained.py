"""Networks of ``transformers`` inside our models: where they come from, what of them is trained, what is saved.

Nothing that they bring along is executed: no code of a hub, no pickle, no kernels by name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.utils.errors import UserError
from src.utils.extras import speech_llm_package
from src.utils.hub import asking_the_hub

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
ADAPTER = "lora_"  # in the names of what LoRA adds
BASE = ".base_layer."  # and of the layers that it lies beside


class Source:
    """Where a network comes from: a hub id, a local folder, or sizes (its weights are then random).

    Args:
        source: a hub id or a folder with ``config.json`` and safetensors.
        revision: of the hub (a commit), or what ``fingerprint`` says of the folder; None: whatever is there now.
        sizes: ``model_type`` and what else its class's config takes.
        part: of the model, for messages.

    Raises ``UserError`` unless there is one of ``source`` and ``sizes``, and for what cannot be read.
    """

    def __init__(
        self,
        source: str | None,
        revision: str | None,
        sizes: Mapping[str, Any] | None,
        part: str = "encoder",
    ) -> None:
        transformers = speech_llm_package("transformers")
        if source is not None and sizes is not None:
            raise UserError(
                f"model.{part}.source={source} stands beside a config; choose: model.{part}.config=null, or "
                f"model.{part}.source=null"
            )
        if source is None and sizes is None:
            raise UserError(
                f"model.{part}: give either source (a hub id or a folder) or config (model_type and sizes)"
            )
        self.name = source
        self.is_folder = source is not None and os.path.isdir(source)
        if sizes is not None:
            self.revision = None
            nobody = dict.fromkeys(SPECIAL)  # the class's defaults may lie outside a small vocabulary
            self.config = self._asked(lambda: transformers.AutoConfig.for_model(**{**nobody, **sizes}))
            return
        self.revision = revision if self.is_folder else self._asked(lambda: commit_of(source, revision))
        at = None if self.is_folder else self.revision
        self.config = self._asked(
            lambda: transformers.AutoConfig.from_pretrained(source, revision=at, trust_remote_code=False)
        )

    def network(self, kind: Any, config: Any, dtype: str, rename: Mapping[str, str] | None = None) -> Any:
        """The network of this class (or auto class), in eval mode.

        ``rename``: patterns of names in the files and what they become, for a part of a larger network.
        """
        if dtype not in DTYPES:
            raise UserError(f"dtype={dtype} is unknown; choose one of: {', '.join(DTYPES)}")
        # Said explicitly, because a config may name an attention kernel that would be downloaded and run.
        class_of = getattr(kind, "_model_mapping", {}).get(type(config), kind)
        attention = "sdpa" if getattr(class_of, "_supports_sdpa", True) else "eager"
        chosen = {"attn_implementation": attention, "dtype": DTYPES[dtype]}
        if self.name is None or torch.get_default_device().type == "meta":  # there only sizes matter
            make = getattr(kind, "from_config", None) or kind._from_config
            return self._asked(lambda: make(config, **chosen)).eval()
        if self.is_folder:
            self._check_fingerprint()
        with _quiet():  # what of a larger network is not taken would be told tensor by tensor
            network, report = self._asked(
                lambda: kind.from_pretrained(
                    self.name,
                    config=config,
                    revision=None if self.is_folder else self.revision,
                    trust_remote_code=False,
                    use_safetensors=True,
                    key_mapping=dict(rename) if rename else None,
                    output_loading_info=True,
                    **chosen,
                )
            )
        if report["missing_keys"] or report.get("mismatched_keys"):
            lack = sorted([*report["missing_keys"], *map(str, report.get("mismatched_keys", ()))])
            raise UserError(f"{self.name}: has not all weights of a {type(network).__name__} ({lack[0]} ...)")
        return network.eval()

    def _check_fingerprint(self) -> None:
        found = fingerprint(self.name)
        if self.revision not in (None, found):
            raise UserError(
                f"{self.name}: holds other weights ({found}) than the model was trained with ({self.revision}); "
                "restore them"
            )
        self.revision = found

    def _asked(self, question: Callable[[], Any]) -> Any:
        try:
            with asking_the_hub(self.name):
                return question()
        except UserError:
            raise
        except Exception as error:  # whatever a library makes of a stranger's files
            reason = " ".join(str(error).split())[:200]
            where = "config" if self.name is None else self.name
            remedy = "correct its sizes" if self.name is None else "give a hub id, or a folder that holds it"
            if "safetensors" in reason:  # a pickle is not opened
                remedy = "its weights must be safetensors, as transformers' save_pretrained writes them"
            if "scaled_dot_product_attention" in reason:
                reason, remedy = (
                    "its class does not take PyTorch's attention",
                    "choose one that does, such as Qwen",
                )
            raise UserError(f"{where}: cannot be made ({reason}); {remedy}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """``transformers`` says errors alone."""
    logging = speech_llm_package("transformers").logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def commit_of(hub_id: str, revision: str | None) -> str | None:
    """The commit that a branch, a tag or a commit of a hub stands for, as its place in the cache says."""
    file = speech_llm_package("transformers").utils.cached_file(hub_id, "config.json", revision=revision)
    found = re.search(r"snapshots/([0-9a-f]{40})/", Path(file).as_posix())
    return found[1] if found else revision


def fingerprint(folder: str | Path) -> str:
    """The first half of the SHA-256 of a folder's config and weights."""
    digest = hashlib.sha256()
    for file in sorted([Path(folder, "config.json"), *Path(folder).glob("*.safetensors")]):
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:32]


class Pretrained(nn.Module):
    """A network of ``transformers``, whose ``state_dict`` holds only what cannot be had elsewhere.

    Of a network with a ``source`` that is what is trained: with everything frozen nothing, with LoRA its matrices, and
    all of it where it is trained as a whole. A random one is saved in full. Tied weights are saved once. Names
    are those without LoRA, so that it may be added to what was trained without it.

    Args:
        source: where the network comes from.
        network: that network.
        lora: ``rank``, ``alpha``, ``targets`` (names of layers) and perhaps ``dropout``, of low-rank matrices beside
            these layers (Hu et al., arXiv 2106.09685); None: none.
    """

    def __init__(self, source: Source, network: nn.Module, lora: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.revision = source.revision
        self.network = network
        self.is_elsewhere = source.name is not None
        if lora is not None:
            check_lora(network, lora)
            add_lora(network, **lora)
        self.register_state_dict_post_hook(_drop_left_out)
        self.register_load_state_dict_pre_hook(_prepare_names)
        self.register_load_state_dict_post_hook(_forgive_left_out)

    def left_out(self) -> set[str]:
        """Names of tensors that a ``state_dict`` has not."""
        first: dict[nn.Parameter, str] = {}
        everywhere = self.named_parameters(remove_duplicate=False)
        names = {name for name, weight in everywhere if first.setdefault(weight, name) != name}  # tied
        frozen = {name for name, weight in self.named_parameters() if not weight.requires_grad}
        if self.is_elsewhere and frozen:
            names |= frozen | {name for name, _ in self.named_buffers()}
        return names


def _drop_left_out(module: Pretrained, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in module.left_out():
        state.pop(prefix + name, None)
    for name in [name for name in state if name.startswith(prefix) and BASE in name]:
        state[name.replace(BASE, ".")] = state.pop(name)


def _prepare_names(module: Pretrained, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    module._prefix = prefix
    for name in [
        prefix + name for name, _ in module.named_parameters(remove_duplicate=False) if BASE in name
    ]:
        if (plain := name.replace(BASE, ".")) in state:
            state[name] = state.pop(plain)


def _forgive_left_out(module: Pretrained, incompatible: Any) -> None:
    missing = {module._prefix + name for name in module.left_out()}
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if name not in missing]


def check_lora(network: nn.Module, lora: Mapping[str, Any]) -> None:
    """Raises ``UserError`` for settings that are missing, and for targets that no linear layer's name ends in."""
    if missing := [name for name in ("rank", "alpha", "targets") if lora.get(name) is None]:
        raise UserError(
            f"lora: {' and '.join(missing)} missing; give rank, alpha and targets (layers), or choose +stage=lora"
        )
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    for target in lora["targets"]:
        if not any(f".{name}".endswith(f".{target}") for name, _ in network.named_modules()):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
            raise UserError(f"lora.targets: there is no layer {target}; linear layers here: {known}")


def add_lora(network: nn.Module, rank: int, alpha: float, targets: list[str], dropout: float = 0.0) -> None:
    """Puts matrices A [rank, in] and B [out, rank], B zero, beside the layers whose names end in ``targets``.

    All else is frozen. Raises ``UserError`` where there are no such layers.
    """
    peft = speech_llm_package("peft")
    try:
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=dropout, bias="none"
        )
        peft.inject_adapter_in_model(config, network)
    except (TypeError, ValueError) as error:
        raise UserError(f"lora: {' '.join(str(error).split())[:200]}; correct its settings") from None
    freeze(network)


def freeze(part: nn.Module) -> None:
    """Takes all but LoRA's matrices out of training."""
    for name, weight in part.named_parameters():
        weight.requires_grad_(ADAPTER in name)


def keep_still(part: nn.Module, training: bool) -> None:
    """Eval mode for a part of which nothing is trained but LoRA's matrices, and ``training`` for LoRA's dropout."""
    if any(weight.requires_grad and ADAPTER not in name for name, weight in part.named_parameters()):
        return
    part.eval()
    for name, module in part.named_modules():
        if name.rpartition(".")[2].startswith(ADAPTER):
            module.train(training)
