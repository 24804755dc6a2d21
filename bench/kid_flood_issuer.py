"""An issuer that counts: the server of ``jotgate serve``, which notes when its key set is asked for.

``python -m bench.kid_flood_issuer --data DIR --port PORT --log-level LEVEL``, with settings in ``JOTGATE_*`` variables.
``/counted`` gives the times as JSON: seconds of the system's monotonic clock, which all processes share.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

from jotgate.cli.process import App, Listening, run
from jotgate.cli.renewing import Renewal, TlsFiles
from jotgate.server import Settings, create_app
from jotgate.server.tls import ensure_local_certificate

COUNTED_PATH = "/counted"
_KEY_SET_PATH = "/.well-known/jwks.json"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def counting(settings: Settings) -> App:
    """Make the server with its count, in the one worker that there is."""
    app = create_app(settings)
    asked_at: list[float] = []

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        path = scope.get("path")
        if path == _KEY_SET_PATH:
            asked_at.append(time.monotonic())
        if path != COUNTED_PATH:
            await app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(asked_at).encode()})

    return serve


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log-level", required=True)
    options = parser.parse_args()
    settings = Settings.from_env(os.environ, data_dir=options.data)
    local = ensure_local_certificate(options.data / "tls", int(time.time()))
    listening = Listening("127.0.0.1", options.port, TlsFiles(local.cert, local.key), 1, options.log_level)
    on_ready = partial(print, "ready:", settings.issuer, flush=True)
    return run(partial(counting, settings), listening, "/readyz", on_ready, Renewal((), lambda _: None, 0))


if __name__ == "__main__":
    sys.exit(main())
