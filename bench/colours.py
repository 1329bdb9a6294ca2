"""Whose a variant is, and the colour it has in every picture.

Eight colours that people with any colour vision tell apart (Okabe and Ito's), ours the blue one;
the ways to use one implementation are shades of its colour.
"""

from __future__ import annotations

import re

OURS = "h2lite"
BLUE, GREY = "#0072B2", "#8C8C8C"
COLOURS = {
    OURS: BLUE,
    "floor": GREY,
    "go": "#E69F00",
    "h2": "#009E73",
    "jh2": "#D55E00",
    "httpx": "#CC79A7",
    "grpcio": "#F0E442",
    "nghttp2": "#56B4E9",
    "curl": "#000000",
}
# Under what names the same people's work appears.
FAMILIES = {
    "bare": "floor",
    "wire": "floor",
    "hyperframe": "h2",
    "hypercorn": "h2",
    "httpcore": "httpx",
    "nghttp": "nghttp2",
    "nghttpd": "nghttp2",
    "h2load": "nghttp2",
}
SHADES = (0.0, 0.45, 0.25, 0.6, 0.12, 0.7)  # how far towards white, one variant after the other


def family(variant: str) -> str:
    """Whose it is, by its first word; what is not known as another's is a way to use h2lite."""
    found = re.match(r"\w+", variant)
    word = "" if found is None else found[0]
    word = FAMILIES.get(word, word)
    return word if word in COLOURS else OURS


def ours(variant: str) -> bool:
    return family(variant) == OURS


def colours(variants: list[str]) -> dict[str, str]:
    """A colour for each; a family's first one has the family's own."""
    seen: dict[str, int] = {}
    given = {}
    for variant in dict.fromkeys(variants):
        whose = family(variant)
        step = seen.get(whose, 0)
        seen[whose] = step + 1
        given[variant] = _towards_white(COLOURS[whose], SHADES[step % len(SHADES)])
    return given


def _towards_white(colour: str, share: float) -> str:
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02X}" for part in parts)
