"""`mtbkd-serve FOLDER`: opens a folder, serves it, and takes leave without losing a request."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from mtbkd_serve.app import Limits, Serving, make_app
from mtbkd_serve.folder import FolderError, open_folder

_LEAVE = 0.3  # seconds of each part of taking leave
_ATTACH_FILTER = 26  # which the module socket does not name


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


def _leaving(server: uvicorn.Server, serving: Serving) -> Callable[[int, FrameType | None], None]:
    """What a signal does; a second one does not wait.

    First /ready says no and connections end with their next answer, so that nobody keeps one; then
    no new ones may come; when those that came have sent their requests, uvicorn answers what is
    left and stops.
    """

    async def take_leave() -> None:
        await asyncio.sleep(_LEAVE)
        for listener in server.servers:
            for one in listener.sockets:
                _drop_new(one)
        await asyncio.sleep(_LEAVE)
        for listener in server.servers:
            listener.close()
        await asyncio.sleep(_LEAVE)
        server.should_exit = True

    def leave(signum: int, frame: FrameType | None) -> None:
        loop = serving.loop
        if serving.stopping or loop is None:
            server.should_exit = True
            return
        serving.stopping = True
        loop.call_soon_threadsafe(lambda: serving.tasks.append(loop.create_task(take_leave())))

    return leave


def _drop_new(listener: socket.socket) -> None:
    """Let no more connections come to a listening socket, while those that queue are taken.

    The kernel resets what queues when a listening socket is closed. A filter that keeps no byte
    (Linux's ``socket(7)``, ``SO_ATTACH_FILTER``) empties the queue first; who comes meanwhile is
    refused once it is closed. Elsewhere a few may be reset.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0
    listener.setsockopt(
        socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code))
    )


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
