"""The requirements of the RFCs: what spec-notes/ says, what the code cites, what tests check.

A note says what became of a requirement, in a line under the heading of its section:

    ## §6.7 PING
    - [ping-length] MUST, done: a payload other than 8 octets is a FRAME_SIZE_ERROR.

The code cites it in a comment, `RFC 9113 §6.7 [ping-length]`; a test carries
`@pytest.mark.rfc("ping-length")`.  `disagreements` compares the three; run as a program, this
prints what is done and what is not.  It reads text and syntax trees and imports nothing of ours.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LEVELS = ("MUST", "SHOULD", "MAY")

TITLE = re.compile(r"# RFC (\d+)\b")
HEADING = re.compile(r"## §(\d+(?:\.\d+)*) ")
NOTE = re.compile(r"- \[([a-z0-9.-]+)\] (MUST|SHOULD|MAY), (done|exception): (\S.*)")
MARKS = re.compile(r"RFC (?P<rfc>\d+)|§(?P<section>\d+(?:\.\d+)*)|\[(?P<tag>[a-z0-9.-]+)\]")


class Note(NamedTuple):
    """One requirement, as a line of spec-notes/ tells it."""

    where: str
    rfc: str
    section: str
    tag: str
    level: str
    state: str
    text: str


class Use(NamedTuple):
    """Where a tag is cited or marked; `rfc` and `section` are empty for a mark."""

    where: str
    tag: str
    rfc: str = ""
    section: str = ""


class Spec(NamedTuple):
    """All three, read from one tree; `faults` is what could not be read."""

    notes: list[Note]
    citations: list[Use]
    marks: list[Use]
    faults: list[str]


def read_notes(path: Path, faults: list[str]) -> list[Note]:
    """The requirements of one file; a line that is not understood becomes a fault."""
    notes: list[Note] = []
    rfc = section = ""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        where = f"{path.name}:{number}"
        if title := TITLE.match(line):
            rfc = title[1]
        elif line.startswith("#"):
            heading = HEADING.match(line)
            section = heading[1] if heading else ""
        elif note := NOTE.fullmatch(line):
            if not rfc or not section:
                faults.append(f"{where}: [{note[1]}] stands under no '# RFC' and '## §' heading")
            notes.append(Note(where, rfc, section, *note.groups()))
        elif line.startswith("- "):
            faults.append(f"{where}: not '- [tag] MUST|SHOULD|MAY, done|exception: text'")
        elif line.startswith("  ") and notes:
            notes[-1] = notes[-1]._replace(text=f"{notes[-1].text} {line.strip()}")
    return notes


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Each comment with its first line's number; a comment alone on its line goes on the last."""
    first = last = -1
    text = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if line == last + 1 and token.line.lstrip().startswith("#"):
            text += " " + token.string.lstrip("# ")
        else:
            if text:
                yield first, text
            first, text = line, token.string.lstrip("# ")
        last = line
    if text:
        yield first, text


def read_citations(path: Path, where: str) -> list[Use]:
    """`RFC 9113 §6.7 [tag]` in comments; several tags may follow one §, several § one RFC."""
    citations = []
    for line, text in comments(path.read_text("utf-8")):
        rfc = section = ""
        for mark in MARKS.finditer(text):
            if mark["rfc"]:
                rfc, section = mark["rfc"], ""
            elif mark["section"]:
                section = mark["section"]
            elif rfc:
                citations.append(Use(f"{where}:{line}", mark["tag"], rfc, section))
    return citations


def read_marks(path: Path, where: str, faults: list[str]) -> list[Use]:
    """Every `pytest.mark.rfc("tag", ...)`; a tag that is no literal is a fault."""
    marks = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("mark.rfc"):
            continue
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                marks.append(Use(f"{where}:{node.lineno}", argument.value))
            else:
                faults.append(f"{where}:{node.lineno}: mark.rfc takes tags written out")
    return marks


def read(root: Path = ROOT) -> Spec:
    """Read spec-notes/, h2lite/ and tests/ below `root`."""
    spec = Spec([], [], [], [])
    for path in sorted((root / "spec-notes").glob("rfc*.md")):
        spec.notes.extend(read_notes(path, spec.faults))
    for path in sorted((root / "h2lite").rglob("*.py")):
        spec.citations.extend(read_citations(path, str(path.relative_to(root))))
    for path in sorted((root / "tests").rglob("*.py")):
        spec.marks.extend(read_marks(path, str(path.relative_to(root)), spec.faults))
    return spec


def disagreements(spec: Spec) -> list[str]:
    """What notes, code and tests say differently, one sentence each; empty: they agree."""
    found = list(spec.faults)
    notes: dict[str, Note] = {}
    for note in spec.notes:
        if note.tag in notes:
            found.append(f"{note.where}: [{note.tag}] stands at {notes[note.tag].where} already")
        notes[note.tag] = note
        if note.state == "exception" and "because" not in note.text.split():
            found.append(f"{note.where}: exception [{note.tag}] does not say 'because'")
    cited = {use.tag for use in spec.citations}
    marked = {use.tag for use in spec.marks}
    for note in notes.values():
        if note.state == "done" and note.tag not in cited:
            found.append(f"{note.where}: [{note.tag}] is done, but no code cites it")
        if note.state == "done" and note.tag not in marked:
            found.append(f"{note.where}: [{note.tag}] is done, but no test is marked with it")
    found += [
        f"{use.where}: [{use.tag}] has no line in spec-notes/"
        for use in spec.citations + spec.marks
        if use.tag not in notes
    ]
    for use in spec.citations:
        note_of = notes.get(use.tag)
        if note_of and (use.rfc, use.section) != (note_of.rfc, note_of.section):
            found.append(
                f"{use.where}: [{use.tag}] is RFC {note_of.rfc} §{note_of.section} in the notes, "
                f"not RFC {use.rfc} §{use.section}"
            )
    return found


def table(notes: list[Note]) -> str:
    """How many requirements each file holds, by level, and what became of them."""
    rows = [f"{'':32}{'MUST':>7}{'SHOULD':>7}{'MAY':>7}{'done':>7}{'exceptions':>12}"]
    files = sorted({note.where.partition(":")[0] for note in notes})
    for name in [*files, ""]:
        mine = [note for note in notes if note.where.startswith(name)]
        levels = "".join(f"{sum(n.level == level for n in mine):7}" for level in LEVELS)
        done = sum(note.state == "done" for note in mine)
        rows.append(f"{name or 'all':32}{levels}{done:7}{len(mine) - done:12}")
    return "\n".join(rows)


def main() -> int:
    """Print the table, the exceptions with their reasons, and every disagreement."""
    spec = read()
    print(table(spec.notes))
    for note in spec.notes:
        if note.state == "exception":
            print(f"\n§{note.section} [{note.tag}] {note.level}, exception: {note.text}")
    found = disagreements(spec)
    if found:
        print("\nDisagreements:", *found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
