"""The README's first example, run word for word but for the port and the certificate's place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from h2lite.certs import make_certificate
from h2lite.cli.count import FrameCounts
from h2lite.cli.routes import Routes
from h2lite.transport import server_context

from .running import serving

README = Path(__file__).parent.parent / "README.md"


def first_example() -> str:
    text = README.read_text(encoding="utf-8")
    found = re.search(r"## In a program\n\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def example(tmp_path: Path) -> str:
    return first_example().replace('"ca.pem"', repr(str(tmp_path / "ca.pem")))


def test_the_first_example_runs(example, tmp_path, capsys):
    files = make_certificate(tmp_path)
    Path(files.cafile).rename(tmp_path / "ca.pem")
    context = server_context(files.certfile, files.keyfile)
    with serving(Routes(None, FrameCounts()), ssl_context=context) as server:
        assert "https://localhost:8443" in example
        exec(example.replace("localhost:8443", f"localhost:{server.port}"), {})

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "200 ok"
    assert sum(int(line) for line in said if line.isdigit()) == 1_000_000
    assert re.fullmatch(rf"https://localhost:{server.port} \(.*\) LIVE [0-9.e-]+", said[-3])
    assert said[-2].endswith(" None")
    assert "'requests': 2, 'dials': 1," in said[-1]
