"""What is served: predictions, their reasons, the page, and what those who run it need."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from mtbkd_serve.answers import answers_of, check_answered, explained, shown_example
from mtbkd_serve.batching import Batcher, Found, rows_at_once
from mtbkd_serve.folder import Config, Student
from mtbkd_serve.metrics import Metrics, make_metrics
from mtbkd_serve.reading import Asked, Refused, parse, values_of

TOKEN = "MTBKD_TOKEN"
"""The environment's variable that holds the token that requests have to bear."""
_CSP = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: "
    "blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CLOSED = {"Connection": "close"}
_OPEN = ("/", "/health", "/ready")
_ERRORS = {
    401: "The bearer token is missing or wrong.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "It cannot be answered; `detail` says why, one message for each fault.",
    503: "Too many are asking, it takes too long, or the server stops. See `Retry-After`.",
}


@dataclass(frozen=True)
class Limits:
    """Beyond which requests are refused.

    Attributes:
        rows: Examples of one request.
        body: Bytes of one request.
        seconds: For its body to come, and then for its answer.
        waiting: Requests that are in the house at once.
    """

    rows: int = 1000
    body: int = 8 * 2**20
    seconds: float = 10.0
    waiting: int = 64


@dataclass
class Serving:
    """A server at work; what changes is counted below `token`.

    Attributes:
        student: What it serves.
        limits: Beyond which it refuses.
        metrics: What it counts.
        batcher: Who asks the graph.
        token: What requests have to bear; nothing if they need not.
        stopping: Whether it takes leave.
        inside: How many requests are being answered.
        loop: In which it runs, once it does.
        tasks: What it does beside answering.
    """

    student: Student
    limits: Limits
    metrics: Metrics
    batcher: Batcher
    token: str
    stopping: bool = False
    inside: int = 0
    loop: asyncio.AbstractEventLoop | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Answered(Exception):
    """A request that ends early, with a status and the reason."""

    def __init__(self, status: int, *faults: str, **headers: str) -> None:
        super().__init__(*faults)
        self.response = JSONResponse(
            {"detail": list(faults)}, status, {n.replace("_", "-"): v for n, v in headers.items()}
        )


def make_app(student: Student, limits: Limits = Limits(), token: str | None = None) -> FastAPI:
    """The application, by ASGI.

    Args:
        student: What it serves.
        limits: Beyond which it refuses.
        token: What requests have to bear; that of the environment if not given, nothing if none.
    """
    metrics = make_metrics(student.config)
    names = [output.name for output in student.config.outputs]
    inputs = student.config.inputs
    at_once = rows_at_once(student.session, np.zeros((1, *inputs.shape), inputs.dtype))
    batcher = Batcher(student.session, names, limits.rows, metrics.batches.observe, at_once)
    given = os.environ.get(TOKEN, "") if token is None else token
    serving = Serving(student, limits, metrics, batcher, given)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving.loop = asyncio.get_running_loop()
        async with batcher.running():
            yield

    app = FastAPI(
        title=f"{student.config.task}, a Bayesian student",
        description=student.config.summary,
        version="0.1.0",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.serving = serving
    app.add_exception_handler(Answered, _ended)
    app.add_exception_handler(Refused, _refused)
    _add_answers(app, serving)
    _add_others(app, serving)
    app.middleware("http")(_around(serving))
    return app


def _add_answers(app: FastAPI, serving: Serving) -> None:
    body = {"content": {"application/json": {"schema": Asked.model_json_schema()}}}
    told: dict[int | str, dict[str, Any]] = {s: {"description": d} for s, d in _ERRORS.items()}
    asking = {"openapi_extra": {"requestBody": {**body, "required": True}}, "responses": told}

    @app.post("/predict", summary="Answers, with intervals, sets and flags", **asking)
    async def predict(request: Request) -> Response:
        asked, found = await _answer(serving, request)
        answers = answers_of(serving.student.config, found, defer=asked.defer)
        return _json({"answers": answers})

    @app.post("/explain", summary="The same, with reasons and the nearest examples", **asking)
    async def explain(request: Request) -> Response:
        asked, found = await _answer(serving, request)
        answers = answers_of(serving.student.config, found, defer=asked.defer)
        explained(serving.student, found, answers)
        return _json({"answers": answers})


def _add_others(app: FastAPI, serving: Serving) -> None:
    page = files("mtbkd_serve").joinpath("page.html").read_text(encoding="utf-8")
    about = _about(serving.student, serving.limits)

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _CSP})

    @app.get("/about", summary="What the student is and reads")
    async def student() -> dict[str, Any]:
        return about

    @app.get("/health", summary="Whether the process lives")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready", summary="Whether it takes requests", responses={503: {}})
    async def ready() -> Response:
        full = serving.inside > serving.limits.waiting
        if serving.stopping or full:
            raise Answered(503, "full" if full else "stopping", Retry_After="1")
        return _json({"status": "ready"})

    @app.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(generate_latest(serving.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _around(serving: Serving) -> Callable[..., Any]:
    """What is done before and after every request: token, counting, headers."""
    known = ("/", "/about", "/predict", "/explain", "/health", "/ready", "/metrics")

    async def middleware(request: Request, call_next: Callable[..., Any]) -> Response:
        begun, path = time.perf_counter(), request.url.path
        path = path if path in known else "other"
        if _bears(request, serving.token) or path in _OPEN:
            serving.inside += 1
            serving.metrics.waiting.inc()
            try:
                response = await call_next(request)
            finally:
                serving.inside -= 1
                serving.metrics.waiting.dec()
        else:
            told = f"Expected the header Authorization: Bearer with the token of {TOKEN}. Add it."
            response = Answered(401, told, WWW_Authenticate="Bearer").response
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        if serving.stopping or response.status_code in (408, 413):
            response.headers.update(_CLOSED)
        serving.metrics.requests.labels(path, str(response.status_code)).inc()
        serving.metrics.seconds.labels(path).observe(time.perf_counter() - begun)
        return response

    return middleware


def _bears(request: Request, token: str) -> bool:
    if not token:
        return True
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given.encode("latin-1"), f"Bearer {token}".encode())


async def _answer(serving: Serving, request: Request) -> tuple[Asked, Found]:
    """Read a request and have it answered, within the limits."""
    limits, config = serving.limits, serving.student.config
    if serving.inside > limits.waiting:
        raise Answered(
            503, f"Expected {limits.waiting} requests at once at most. Try again.", Retry_After="1"
        )
    try:
        async with asyncio.timeout(limits.seconds):
            body = await _body(request, limits.body)
    except ClientDisconnect:
        raise Answered(400, "Expected a whole body, but the connection ended.") from None
    except TimeoutError:
        raise Answered(
            408, f"Expected the body within {limits.seconds:g} s. Send it faster."
        ) from None
    if len(body) > 2**16:
        asked, values = await asyncio.to_thread(_read, body, config, limits.rows)
    else:
        asked, values = _read(body, config, limits.rows)
    try:
        async with asyncio.timeout(limits.seconds):
            found = await serving.batcher.ask(values)
    except TimeoutError:
        raise Answered(
            503, f"Expected an answer within {limits.seconds:g} s. Try again.", Retry_After="2"
        ) from None
    check_answered(found)
    serving.metrics.answered(config, found)
    return asked, found


def _read(body: bytes, config: Config, most_rows: int) -> tuple[Asked, np.ndarray]:
    asked = parse(body)
    return asked, values_of(asked, config.inputs, most_rows)


async def _body(request: Request, most: int) -> bytes:
    """The body, as far as it is allowed to be long."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Answered(415, "Expected a body that is not compressed. Send it as it is.")
    told = Answered(413, f"Expected a body of {most} bytes at most. Send it in parts.")
    length = request.headers.get("Content-Length", "0")
    if length.isdigit() and int(length) > most:
        raise told
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise told
        parts.append(part)
    return b"".join(parts)


def _about(student: Student, limits: Limits) -> dict[str, Any]:
    config = student.config
    return {
        **config.model_dump(include={"task", "family", "classes", "level", "draws", "summary"}),
        "reads": "images" if config.inputs.pictures else "rows",
        "inputs": config.inputs.model_dump(),
        "flags": config.flags,
        "teachers": student.examples.teachers,
        "example": shown_example(config, student.examples, 0) or None,
        "defer": None if config.defer is None else config.defer.model_dump(),
        "limits": {"rows": limits.rows, "bytes": limits.body, "seconds": limits.seconds},
    }


def _json(value: Any) -> Response:
    return Response(json.dumps(value, allow_nan=False), media_type="application/json")


async def _ended(_: Request, error: Exception) -> Response:
    return error.response if isinstance(error, Answered) else Response(status_code=500)


async def _refused(_: Request, error: Exception) -> Response:
    faults = error.faults if isinstance(error, Refused) else []
    return Answered(422, *faults).response
