"""Hydra as a door: the usual command line, with mistakes in it answered by one line."""

from __future__ import annotations

import argparse
import difflib
import functools
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.utils.build import Text, check
from src.utils.errors import UserError, spoken_errors

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def compose(name: str, overrides: list[str]) -> DictConfig:
    """The config ``name`` with overrides. Raises ``UserError`` in one line where Hydra would print many."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return _completed(hydra.compose(name, overrides), name)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        detail = " ".join(str(error).split("Config search path")[0].split())[:300]
        if unknown := re.search("Could not override '([^']+)'", detail):
            raise UserError(_unknown_key(unknown[1], name, overrides)) from None
        if unknown := re.search("Could not find '([^']+)/([^'/]+)'", detail):
            raise UserError(_unknown_choice(*unknown.groups())) from None
        if needed := re.search("Interpolation key '([^']+)' not found", detail):
            raise UserError(
                f"-cn={name} has no {needed[1]}, which one of its choices needs; datasets=custom_dir is for "
                "inference.py, a training takes datasets=folders"
            ) from None
        if "--multirun" in detail:
            detail = "a run takes one value of each setting; train.py -m sweeps over several"
        if any(set("(),=") & set(word.partition("=")[2]) for word in overrides):
            detail += "; quote a value with ( ) , or = twice: 'key=\"a,b\"'"
        elif "primary config" in detail:
            raise UserError(f"-cn={name}: there is no such config; {_configs(name)}") from None
        raise UserError(f"{' '.join([f'-cn={name}', *overrides])}: {detail}") from None


def _configs(meant: str = "") -> str:
    """The recipes of trainings, and which of them a word may have meant."""
    names = sorted({path.stem for path in CONFIGS.glob("*.yaml")} - {"base", "inference"})
    like = difflib.get_close_matches(meant, names, n=1)
    return f"{f'did you mean {like[0]}? ' if like else ''}configs: {', '.join(names)}"


def _unknown_key(key: str, name: str, overrides: list[str]) -> str:
    """What to say of an override of a setting that the config ``name`` does not have."""
    if (CONFIGS / key).is_dir():
        word = next((word for word in overrides if word.startswith(f"{key}=")), f"{key}=NAME")
        return f"{key} is a group that -cn={name} chooses nothing of; to add a choice, write +{word}"
    group, _, last = key.rpartition(".")
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        plain = _plain(name)
    siblings = OmegaConf.select(OmegaConf.create(plain), group) if group else plain
    parent, _, part = group.rpartition(".")
    above = OmegaConf.select(OmegaConf.create(plain), parent) if parent else plain
    if siblings is None and isinstance(above, Mapping | DictConfig) and part in above:
        return f"{group} is null in -cn={name}; give all of it, as '{group}={{{last}: ..., ...}}'"
    names = [str(sibling) for sibling in siblings] if isinstance(siblings, Mapping | DictConfig) else []
    if last in names:
        return f"{key}: holds settings that -cn={name} has not there; to replace it whole, write '~{key}' '+{key}=...'"
    if like := difflib.get_close_matches(last, names, n=1):
        return f"{key} is unknown to -cn={name}; did you mean {f'{group}.' if group else ''}{like[0]}?"
    top, _, below = key.partition(".")
    if top not in plain:
        known = _like(top, plain, below and f".{below}") or f"; it has: {', '.join(plain)}"
        return f"{key} is unknown to -cn={name}{known}"
    known = f"; {group or 'the config'} has: {', '.join(names)}" if names else ""
    return f"{key} is not in -cn={name}{known}; to add it all the same, write +{key}=..."


def _unknown_choice(group: str, choice: str) -> str:
    """What to say of a choice that a group does not have."""
    names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    like = difflib.get_close_matches(choice, names, n=1)
    meant = f"did you mean {like[0]}? " if like else ""
    return f"{group}={choice}: there is no such choice; {meant}{group} has: {', '.join(names)}"


def _completed(config: DictConfig, name: str) -> DictConfig:
    """Every value there and resolved, and ``config_name`` added. Raises ``UserError`` for missing values."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        example = " ".join(f"{key}=..." for key in missing)
        raise UserError(f"-cn={name} needs a value for {', '.join(missing)}; add {example}")
    OmegaConf.resolve(config)
    plain = _plain(name)
    for key in config:
        if key not in plain:  # further down whoever is built from them knows what they may be
            raise UserError(
                f"{key} is read by nothing of -cn={name}{_like(str(key), plain) or '; leave it out'}"
            )
    _check_shape(OmegaConf.to_container(config), plain)
    OmegaConf.update(config, "config_name", name, force_add=True)
    return config


def _like(key: str, settings: Mapping[Any, Any], below: str = "") -> str:
    """A clause that asks for the setting one group down of the same name, or for the most similar name."""
    inside = [
        f"{group}.{key}" for group, node in settings.items() if isinstance(node, Mapping) and key in node
    ]
    like = inside or difflib.get_close_matches(key, map(str, settings), n=1)
    return f"; did you mean {like[0]}{below}?" if like else ""


@functools.cache
def _plain(name: str) -> dict[str, Any]:
    """The config ``name`` as its files have it."""
    return OmegaConf.to_container(hydra.compose(name), resolve=False)


def _check_shape(config: dict[str, Any], plain: dict[str, Any], above: str = "") -> None:
    """Raises ``UserError`` where an override has put something else in the place of a group of settings.

    Further down null leaves a part out (``datasets.dev=null``), and a list may stand for names and values.
    """
    for name, settings in plain.items():
        given, key = config.get(name), above + name
        if not isinstance(settings, dict) or (above and (given is None or isinstance(given, list))):
            continue
        if not isinstance(given, dict):
            shown = "null" if given is None else given
            example = f"{key}.{next(iter(settings), 'name')}=..."
            raise UserError(
                f"{key}={shown} takes the place of several settings; set one of them, such as {example}"
            )
        _check_shape(given, settings, f"{key}.")


def hydra_door(
    default: str | None, after_sweep: Callable[[list[DictConfig]], None] | None = None
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorates ``main(config)``: ``-cn=NAME`` (or ``--config-name``) and overrides, as Hydra's users know them.

    Without a ``default`` the name must be given.

    Anything else on the command line (``-m``, ``--help``, ``--cfg job``) goes to Hydra itself. A sweep (``-m``)
    gives every job a folder of its own: ``run_name/optimizer.lr-0.001`` for ``optimizer.lr=1e-3,3e-3``; then
    ``after_sweep`` gets the configs of all.
    """

    def decorate(main: Callable[[DictConfig], None]) -> Callable[[], None]:
        swept: list[DictConfig] = []

        def hydra_main(config: DictConfig) -> None:
            with spoken_errors():
                job = HydraConfig.get()
                config = _completed(config, job.job.config_name)
                if job.mode == RunMode.MULTIRUN:
                    if "run_name" not in config:
                        raise UserError("-m sweeps over trainings; call this once for each setting instead")
                    check("run_name", config.run_name, Text)
                    config.run_name += "/" + _sweep_point(job.overrides.task)
                    swept.append(config)
                main(config)

        def wrapped() -> None:
            name, overrides, plain = _parse(sys.argv[1:], default)
            if plain:
                with spoken_errors():
                    if name is None:
                        door = Path(sys.argv[0]).name
                        raise UserError(f"which config? python {door} -cn=NAME key=value ...; {_configs()}")
                    main(compose(name, overrides))
            else:
                flags = {word.partition("=")[0] for word in sys.argv[1:]}
                if flags & {"-m", "--multirun"} and flags & {"-c", "--cfg", "-i", "--info"}:
                    with spoken_errors():
                        raise UserError("-m makes many configs, of which none can be shown; leave out -m")
                config_name = default or "base"  # of --help
                hydra.main(config_path=str(CONFIGS), config_name=config_name, version_base="1.3")(
                    hydra_main
                )()
                if after_sweep is not None and swept:
                    with spoken_errors():
                        after_sweep(swept)

        return wrapped

    return decorate


def config_and_options(parser: argparse.ArgumentParser) -> tuple[DictConfig, argparse.Namespace]:
    """The command line of a script that has options of its own besides ``-cn=NAME key=value ...``.

    Raises ``UserError`` as ``compose`` does; the composed ``overrides`` are among the options.
    """
    parser.add_argument("-cn", "--config-name", required=True, metavar="NAME", help="as for train.py")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py")
    options = parser.parse_intermixed_args()
    options.overrides = [spelled(word) for word in options.overrides]
    return compose(options.config_name, options.overrides), options


def _sweep_point(overrides: list[str]) -> str:
    """A job of a sweep as a folder's name: its values of what the command line sweeps over."""
    given = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    swept = {o.key_or_group for o in OverridesParser.create().parse_overrides(given) if o.is_sweep_override()}
    here = [word for word in overrides if word.lstrip("+").partition("=")[0] in swept]
    return re.sub(r"[^\w.-]+", "-", "_".join(here)).strip("-")


def _parse(arguments: list[str], default: str | None) -> tuple[str | None, list[str], bool]:
    """Config name, overrides, and whether that was all."""
    name, overrides, plain = default, [], True
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in ("-cn", "--config-name"):
            name = value if equals else next(words, default)
        elif word.startswith("-"):
            plain = False
        else:
            overrides.append(spelled(word))
    return name, overrides, plain


def spelled(word: str) -> str:
    """An override as Hydra's grammar wants it: a value that it cannot read (``data_dir=it's``) as a quoted text."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        key, equals, value = word.partition("=")
        if equals and not set("(){}[],") & set(value):  # these may be slips of its own grammar
            text = value.replace("\\", "\\\\").replace("'", "\\'")
            return f"{key}='{text}'"
    return word
