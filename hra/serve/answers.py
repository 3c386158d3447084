"""What was heard in the pieces of a recording -> an answer: text, segments, words."""

from collections.abc import Callable, Sequence

from hra.backbone.store import StoredBackbone
from hra.config import EngineConfig
from hra.dims import SAMPLE_RATE
from hra.evaluate import long, stitching
from hra.evaluate.long import Cutting
from hra.evaluate.segments import Segment, spans
from hra.evaluate.words import Word, moments, segments, words
from hra.serve.batching import Job
from hra.serve.certain import Certain
from hra.serve.interface import Answer, Receipt, Spent

_Said = tuple[str, list[Segment], list[Word] | None]


class Answers:
  """Of one backbone."""

  def __init__(
    self,
    stored: StoredBackbone,
    config: EngineConfig,
    *,
    cutting: Cutting | None,
    emits: bool,
  ):
    """
    Args:
      emits: whether pieces are heard with their frames.
    """
    self._decoder = stored.config.decoder
    self._decode: Callable[[Sequence[int]], str] = stored.tokenizer.decode
    self._unit = long.frame_samples(stored)
    self._config, self._cutting, self._emits = config, cutting, emits

  def of(self, job: Job, *, now: float) -> Answer:
    """The answer to a request all of whose pieces are heard."""
    seconds = len(job.request.wave_S) / SAMPLE_RATE
    say = self._by_frames if self._emits else self._by_labels
    text, found, spoken = say(job, seconds)
    queued = now - job.submitted - job.loading - job.computing
    return Answer(
      text=text,
      seconds=seconds,
      segments=found,
      words=spoken,
      receipt=receipt(job),
      spent=Spent(max(queued, 0.0), job.loading, job.computing),
    )

  def certain(self, job: Job) -> Certain | None:
    """What tells the progress of a request, where it asks and there is any."""
    tell = job.request.progress
    if tell is None or self._cutting is None or len(job.pieces) == 1:
      return None
    return Certain(
      job.pieces,
      job.heard,
      tell,
      way=self._cutting.way,
      unit=self._unit,
      decode=self._spell,
    )

  def _by_frames(self, job: Job, seconds: float) -> _Said:
    said = long.said_of(job.pieces, job.heard, self._unit)
    path = self._decoder.kind == "ctc"
    labels = said.labels.tolist()
    text = self._decode(stitching.collapsed(labels) if path else labels)
    spoken = words(
      moments(said, path=path),
      self._decode,
      frame=self._unit / SAMPLE_RATE,
      seconds=seconds,
    )
    parts = segments(
      spoken,
      pause=self._config.pause_seconds,
      longest=self._config.segment_seconds,
    )
    return text, parts, spoken

  def _by_labels(self, job: Job, seconds: float) -> _Said:
    labels = self._labels(job)
    text = self._spell(labels)
    if self._decoder.timestamps:
      found = [
        Segment(each.start, each.end, self._decode(each.labels))
        for each in spans(labels, self._decoder, seconds=seconds)
      ]
    else:
      found = [Segment(0.0, seconds, text)] if text else []
    return text, found, None

  def _spell(self, labels: Sequence[int]) -> str:
    """The text of labels, between which times may stand."""
    first = self._decoder.first_time
    return self._decode([each for each in labels if not first or each < first])

  def _labels(self, job: Job) -> list[int]:
    if self._cutting is not None and len(job.pieces) > 1:
      way = self._cutting.way
      return way.stitch(job.pieces, job.heard, self._unit)
    (heard,) = job.heard
    return heard.labels_U[: heard.length].tolist()


def receipt(job: Job) -> Receipt:
  """What a request was, or is going to be, answered with."""
  task = job.request.task
  if job.row is None:
    return Receipt(task, "backbone", None, None, job.reason)
  return Receipt(task, "submodel", job.row.version, job.row.fingerprint, None)
