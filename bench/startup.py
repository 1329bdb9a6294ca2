"""How soon is a cold process ready: what does an import cost, how long until the first PING?

Timed: a whole process, from its start to its end.

    import          an isolated interpreter (-I) that runs `import h2lite`, and no more; that loads
                    each name when it is first used, so here is also one that names
                    h2lite.ConnectionPool, which is nearly all of a client; beside them
                    h2.connection, httpx.Client, and the floor, which imports nothing.  What an
                    import costs is what the process takes beyond the floor
    import memory   what such a process has resident after its import, and the floor
    first PING      `h2lite ping -c 1 URL`; beside it nghttp and curl, which make one GET of a small
                    file, for they have no PING; and the bare interpreter again, as the floor

The server is nghttpd, or h2lite's own where there is none; every process is on one core.

Left out: compiling, for the first process of each kind, whose bytecode is kept, goes uncounted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import pytest

from tests.peers.servers import CLEAR, TLS, Ground, command

from .figures import (
    FOLDER,
    OCTETS,
    SAME,
    Measured,
    Options,
    compare,
    cores,
    measured,
    median_ratio,
    on_core,
)
from .variant import FLOOR, OURS, Variant

PINNING = SAME
POOL = "h2lite.ConnectionPool"
IMPORTS = {
    FLOOR: [],
    OURS: ["import h2lite"],
    POOL: ["import h2lite", POOL],
    "h2": ["import h2.connection"],
    "httpx": ["import httpx", "httpx.Client"],
}
PEERS = ("h2", "httpx")
PING_ROUNDS_SHARE = 2  # of the rounds asked for
MEMORY_ROUNDS_SHARE = 20
TIMEOUT_S = 30.0
NGHTTP, CURL = "nghttp", "curl"

# An isolated interpreter does not look where it was started, nor into PYTHONPATH.
PATH = f"import sys; sys.path.insert(0, {str(FOLDER.parent)!r})"
RESIDENT = "print(open('/proc/self/statm').read().split()[1], __import__('resource').getpagesize())"


def bare(*statements: str) -> list[str]:
    return [sys.executable, "-I", "-c", "; ".join([PATH, *statements])]


def run(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)


def says(text: bytes, done: subprocess.CompletedProcess[bytes]) -> bool:
    return done.returncode == 0 and text in done.stdout


def program(name: str, argv: list[str], text: bytes = b"") -> Variant:
    """text   is in what it prints when it has done its job"""
    return Variant(name, partial(run, argv), partial(says, text))


def measure(options: Options) -> list[Measured]:
    names = [FLOOR, OURS, POOL]
    if options.peers:
        names += [name for name in PEERS if find_spec(name)]
        options.absent.update(
            f"{name}: not in this environment" for name in {*PEERS}.difference(names)
        )
    with on_core(cores(PINNING)[0]), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        variants = [program(name, bare(*IMPORTS[name])) for name in names]
        results = together("import", variants, options.rounds)
        results += memory(names, max(1, options.rounds // MEMORY_ROUNDS_SHARE))
        for security in (CLEAR, TLS):
            rounds = max(1, options.rounds // PING_ROUNDS_SHARE)
            what = f"first PING {security}"
            results += together(what, pingers(ground, security, options), rounds)
    return results


def together(what: str, variants: list[Variant], rounds: int) -> list[Measured]:
    for variant in variants:
        variant.run()  # which leaves bytecode and files where they are soon found
    return compare(what, variants, 1, rounds, operation="process", warm_up=0)


def memory(names: list[str], rounds: int) -> list[Measured]:
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            # What it takes to ask is loaded in all of them.
            done = run(bare("import resource", *IMPORTS[name], RESIDENT))
            pages, octets = map(int, done.stdout.split())
            found[name].append(pages * octets)
    return [
        measured(
            "import memory",
            name,
            values,
            unit=OCTETS,
            operation="process",
            to_floor=median_ratio(values, found[FLOOR]),
            rounds=values,
        )
        for name, values in found.items()
    ]


def pingers(ground: Ground, security: str, options: Options) -> list[Variant]:
    """The floor, h2lite, and the peers that are there."""
    server = "h2lite"
    if options.peers:
        try:
            command("nghttpd", "Debian package nghttp2-server")
            server = "nghttpd"
        except pytest.skip.Exception as reason:
            options.absent.add(f"nghttpd: {reason}")
    url = ground.url_of(server, security)
    main = ("from h2lite.cli import main", "sys.exit(main())")
    variants = [
        program(FLOOR, bare()),
        program(
            OURS, [*bare(*main), "ping", "-c", "1", url, *ground.trust(url)], b"1 acknowledged"
        ),
    ]
    if not options.peers:
        return variants
    # nghttp looks at no certificate.
    for name, package, arguments in (
        (NGHTTP, "Debian package nghttp2-client", ["-n"]),
        (CURL, "curl", ["--silent", "--show-error", *curl_options(ground, url)]),
    ):
        try:
            argv = [command(name, package), *arguments, f"{url}/small"]
        except pytest.skip.Exception as reason:
            options.absent.add(f"{name}: {reason}")
        else:
            variants.append(program(name, argv, b"a small file" if name == CURL else b""))
    return variants


def curl_options(ground: Ground, url: str) -> list[str]:
    return ["--http2-prior-knowledge"] if url.startswith("http:") else ground.trust(url)


def summary(results: list[Measured]) -> list[str]:
    """What an import costs beyond the bare interpreter."""
    by_name = {(one.what, one.variant): one.rounds for one in results}
    lines = []
    for what, variant in by_name:
        if variant != FLOOR and what in ("import", "import memory"):
            these, bare_ones = by_name[what, variant], by_name[what, FLOOR]
            beyond = median(mine - its for mine, its in zip(these, bare_ones, strict=True))
            told = f"{beyond / 1e6:.1f} ms" if what == "import" else f"{beyond / 2**20:.1f} MiB"
            lines.append(f"{what}: {variant} takes {told} more than a bare interpreter")
    return lines
