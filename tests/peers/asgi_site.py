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
    body = file.read_bytes() if found else b"not found\n"
    length = (b"content-length", str(len(body)).encode())
    status = 200 if found else 404
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
