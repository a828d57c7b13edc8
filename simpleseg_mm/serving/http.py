"""Requests and answers: bodies of JSON, whose request it is, waiting, errors in one line."""
import json
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..files import ImageTooLarge
from ..structures import Segmentation
from .engine import Busy, Job

T = TypeVar('T')
MAX_VALUES = 500_000  # of a body of JSON: reading so many takes some tenths of a second
_MAX_MESSAGE = 500  # characters of an error


class Refused(HTTPException):
    """A request that is not done; ``more`` stands beside ``error`` in the answer."""

    def __init__(self, status: int, message: str, **more) -> None:
        super().__init__(status, message)
        self.more = more


def client_of(request: Request) -> str:
    """The client's address; behind a proxy that is trusted, the one that it forwards for."""
    return request.client.host if request.client else ''


async def read_json(request: Request) -> dict:
    """The body, a JSON object. Raises ValueError."""
    return parse_json(await request.body())


def parse_json(raw: bytes) -> dict:
    """A JSON object. Raises ValueError: it is none, or has too many values to be read quickly."""
    if raw.count(b',') > MAX_VALUES:
        raise ValueError(f'the body has more than {MAX_VALUES:,} values; send it in parts')
    try:
        body = json.loads(raw, parse_constant=_no_number)
        if b'\\ud' in raw or b'\\uD' in raw:  # halves of characters cannot be sent back
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError('the body is not JSON') from None
    if not isinstance(body, dict):
        raise ValueError('the body is not a JSON object')
    return body


def _no_number(text: str):
    raise ValueError(f'{text} is not JSON')


async def wait(job: Job, request: Request) -> Segmentation:
    """The answer; the writing ends where the client goes away.

    Raises:
        HTTPException: the model failed (500) or the server stops (503).
    """
    try:
        while True:
            with anyio.move_on_after(0.5):
                event = await job.events.get()
                if event['event'] == 'done':
                    return event['result']
                if event['event'] == 'error':
                    raise HTTPException(500, event['message'])
                continue
            if await request.is_disconnected():
                raise HTTPException(499, 'the client has gone')
    finally:
        job.cancelled = True


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled where the client goes away."""
    result: list[T] = []

    async def watch() -> None:
        while not await request.is_disconnected():
            await anyio.sleep(0.5)
        group.cancel_scope.cancel()
    error = None
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            result.append(await work)
        except Exception as failed:  # as it is: a group would wrap it
            error = failed
        group.cancel_scope.cancel()
    if error is not None:
        raise error
    if not result:
        raise HTTPException(499, 'the client has gone')
    return result[0]


def error_response(request: Request, error: Exception) -> Response:
    """An error as ``{"error": "one line"}`` with its status."""
    status, headers, message = refusal_of(error)
    return JSONResponse(dict(getattr(error, 'more', {}), error=message), status, headers)


def refusal_of(error: Exception) -> tuple[int, dict[str, str], str]:
    """Status, headers and message, in one line, of an error."""
    status, headers, message = 500, {}, str(error)
    if isinstance(error, HTTPException):
        status, headers, message = error.status_code, error.headers or {}, str(error.detail)
    elif isinstance(error, Busy):
        status, headers = error.status, {'retry-after': '2'}
    elif isinstance(error, PermissionError):
        status = 403
    elif isinstance(error, ImageTooLarge):
        status = 413
    elif isinstance(error, ValueError):
        status = 400
    elif isinstance(error, RecursionError):
        status, message = 400, 'the body is nested too deeply'
    else:
        message = f'the server failed: {type(error).__name__}; its log says more'
    message = ' '.join(message.encode('utf-8', 'replace').decode().split())
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + ' ...'
    return status, {**headers, 'x-error': as_reason(message)}, message


def as_reason(message: str) -> str:
    """A message as a header takes it, in ASCII."""
    return re.sub(r'[^ -~]', '?', message)
