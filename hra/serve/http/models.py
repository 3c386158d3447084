"""GET /v1/models: the backbone, and the speakers that a key may use."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from hra.serve.http import access, errors, waiting
from hra.serve.http.service import About, notes_of, service_of


async def list_models(request: Request) -> JSONResponse:
  service = service_of(request)
  key = service.admitted(request)
  tasks = await _tasks(request)
  listed = [None, *(task for task in tasks if key.may_use(task))]
  data = [_model(service.about, task) for task in listed]
  return JSONResponse({"object": "list", "data": data})


async def get_model(request: Request) -> JSONResponse:
  service = service_of(request)
  key = service.admitted(request)
  named = access.named(
    request.path_params["model"], backbone=service.about.name, key=key
  )
  notes_of(request).task = named.task
  if named.task is not None and named.task not in await _tasks(request):
    raise errors.no_model(named.model)
  return JSONResponse(_model(service.about, named.task))


async def _tasks(request: Request) -> list[str]:
  """As long as the client waits for them; the listing itself knows how long."""
  work = asyncio.create_task(service_of(request).listing.tasks())
  return await waiting.result_of(work, request.receive)


def _model(about: About, task: str | None) -> dict[str, Any]:
  return {
    "id": about.name if task is None else f"{about.name}:{task}",
    "object": "model",
    "created": about.created,
    "owned_by": "hra",
  }
