"""Who is heard together: the oldest always, little padding, no more than fits."""

import time
from concurrent.futures import Future

import numpy as np
import pytest

from hra.data.cutting import Piece
from hra.serve.batching import Item, Job, bucket_of, choose, places_for
from hra.serve.interface import Overloaded, Request
from hra.serve.programs import Sizes
from hra.serve.queue import Queue
from hra.serve.reading import Row

SIZES = Sizes(buckets=(10, 20, 40), batches=(1, 4, 16), slots=3)


def _row(task, kind="kind"):
  return Row(task, 1, task, False, kind, {}, 0, 0.0, 0.0)


def _job(*samples, row=None):
  stops = np.cumsum(samples).tolist()
  pieces = [Piece(b - n, b) for b, n in zip(stops, samples, strict=True)]
  return Job(
    request=Request(np.zeros(sum(samples), np.float32), None),
    future=Future(),
    pieces=pieces,
    heard=[None] * len(pieces),
    submitted=time.monotonic(),
    row=row,
  )


def _items(*samples, rows=None):
  rows = rows or [None] * len(samples)
  return [
    Item(_job(n, row=row), 0, bucket_of(n, SIZES.buckets))
    for n, row in zip(samples, rows, strict=True)
  ]


@pytest.mark.parametrize(
  ("count", "places"),
  [(1, 1), (2, 4), (4, 4), (5, 4), (7, 4), (8, 16), (16, 16), (90, 16)],
)
def test_a_batch_is_half_full_at_least(count, places):
  assert places_for(count, SIZES.batches) == places


def test_buckets_hold_what_they_say():
  found = [bucket_of(n, SIZES.buckets) for n in (0, 10, 11, 40)]
  assert found == [10, 10, 20, 40]


def test_the_oldest_is_in_every_batch_and_none_longer_with_it():
  items = _items(15, 40, 5, 20, 33)
  batch = choose(items, SIZES)
  assert batch.items[0] is items[0]
  assert batch.samples == 20
  assert set(batch.items) == {items[0], items[2], items[3]}
  assert batch.places == 4


def test_much_shorter_ones_make_no_batch_larger_but_fill_it():
  items = _items(40, 40, 5, 5, 5, 5, 5, 5, 5, 5)
  batch = choose(items, SIZES)
  assert batch.places == 4
  assert batch.items == items[:4]
  assert choose(_items(40, 5, 5), SIZES).places == 1


def test_no_more_submodels_than_slots_of_a_kind():
  rows = [_row(f"p{i}") for i in range(5)]
  others = [_row(f"q{i}", "other kind") for i in range(3)]
  items = _items(*[10] * 12, rows=[*rows, *others, rows[0], None, *rows[:2]])
  batch = choose(items, SIZES)
  heard = [item.job.row for item in batch.items]
  assert not {rows[3], rows[4]} & set(heard)
  assert len(batch.items) == 10
  rest = choose([item for item in items if item not in batch.items], SIZES)
  assert [item.job.row for item in rest.items] == rows[3:]


def _drain(queue):
  while batch := queue.take():
    yield batch
    queue.follow(batch)


def test_a_long_recording_starves_nobody():
  queue = Queue(SIZES, most=100)
  long, short = _job(*[40] * 30), [_job(40) for _ in range(20)]
  for job in [long, *short]:
    queue.admit(job)
    queue.line_up(job)
  heard = [item.job for batch in _drain(queue) for item in batch.items]
  assert heard.count(long) == 30
  last_short = max(i for i, job in enumerate(heard) if job is not long)
  assert last_short < 8 + 20 + 16
  places = [i for i, job in enumerate(heard) if job is long]
  assert places[-1] == len(heard) - 1
  assert queue.waiting == 0


def test_pieces_are_heard_in_order_and_once():
  queue = Queue(SIZES, most=100)
  job = _job(*[40] * 21)
  queue.admit(job)
  queue.line_up(job)
  places = [item.place for batch in _drain(queue) for item in batch.items]
  assert places == list(range(21))


def test_the_queue_is_bounded_and_who_leaves_makes_room():
  queue = Queue(SIZES, most=5)
  first, second = _job(5, 5, 5), _job(5)
  queue.admit(first)
  queue.line_up(first)
  queue.admit(second)
  with pytest.raises(Overloaded, match="at most 5"):
    queue.admit(_job(5, 5))
  assert queue.waiting == 4
  assert queue.end(first)
  assert not queue.end(first)
  assert queue.waiting == 1
  assert queue.take() is None
  queue.admit(_job(5, 5, 5, 5))
