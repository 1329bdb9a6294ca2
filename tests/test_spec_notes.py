"""Notes, citations and marked tests say the same; and the reader of them misses nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.spec import Note, Use, comments, disagreements, read, read_citations, read_marks, table

NOTES = """\
# RFC 9113 chapter 6

Words in between, and [links](elsewhere.md), are not requirements.

## §6.7 PING

- [ping-length] MUST, done: a payload other than 8 octets
  is a FRAME_SIZE_ERROR.
- [ping-often] MAY, exception: not limited, because nobody asked.
"""
CODE = """\
def decode(payload):
    # RFC 9113 §6.7 [ping-length]
    return payload
"""
TESTS = """\
import pytest

@pytest.mark.rfc("ping-length")
def test_it():
    assert True
"""


def tree(root: Path, notes: str = NOTES, code: str = CODE, tests: str = TESTS) -> Path:
    """A small repository: one file of notes, one module, one file of tests."""
    for name, text in (
        ("spec-notes/rfc9113-06.md", notes),
        ("h2lite/frames.py", code),
        ("tests/test_frames.py", tests),
    ):
        path = root / name
        path.parent.mkdir()
        path.write_text(text, "utf-8")
    return root


def test_notes_code_and_tests_agree():
    found = disagreements(read())

    assert not found, "\n".join(found)


def test_the_notes_are_there():
    spec = read()

    assert len(spec.notes) > 50
    assert len(spec.citations) > 50
    assert len(spec.marks) > 50


def test_a_tree_in_agreement_has_no_disagreements(tmp_path):
    spec = read(tree(tmp_path))

    assert spec.notes == [
        Note(
            "rfc9113-06.md:7", "9113", "6.7", "ping-length", "MUST", "done",
            "a payload other than 8 octets is a FRAME_SIZE_ERROR.",
        ),
        Note(
            "rfc9113-06.md:9", "9113", "6.7", "ping-often", "MAY", "exception",
            "not limited, because nobody asked.",
        ),
    ]  # fmt: skip
    assert spec.citations == [Use("h2lite/frames.py:2", "ping-length", "9113", "6.7")]
    assert spec.marks == [Use("tests/test_frames.py:3", "ping-length")]
    assert disagreements(spec) == []


@pytest.mark.parametrize(
    ("part", "old", "new", "sentence"),
    [
        (
            "code", "# RFC 9113 §6.7 [ping-length]", "# as the RFC has it",
            "rfc9113-06.md:7: [ping-length] is done, but no code cites it",
        ),
        (
            "tests", '@pytest.mark.rfc("ping-length")', "",
            "rfc9113-06.md:7: [ping-length] is done, but no test is marked with it",
        ),
        (
            "code", "[ping-length]", "[ping-length], [ping-size]",
            "h2lite/frames.py:2: [ping-size] has no line in spec-notes/",
        ),
        (
            "tests", '"ping-length"', '"ping-length", "ping-size"',
            "tests/test_frames.py:3: [ping-size] has no line in spec-notes/",
        ),
        (
            "tests", '"ping-length"', 'TAG, "ping-length"',
            "tests/test_frames.py:3: mark.rfc takes tags written out",
        ),
        (
            "code", "§6.7", "§6.8",
            "h2lite/frames.py:2: [ping-length] is RFC 9113 §6.7 in the notes, not RFC 9113 §6.8",
        ),
        (
            "code", "§6.7", "§6.7.1",
            "h2lite/frames.py:2: [ping-length] is RFC 9113 §6.7 in the notes, not RFC 9113 §6.7.1",
        ),
        (
            "code", "RFC 9113", "RFC 7541",
            "h2lite/frames.py:2: [ping-length] is RFC 9113 §6.7 in the notes, not RFC 7541 §6.7",
        ),
        (
            "code", "§6.7 ", "",
            "h2lite/frames.py:2: [ping-length] is RFC 9113 §6.7 in the notes, not RFC 9113 §",
        ),
        (
            "notes", ", because nobody asked", "",
            "rfc9113-06.md:9: exception [ping-often] does not say 'because'",
        ),
        (
            "notes", "[ping-often]", "[ping-length]",
            "rfc9113-06.md:9: [ping-length] stands at rfc9113-06.md:7 already",
        ),
        (
            "notes", "MAY, exception", "MAY, todo",
            "rfc9113-06.md:9: not '- [tag] MUST|SHOULD|MAY, done|exception: text'",
        ),
        (
            "notes", "- [ping-often]", "- ping-often",
            "rfc9113-06.md:9: not '- [tag] MUST|SHOULD|MAY, done|exception: text'",
        ),
        (
            "notes", "## §6.7 PING", "## PING",
            "rfc9113-06.md:7: [ping-length] stands under no '# RFC' and '## §' heading",
        ),
        (
            "notes", "# RFC 9113 chapter 6", "# Frames",
            "rfc9113-06.md:7: [ping-length] stands under no '# RFC' and '## §' heading",
        ),
    ],
)  # fmt: skip
def test_every_kind_of_disagreement_is_found(tmp_path, part, old, new, sentence):
    text = {"notes": NOTES, "code": CODE, "tests": TESTS}
    assert old in text[part]
    text[part] = text[part].replace(old, new, 1)

    found = disagreements(read(tree(tmp_path, **text)))

    assert sentence in found


def test_a_comment_may_cite_several_tags_and_sections(tmp_path):
    path = tmp_path / "frames.py"
    path.write_text(
        "# RFC 9113 §6.1 [data-zero], §6.2 [headers-zero], [headers-pad]: why they are one,\n"
        "# §6.10 [continuation-zero]; [not] after RFC 7541 §6.3 [update]\n"
        "x = 1  # RFC 9113 §5.1 [tls-1.2]\n",
        "utf-8",
    )

    assert read_citations(path, "f") == [
        Use("f:1", "data-zero", "9113", "6.1"),
        Use("f:1", "headers-zero", "9113", "6.2"),
        Use("f:1", "headers-pad", "9113", "6.2"),
        Use("f:1", "continuation-zero", "9113", "6.10"),
        Use("f:1", "not", "9113", "6.10"),
        Use("f:1", "update", "7541", "6.3"),
        Use("f:3", "tls-1.2", "9113", "5.1"),
    ]


def test_only_comments_that_name_an_rfc_cite(tmp_path):
    path = tmp_path / "frames.py"
    path.write_text(
        '"""RFC 9113 §6.7 [in-a-docstring]"""\n'
        "x = 'RFC 9113 §6.7 [in-a-string]'  # a list[int] and x[0]\n"
        "\n"
        "# RFC 9113 §6.7\n"
        "\n"
        "# [far-away]\n",
        "utf-8",
    )

    assert read_citations(path, "f") == []


def test_a_comment_goes_on_over_adjacent_lines_of_its_own():
    source = "# one\n# two\nx = 1  # three\n# four\n\n# five\n"

    assert list(comments(source)) == [(1, "one two"), (3, "three four"), (6, "five")]


def test_marks_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "test_it.py"
    path.write_text(
        "import pytest\n"
        "from pytest import mark\n"
        "pytestmark = [pytest.mark.rfc('whole-module')]\n"
        "CASES = [pytest.param(1, marks=pytest.mark.rfc('one-case'))]\n"
        "class TestIt:\n"
        "    @mark.rfc('a', 'b')\n"
        "    def test_it(self):\n"
        "        'pytest.mark.rfc(\"in-a-string\")'\n",
        "utf-8",
    )

    faults: list[str] = []
    assert sorted(read_marks(path, "t", faults)) == [
        Use("t:3", "whole-module"),
        Use("t:4", "one-case"),
        Use("t:6", "a"),
        Use("t:6", "b"),
    ]
    assert faults == []


def test_the_table_counts_by_level_and_state(tmp_path):
    notes = read(tree(tmp_path)).notes

    assert [line.split() for line in table(notes).splitlines()] == [
        ["MUST", "SHOULD", "MAY", "done", "exceptions"],
        ["rfc9113-06.md", "1", "0", "1", "1", "1"],
        ["all", "1", "0", "1", "1", "1"],
    ]


def test_the_program_prints_the_table_and_succeeds_in_agreement():
    program = Path(__file__).with_name("spec.py")

    ran = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "rfc9113-06-frame-definitions.md" in ran.stdout
    assert "[padding-nonzero] MAY, exception: " in ran.stdout
