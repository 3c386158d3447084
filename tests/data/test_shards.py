"""Decoding goes on from where it was, whatever happened to it or its workers."""

import dataclasses
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import disk
import numpy as np
import pytest
import soundfile
from array_record.python import array_record_module
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_generated_pb2

from hra.data import audio, shard_pool, shard_worker, shards
from hra.data.records import Record
from hra.errors import InputError, StorageError
from hra.files import locked

_LIMITS = audio.Limits(
  min_seconds=0.05, max_seconds=60.0, labels_per_second=25.0
)
_COUNT = 60


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp("audio")
  made = []
  for n in range(_COUNT):
    rate = (16_000, 8_000, 22_050)[n % 3]
    noise_S = np.random.default_rng(n).uniform(-0.5, 0.5, rate // 10 + n)
    soundfile.write(folder / f"{n}.flac", noise_S, rate)
    made.append(
      Record(
        id=f"u{n}",
        path=str(folder / f"{n}.flac"),
        text=f"Words, {n}!",
        task=f"t{n % 4}",
        where=f"m:{n}",
      )
    )
  return made


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  monkeypatch.setattr(shards, "_CHUNK", 8)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, records):
  """The files of a decoding that nothing happened to."""
  folder = tmp_path_factory.mktemp("undisturbed")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(shards, "_CHUNK", 8)
    _decode(folder, records)
  files = _files(folder)
  assert len(files) > 2 * 4
  return files


def _decode(folder, records, *, jobs=2, **options):
  splits = {"train": records[:40], "dev": records[40:]}
  return shards.decode(folder, splits, limits=_LIMITS, jobs=jobs, **options)


def _files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def _inodes(folder):
  """What changes when a file is made again; a number alone may be given again."""
  return {
    path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
    for path in folder.iterdir()
  }


def _kept(decoded, records):
  """Ids that the files hold, which must be those that the shards speak of."""
  kept = []
  for split, part in (("train", records[:40]), ("dev", records[40:])):
    for shard in decoded[split]:
      ids = [part[place].id for place in shard.places]
      assert [example["id"] for example in _examples(shard.file)] == ids
      assert len(shard.samples) == len(shard.rates) == len(ids)
      kept += ids
  return kept


def _examples(file):
  if file is None:
    return []
  reader = array_record_module.ArrayRecordReader(os.fspath(file))
  return [_parsed(data) for data in reader.read_all()]


def _parsed(data):
  example = tf_example_generated_pb2.Example.FromString(data)
  values = {
    name: feature.bytes_list.value[0]
    for name, feature in example.features.feature.items()
  }
  return values | {name: values[name].decode() for name in ("id", "text")}


def _problems(decoded):
  return [
    error for part in decoded.values() for s in part for error in s.problems
  ]


def _told(decoded):
  """All that shards say, in a form that can be compared."""
  return {
    split: [
      (*shard[:-1], [str(error) for error in shard.problems]) for shard in part
    ]
    for split, part in decoded.items()
  }


def _worker(folder, reading):
  """The command of a worker that does something else before it reads."""
  script = folder / "worker.py"
  script.write_text(
    textwrap.dedent(
      """
      import os, pathlib, re, signal, time
      from hra.data import audio, shard_worker

      here = pathlib.Path(__file__).parent
      read = audio.read_record

      def read_record(record, *, limits):
      {reading}
        return read(record, limits=limits)

      audio.read_record = read_record
      shard_worker.main()
      """
    ).format(reading=textwrap.indent(textwrap.dedent(reading).strip(), "  "))
  )
  return [sys.executable, str(script)]


_NOTE = "(here / 'read').open('a').write(record.id + ' ')"
"""Notes what a worker reads."""


def _noted(folder):
  return (folder / "read").read_text().split()


_UNUSED = [sys.executable, "-c", "raise SystemExit('nothing was to be made')"]


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_jobs_change_no_byte(tmp_path, records, undisturbed, jobs):
  decoded = _decode(tmp_path, records, jobs=jobs)
  assert _files(tmp_path) == undisturbed
  assert _kept(decoded, records) == [record.id for record in records]
  assert not _problems(decoded)


def test_examples_are_the_recordings(tmp_path, records):
  shard = _decode(tmp_path, records)["train"][0]
  for example, place in zip(_examples(shard.file), shard.places, strict=True):
    record = records[place]
    samples_S = np.frombuffer(example["samples"], np.int16)
    expected_S, rate = audio.read_record(record, limits=_LIMITS)
    np.testing.assert_array_equal(samples_S, audio.encode_int16(expected_S))
    assert (example["text"], example["task"].decode()) == (
      record.text,
      record.task,
    )
    assert shard.samples[place] == len(samples_S)
    assert shard.rates[place] == rate


@given(st.text(max_size=300), st.sampled_from([0, 1, 127, 128, 16_384, 70_000]))
def test_serialized_examples_are_protocol_buffers(text, size):
  record = Record(id="é/1", path="p", text=text, task="t")
  parsed = _parsed(shard_worker.serialize(record, bytes(size)))
  assert parsed == {
    "id": "é/1",
    "text": text,
    "task": b"t",
    "samples": bytes(size),
  }


def test_what_is_there_is_not_made_again(tmp_path, records):
  first = _decode(tmp_path, records)
  inodes = _inodes(tmp_path)
  second = _decode(tmp_path, records, worker=_UNUSED)
  assert _inodes(tmp_path) == inodes
  assert second == first


@pytest.mark.parametrize("change", ["removed", "added", "text", "touched"])
def test_a_change_makes_only_its_own_chunk_anew(tmp_path, records, change):
  records = list(records)
  copy = tmp_path / "copy.flac"
  shutil.copyfile(records[17].path, copy)
  records[17] = dataclasses.replace(records[17], path=str(copy))
  folder = tmp_path / "parts"
  folder.mkdir()
  splits = {"train": records}
  before = shards.decode(folder, splits, limits=_LIMITS)
  inodes = _inodes(folder)
  match change:
    case "removed":
      del records[17]
    case "added":
      records.insert(17, dataclasses.replace(records[17], id="new"))
    case "text":
      records[17] = dataclasses.replace(records[17], text="other words")
    case "touched":
      os.utime(copy, ns=(1, 1))
  after = shards.decode(folder, {"train": records}, limits=_LIMITS)
  known = {shard.file for shard in before["train"]}
  new = [shard for shard in after["train"] if shard.file not in known]
  assert len(new) == 1
  assert 17 in new[0].places
  assert len(after["train"]) == len(before["train"]) > 3
  left = _inodes(folder)
  assert len(left) == len(inodes)
  assert len(left.items() - inodes.items()) == 2
  ids = [
    records[place].id for shard in after["train"] for place in shard.places
  ]
  assert ids == [record.id for record in records]


def test_limits_are_part_of_a_chunk(tmp_path, records):
  splits = {"train": records}
  assert not _problems(shards.decode(tmp_path, splits, limits=_LIMITS))
  stricter = _LIMITS._replace(min_seconds=0.102)
  decoded = shards.decode(tmp_path, splits, limits=stricter)
  assert 0 < len(_problems(decoded)) < _COUNT


def test_bad_recordings_are_left_out_and_told_at_their_present_line(
  tmp_path, records
):
  folder = tmp_path / "parts"
  folder.mkdir()
  records = list(records)
  for place in (3, 4, 50):
    absent = f"{records[place].path}.absent"
    records[place] = dataclasses.replace(records[place], path=absent)
  decoded = _decode(folder, records)
  assert [error.where for error in _problems(decoded)] == ["m:3", "m:4", "m:50"]
  assert _kept(decoded, records) == [
    record.id for n, record in enumerate(records) if n not in (3, 4, 50)
  ]
  inodes = _inodes(folder)
  moved = [
    dataclasses.replace(record, where=f"n:{n + 7}", session="s", split="x")
    for n, record in enumerate(records)
  ]
  again = _decode(folder, moved, worker=_worker(tmp_path, _NOTE))
  assert [error.where for error in _problems(again)] == ["n:10", "n:11", "n:57"]
  for old, new in zip(_problems(decoded), _problems(again), strict=True):
    assert new.expected == old.expected
  assert _inodes(folder) == inodes
  assert sorted(_noted(tmp_path)) == ["u3", "u4", "u50"]


def test_what_was_bad_is_tried_again_and_only_that(
  tmp_path, records, undisturbed
):
  """Also where neither the record nor its file shows the change."""
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(
    tmp_path,
    f"""
    from hra.errors import InputError
    bad = ("u3", "u5") if (here / "well").exists() else ("u3", "u5", "u50")
    if (here / "well").exists():
      {_NOTE}
    if record.id in bad:
      raise InputError(record.where, expected="a bucket", got="none")
    """,
  )
  decoded = _decode(folder, records, worker=command)
  assert len(_problems(decoded)) == 3
  inodes = _inodes(folder)
  (tmp_path / "well").touch()
  decoded = _decode(folder, records, worker=command)
  assert len(_problems(decoded)) == 2
  assert len(_kept(decoded, records)) == _COUNT - 2
  (good,) = [shard for shard in decoded["dev"] if 10 in shard.places]
  assert _noted(tmp_path).count("u50") == 2
  assert set(_noted(tmp_path)) == {"u3", "u5"} | {
    records[place + 40].id for place in good.places
  }
  assert len(_inodes(folder).items() - inodes.items()) == 2
  _decode(folder, records)
  assert _files(folder) == undisturbed


@pytest.mark.parametrize("then", ["some", "none"])
def test_a_file_never_stands_beside_the_facts_of_another(
  tmp_path, records, then
):
  """Whatever has become good or bad, and where the process was killed."""
  folder = tmp_path / "parts"
  folder.mkdir()
  splits = {"train": records[:5]}
  script = """
    from hra.errors import InputError
    if record.id in {bad}:
      raise InputError(record.where, expected="a bucket", got="none")
    """

  def decode(bad):
    return shards.decode(
      folder,
      splits,
      limits=_LIMITS,
      worker=_worker(tmp_path, script.format(bad=bad)),
    )["train"]

  (before,) = decode(["u0"])
  assert before.places == [1, 2, 3, 4]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(shards, "write_aside", _interrupted)
    with pytest.raises(KeyboardInterrupt):
      decode([])
  (after,) = decode(["u0"] if then == "some" else [f"u{n}" for n in range(5)])
  assert [example["id"] for example in _examples(after.file)] == [
    f"u{place}" for place in after.places
  ]
  assert after.places == ([1, 2, 3, 4] if then == "some" else [])
  assert len(list(folder.glob("*.array_record"))) == bool(after.places)


def test_what_was_bad_may_become_good_while_another_kills_the_worker(
  tmp_path, records
):
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(
    tmp_path,
    """
    from hra.errors import InputError
    later = (here / "later").exists()
    if record.id in (("u4",) if later else ("u0", "u3", "u4")):
      raise InputError(record.where, expected="a bucket", got="none")
    if record.id == "u3":
      os.kill(os.getpid(), signal.SIGSEGV)
    """,
  )
  for places in ([1, 2], [0, 1, 2]):
    (shard,) = shards.decode(
      folder, {"train": records[:5]}, limits=_LIMITS, worker=command
    )["train"]
    assert shard.places == places
    assert [error.where for error in shard.problems] == [
      f"m:{n}" for n in range(5) if n not in places
    ]
    (tmp_path / "later").touch()


def _interrupted(*_):
  raise KeyboardInterrupt


def test_a_split_of_bad_recordings_has_no_files(tmp_path):
  bad = [Record(f"u{n}", f"/absent/{n}.wav", "x", "t") for n in range(20)]
  for _ in range(2):
    decoded = shards.decode(tmp_path, {"train": bad}, limits=_LIMITS)
    assert all(shard.file is None for shard in decoded["train"])
    assert [e.where for e in _problems(decoded)] == [r.id for r in bad]
    assert not list(tmp_path.glob("*.array_record"))


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_recordings_that_crash_the_decoder_are_listed(tmp_path, records, name):
  folder = tmp_path / "parts"
  folder.mkdir()
  crashing = ("u2", "u5", "u6", "u39", "u59")
  command = _worker(
    tmp_path,
    f"""
    {_NOTE}
    if record.id in {crashing}:
      os.kill(os.getpid(), signal.{name})
    """,
  )
  decoded = _decode(folder, records, worker=command)
  problems = _problems(decoded)
  assert [error.where for error in problems] == [f"m:{x[1:]}" for x in crashing]
  assert all(f"({name})" in error.got for error in problems)
  assert all(".flac: the decoder" in error.got for error in problems)
  assert _kept(decoded, records) == [
    record.id for record in records if record.id not in crashing
  ]
  # The work lost doesn't grow with the number of crashes.
  read = _noted(tmp_path)
  assert max(read.count(record.id) for record in records) <= 3
  assert _told(_decode(folder, records, worker=command)) == _told(decoded)


def test_a_worker_that_is_killed_once_costs_no_recording(
  tmp_path, records, undisturbed
):
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(
    tmp_path,
    """
    if record.id in ("u4", "u47") and not (here / record.id).exists():
      (here / record.id).touch()
      os.kill(os.getpid(), signal.SIGKILL)
    """,
  )
  assert not _problems(_decode(folder, records, worker=command))
  assert (tmp_path / "u4").exists()
  assert (tmp_path / "u47").exists()
  assert _files(folder) == undisturbed


def test_a_machine_that_kills_every_worker_is_given_up(
  tmp_path, records, monkeypatch
):
  command = _worker(
    tmp_path,
    """
    if not (here / record.id).exists():
      (here / record.id).touch()
      os.kill(os.getpid(), signal.SIGKILL)
    """,
  )
  folder = tmp_path / "parts"
  folder.mkdir()
  monkeypatch.setattr(shards, "_CHUNK", 80)  # One chunk, hence one count.
  expected = "9 of them killed, the last by SIGKILL"
  with pytest.raises(InputError, match=expected):
    shards.decode(
      folder, {"train": records[:20]}, limits=_LIMITS, jobs=1, worker=command
    )
  assert not any(folder.iterdir())


def test_a_worker_that_dies_before_it_works_is_given_up(tmp_path, records):
  command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
  # More than a pipe holds: it is still being told its job when it dies.
  records = [dataclasses.replace(r, text="x" * 50_000) for r in records]
  with pytest.raises(InputError, match="killed, the last by SIGKILL"):
    _decode(tmp_path, records, worker=command)


def test_a_recording_that_takes_too_long_is_stopped_even_in_c(
  tmp_path, records, monkeypatch
):
  monkeypatch.setattr(shard_pool, "TIMEOUT_SECONDS", 0.4)
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(
    tmp_path,
    f"""
    {_NOTE}
    if record.id == "u7":
      re.match("(a*)*b", "a" * 60)  # One call that doesn't return.
    if record.id == "u8":
      time.sleep(60)
    """,
  )
  began = time.monotonic()
  decoded = _decode(folder, records, worker=command)
  assert time.monotonic() - began < 20
  errors = _problems(decoded)
  assert [error.where for error in errors] == ["m:7", "m:8"]
  assert all("it took over 0.4 s" in error.got for error in errors)
  assert len(_kept(decoded, records)) == _COUNT - 2
  assert _noted(tmp_path).count("u7") == _noted(tmp_path).count("u8") == 1


def test_only_reading_is_limited_in_time(
  tmp_path, records, undisturbed, monkeypatch
):
  monkeypatch.setattr(shard_pool, "TIMEOUT_SECONDS", 0.4)
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(
    tmp_path,
    """
    if record.id == "u7":
      encode = audio.encode_int16
      def slow(wave_S):
        audio.encode_int16 = encode
        time.sleep(0.6)
        return encode(wave_S)
      audio.encode_int16 = slow
    """,
  )
  assert not _problems(_decode(folder, records, worker=command))
  assert _files(folder) == undisturbed


def test_a_file_that_no_memory_holds_is_listed(tmp_path, records):
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(tmp_path, 'if record.id == "u7": raise MemoryError')
  (error,) = _problems(_decode(folder, records, worker=command))
  assert (error.where, error.expected) == (
    "m:7",
    "a recording that the memory can hold",
  )


def test_a_fault_of_the_program_is_shown_and_finished_chunks_stay(
  tmp_path, records, undisturbed
):
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(tmp_path, 'if record.id == "u55": raise KeyError("oops")')
  with pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError: 'oops'"):
    _decode(folder, records, jobs=1, worker=command)
  left = _files(folder)
  assert left
  assert left.items() < undisturbed.items()
  _decode(folder, records)
  assert _files(folder) == undisturbed


def test_what_libraries_print_does_no_harm(tmp_path, records, undisturbed):
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(
    tmp_path, 'os.write(1, b"noise\\n" * 99); os.write(2, b"noise\\n" * 999)'
  )
  _decode(folder, records, worker=command)
  assert _files(folder) == undisturbed


def _disturbed(folder, records, *, command, stop):
  """Decodes in a process that gets a signal when some chunks are finished."""
  folder.mkdir()
  listed = folder.parent / "records.json"
  listed.write_text(json.dumps([dataclasses.asdict(r) for r in records]))
  code = f"""
import json, pathlib, signal, sys
from hra.data import audio, shards
from hra.data.records import Record
def leave(*_): raise SystemExit(3)
signal.signal(signal.SIGTERM, leave)
shards._CHUNK = 8
listed = json.loads(pathlib.Path({str(listed)!r}).read_text())
records = [Record(**fields) for fields in listed]
shards.decode(
  {str(folder)!r},
  {{"train": records[:40], "dev": records[40:]}},
  limits=audio.Limits(*{tuple(_LIMITS)}),
  jobs=2,
  worker={command!r},
)
"""
  process = subprocess.Popen(
    [sys.executable, "-c", code], stderr=subprocess.DEVNULL
  )
  deadline = time.monotonic() + 60
  while len(list(folder.glob("*.json"))) < 3 and time.monotonic() < deadline:
    assert process.poll() is None
    time.sleep(0.005)
  process.send_signal(stop)
  process.wait(timeout=20)


@pytest.mark.parametrize("stop", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_an_interrupted_decoding_goes_on(tmp_path, records, undisturbed, stop):
  folder = tmp_path / "parts"
  command = _worker(
    tmp_path,
    """
    (here / f"{os.getpid()}.pid").touch()
    finished = len(list((here / "parts").glob("*.json")))
    time.sleep(60 if finished >= 3 else 0.01)
    """,
  )
  _disturbed(folder, records, command=command, stop=getattr(signal, stop))
  for path in tmp_path.glob("*.pid"):
    _wait_for_the_end_of(int(path.stem))
  finished = list(folder.glob("*.json"))
  assert 3 <= len(finished) < len(undisturbed) // 2
  if stop != "SIGKILL":
    assert not list(folder.glob(".*"))
  inodes = {
    name: inode
    for name, inode in _inodes(folder).items()
    if folder / name in finished
    or (folder / name).with_suffix(".json") in finished
  }
  _decode(folder, records)
  assert _files(folder) == undisturbed
  assert inodes.items() < _inodes(folder).items()


def _wait_for_the_end_of(pid):
  status = pathlib.Path(f"/proc/{pid}/status")
  if not status.parent.parent.joinpath("self").exists():
    pytest.skip("needs /proc")
  deadline = time.monotonic() + 5
  while time.monotonic() < deadline:
    try:
      if "State:\tZ" in status.read_text():
        return
    except (FileNotFoundError, ProcessLookupError):
      return
    time.sleep(0.01)
  pytest.fail(f"worker {pid} outlived its parent")


@pytest.mark.parametrize("damage", ["cut", "lost", "json"])
def test_a_file_that_is_not_whole_is_made_again(
  tmp_path, records, undisturbed, damage
):
  _decode(tmp_path, records)
  file = min(tmp_path.glob("*.array_record"))
  match damage:
    case "cut":
      file.write_bytes(file.read_bytes()[:-1])
    case "lost":
      file.unlink()
    case "json":
      file = file.with_suffix(".json")
      file.write_text(file.read_text()[:-1])
  _decode(tmp_path, records)
  assert _files(tmp_path) == undisturbed


def test_leftovers_go_and_other_files_stay(tmp_path, records, undisturbed):
  key = next(iter(undisturbed)).split(".")[0]
  other = "0" * 32
  for name in (f".{key}.array_record.7", f".{key}.json.7", f"{other}.json"):
    (tmp_path / name).touch()
  (tmp_path / f"{other}.array_record").touch()
  (tmp_path / "notes.json").touch()
  _decode(tmp_path, records)
  assert _files(tmp_path) == undisturbed | {"notes.json": b""}


@pytest.mark.parametrize(
  ("said", "advice"),
  [
    ("No space left on device", "; free some space"),
    ("Disk quota exceeded", "; free some of your quota"),
    ("Input/output error", ""),
  ],
)
def test_a_disk_that_refuses_is_told_and_what_is_finished_stays(
  tmp_path, records, undisturbed, said, advice
):
  folder = tmp_path / "parts"
  folder.mkdir()
  command = _worker(
    tmp_path,
    f"""
    class Full(shard_worker.array_record_module.ArrayRecordWriter):
      def close(self):
        raise RuntimeError("write() failed: {said}; at byte 7")
    if record.id == "u38":
      shard_worker.array_record_module.ArrayRecordWriter = Full
    """,
  )
  with pytest.raises(StorageError, match=f"got {said}{advice}") as e:
    _decode(folder, records, jobs=1, worker=command)
  assert pathlib.Path(e.value.where).parent == folder
  left = _files(folder)
  assert left
  assert left.items() < undisturbed.items()
  inodes = _inodes(folder)
  _decode(folder, records)
  assert _files(folder) == undisturbed
  assert inodes.items() < _inodes(folder).items()


def test_a_disk_that_is_really_full(tmp_path, records, undisturbed):
  size = sum(map(len, undisturbed.values()))
  with disk.mounted(tmp_path / "full", options=f"size={size // 2}") as folder:
    with pytest.raises(StorageError, match="No space left on device; free"):
      _decode(folder, records)
    left = _files(folder)
    assert left
    assert {name: undisturbed[name] for name in left} == left
    disk.resize(folder, size=f"{2 * size}")
    _decode(folder, records)
    assert _files(folder) == undisturbed


def test_a_folder_that_is_read_only(tmp_path, records):
  with disk.mounted(tmp_path / "fixed", options="ro") as folder:
    with pytest.raises(StorageError, match="Read-only file system; choose"):
      _decode(folder, records)
    with (
      pytest.raises(StorageError, match="Read-only file system; choose"),
      locked(folder, fix=""),
    ):
      pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_forbidden(tmp_path, records):
  tmp_path.chmod(0o500)
  with pytest.raises(StorageError, match="Permission denied; ask"):
    _decode(tmp_path, records)


def _named(count):
  return [Record(id=f"u{n}", path="", text="", task="") for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 700, 28_000, 200_000])
def test_chunks_cover_a_split_with_a_bounded_number_of_files(
  count, monkeypatch
):
  monkeypatch.undo()
  bounds = list(shards._bounds(_named(count)))
  flat = [place for start, end in bounds for place in range(start, end)]
  assert flat == list(range(count))
  assert len(bounds) <= 160
  lengths = [end - start for start, end in bounds]
  typical = max(256, 2 ** (count // 128).bit_length())
  assert all(typical // 4 <= length for length in lengths[:-1])
  assert max(lengths, default=0) <= 4 * typical
  if count <= 28_000:
    assert max(lengths, default=0) <= 1024


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2999))
def test_removing_a_record_moves_few_bounds(place):
  records = _named(3000)
  before = {
    (records[start].id, records[end - 1].id)
    for start, end in shards._bounds(records)
  }
  del records[place]
  after = {
    (records[start].id, records[end - 1].id)
    for start, end in shards._bounds(records)
  }
  assert len(after - before) <= 2


def test_local_files_have_a_stamp_and_urls_none(tmp_path, records):
  path = tmp_path / "a"
  path.write_bytes(b"abc")
  stamp = (3, path.stat().st_mtime_ns)
  assert shards.file_stamp(str(path)) == stamp
  assert shards.file_stamp(str(tmp_path / "absent")) is None
  assert shards.file_stamp("gs://bucket/a.wav") is None


def test_workers_start_without_jax_and_tfds():
  code = """
import sys
from hra.data import shard_worker
heavy = {"jax", "tensorflow", "tensorflow_datasets"}
print(sorted(heavy & sys.modules.keys()))
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout == "[]\n"


def test_progress_counts_every_recording_once(tmp_path, records, monkeypatch):
  bars = []

  class Bar(shards.tqdm.tqdm):
    def __init__(self, **options):
      assert options["disable"] is None
      super().__init__(**options | {"disable": False, "file": io.StringIO()})
      bars.append(self)

    def update(self, n=1):
      assert n > 0
      return super().update(n)

  monkeypatch.setattr(shards.tqdm, "tqdm", Bar)
  command = _worker(
    tmp_path, 'if record.id == "u9": os.kill(os.getpid(), signal.SIGSEGV)'
  )
  folder = tmp_path / "parts"
  folder.mkdir()
  _decode(folder, records, worker=command)
  _decode(folder, records)
  assert [(bar.n, bar.initial, bar.total) for bar in bars] == [
    (_COUNT, 0, _COUNT),
    (_COUNT, _COUNT, _COUNT),
  ]
