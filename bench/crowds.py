"""Crowds of checked connections, each client's in a process that does as it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.peers.servers import STOP_S_MAX, Ground

from .figures import FOLDER, Options
from .go_programs import GO_SOURCES

OURS, GO, H2, HTTPX, GRPCIO = "h2lite", "go", "h2", "httpx", "grpcio"
ONE_ORIGIN = "h2lite, one origin"
MODULES = {H2: "h2", HTTPX: "httpx", GRPCIO: "grpc"}  # what a client in Python imports


class Crowd:
    """One client's process, on the core of the thread that started it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, *command: object) -> dict[str, int]:
        """Have a command done; see crowd_clients.py.  Raises RuntimeError when it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, command)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} has ended at {command}")
        answer: dict[str, int] = json.loads(line)
        return answer


class Crowds:
    """Starts clients; `absent` notes those that cannot be had, and they are left out."""

    def __init__(self, ground: Ground, port: int, options: Options) -> None:
        self._ground = ground
        self._port = port
        self._options = options

    def present(self, *names: str) -> list[str]:
        """Those that can be had; the peers only where they are asked for."""
        if not self._options.peers:
            return [name for name in names if name in (OURS, ONE_ORIGIN)]
        return [name for name in names if self._is_there(name)]

    def _is_there(self, name: str) -> bool:
        try:
            if name == GO:
                self._ground.go_program("crowd", GO_SOURCES)
            elif name in MODULES:
                pytest.importorskip(MODULES[name])
        except pytest.skip.Exception as reason:
            self._options.absent.add(f"{name}: {reason}")
            return False
        return True

    @contextmanager
    def start(self, name: str, period: float, trace: bool = False) -> Iterator[Crowd]:
        """period, trace   as crowd_clients.py is told them"""
        if name == GO:
            argv = [self._ground.go_program("crowd", GO_SOURCES), str(self._port), str(period)]
        else:
            argv = [sys.executable, "-m", f"{__package__}.crowd_clients", name]
            argv += [str(self._port), str(period), *["--trace"] * trace]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with ExitStack() as stack:
            process = subprocess.Popen(argv, text=True, cwd=FOLDER.parent, **pipes)
            stack.callback(_end, process)
            yield Crowd(process)


def _end(process: subprocess.Popen[str]) -> None:
    """It has nothing left to do, and need not part from thousands of connections."""
    process.kill()
    process.communicate(timeout=STOP_S_MAX)
