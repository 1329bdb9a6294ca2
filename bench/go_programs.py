"""Where the benches' Go programs are; `Ground.go_program(name, GO_SOURCES)` builds one."""

from __future__ import annotations

from pathlib import Path

GO_SOURCES = Path(__file__).with_name("go")
