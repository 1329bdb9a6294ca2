"""A network namespace of one's own, where packets can really be dropped; no root needed.

    inside("tests.test_sockets_silence", "kube_15min")

runs that function of that module in a process whose loopback nobody else sees, and returns what it
returned, by JSON.  In there, `drop` and `pass_again` are called.  Skips, with the reason, where the
system refuses a namespace or has no nft.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 50.0
ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


def inside(module: str, function: str) -> Any:
    """What the function returned in a namespace of its own."""
    command = ["unshare", "-Urn", sys.executable, "-m", "tests.namespace", module, function]
    for name in ("unshare", "ip", "nft"):
        if shutil.which(name, path=ENVIRONMENT["PATH"]) is None:
            pytest.skip(f"{name} is not installed")
    if subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode:
        pytest.skip("the system refuses a network namespace of one's own")
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _nft(*words: str) -> None:
    subprocess.run(["nft", *words], check=True, timeout=TIMEOUT_S, env=ENVIRONMENT)


def drop(port: int) -> None:
    """From now on no packet of this TCP port arrives, either way."""
    for side in ("dport", "sport"):
        _nft("add", "rule", "ip", "t", "in", "tcp", side, str(port), "drop")


def pass_again() -> None:
    """Packets arrive again."""
    _nft("flush", "chain", "ip", "t", "in")


def main() -> None:
    module, function = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=TIMEOUT_S)
    _nft("add", "table", "ip", "t")
    _nft("add", "chain", "ip", "t", "in", "{ type filter hook input priority 0; }")
    print(json.dumps(getattr(importlib.import_module(module), function)()))


if __name__ == "__main__":
    main()
