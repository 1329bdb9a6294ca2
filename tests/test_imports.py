"""What `import h2lite` costs: the standard library only, and none of its heavy parts."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.test_floors import FLOORS, PURE_FLOOR_MAX

LATER = ("asyncio", "concurrent.futures", "dataclasses", "hpack", "logging", "ssl", "typing")

PURE = sorted(f"h2lite.{name}" for name, floor in FLOORS.items() if floor <= PURE_FLOOR_MAX)


def loaded(*statements: str) -> set[str]:
    """The modules of a fresh interpreter, isolated from the environment, after some statements."""
    program = "; ".join(["import sys", *statements, "print(*sys.modules)"])
    ran = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


@pytest.fixture(scope="module")
def bare() -> set[str]:
    return loaded()


@pytest.mark.parametrize(
    "statements",
    [
        ["import h2lite"],
        ["import h2lite", f"[__import__(name) for name in {PURE}]"],
        ["import h2lite", "h2lite.Connection().ping(b'12345678', 0.0)"],
        ["import h2lite", "h2lite.Connection(client=False).data_to_send(0.0)"],
    ],
    ids=["package", "pure-modules", "client-connection", "server-connection"],
)
def test_importing_adds_no_heavy_and_no_foreign_module(bare, statements):
    added = loaded(*statements) - bare

    assert "h2lite" in added
    assert [name for name in LATER if name in added] == []
    foreign = {name.partition(".")[0] for name in added} - {"h2lite", *sys.stdlib_module_names}
    assert foreign == set()


def test_importing_the_package_loads_none_of_its_modules(bare):
    assert {name for name in loaded("import h2lite") - bare if "h2lite" in name} == {"h2lite"}


def test_the_first_field_block_loads_hpack(bare):
    """So the tests above would notice it."""
    assert find_spec("hpack") is not None

    added = loaded("from h2lite.fields import FieldEncoder", "FieldEncoder().encode([])") - bare

    assert "hpack" in added
