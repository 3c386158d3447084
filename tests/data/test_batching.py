import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hra.data import batching
from hra.data.batching import JointPlan, TaskStream, bucket_bounds
from hra.errors import InputError

BOUNDS = (10, 20, 40)
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=40)


def stream(name="alice", *, samples, size=4, seed=0, bounds=BOUNDS):
  return TaskStream(
    name,
    samples=np.asarray(samples, np.int64),
    bounds=bounds,
    utterances_per_batch=size,
    seed=seed,
  )


def random_streams(count, *, buckets, size=8, seed=0, spread=0.3):
  """Tasks of 5 to 600 utterances; each speaks at its own pace."""
  rng = np.random.default_rng(seed)
  tasks = []
  for _ in range(count):
    n = int(np.clip(rng.lognormal(np.log(80), 0.7), 5, 600))
    seconds = rng.lognormal(np.log(4) + spread * rng.normal(), 0.4, n)
    tasks.append((np.clip(seconds, 1, 25) * 16_000).astype(np.int64))
  bounds = bucket_bounds(np.concatenate(tasks), count=buckets)
  return [
    stream(f"speaker-{i}", samples=own, size=size, bounds=bounds)
    for i, own in enumerate(tasks)
  ]


def padded(samples, bounds):
  return sum(min(b for b in bounds if b >= n) for n in samples)


@given(
  st.lists(st.integers(1, 60), min_size=1, max_size=20),
  st.integers(1, 4),
  st.sampled_from([1, 4]),
)
@settings(max_examples=60, deadline=None)
def test_bounds_pad_least_of_all_choices(samples, count, multiple):
  bounds = bucket_bounds(np.asarray(samples), count=count, multiple=multiple)
  candidates = sorted({-(-n // multiple) * multiple for n in samples})
  best = min(
    padded(samples, choice)
    for k in range(1, count + 1)
    for choice in itertools.combinations(candidates, min(k, len(candidates)))
    if choice[-1] == candidates[-1]
  )
  assert padded(samples, bounds) == best
  assert len(bounds) <= count
  assert list(bounds) == sorted(set(bounds))
  assert all(bound % multiple == 0 for bound in bounds)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_every_utterance_once_an_epoch(samples, size, seed):
  task = stream(samples=samples, size=size, seed=seed)
  assert task.minibatches_per_epoch == -(-len(samples) // size)
  buckets = task.buckets()
  for epoch in range(3):
    start = epoch * task.minibatches_per_epoch
    seen = []
    for own_step in range(start, start + task.minibatches_per_epoch):
      bucket, indices_B = task.minibatch(own_step)
      assert bucket == next(buckets)
      assert len(indices_B) == size
      chosen = indices_B[indices_B >= 0]
      assert len(chosen) > 0
      assert max(samples[i] for i in chosen) <= BOUNDS[bucket]
      seen.extend(chosen.tolist())
    assert sorted(seen) == list(range(len(samples)))


@given(LENGTHS, st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_only_what_does_not_fill_a_minibatch_is_promoted(samples, size):
  """Per bucket fewer than B leave; the partly empty one is not promoted."""
  task = stream(samples=samples, size=size)
  steps = [task.minibatch(i) for i in range(task.minibatches_per_epoch)]
  own = np.searchsorted(BOUNDS, samples)
  for bucket in range(len(BOUNDS)):
    above = [s.indices_B[s.indices_B >= 0] for s in steps if s.bucket > bucket]
    promoted = sum(int(np.sum(own[chosen] <= bucket)) for chosen in above)
    assert promoted < size
  partial = [s.bucket for s in steps if np.any(s.indices_B < 0)]
  rest = len(samples) % size
  smallest = [b for b in range(3) if np.sum(own <= b) >= rest]
  assert partial == ([smallest[0]] if rest else [])


def test_minibatches_are_random_access_and_differ_by_epoch_seed_and_name():
  samples = np.arange(1, 41)
  forward = stream(samples=samples)
  taken = [forward.minibatch(i) for i in range(30)]
  backward = stream(samples=samples)
  for i in reversed(range(30)):
    again = backward.minibatch(i)
    assert again.bucket == taken[i].bucket
    np.testing.assert_array_equal(again.indices_B, taken[i].indices_B)

  def epoch(task, index):
    steps = [task.minibatch(10 * index + i) for i in range(10)]
    return {frozenset(step.indices_B.tolist()) for step in steps}

  first = epoch(forward, 0)
  assert first != epoch(forward, 1)
  assert first != epoch(stream(samples=samples, seed=1), 0)
  assert first != epoch(stream("bob", samples=samples), 0)


def test_tasks_with_like_data_visit_buckets_in_one_order():
  samples = np.arange(1, 41)
  alice, bob = stream(samples=samples), stream("bob", samples=samples)
  orders = [list(itertools.islice(task.buckets(), 50)) for task in (alice, bob)]
  assert orders[0] == orders[1]
  assert orders[0][:10] != orders[0][10:20]


def test_buckets_are_interleaved_evenly():
  order = list(itertools.islice(stream(samples=[5, 15] * 200).buckets(), 100))
  runs = [len(list(run)) for _, run in itertools.groupby(order)]
  assert max(runs) <= 2


@given(
  st.lists(LENGTHS, min_size=1, max_size=8),
  st.integers(1, 5),
  st.integers(0, 12),
)
@settings(max_examples=60, deadline=None)
def test_every_task_gets_exactly_its_steps_in_order(tasks, places, steps):
  streams = [stream(f"t{i}", samples=own) for i, own in enumerate(tasks)]
  plan = JointPlan(streams, steps_per_task=steps, tasks_per_batch=places)
  progress = [0] * len(tasks)
  for bucket, chosen in plan:
    assert 1 <= len(chosen) <= places
    assert len({task for task, _ in chosen}) == len(chosen)
    for task, own_step in chosen:
      assert own_step == progress[task]
      assert streams[task].minibatch(own_step).bucket == bucket
      progress[task] += 1
  assert progress == [steps] * len(tasks)
  assert plan.fill() == pytest.approx(
    len(tasks) * steps / (len(plan) * places) if steps else 1.0
  )


def test_steps_may_differ_by_task():
  streams = [stream(f"t{i}", samples=[5, 15, 35]) for i in range(3)]
  plan = JointPlan(streams, steps_per_task=[3, 0, 7], tasks_per_batch=2)
  taken = [task for step in plan for task, _ in step.places]
  assert [taken.count(i) for i in range(3)] == [3, 0, 7]


def test_tasks_of_unlike_lengths_end_together():
  streams = random_streams(24, buckets=2)
  steps = [10] * 20 + [160] * 4
  plan = JointPlan(streams, steps_per_task=steps, tasks_per_batch=4)
  ends = {task: i for i, step in enumerate(plan) for task, _ in step.places}
  assert np.median(list(ends.values())) > 0.75 * len(plan)
  assert plan.fill() > 0.8


def test_plan_does_not_depend_on_the_order_of_the_table():
  streams = random_streams(12, buckets=3)
  order = np.random.default_rng(0).permutation(12)
  plan = JointPlan(streams, steps_per_task=20, tasks_per_batch=4)
  permuted = JointPlan(
    [streams[i] for i in order], steps_per_task=20, tasks_per_batch=4
  )
  assert len(plan) == len(permuted)
  for ours, theirs in zip(plan, permuted, strict=True):
    assert ours.bucket == theirs.bucket
    assert ours.places == tuple((int(order[i]), s) for i, s in theirs.places)


def test_least_progressed_tasks_come_first():
  streams = [stream(f"t{i}", samples=[5] * 8) for i in range(10)]
  plan = JointPlan(streams, steps_per_task=30, tasks_per_batch=4)
  progress = np.zeros(10, int)
  for _, chosen in plan:
    tasks = [task for task, _ in chosen]
    others = np.delete(np.arange(10), tasks)
    others = others[progress[others] < 30]
    if len(others):
      assert progress[tasks].max() <= progress[others].min()
    progress[tasks] += 1


@pytest.mark.parametrize(
  ("tasks", "places", "buckets", "least"),
  [(16, 8, 2, 0.9), (16, 8, 3, 0.86), (128, 16, 3, 0.98), (2000, 32, 3, 0.99)],
)
def test_joint_batches_are_full(tasks, places, buckets, least):
  streams = random_streams(tasks, buckets=buckets)
  plan = JointPlan(streams, steps_per_task=40, tasks_per_batch=places)
  assert plan.fill() >= least


def test_no_task_falls_far_behind():
  streams = random_streams(16, buckets=3, spread=0.5)
  plan = JointPlan(streams, steps_per_task=200, tasks_per_batch=8)
  progress = np.zeros(16, int)
  for _, chosen in plan:
    for task, _ in chosen:
      progress[task] += 1
    assert np.ptp(progress) <= 40


def test_planning_is_cheap_and_any_position_is_reached():
  streams = random_streams(2000, buckets=3)
  start = time.process_time()
  plan = JointPlan(streams, steps_per_task=320, tasks_per_batch=32)
  last = plan[20_000]
  seconds = time.process_time() - start
  assert seconds / 20_000 < 1e-3
  resumed = JointPlan(streams, steps_per_task=320, tasks_per_batch=32)
  assert len(resumed) >= 20_000
  assert resumed[20_000] == last
  with pytest.raises(IndexError):
    plan[len(plan)]


@given(LENGTHS, st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_evaluation_holds_every_utterance_once(samples, batch):
  steps = batching.evaluation_plan(
    np.asarray(samples), bounds=BOUNDS, batch=batch
  )
  assert len(steps) == -(-len(samples) // batch)
  chosen = [step.indices_B[step.indices_B >= 0] for step in steps]
  assert sorted(np.concatenate(chosen).tolist()) == list(range(len(samples)))
  for step, indices in zip(steps, chosen, strict=True):
    assert len(step.indices_B) == batch
    longest = max(samples[i] for i in indices)
    assert step.bucket == int(np.searchsorted(BOUNDS, longest))
  assert all(len(indices) == batch for indices in chosen[:-1])


def test_bad_data_is_named():
  with pytest.raises(InputError, match=r"task 'alice'.*at least one utt"):
    stream(samples=[])
  with pytest.raises(InputError, match=r"task 'alice'.*at most 40.*one of 41"):
    stream(samples=[3, 41])
  with pytest.raises(InputError, match=r"task 'alice'.*1 empty"):
    stream(samples=[3, 0])
  twice = [stream(samples=[3]), stream(samples=[4])]
  with pytest.raises(InputError, match="'alice' more than once"):
    JointPlan(twice, steps_per_task=1, tasks_per_batch=2)


def test_planning_needs_no_device_library():
  code = "import hra.data.batching, hra.data.perturb, sys; print('jax' in sys.modules)"
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == "False"
