"""The scenarios that spec-notes/health.md lists: each is a test, and names a line that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "spec-notes" / "health.md"
ON_SOCKETS = "## On real sockets"
ROW = re.compile(r"\| \d+ \| (\w+) \| [^|]+ \| `(\w+\.py): (.+?)` -> `.*` \|")
TEST = re.compile(r"^def test_(\w+)", re.MULTILINE)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def rows() -> list[tuple[str, str, str]]:
    page = PAGE.read_text(encoding="utf-8").partition(ON_SOCKETS)[0]
    table = page[page.index("| scenario | shows |") :]
    lines = [line for line in table.splitlines() if re.match(r"\| \d+ ", line)]
    found = []
    for line in lines:
        match = ROW.fullmatch(line)
        assert match is not None, line
        found.append((match[1], match[2], match[3]))
    return found


def scenario_tests() -> set[str]:
    files = (ROOT / "tests").glob("test_scenarios_*.py")
    return {name for file in files for name in TEST.findall(file.read_text(encoding="utf-8"))}


def test_every_scenario_of_the_page_is_a_test():
    missing = {name for name, _, _ in rows()} - scenario_tests()

    assert (missing, len(rows()) > 80) == (set(), True)


def test_the_lines_that_were_broken_exist():
    package = ROOT / "h2lite"
    sources = {file: squeezed((package / file).read_text()) for _, file, _ in rows()}
    gone = [
        (name, part)
        for name, file, expression in rows()
        for part in re.split(r" ⏎ | ; ", expression)
        if squeezed(part) not in sources[file]
    ]

    assert gone == []


def test_every_scenario_on_sockets_is_a_test():
    page = PAGE.read_text(encoding="utf-8").partition(ON_SOCKETS)[2]
    named = set(re.findall(r"^\| \d+ \| (\w+) \|", page, re.MULTILINE))
    files = (ROOT / "tests").glob("test_sockets_*.py")
    tests = {name for file in files for name in TEST.findall(file.read_text(encoding="utf-8"))}

    assert (named - tests, len(named)) == (set(), 28)
