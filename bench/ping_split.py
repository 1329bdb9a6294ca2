"""PING round trips once more, with client and server on a core each.

Timed: as pings.py says.  Here every round trip wakes two idle cores, which on a virtual machine
takes longer than all else; whoever pings across a real network sees that, too.  Left out:
connecting, the TLS handshake, SETTINGS.
"""

from __future__ import annotations

from . import pings
from .figures import SPLIT, Measured, Options

PINNING = SPLIT


def measure(options: Options) -> list[Measured]:
    return pings.measure(options, PINNING)
