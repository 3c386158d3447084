"""POST /v1/audio/transcriptions: a form with a recording -> its transcript."""

import asyncio

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hra.serve import interface
from hra.serve.http import (
  access,
  bounds,
  errors,
  events,
  form,
  formats,
  waiting,
)
from hra.serve.http.form import Asked
from hra.serve.http.held import Held
from hra.serve.http.service import Service, notes_of, service_of


async def transcribe(request: Request) -> Response:
  """Answers with a transcript, whole or as events.

  Raises:
    Refusal, InputError: it isn't answered.
  """
  service = service_of(request)
  key = service.admitted(request)
  try:
    fields = await form.read(request)
  except ClientDisconnect:
    return Response(status_code=errors.GONE)
  named = access.named(
    form.model_of(fields), backbone=service.about.name, key=key
  )
  notes_of(request).task = named.task
  asked = form.asked(
    fields, language=service.about.language, words=service.engine.words
  )
  held = service.samples.hold(bounds.who_of(request.scope))
  progress = events.Progress() if asked.stream else None
  work = asyncio.create_task(
    _heard(service, named.task, fields.file, asked, held, progress)
  )
  # One that is cancelled before it begins never gets to an end of its own.
  work.add_done_callback(lambda _: held.release())
  limit = service.config.limits.answer_seconds
  try:
    if progress is not None:
      return await events.response(
        request, work, progress, named.model, seconds=limit
      )
    answer = await waiting.result_of(work, request.receive, seconds=limit)
  except waiting.Gone:
    return Response(status_code=errors.GONE)
  except interface.UnknownSpeaker:
    raise errors.no_model(named.model) from None
  notes_of(request).answer = answer
  return formats.response(answer, asked, language=service.about.language)


async def _heard(
  service: Service,
  task: str | None,
  file: UploadFile,
  asked: Asked,
  held: Held,
  progress: events.Progress | None,
) -> interface.Answer:
  data = await file.read()
  await file.close()
  wave_S = await service.decoded(data, held)
  del data
  return await service.heard(
    interface.Request(
      wave_S,
      task,
      fallback=asked.fallback,
      guard=asked.guard,
      progress=progress.tell if progress is not None else None,
    ),
    who=held.who,
  )
