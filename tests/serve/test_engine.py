"""The engine: each answer is that of its speaker, whatever else goes on."""

import random
import threading

import adapted
import numpy as np
import pytest
import serve_stores as stores

from hra.serve.interface import BadSubmodel, Receipt, Request

ONE = {"batch_sizes": (4,), "bucket_seconds": (4.0,)}
"""A single program."""


def _answers(engine, requests):
  futures = [engine.submit(Request(*each)) for each in requests]
  return [future.result(stores.TIMEOUT) for future in futures]


def test_speakers_under_eviction_from_many_threads(
  engine_of, people, waves, offline
):
  by_task = {each.task: each for each in people} | {None: None}
  texts = {offline(w, p) for w in waves for p in by_task.values()}
  assert len(texts) > 0.8 * len(waves) * len(by_task)
  engine = engine_of(stores.Shelf(*people))
  compiled = engine.figures()["compilations_total"]
  answers = []

  def client(number):
    rng = random.Random(number)
    for turn in range(20):
      task = f"p{(number * 5 + turn) % len(people)}"
      task = None if rng.random() < 0.1 else task
      wave = rng.choice(waves)
      (answer,) = _answers(engine, [(wave, task)])
      answers.append((task, wave, answer))

  threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(answers) == 160
  for task, wave, answer in answers:
    assert answer.text == offline(wave, by_task[task])
    assert answer.receipt.task == task
    assert answer.receipt.version == (task and 1)
    assert all(part >= 0 for part in answer.spent)
  figures = engine.figures()
  assert figures["evictions_total"] > 20
  assert figures["slots_used"] == 4
  assert figures["host_rows"] <= 6
  assert figures["compilations_total"] == compiled > 0
  assert figures["requests_waiting"] == 0
  assert figures["answers_total"] == figures["requests_total"] == 160
  assert figures["batch_requests_total"] == 160
  assert figures["batch_places_total"] >= 160 >= figures["batches_total"]


def _families(recognizer):
  """Two runs' heads, and other families; nobody of them is fine-tuned in full."""
  made = [
    stores.submodel(recognizer, "anna", 1),
    stores.submodel(recognizer, "bert", 2),
    stores.submodel(recognizer, "cleo", 3, shared_seed=6),
    stores.submodel(recognizer, "none", 4, adapter=adapted.NONE),
  ]
  for seed, name in enumerate(["residual", "lora", "hra_shared"], 10):
    adapter = adapted.VARIANTS[name]
    made.append(stores.submodel(recognizer, name, seed, adapter=adapter))
  return made


def test_families_and_shared_parameters_mix(
  engine_of, recognizer, waves, offline, monkeypatch
):
  own = _families(recognizer)
  engine = engine_of(stores.Shelf(*own), slots=2, batch_sizes=(4,))
  gate = stores.Gate(engine, monkeypatch)
  compiled = engine.figures()["compilations_total"]
  wanted = [(w, p) for w in waves for p in [*own, None]]
  futures = [engine.submit(Request(w, p and p.task)) for w, p in wanted]
  gate.arrive()
  gate.open()
  for (wave, submodel), future in zip(wanted, futures, strict=True):
    answer = future.result(stores.TIMEOUT)
    assert answer.text == offline(wave, submodel)
    assert (answer.receipt.applied == "submodel") == (submodel is not None)
  kinds = [
    {i.job.row and i.job.row.kind for i in items} for items in gate.heard
  ]
  assert max(map(len, kinds)) > 2  # a batch did mix
  heard = {tuple(offline(wave, each) for wave in waves) for each in own}
  assert len(heard) == len(own)
  assert engine.figures()["compilations_total"] == compiled


def test_who_is_fine_tuned_in_full_has_no_slot(engine_of, recognizer, waves):
  full = stores.submodel(
    recognizer, "full", 1, adapter=adapted.VARIANTS["full"]
  )
  engine = engine_of(stores.Shelf(full))
  with pytest.raises(BadSubmodel, match="'full'"):
    _answers(engine, [(waves[0], "full")])
  assert _answers(engine, [(waves[0], None)])[0].receipt.reason == "asked"


def test_a_new_kind_is_compiled_while_others_are_served(
  engine_of, recognizer, people, waves, offline
):
  shelf = stores.Shelf(people[0])
  engine = engine_of(shelf, **ONE)
  before = engine.figures()["compilations_total"]
  later = [
    each for each in _families(recognizer) if each.task in ("cleo", "lora")
  ]
  for each in later:
    shelf.put(each)
  waiting = [engine.submit(Request(waves[0], each.task)) for each in later]
  meanwhile = 0
  while not all(future.done() for future in waiting):
    (answer,) = _answers(engine, [(waves[1], "p0")])
    assert answer.text == offline(waves[1], people[0])
    meanwhile += 1
  assert meanwhile > 5
  for future, each in zip(waiting, later, strict=True):
    assert future.result().text == offline(waves[0], each)
    assert future.result().spent.loading > 0
  compiled = engine.figures()["compilations_total"]
  assert compiled > before
  for wave in waves:
    for each in [people[0], *later]:
      (answer,) = _answers(engine, [(wave, each.task)])
      assert answer.text == offline(wave, each)
  assert engine.figures()["compilations_total"] == compiled


def test_a_run_that_is_trained_anew_keeps_its_speakers(
  engine_of, recognizer, waves, offline
):
  """More often than there may be kinds: those that nobody needs any more go."""
  versions = {
    number: stores.submodel(
      recognizer, "p0", 20 + number, shared_seed=number, version=number
    )
    for number in (1, 2, 3)
  }
  texts = {n: offline(waves[2], each) for n, each in versions.items()}
  assert len(set(texts.values())) == 3
  shelf = stores.Shelf(versions[1])
  engine = engine_of(
    shelf, kinds=1, refresh_seconds=0.0, check_seconds=stores.TIMEOUT, **ONE
  )
  _answers(engine, [(waves[2], "p0")])
  for number in (2, 3):
    shelf.put(versions[number])
    loaded = engine.load("p0")
    seen = []
    while not seen or seen[-1].receipt.version < number:
      (answer,) = _answers(engine, [(waves[2], "p0")])
      assert answer.text == texts[answer.receipt.version]
      seen.append(answer)
    assert seen[0].receipt.version == number - 1
    assert loaded.result(stores.TIMEOUT).version == number
  assert [each.version for each in engine.resident()] == [3]
  assert len(engine._device.kinds) == 2


def test_a_kind_that_doesnt_compile_is_nobody_elses_trouble(
  engine_of, recognizer, people, waves, offline, monkeypatch
):
  shelf = stores.Shelf(people[0])
  engine = engine_of(shelf, **ONE)
  monkeypatch.setattr("hra.serve.programs._written", lambda *_: 1 / 0)
  for each in _families(recognizer):
    shelf.put(each)
  for _ in range(2):
    with pytest.raises(BadSubmodel, match="ZeroDivisionError"):
      _answers(engine, [(waves[0], "cleo")])
  with pytest.raises(BadSubmodel, match="compiles"):
    engine.load("lora").result(stores.TIMEOUT)
  (answer,) = _answers(engine, [(waves[0], "p0")])
  assert answer.text == offline(waves[0], people[0])
  assert engine.ready()


def test_one_kind_too_many_is_refused(engine_of, recognizer, people, waves):
  engine = engine_of(stores.Shelf(people[0], *_families(recognizer)), kinds=1)
  with pytest.raises(BadSubmodel, match="one of 1 adapters"):
    _answers(engine, [(waves[0], "cleo"), (waves[0], "lora")])
  assert _answers(engine, [(waves[0], "p0")])[0].receipt.applied == "submodel"


def test_an_empty_store_is_served_by_the_backbone(engine_of, waves, offline):
  engine = engine_of(stores.Shelf())
  assert engine.tasks() == []
  for wave in waves:
    (answer,) = _answers(engine, [(wave, None)])
    assert answer.text == offline(wave)
    assert answer.receipt == Receipt(None, "backbone", None, None, "asked")
    assert answer.seconds == len(wave) / 16_000


def test_the_guard_is_the_callers_choice(engine_of, recognizer, waves, offline):
  summary = {"verdict": "not better"}
  worse = stores.submodel(recognizer, "worse", 3, summary=summary)
  engine = engine_of(stores.Shelf(worse))
  guarded, unguarded = _answers(
    engine,
    [(waves[2], "worse"), (waves[2], "worse", False, False)],
  )
  assert guarded.text == offline(waves[2])
  assert guarded.receipt == Receipt(
    "worse", "backbone", None, None, "not better"
  )
  assert unguarded.text == offline(waves[2], worse) != guarded.text
  assert unguarded.receipt == Receipt("worse", "submodel", 1, "worse 3", None)


def test_a_newcomer_is_heard_among_those_who_never_pause(
  engine_of, people, waves, offline
):
  """As many speakers as slots keep asking; one more is not kept waiting."""
  engine = engine_of(stores.Shelf(*people))
  stop = threading.Event()

  def client(task):
    while not stop.is_set():
      _answers(engine, [(waves[0], task)] * 3)

  threads = [
    threading.Thread(target=client, args=(f"p{i % 4}",)) for i in range(8)
  ]
  for thread in threads:
    thread.start()
  try:
    before = engine.figures()["batches_total"]
    (answer,) = _answers(engine, [(waves[0], "p9")])
    assert engine.figures()["batches_total"] - before < 30
    assert answer.text == offline(waves[0], people[9])
  finally:
    stop.set()
    for thread in threads:
      thread.join()


def test_rows_are_written_in_place_and_wiped_when_they_leave(
  engine_of, people, waves
):
  engine = engine_of(stores.Shelf(*people))
  engine.load("p0").result(stores.TIMEOUT)
  (table,) = engine._device._tables.values()

  def leaves():
    return list(map(np.asarray, _leaves(table.numbers)))

  places = [leaf.unsafe_buffer_pointer() for leaf in _leaves(table.numbers)]
  for i in range(12):
    engine.load(f"p{i}").result(stores.TIMEOUT)
  assert [
    leaf.unsafe_buffer_pointer() for leaf in _leaves(table.numbers)
  ] == places
  assert [each.task for each in engine.resident()] == ["p11", "p10", "p9", "p8"]
  assert all(not leaf[0].any() for leaf in leaves())
  assert all(leaf[1:].reshape(4, -1).any(1).all() for leaf in leaves())
  assert engine.unload("p10")
  assert not engine.unload("p10")
  _answers(engine, [(waves[0], None)])  # whatever was to be wiped is wiped
  assert [each.task for each in engine.resident()] == ["p11", "p9", "p8"]
  assert all((leaf[1:].reshape(4, -1).any(1)).sum() == 3 for leaf in leaves())


def _leaves(tree):
  import jax

  return jax.tree.leaves(tree)


def test_long_recordings_are_heard_as_offline_and_starve_nobody(
  engine_of, people, waves, offline, monkeypatch
):
  engine = engine_of(stores.Shelf(*people))
  long = [stores.wave(33.3, 7), stores.wave(9.8, 8)]
  gate = stores.Gate(engine, monkeypatch)
  first = engine.submit(Request(waves[0], None))
  gate.arrive()
  order = []

  def submit(wave, task):
    future = engine.submit(Request(wave, task))
    future.add_done_callback(lambda _: order.append(len(wave)))
    return future

  futures = [submit(wave, f"p{i}") for i, wave in enumerate(long)]
  shorts = [submit(waves[2], f"p{i}") for i in range(2, 8)]
  gate.open()
  for wave, submodel, future in zip(long, people, futures, strict=False):
    assert future.result(stores.TIMEOUT).text == offline(wave, submodel)
  for submodel, future in zip(people[2:], shorts, strict=False):
    assert future.result(stores.TIMEOUT).text == offline(waves[2], submodel)
  assert first.result().text == offline(waves[0])
  assert order.index(len(long[0])) == len(order) - 1
  assert len(offline(long[0], people[0])) > 30
