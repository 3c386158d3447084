"""An answer -> json, verbose_json, text, srt or vtt, each with its receipt."""

import html
import math
import urllib.parse
from typing import Any

from starlette.responses import JSONResponse, Response

from hra.serve.http.form import Asked
from hra.serve.interface import Answer

_TYPES = {
  "text": "text/plain",
  "srt": "application/x-subrip; charset=utf-8",
  "vtt": "text/vtt",
}


def response(answer: Answer, asked: Asked, *, language: str) -> Response:
  """An answer as it is asked for."""
  headers = receipt_headers(answer)
  if asked.format == "json":
    return JSONResponse(brief(answer), headers=headers)
  if asked.format == "verbose_json":
    return JSONResponse(
      verbose(answer, asked, language=language), headers=headers
    )
  text = {"text": _text, "srt": srt, "vtt": vtt}[asked.format](answer)
  return Response(text, media_type=_TYPES[asked.format], headers=headers)


def brief(answer: Answer) -> dict[str, Any]:
  return {
    "text": answer.text,
    "usage": _usage(answer),
    "hra": receipt(answer),
  }


def verbose(answer: Answer, asked: Asked, *, language: str) -> dict[str, Any]:
  """With the times that are asked for.

  What Whisper says of its own certainty nobody computes here: it is null.
  """
  told: dict[str, Any] = {
    "task": "transcribe",
    "language": language or "unknown",
    "duration": answer.seconds,
    "text": answer.text,
  }
  if "segment" in asked.granularities:
    told["segments"] = segments(answer)
  if "word" in asked.granularities:
    told["words"] = words(answer)
  return told | {"usage": _usage(answer), "hra": receipt(answer)}


def segments(answer: Answer) -> list[dict[str, Any]]:
  return [
    {
      "id": index,
      "seek": 0,
      "start": _rounded(each.start),
      "end": _rounded(each.end),
      "text": each.text,
      "tokens": [],
      "temperature": 0.0,
      "avg_logprob": None,
      "compression_ratio": None,
      "no_speech_prob": None,
    }
    for index, each in enumerate(answer.segments)
  ]


def words(answer: Answer) -> list[dict[str, Any]]:
  return [
    {
      "word": each.text,
      "start": _rounded(each.start),
      "end": _rounded(each.end),
    }
    for each in answer.words or ()
  ]


def receipt(answer: Answer) -> dict[str, Any]:
  """What it was made with, and where its time went."""
  spent = answer.spent
  return {
    "submodel": answer.receipt.task,
    "applied": answer.receipt.applied,
    "version": answer.receipt.version,
    "fingerprint": answer.receipt.fingerprint,
    "reason": answer.receipt.reason,
    "seconds": {
      "queued": round(spent.queued, 6),
      "loading": round(spent.loading, 6),
      "computing": round(spent.computing, 6),
    },
  }


def receipt_headers(answer: Answer) -> dict[str, str]:
  """The same for formats without a place for it; names are percent-encoded."""
  given = answer.receipt
  headers = {
    "X-Hra-Submodel": given.task and urllib.parse.quote(given.task, safe=""),
    "X-Hra-Applied": given.applied,
    "X-Hra-Version": given.version and str(given.version),
    "X-Hra-Fingerprint": given.fingerprint,
    "X-Hra-Reason": given.reason,
    "Server-Timing": _timing(answer),
  }
  return {name: value for name, value in headers.items() if value}


def srt(answer: Answer) -> str:
  """Numbered subtitles."""
  return "\n".join(
    f"{number}\n{_clock(each.start, ',')} --> {_clock(each.end, ',')}\n"
    f"{_line(each.text)}\n"
    for number, each in enumerate(answer.segments, 1)
  )


def vtt(answer: Answer) -> str:
  """WebVTT."""
  cues = (
    f"\n{_clock(each.start, '.')} --> {_clock(each.end, '.')}\n"
    f"{html.escape(_line(each.text), quote=False)}\n"
    for each in answer.segments
  )
  return "WEBVTT\n" + "".join(cues)


def _text(answer: Answer) -> str:
  return f"{answer.text}\n"


def _line(text: str) -> str:
  """On one line: an empty one would end a subtitle."""
  return " ".join(text.split())


def _usage(answer: Answer) -> dict[str, Any]:
  return {"type": "duration", "seconds": math.ceil(answer.seconds)}


def _timing(answer: Answer) -> str:
  return ", ".join(
    f"{name};dur={1000 * seconds:.1f}"
    for name, seconds in answer.spent._asdict().items()
  )


def _rounded(seconds: float) -> float:
  return round(seconds, 3)


def _clock(seconds: float, mark: str) -> str:
  whole, milliseconds = divmod(round(1000 * seconds), 1000)
  minutes, second = divmod(whole, 60)
  hours, minute = divmod(minutes, 60)
  return f"{hours:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"
