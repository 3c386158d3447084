"""Routes of who administrates: load, unload, who is resident."""

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from hra.serve import interface
from hra.serve.http import access, errors, waiting
from hra.serve.http.service import (
  Service,
  future_of,
  notes_of,
  service_of,
)

_LONGEST = 16 * 1024


async def load(request: Request) -> JSONResponse:
  """Brings the current version of a Submodel to the device."""
  service = _admitted(request)
  task = await _task(request)
  try:
    loaded = await waiting.result_of(
      asyncio.create_task(future_of(lambda: service.engine.load(task))),
      request.receive,
      seconds=service.config.limits.answer_seconds,
    )
  except interface.UnknownSpeaker:
    raise errors.no_model(task) from None
  return JSONResponse(loaded._asdict())


async def unload(request: Request) -> JSONResponse:
  """Takes a Submodel off the device and out of memory."""
  service = _admitted(request)
  task = await _task(request)
  return JSONResponse({"task": task, "unloaded": service.engine.unload(task)})


async def resident(request: Request) -> JSONResponse:
  """Who is on the device, the latest used first."""
  service = _admitted(request)
  data = [each._asdict() for each in service.engine.resident()]
  return JSONResponse({"object": "list", "data": data})


def _admitted(request: Request) -> Service:
  service = service_of(request)
  access.check_admin(service.admitted(request))
  return service


async def _task(request: Request) -> str:
  """Whose name the body says, as {"task": "NAME"}."""
  data = bytearray()
  async for chunk in request.stream():
    data += chunk
    if len(data) > _LONGEST:
      raise errors.Refusal(413, "The body is too long.", code="too_long")
  try:
    told: Any = json.loads(data)
  except (ValueError, RecursionError):
    told = None
  task = told.get("task") if isinstance(told, dict) else None
  if not errors.is_name(task):
    raise errors.bad_field("task", 'expected {"task": "NAME"}')
  notes_of(request).task = task
  return task
