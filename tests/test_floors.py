"""The floors: a module imports from lower floors, never upwards and never in a circle.

Read from the syntax trees, so that imports in functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "h2lite"

FLOORS = {
    "errors": 0,
    "memo": 0,
    "value": 0,
    "body": 1,
    "events": 1,
    "frames": 1,
    "limits": 1,
    "origin": 1,
    "settings": 1,
    "timeout": 1,
    "timers": 1,
    "fields": 2,
    "framer": 2,
    "health": 2,
    "retry": 2,
    "window": 2,
    "message": 3,
    "environment": 3,
    "stream": 3,
    "call": 4,
    "connection": 4,
    "http1": 4,
    "member": 5,
    "orders": 5,
    "pool": 5,
    "accept": 6,
    "dial": 6,
    "loop": 6,
    "transport": 6,
    "certs": 7,
    "client": 7,
    "drive": 7,
    "engine": 7,
    "exchange": 7,
    "relay": 7,
    "server": 7,
    "testing": 7,
    "__init__": 8,
    "__main__": 8,
    "cli": 8,
    "cli.blackhole": 8,
    "cli.count": 8,
    "cli.demo": 8,
    "cli.doctor": 8,
    "cli.get": 8,
    "cli.lanes": 8,
    "cli.ping": 8,
    "cli.routes": 8,
    "cli.serve": 8,
    "cli.timeline": 8,
    "cli.timeline_svg": 8,
    "cli.trace": 8,
}
PURE_FLOOR_MAX = 5

# What makes a module depend on more than its arguments.
IMPURE = frozenset(
    ("asyncio", "logging", "os", "random", "secrets", "select", "selectors", "socket", "ssl",
     "threading", "time")
)  # fmt: skip
# What costs milliseconds to import, or does not exist on small interpreters.
HEAVY = frozenset(("concurrent", "dataclasses", "enum", "typing"))

# The packages that are not the standard library's, and the one module that may import each.
FOREIGN = {"hpack": "fields", "h11": "http1", "cryptography": "certs"}


class Import(NamedTuple):
    """One import: by which module, of what ("h2lite.x" is ours), and when it happens."""

    by: str
    of: str
    line: int
    only_checked: bool  # under `if TYPE_CHECKING:`
    at_start: bool  # when the module itself is imported


def module_names(package: Path) -> list[str]:
    """Every module below a package, as FLOORS calls them."""
    names = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        names.append(".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts))
    return names


def path_of(package: Path, name: str) -> Path:
    folder = package.joinpath(*name.split("."))
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def imports_of(package: Path, name: str) -> list[Import]:
    """All imports of one module, wherever they stand in it."""
    path = path_of(package, name)
    known = set(module_names(package))
    found: list[Import] = []

    def visit(node: ast.AST, only_checked: bool, at_start: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(
                Import(name, of, node.lineno, only_checked, at_start)
                for of in targets(node, path, package, known)
            )
        guarded: list[ast.stmt] = []
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            guarded = node.body
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, only_checked or child in guarded, at_start and not function)

    visit(ast.parse(path.read_text("utf-8")), False, True)
    return found


def targets(
    node: ast.Import | ast.ImportFrom, path: Path, package: Path, known: set[str]
) -> Iterator[str]:
    """What one statement imports; ours as "h2lite.<name in FLOORS>", others by their top name."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = alias.name.split(".")
            yield alias.name if parts[0] == "h2lite" and len(parts) > 1 else parts[0]
        return
    module = node.module or ""
    if node.level:
        above = path.relative_to(package).parts[: -node.level]
        module = ".".join(("h2lite", *above, *filter(None, [module])))
    if module.split(".")[0] != "h2lite":
        yield module.split(".")[0]
        return
    inner = module.partition(".")[2]
    for alias in node.names:
        # `from . import events` means a module, `from . import DONE` a name of the package.
        below = f"{inner}.{alias.name}".lstrip(".")
        yield f"h2lite.{below if below in known else inner or '__init__'}"


def violations(package: Path, floors: dict[str, int]) -> list[str]:
    """Everything in a package that the floors do not allow, one sentence each."""
    found = []
    beside: dict[str, set[str]] = {}
    for name in module_names(package):
        if name not in floors:
            found.append(f"{name} stands on no floor: add it to FLOORS")
            continue
        for item in imports_of(package, name):
            where = f"{name}, line {item.line}"
            top, _, target = item.of.partition(".")
            if top == "h2lite":
                target = target or "__init__"
                if floors.get(target, -1) > floors[name]:
                    found.append(f"{where}: {target} is on a higher floor")
                elif floors.get(target) == floors[name]:
                    beside.setdefault(name, set()).add(target)
            elif top in IMPURE and floors[name] <= PURE_FLOOR_MAX:
                found.append(f"{where}: {top} on floor {floors[name]}, which is pure")
            elif top in HEAVY and floors[name] <= PURE_FLOOR_MAX and not item.only_checked:
                found.append(f"{where}: {top} is imported at run time")
            elif top not in sys.stdlib_module_names and not item.only_checked:
                if FOREIGN.get(top) != name:
                    found.append(f"{where}: {top} is not this module's to import")
                elif item.at_start:
                    found.append(f"{where}: {top} is loaded before it is needed")
    return found + [f"{name} imports itself through {circle}" for name, circle in circles(beside)]


def circles(beside: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Each module that reaches itself through imports on its own floor, and what lies between."""
    for name in sorted(beside):
        seen: set[str] = set()
        waiting = sorted(beside[name])
        while waiting:
            other = waiting.pop()
            if other == name:
                yield name, ", ".join(sorted(seen))
                break
            if other not in seen:
                seen.add(other)
                waiting += sorted(beside.get(other, ()))


def test_every_module_imports_from_lower_floors_only():
    found = violations(PACKAGE, FLOORS)

    assert not found, "\n".join(found)


def test_the_table_names_no_module_that_is_gone():
    assert sorted(FLOORS) == sorted(module_names(PACKAGE))


FLOORS_MADE_UP = {"errors": 0, "frames": 1, "settings": 1, "fields": 2, "loop": 6, "cli": 8,
                  "cli.get": 8, "__init__": 8}  # fmt: skip


def package(root: Path, **sources: str) -> Path:
    """A made-up package; `cli__get` becomes cli/get.py, `cli` cli/__init__.py."""
    folder = root / "h2lite"
    (folder / "cli").mkdir(parents=True)
    for name in FLOORS_MADE_UP:
        path = path_of(folder, name)
        path.write_text(sources.get(name.replace(".", "__"), ""), "utf-8")
    return folder


def test_what_the_floors_allow_is_no_violation(tmp_path):
    made_up = package(
        tmp_path,
        __init__="from .loop import Loop\nfrom importlib import import_module\n",
        frames="from __future__ import annotations\nfrom struct import Struct\n"
        "from .errors import PeerError\nfrom . import settings\n"
        "if TYPE_CHECKING:\n    from typing import Any\n",
        fields="def encode():\n    from hpack import Encoder\n    from . import errors as e\n",
        loop="import time, os.path\nfrom h2lite.frames import Frame\nimport h2lite.errors\n",
        cli="from .. import __version__\n",
        cli__get="from . import DONE\nfrom ..errors import UsageError\nimport h2lite\n",
    )

    assert violations(made_up, FLOORS_MADE_UP) == []


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("frames", "from .fields import f", "frames, line 1: fields is on a higher floor"),
        ("frames", "from . import fields", "frames, line 1: fields is on a higher floor"),
        ("frames", "import h2lite.fields", "frames, line 1: fields is on a higher floor"),
        ("frames", "import h2lite", "frames, line 1: __init__ is on a higher floor"),
        ("frames", "from . import __version__", "frames, line 1: __init__ is on a higher floor"),
        ("loop", "from .cli.get import run", "loop, line 1: cli.get is on a higher floor"),
        ("loop", "from .cli import get", "loop, line 1: cli.get is on a higher floor"),
        (
            "frames", "def f():\n    from h2lite.fields import f",
            "frames, line 2: fields is on a higher floor",
        ),
        (
            "frames", "if TYPE_CHECKING:\n    from .fields import f",
            "frames, line 2: fields is on a higher floor",
        ),
        ("fields", "import socket", "fields, line 1: socket on floor 2, which is pure"),
        ("fields", "import os.path", "fields, line 1: os on floor 2, which is pure"),
        (
            "fields", "class C:\n    def f(self):\n        from time import time",
            "fields, line 3: time on floor 2, which is pure",
        ),
        (
            "fields", "if TYPE_CHECKING:\n    import ssl",
            "fields, line 2: ssl on floor 2, which is pure",
        ),
        ("fields", "from typing import Any", "fields, line 1: typing is imported at run time"),
        (
            "fields", "if TYPE_CHECKING:\n    pass\nelse:\n    import enum",
            "fields, line 4: enum is imported at run time",
        ),
        ("fields", "import hpack", "fields, line 1: hpack is loaded before it is needed"),
        (
            "loop", "def f():\n    import hpack",
            "loop, line 2: hpack is not this module's to import",
        ),
        ("loop", "import h2.events", "loop, line 1: h2 is not this module's to import"),
    ],
)  # fmt: skip
def test_every_violation_is_found(tmp_path, module, source, sentence):
    assert violations(package(tmp_path, **{module: source}), FLOORS_MADE_UP) == [sentence]


def test_a_circle_on_one_floor_is_found(tmp_path):
    made_up = package(tmp_path, frames="from . import settings", settings="from . import frames")

    assert violations(made_up, FLOORS_MADE_UP) == [
        "frames imports itself through settings",
        "settings imports itself through frames",
    ]


def test_a_module_without_a_floor_is_found(tmp_path):
    made_up = package(tmp_path)
    (made_up / "cli" / "more.py").write_text("import socket")

    assert violations(made_up, FLOORS_MADE_UP) == [
        "cli.more stands on no floor: add it to FLOORS"
    ]
