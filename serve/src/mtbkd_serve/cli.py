"""`mtbkd-serve FOLDER`: opens a folder, serves it, and takes leave without losing a request."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from types import FrameType

import uvicorn

from mtbkd_serve.app import Limits, Serving, make_app
from mtbkd_serve.folder import FolderError, open_folder

_LEAVE = 0.5  # seconds in which new requests are still taken after a signal, and told to go


def main() -> None:
    """Entry point: a folder that cannot be served ends with a message per fault and exit code 2."""
    asked = _parser().parse_args()
    limits = Limits(asked.most_rows, asked.most_bytes, asked.seconds, asked.most_waiting)
    try:
        student = open_folder(asked.folder, asked.threads)
    except FolderError as error:
        for fault in error.faults:
            print(f"mtbkd-serve: {fault}", file=sys.stderr)
        sys.exit(2)
    app = make_app(student, limits)
    config = uvicorn.Config(
        app,
        host=asked.host,
        port=asked.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(2 * limits.seconds) + 1,
    )
    server = uvicorn.Server(config)
    server.handle_exit = _leaving(server, app.state.serving)  # type: ignore[method-assign]
    print(f"serving {asked.folder} at http://{asked.host}:{asked.port}", flush=True)
    server.run()
    if not server.started:
        sys.exit(1)


def _leaving(server: uvicorn.Server, serving: Serving) -> object:
    """What a signal does: say so at /ready, end connections as they are answered, then stop."""

    def stop() -> None:
        server.should_exit = True

    def leave(signum: int, frame: FrameType | None) -> None:
        if serving.stopping:  # the second signal does not wait
            stop()
            return
        serving.stopping = True
        threading.Timer(_LEAVE, stop).start()

    return leave


def _parser() -> argparse.ArgumentParser:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog="mtbkd-serve",
        description="Serve a student that mtbkd exported. The environment's MTBKD_TOKEN, if set, "
        "is the bearer token that requests have to show.",
    )
    parser.add_argument("folder", type=Path, help="as `mtbkd export RUN` wrote it")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all networks")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=1, help="of onnxruntime")
    parser.add_argument("--most-rows", type=int, default=limits.rows, help="of a request")
    parser.add_argument("--most-bytes", type=int, default=limits.body, help="of a request")
    parser.add_argument("--most-waiting", type=int, default=limits.waiting, help="requests")
    parser.add_argument("--seconds", type=float, default=limits.seconds, help="for a request")
    return parser
