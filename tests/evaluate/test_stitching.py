"""Pieces of a recording, and what was said in all of it."""

import itertools

import numpy as np
import pytest

from hra.data.cutting import cut
from hra.evaluate import stitching
from hra.evaluate.stitching import Overlap, Said

UNIT = 640


@pytest.mark.parametrize("units", [10, 21, 22, 33, 100])
@pytest.mark.parametrize(("size", "overlap"), [(20, 0), (20, 6), (12, 6)])
@pytest.mark.parametrize("rest", [0, 1, 639])
def test_pieces_cover_a_recording(units, size, overlap, rest):
  samples = units * UNIT + rest
  pieces = cut(samples, size=size * UNIT, overlap=overlap * UNIT, unit=UNIT)
  assert pieces[0].start == 0
  assert pieces[-1].stop == samples
  if samples <= size * UNIT:
    assert len(pieces) == 1
    return
  for piece in pieces:
    assert piece.start % UNIT == 0
    assert 0 <= size * UNIT - (piece.stop - piece.start) < UNIT
  for before, after in itertools.pairwise(pieces):
    assert before.start < after.start
    assert before.stop - after.start >= overlap * UNIT - UNIT + 1
  for before, after in itertools.pairwise(pieces[:-1]):
    assert before.stop - after.start == overlap * UNIT
  tighter = (samples - size * UNIT) / ((size - overlap) * UNIT)
  assert len(pieces) == 1 + np.ceil(tighter)


def _pieces(frames, size, overlap):
  pieces = cut(frames, size=size, overlap=overlap, unit=1)
  overlaps = [
    Overlap(after.start, before.stop)
    for before, after in itertools.pairwise(pieces)
  ]
  return pieces, overlaps


def _labels(said, overlaps):
  """Those that stay, at frames of pieces that said them there."""
  kept = stitching.by_frames(said, overlaps)
  heard = {pair for each in said for pair in zip(*map(list, each), strict=True)}
  assert heard >= set(zip(*map(list, kept), strict=True))
  return kept.labels.tolist()


def _heard(labels, frames, piece):
  """What is said in a piece by one who hears it there as in the whole."""
  own = (piece.start <= frames) & (frames < piece.stop)
  return Said(labels[own], frames[own])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dense", [0.1, 0.7, 1.0])
def test_any_cut_of_a_path_collapses_as_the_whole(seed, dense):
  """Runs of labels lie across seams, blanks between equal ones beside them."""
  rng = np.random.default_rng(seed)
  frames = np.arange(rng.integers(30, 200))
  path = rng.integers(1, 3, len(frames)) * (rng.random(len(frames)) < dense)
  size = int(rng.integers(8, 40))
  pieces, overlaps = _pieces(
    len(frames), size, int(rng.integers(0, size // 2 + 1))
  )
  said = [_heard(path, frames, piece) for piece in pieces]
  kept = _labels(said, overlaps)
  assert kept == path.tolist()
  expected = [
    label
    for label, before in zip(path, [0, *path[:-1]], strict=True)
    if label and label != before
  ]
  assert stitching.collapsed(kept) == expected


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_of_a_transducer_says_what_the_whole_says(seed):
  """Of a frame several labels, equal ones, or none."""
  rng = np.random.default_rng(seed)
  count = int(rng.integers(0, 120))
  frames = np.sort(rng.integers(0, 150, count))
  labels = rng.integers(1, 4, count)
  size = int(rng.integers(8, 60))
  pieces, overlaps = _pieces(150, size, int(rng.integers(0, size // 2 + 1)))
  said = [_heard(labels, frames, piece) for piece in pieces]
  assert _labels(said, overlaps) == labels.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_what_pieces_make_certain_stays(seed):
  """Whatever the next ones say; each tells what it may, which is of its own too."""
  rng = np.random.default_rng(seed)
  pieces, overlaps = _pieces(200, 40, int(rng.integers(4, 20)))
  said = []
  for piece in pieces:  # nothing of what neighbours say is alike
    frames = np.arange(piece.start, piece.stop)
    said.append(Said(rng.integers(0, 3, len(frames)), frames))
  whole = stitching.by_frames(said, overlaps)
  count = 0
  for heard, new in enumerate(
    stitching.settled_by_frames(iter(said), overlaps)
  ):
    own = slice(count, count + len(new.frames))
    np.testing.assert_array_equal(new.frames, whole.frames[own])
    np.testing.assert_array_equal(new.labels, whole.labels[own])
    count = own.stop
    if heard < len(overlaps):
      assert whole.frames[count - 1] >= overlaps[heard].start
    for _ in range(3):  # what comes later is no matter
      later = [
        each
        if place <= heard
        else Said(rng.integers(0, 3, len(each.frames)), each.frames)
        for place, each in enumerate(said)
      ]
      other = stitching.by_frames(later, overlaps)
      np.testing.assert_array_equal(other.labels[:count], whole.labels[:count])
  assert count == len(whole.frames)


@pytest.mark.parametrize("seed", range(20))
def test_what_labels_make_certain_stays(seed):
  rng = np.random.default_rng(seed)
  _, said, shared = _overheard(rng, garbled=False)
  for each in said:
    for place in rng.choice(len(each), len(each) // 5, replace=False):
      each[place] = int(rng.integers(60, 90))
  whole = stitching.by_labels(said, shared)
  told: list[int] = []
  for place, new in enumerate(
    stitching.settled_by_labels(iter(said), shared), 1
  ):
    told += new
    assert told == whole[: len(told)]
    if place < len(said):
      later = [rng.integers(1, 60, len(each)).tolist() for each in said[place:]]
      other = stitching.by_labels([*said[:place], *later], shared)
      assert told == other[: len(told)]
      assert len(told) > 0.3 * sum(map(len, said[:place]))
  assert told == whole


def test_seams_never_go_back():
  """The last piece begins almost where the one before does, and is quiet early."""
  pieces, overlaps = _pieces(31, 20, 10)
  assert [piece.start for piece in pieces] == [0, 10, 11]
  first, last = np.arange(1, 17), np.arange(16, 31)
  nothing = np.zeros(0, int)
  said = [Said(first, first), Said(nothing, nothing), Said(last, last)]
  assert _labels(said, overlaps) == [*range(1, 17), *range(18, 31)]


def _said(*pairs):
  labels, frames = zip(*pairs, strict=True)
  return Said(np.array(labels), np.array(frames))


def test_a_label_that_both_hear_a_frame_apart_is_said_once():
  """Before the pause or after it: never twice, never not at all."""
  overlap = Overlap(100, 120)
  for first, second in ((110, 111), (111, 110), (109, 110), (110, 109)):
    said = [
      _said((1, 80), (2, first), (3, 118)),
      _said((2, second), (3, 118), (4, 130)),
    ]
    assert _labels(said, [overlap]) == [1, 2, 3, 4]


def test_a_run_across_a_seam_is_one_label_however_long_either_hears_it():
  """Of 20 frames that both say the same in, none is a pause."""
  frames = np.arange(100, 120)
  first = Said(np.full(20, 5), frames)
  second = Said(np.full(30, 5), np.arange(100, 130))
  path = _labels([first, second], [Overlap(100, 120)])
  assert path == [5] * 30
  assert stitching.collapsed(path) == [5]


def test_seams_leave_a_quarter_of_the_overlap_on_either_side():
  """What a piece says at its edge, where it has no context, is never kept."""
  edges = Said(np.array([9, 9]), np.array([100, 119]))
  middle = [*zip([7] * 20, range(100, 120), strict=True)]
  for said in ([_said(*middle), edges], [edges, _said(*middle)]):
    kept = _labels(said, [Overlap(100, 120)])
    assert kept.count(9) == 1
    assert 5 <= kept.count(7) <= 15


def test_the_seam_is_where_both_are_quiet():
  first = _said((1, 100), (2, 108), (8, 115))
  second = _said((9, 104), (2, 108), (3, 115))
  # Between 108 and 115 both are; what either says beyond is no matter.
  assert _labels([first, second], [Overlap(96, 124)]) == [1, 2, 3]


@pytest.mark.parametrize(
  ("path", "labels"),
  [
    ([], []),
    ([0, 0], []),
    ([1, 1, 0, 1, 2, 2, 0], [1, 1, 2]),
    ([3], [3]),
  ],
)
def test_paths_collapse(path, labels):
  assert stitching.collapsed(path) == labels
  for place in range(1, len(path)):
    first = stitching.collapsed(path[:place])
    assert [
      *first,
      *stitching.collapsed(path[place:], after=path[place - 1]),
    ] == labels


def _overheard(rng, *, garbled):
  """(what is said, what pieces hear of it, their common parts)."""
  whole = rng.integers(1, 60, rng.integers(60, 200)).tolist()
  pieces, _ = _pieces(len(whole), 40, 12)
  said = [whole[piece.start : piece.stop] for piece in pieces]
  for each in said:
    for edge in (0, -1) if garbled else ():
      each[edge] = int(rng.integers(60, 90))
  shared = [
    (before.stop - after.start) / (before.stop - before.start)
    for before, after in itertools.pairwise(pieces)
  ]
  return whole, said, shared


@pytest.mark.parametrize("garbled", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_labels_meet_in_what_both_pieces_say(seed, garbled):
  """Also where a word is cut at either edge of a piece."""
  rng = np.random.default_rng(seed)
  whole, said, shared = _overheard(rng, garbled=garbled)
  found = stitching.by_labels(said, shared)
  kept = slice(1, -1) if garbled else slice(None)  # of the whole's own edges
  assert found[kept] == whole[kept]


def test_without_anything_in_common_nothing_is_lost():
  assert stitching.by_labels([[1, 2], [3, 4]], [0.5]) == [1, 2, 3, 4]
  assert stitching.by_labels([[1, 2], [], [5]], [0.5, 0.5]) == [1, 2, 5]
  assert stitching.by_labels([[7]], []) == [7]
  assert stitching.by_labels([], []) == []


def test_a_pause_is_no_place_to_meet_in_a_common_word():
  """Nothing was said twice, but `the` stands on either side."""
  first = [
    "we",
    "looked",
    "at",
    "all",
    "of",
    "the",
    "rooms",
    "one",
    "by",
    "one",
    "before",
    "lunch",
  ]
  second = [
    "so",
    "later",
    "he",
    "called",
    "the",
    "doctor",
    ",",
    "who",
    "was",
    "in",
    "town",
  ]
  words = sorted({*first, *second})
  said = [[words.index(word) for word in each] for each in (first, second)]
  found = stitching.by_labels(said, [0.4])
  assert [words[label] for label in found] == [*first, *second]


@pytest.mark.parametrize("seed", range(10))
def test_mistakes_in_what_both_say_are_no_obstacle(seed):
  """One label in ten is heard otherwise in one of two pieces."""
  rng = np.random.default_rng(seed)
  whole, said, shared = _overheard(rng, garbled=False)
  for each in said[::2]:
    for place in rng.choice(len(each), len(each) // 10, replace=False):
      each[place] = int(rng.integers(60, 90))
  found = stitching.by_labels(said, shared)
  assert len(found) == len(whole)
  wrong = sum(ours != theirs for ours, theirs in zip(found, whole, strict=True))
  assert wrong <= len(whole) / 10


def test_a_refrain_far_from_the_overlap_is_no_seam():
  """What is said in common is sought where the pieces overlap."""
  refrain = [1, 2, 3, 4, 5]
  first = [*refrain, *range(20, 40), 8, 9]
  second = [8, 9, *range(40, 60), *refrain]
  found = stitching.by_labels([first, second], [0.1])
  assert found == [*first, *second[2:]]
