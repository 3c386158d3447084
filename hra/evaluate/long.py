"""How a recording too long for one piece is heard, by kind of decoder.

In: a backbone and `ChunksConfig`. Out: pieces of recordings, and labels of all of one
from what was heard in its pieces.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hra.backbone.store import StoredBackbone
from hra.config import ChunksConfig, DecoderConfig
from hra.data.cutting import Piece, cut
from hra.decoders.interface import BLANK, Emissions, Labels
from hra.dims import SAMPLE_RATE
from hra.evaluate import stitching
from hra.evaluate.segments import Span, joined, spans, timed
from hra.evaluate.stitching import Overlap, Said
from hra.evaluate.transcribe import emitted

Hear = Callable[..., Any]
"""Batches, as `hra.evaluate.transcribe.greedy`."""
Run = Callable[[Hear, Sequence[np.ndarray], Sequence[Any]], list[Any]]
"""(what hears, waveforms, a Submodel or none for each) -> what is heard in each."""
Stitch = Callable[[Sequence[Piece], Sequence[Any], int], list[int]]
"""(pieces, what was heard in each, samples of a frame) -> labels."""
Settle = Callable[[Sequence[Piece], Iterable[Any], int], Iterator[list[int]]]
"""Likewise, one by one: labels, without times, that each makes certain that were not
before; together, the labels of the whole."""


class Way(NamedTuple):
  """How a kind of decoder hears a recording piece by piece."""

  hear: Hear | None
  """None is whatever hears shorter ones."""
  stitch: Stitch
  settle: Settle


class Cutting(NamedTuple):
  """Of all recordings of a backbone, in samples."""

  size: int
  overlap: int
  unit: int
  """Of a frame of the encoder."""
  batch: int
  """Pieces that are run together."""
  way: Way

  def pieces(self, samples: int) -> list[Piece]:
    return cut(samples, size=self.size, overlap=self.overlap, unit=self.unit)


def cutting(
  stored: StoredBackbone, config: ChunksConfig, *, greedy: bool
) -> Cutting | None:
  """None where recordings stay in one piece, however long.

  Args:
    greedy: whether the search is; another knows no frames.
  """
  way = _way(stored.config.decoder)
  if way is None or not config.seconds or not (greedy or way.hear is None):
    return None
  unit = frame_samples(stored)
  size, overlap = (
    max(int(seconds * SAMPLE_RATE) // unit, least) * unit
    for seconds, least in ((config.seconds, 2), (config.overlap, 0))
  )
  if stored.config.encoder == "transformer":  # it hears no more at once
    size = min(size, stored.config.transformer.frames * unit)
  return Cutting(size, min(overlap, size // 2), unit, config.batch, way)


def frame_samples(stored: StoredBackbone) -> int:
  """Samples from one frame of the encoder to the next."""
  hop = stored.frontend.hop_length * stored.frontend.stack
  return hop * 2**stored.config.subsampling_halvings


def labels(
  run: Run,
  hear: Hear,
  waves: Sequence[np.ndarray],
  submodels: Sequence[Any],
  *,
  cutting: Cutting | None,
) -> list[list[int]]:
  """Of recordings, of which those that are too long are heard piece by piece.

  Args:
    hear: what hears those that aren't.
  """
  places: tuple[list[int], list[int]] = ([], [])
  for index, wave in enumerate(waves):
    places[cutting is not None and len(wave) > cutting.size].append(index)
  short, long = (
    ([waves[i] for i in each], [submodels[i] for i in each]) for each in places
  )
  said = run(hear, *short)
  found = [each.labels_U[: each.length].tolist() for each in said]
  if cutting is not None:
    found += _of_pieces(run, cutting.way.hear or hear, *long, cutting)
  by_index = dict(zip(places[0] + places[1], found, strict=True))
  return [by_index[index] for index in range(len(waves))]


def _of_pieces(
  run: Run,
  hear: Hear,
  waves: Sequence[np.ndarray],
  submodels: Sequence[Any],
  cutting: Cutting,
) -> list[list[int]]:
  """Pieces are run together, whoever's they are."""
  cut_up = [cutting.pieces(len(wave)) for wave in waves]
  places = [(i, piece) for i, pieces in enumerate(cut_up) for piece in pieces]
  found: list[list[Any]] = [[] for _ in waves]
  for start in range(0, len(places), cutting.batch):
    batch = places[start : start + cutting.batch]
    # Filled up: one compiled program serves all.
    missing = cutting.batch - len(batch) if start else 0
    filled = batch + batch[:1] * missing
    said = run(
      hear,
      [waves[i][piece.start : piece.stop] for i, piece in filled],
      [submodels[i] for i, _ in filled],
    )
    for (i, _), each in zip(batch, said, strict=False):
      found[i].append(each)
  return [
    cutting.way.stitch(pieces, each, cutting.unit)
    for pieces, each in zip(cut_up, found, strict=True)
  ]


def said_of(
  pieces: Sequence[Piece], heard: Sequence[Emissions], unit: int
) -> Said:
  """What is said in all of a recording, and at which of its frames."""
  return stitching.by_frames(
    [*_said(pieces, heard, unit)], _overlaps(pieces, unit)
  )


def _said(
  pieces: Sequence[Piece], heard: Iterable[Emissions], unit: int
) -> Iterator[Said]:
  for piece, each in zip(pieces, heard, strict=True):
    yield Said(
      np.asarray(each.labels_U)[: int(each.length)],
      np.asarray(each.frame_U)[: int(each.length)] + piece.start // unit,
    )


def _overlaps(pieces: Sequence[Piece], unit: int) -> list[Overlap]:
  return [
    Overlap(after.start // unit, before.stop // unit)
    for before, after in itertools.pairwise(pieces)
  ]


def _by_frames(
  pieces: Sequence[Piece], heard: Sequence[Emissions], unit: int
) -> list[int]:
  return said_of(pieces, heard, unit).labels.tolist()


def _frames_settled(
  pieces: Sequence[Piece], heard: Iterable[Emissions], unit: int
) -> Iterator[list[int]]:
  for said in stitching.settled_by_frames(
    _said(pieces, heard, unit), _overlaps(pieces, unit)
  ):
    yield said.labels.tolist()


def _by_path(
  pieces: Sequence[Piece], heard: Sequence[Emissions], unit: int
) -> list[int]:
  return stitching.collapsed(_by_frames(pieces, heard, unit))


def _path_settled(
  pieces: Sequence[Piece], heard: Iterable[Emissions], unit: int
) -> Iterator[list[int]]:
  last = BLANK
  for path in _frames_settled(pieces, heard, unit):
    yield stitching.collapsed(path, after=last)
    last = path[-1] if path else last


def _by_labels(
  pieces: Sequence[Piece], heard: Sequence[Labels], unit: int
) -> list[int]:
  return [*itertools.chain.from_iterable(_labels_settled(pieces, heard, unit))]


def _labels_settled(
  pieces: Sequence[Piece], heard: Iterable[Labels], unit: int
) -> Iterator[list[int]]:
  del unit
  said = (each.labels_U[: each.length].tolist() for each in heard)
  return stitching.settled_by_labels(said, _shared(pieces))


def _by_times(
  pieces: Sequence[Piece],
  heard: Sequence[Labels],
  unit: int,
  *,
  config: DecoderConfig,
) -> list[int]:
  """As by labels, between which times stand.

  Times of the recording are labels like those of a piece; there is no end of them.
  """
  del unit
  found = [*_spans(pieces, heard, config)]
  kept = stitching.kept([*map(_spoken, found)], _shared(pieces))
  return [
    label for span in joined(found, kept) for label in timed(span, config)
  ]


def _times_settled(
  pieces: Sequence[Piece],
  heard: Iterable[Labels],
  unit: int,
  *,
  config: DecoderConfig,
) -> Iterator[list[int]]:
  del unit
  said = map(_spoken, _spans(pieces, heard, config))
  return stitching.settled_by_labels(said, _shared(pieces))


def _spans(
  pieces: Sequence[Piece], heard: Iterable[Labels], config: DecoderConfig
) -> Iterator[list[Span]]:
  """Of each piece, at times of the recording."""
  for piece, each in zip(pieces, heard, strict=True):
    labels = each.labels_U[: each.length].tolist()
    seconds = (piece.stop - piece.start) / SAMPLE_RATE
    own = spans(labels, config, seconds=seconds)
    yield [span.later(piece.start / SAMPLE_RATE) for span in own]


def _spoken(own: Sequence[Span]) -> list[int]:
  return [label for span in own for label in span.labels]


def _shared(pieces: Sequence[Piece]) -> list[float]:
  """Part of each piece that it has in common with the next."""
  return [
    (before.stop - after.start) / (before.stop - before.start)
    for before, after in itertools.pairwise(pieces)
  ]


_TRANSDUCER = Way(emitted, _by_frames, _frames_settled)
WAYS: dict[str, Way] = {
  "ctc": Way(emitted, _by_path, _path_settled),
  "rnnt": _TRANSDUCER,
  "tdt": _TRANSDUCER,
}
"""By kind of decoder; LAS doesn't say where it is: its recordings stay whole."""


def _way(config: DecoderConfig) -> Way | None:
  if config.kind != "transformer":
    return WAYS.get(config.kind)
  if config.timestamps:
    return Way(
      None,
      functools.partial(_by_times, config=config),
      functools.partial(_times_settled, config=config),
    )
  return Way(None, _by_labels, _labels_settled)
