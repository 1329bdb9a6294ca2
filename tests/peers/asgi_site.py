"""The ASGI application that hypercorn serves: the files of the folder H2LITE_SITE."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SITE = Path(os.environ["H2LITE_SITE"])


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    file = SITE / Path(scope["path"]).name
    found = file.is_file()
    length = file.stat().st_size if found else 0
    headers = [(b"content-length", str(length).encode())]
    status = 200 if found else 404
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if found:
        with file.open("rb") as content:  # piece by piece: the server says when it takes more
            while piece := content.read(65536):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
