"""Small GETs on one connection, one after the other: how long each takes.

getters.py says what each client does and checks; the server is that of gets.py, and so are the
fields, the same each time.  Client and server share one core, since waking an idle one would hide
everything else: gets.py has that, with one stream.

Timed: each GET is a value.  Left out: connecting, and the first GET.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers.servers import Ground

from . import gets
from .figures import SAME, Measured, Options, compare, cores, on_core
from .getters import BLOCKING, CORE, GO, GoGetter
from .variant import Sampled, Variant

PINNING = SAME
CALLS = 100  # a round
ROUNDS_SHARE = 2  # of the rounds asked for, one in so many is run


def measure(options: Options) -> list[Measured]:
    """Every client in turn."""
    task = gets.TASKS[gets.REPEATED]._replace(streams=1)
    with (
        on_core(cores(PINNING)[0]),
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as stack,
    ):
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        server, place = gets.first_server(ground, options)
        variants: list[Variant | Sampled] = []
        for client in (CORE, BLOCKING, *(gets.PEERS if options.peers else ())):
            try:
                if client == GO:
                    go = stack.enter_context(GoGetter(ground, place, task))
                    variants.append(go.one_by_one())
                else:
                    variants.append(gets.variant(stack, client, ground, place, task, 1))
            except (ModuleNotFoundError, pytest.skip.Exception) as reason:
                options.absent.add(f"{client}: {reason}")
        rounds = max(1, options.rounds // ROUNDS_SHARE)
        return compare(f"gets {server} one by one", variants, CALLS, rounds, operation="GET")
