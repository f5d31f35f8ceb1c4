"""Many modules of the project as one file that imports none of them.

The file is made of the modules' own sources: the definitions that are needed, those that these need, and so on, each
module after the ones that it imports. So it says what the project says.
"""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = "src"
Name = tuple[str, str]  # module, name in it


class CannotFlatten(Exception):
    """What the modules do that one file cannot."""


@dataclass
class _Module:
    """A module's definitions, and what it imports, by the names that it uses for them."""

    name: str
    lines: list[str]
    about: str = ""
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    own_imports: dict[str, Name] = field(default_factory=dict)
    other_imports: dict[str, str] = field(default_factory=dict)
    acts: int | None = None  # a line that does something when the module is imported


def flatten(needed: Iterable[Name], without: Collection[str] = ()) -> str:
    """The source of one file with these definitions, as (module, name).

    Args:
        needed: what the file is to have; a package's name for something will do.
        without: modules that are left out; methods that use something of them are left out with them.

    Raises ``CannotFlatten`` where two modules define one name, or a module does more than define.
    """
    kept: dict[Name, set[str]] = {}  # and the methods that a class loses
    waiting = [_home(*name) for name in needed]
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        module = _read(name[0])
        if module.acts is not None:
            raise CannotFlatten(f"{name[0]}, line {module.acts}: does something when it is imported")
        node = module.definitions[name[1]]
        outside = {used for used, there in module.own_imports.items() if _is_outside(there, without)}
        kept[name] = _lost_methods(node, outside) if isinstance(node, ast.ClassDef) else set()
        for used in _names(node, kept[name]):
            if used in outside:
                raise CannotFlatten(f"{name[0]}.{name[1]} uses {used}, which is left out")
            if used in module.definitions:
                waiting.append((module.name, used))
            elif used in module.own_imports:
                waiting.append(_home(*module.own_imports[used]))
    _check_names(kept)
    sections = [
        section for module in _in_order({module for module, _ in kept}) for section in _section(module, kept)
    ]
    return "\n".join(["from __future__ import annotations", "", *_imports(kept), *sections, ""])


@functools.cache
def _read(name: str) -> _Module:
    place = ROOT.joinpath(*name.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    module = _Module(name, source.splitlines(), (ast.get_docstring(tree) or "").partition("\n")[0])
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            module.definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        module.definitions[part.id] = node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == OWN:
            for alias in node.names:
                if alias.asname not in (None, alias.name):
                    raise CannotFlatten(f"{name}: imports {alias.name} as {alias.asname}")
                module.own_imports[alias.name] = (node.module, alias.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if getattr(node, "module", "") == "__future__":
                continue
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                renamed = f" as {alias.asname}" if alias.asname else ""
                start = f"from {node.module} import" if isinstance(node, ast.ImportFrom) else "import"
                module.other_imports[bound] = f"{start} {alias.name}{renamed}"
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            module.acts = node.lineno
    return module


def _home(module: str, name: str) -> Name:
    """Where something that a module or a package offers is defined."""
    read = _read(module)
    if name in read.definitions:
        return module, name
    if name not in read.own_imports:
        raise CannotFlatten(f"{module} has no {name}")
    return _home(*read.own_imports[name])


def _is_outside(name: Name, without: Collection[str]) -> bool:
    """Whether it is defined in, or imported through, a module that is left out."""
    if any(f"{name[0]}.".startswith(f"{module}.") for module in without):
        return True
    read = _read(name[0])
    return name[1] not in read.definitions and _is_outside(read.own_imports[name[1]], without)


def _names(node: ast.stmt, lost: Collection[str]) -> set[str]:
    """Every name in a definition, but for the methods that it loses."""
    parts: Iterable[ast.AST] = [node]
    if isinstance(node, ast.ClassDef):
        body = [part for part in node.body if getattr(part, "name", None) not in lost]
        parts = [*body, *node.bases, *node.keywords, *node.decorator_list]
    return {name.id for part in parts for name in ast.walk(part) if isinstance(name, ast.Name)}


def _lost_methods(node: ast.ClassDef, outside: Collection[str]) -> set[str]:
    """The methods of a class that use something from outside, or such a method of their own object."""
    methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    lost: set[str] = set()
    while True:
        more = {
            name
            for name, method in methods.items()
            if name not in lost
            and any(
                (isinstance(part, ast.Name) and part.id in outside)
                or (
                    isinstance(part, ast.Attribute)
                    and part.attr in lost
                    and isinstance(part.value, ast.Name)
                    and part.value.id in ("self", "cls")
                )
                for part in ast.walk(method)
            )
        }
        if not more:
            return lost
        lost |= more


def _check_names(kept: Iterable[Name]) -> None:
    homes: dict[str, str] = {}
    for module, name in kept:
        if homes.setdefault(name, module) != module:
            raise CannotFlatten(f"{homes[name]} and {module} both define {name}")
        if hasattr(builtins, name):
            raise CannotFlatten(f"{module} defines {name}, which Python has, too")


def _in_order(modules: set[str]) -> list[str]:
    """Each module after those that it imports."""
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        for home, _ in _read(name).own_imports.values():
            visit(home)
        if name in modules:
            done[name] = None

    seen: set[str] = set()
    for name in sorted(modules):
        visit(name)
    return list(done)


def _imports(kept: dict[Name, set[str]]) -> list[str]:
    """What the file takes from elsewhere."""
    found: dict[str, str] = {}
    for (home, name), lost in sorted(kept.items()):
        module = _read(home)
        for used in _names(module.definitions[name], lost) & module.other_imports.keys():
            if found.setdefault(used, module.other_imports[used]) != module.other_imports[used]:
                raise CannotFlatten(f"{used}: {found[used]}, but {module.other_imports[used]} in {home}")
    return sorted(found.values(), key=lambda line: (line.startswith("from"), line))


def _section(name: str, kept: dict[Name, set[str]]) -> Iterator[str]:
    """A module's part of the file: what is kept of it, as it stands there."""
    module = _read(name)
    yield f"\n\n# {'-' * 20} {name}: {module.about}"
    written: set[int] = set()
    for defined, node in module.definitions.items():
        if (name, defined) not in kept or id(node) in written:
            continue
        written.add(id(node))
        big = isinstance(node, ast.ClassDef | ast.FunctionDef)
        yield ("\n\n" if big else "") + "\n".join(_source(module, node, kept[name, defined]))


def _source(module: _Module, node: ast.stmt, lost: Collection[str]) -> list[str]:
    """The lines of a definition, with the comments above it, without the methods that it loses."""
    first = _first_line(module, node)
    gone: set[int] = set()
    for part in node.body if isinstance(node, ast.ClassDef) else ():
        if getattr(part, "name", None) in lost:
            gone.update(range(_first_line(module, part) - 1, part.end_lineno + 1))
    return [module.lines[line - 1] for line in range(first, node.end_lineno + 1) if line not in gone]


def _first_line(module: _Module, node: ast.stmt) -> int:
    first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])
    while first > 1 and module.lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return first
