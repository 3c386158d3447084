"""What can be wrong with people's recordings: each is listed, or left out."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import disk
import numpy as np
import pytest
import soundfile

from hra.config import PrepareConfig
from hra.data import dataset
from hra.data.prepare import prepare
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError, StorageError

RATE = 16_000
GOOD = 6
CONFIG = PrepareConfig(dev_fraction=0.0, test_fraction=0.0, jobs=1)


def _sound(seconds, rate=RATE):
  rng = np.random.default_rng(3)
  return 0.1 * rng.standard_normal(int(seconds * rate))


def _recording(name, seconds=0.5, *, rate=RATE, **options):
  def make(folder):
    soundfile.write(folder / name, _sound(seconds, rate), rate, **options)
    return {"audio_filepath": name}

  return make


def _bytes(name, data):
  def make(folder):
    (folder / name).write_bytes(data)
    return {"audio_filepath": name}

  return make


def _damaged(name, damage):
  def make(folder):
    line = _recording(name, 1.0)(folder)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(damage(data))
    return line

  return make


def _samples(wave):
  def make(folder):
    soundfile.write(folder / "bad.wav", wave, RATE, subtype="FLOAT")
    return {"audio_filepath": "bad.wav"}

  return make


def _line(**fields):
  def make(folder):
    return {**_recording("bad.wav")(folder), **fields}

  return make


def _raw(line):
  def make(folder):
    del folder
    return line

  return make


def _missing(folder):
  del folder
  return {"audio_filepath": "bad.wav"}


def _zeroed(data):
  middle = len(data) // 2
  return data[:middle] + b"\0" * 64 + data[middle + 64 :]


def _cut(data):
  return data[: int(len(data) * 0.7)]


def _not_a_number():
  wave = _sound(0.5)
  wave[100] = np.nan
  return wave


BAD = {
  "missing": (_missing, r"no such file in .*bad\.wav"),
  "empty": (_bytes("bad.wav", b""), r"an empty file in .*bad\.wav"),
  "a folder": (lambda f: (f / "bad.wav").mkdir() or _missing(f), r"bad\.wav"),
  "no audio": (_bytes("bad.wav", b"hello" * 99), r"got Format not recognised"),
  "corrupt flac": (_damaged("bad.flac", _zeroed), r"flac decoder"),
  "corrupt ogg": (_damaged("bad.ogg", _zeroed), r"a damaged file: .*checksum"),
  "truncated wav": (_damaged("bad.wav", _cut), r"22,386 of 32,000 bytes"),
  "truncated flac": (_damaged("bad.flac", _cut), r"flac decoder"),
  "truncated ogg": (_damaged("bad.ogg", _cut), r"a file cut short"),
  "truncated mp3": (_damaged("bad.mp3", _cut), r"a file cut short"),
  "NaN": (_samples(_not_a_number()), r"finite samples"),
  "silence": (_samples(np.zeros(RATE)), r"silence"),
  "2 hours": (
    _recording("bad.wav", 7200, rate=2000, subtype="PCM_U8"),
    r"at most 60 s.*7200",
  ),
  "10 ms": (_recording("bad.wav", 0.01), r"at least 0\.1 s.*0\.01"),
  "empty transcript": (_line(text=" "), r"'text'"),
  "no words": (_line(text="..."), r"words"),
  "too much said": (
    _line(text="a very long sentence for half a second of sound"),
    r"recording of at least .* s .*labels",
  ),
  "duplicate id": (_line(id="good0"), r"new id.*'good0' again.*see .*:1"),
  "wrong duration": (_line(duration=3.0), r"3.*0\.5"),
  "not JSON": (_raw(b"{'text': 'hello'}"), r"no JSON"),
  "wrong encoding": (
    _raw('{"audio_filepath": "x.wav", "text": "é"}'.encode("latin-1")),
    r"UTF-8",
  ),
}


def _corpus(folder, bad):
  """A manifest of good lines, the bad one as number 4."""
  folder.mkdir()
  lines = []
  for n in range(GOOD):
    name = f"good{n}.wav"
    soundfile.write(folder / name, _sound(0.5), RATE)
    line = {
      "audio_filepath": name,
      "id": f"good{n}",
      "text": f"say {'abcdef'[n]}",
    }
    lines.append({**line, "speaker": "ann"})
  made = bad(folder)
  if not isinstance(made, bytes):
    defaults = {"id": "bad", "text": "say it", "speaker": "bob"}
    made = json.dumps({**defaults, **made}).encode()
  encoded = [json.dumps(line).encode() for line in lines]
  (folder / "m.jsonl").write_bytes(
    b"\n".join([*encoded[:3], made, *encoded[3:]])
  )
  return folder / "m.jsonl"


def _with(**changes):
  return PrepareConfig(**{**vars(CONFIG), **changes})


@pytest.mark.parametrize("kind", BAD)
def test_it_is_listed_with_its_line_and_can_be_left_out(kind, tmp_path):
  make, message = BAD[kind]
  source = _corpus(tmp_path / "in", make)
  with pytest.raises(InputError, match=rf"m\.jsonl:4: .*{message}") as caught:
    prepare(source, tmp_path / "out", config=CONFIG)
  assert "--skip_bad" in str(caught.value)
  assert not (tmp_path / "out").exists()
  (told,) = (tmp_path / "out.problems.ndjson").read_text().splitlines()
  assert json.loads(told)["where"] == f"{source}:4"

  summary = prepare(source, tmp_path / "out", config=_with(bad="skip"))
  assert summary["left_out"] == 1
  assert dataset.open_split(tmp_path / "out", "train").ids == [
    f"good{n}" for n in range(GOOD)
  ]
  (told,) = (tmp_path / "out/left_out.jsonl").read_text().splitlines()
  assert json.loads(told)["where"] == f"{source}:4"
  assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_characters_outside_the_tokenizer(tmp_path):
  Tokenizer.train(["say abcdefit"], vocabulary=64, kind="char").save(
    tmp_path / "t.model"
  )
  source = _corpus(tmp_path / "in", _line(text="say café"))
  options = {"tokenizer": tmp_path / "t.model"}
  with pytest.raises(InputError, match=r"m\.jsonl:4: .*spell, got 'é' in"):
    prepare(source, tmp_path / "out", config=CONFIG, **options)
  summary = prepare(
    source, tmp_path / "out", config=_with(unknown="drop"), **options
  )
  assert summary["left_out"] == 0
  assert summary["tokenizer"]["unknown_characters"] == "é"


def test_everything_wrong_is_listed_at_once(tmp_path):
  folder = tmp_path / "in"
  folder.mkdir()
  lines = []
  for kind, (make, _) in BAD.items():
    if kind in ("2 hours", "wrong encoding", "a folder"):
      continue
    made = make(folder)
    if isinstance(made, bytes):
      lines.append(made.decode())
      continue
    name = f"{len(lines)}-{made['audio_filepath']}"
    if (folder / made["audio_filepath"]).exists():
      shutil.move(folder / made["audio_filepath"], folder / name)
    line = {"id": kind, "text": "say it", "speaker": "bob"}
    lines.append(json.dumps({**line, **made, "audio_filepath": name}))
  soundfile.write(folder / "good.wav", _sound(0.5), RATE)
  good = {"audio_filepath": "good.wav", "text": "say", "id": "good0"}
  lines.insert(0, json.dumps({**good, "speaker": "ann"}))
  (folder / "m.jsonl").write_text("\n".join(lines))
  with pytest.raises(InputError, match="problems"):
    prepare(folder / "m.jsonl", tmp_path / "out", config=CONFIG)
  told = (tmp_path / "out.problems.ndjson").read_text().splitlines()
  numbers = [int(json.loads(x)["where"].rsplit(":", 1)[1]) for x in told]
  assert sorted(numbers) == list(range(2, len(lines) + 1))


def test_when_nothing_is_left_it_says_why(tmp_path):
  (tmp_path / "m.jsonl").write_text(
    json.dumps({"audio_filepath": "no.wav", "text": "a", "speaker": "b"})
  )
  with pytest.raises(InputError, match=r"m\.jsonl:1: .*no such file"):
    prepare(tmp_path / "m.jsonl", tmp_path / "out", config=_with(bad="skip"))


def test_a_speaker_with_one_utterance_trains_and_is_named(tmp_path):
  source = _corpus(tmp_path / "in", _line(speaker="solo"))
  config = _with(dev_fraction=0.2, test_fraction=0.2)
  summary = prepare(source, tmp_path / "out", config=config)
  assert summary["task_utterances"]["solo"] == {"train": 1, "dev": 0, "test": 0}
  for split in ("dev", "test"):
    assert (
      f"1 of 2 tasks have no recording in {split}: solo" in summary["warnings"]
    )


@pytest.mark.parametrize("name", ["a/../b/\\c", "é" * 300, "CON", "a b?*:|<>"])
def test_a_speaker_of_any_name(tmp_path, name):
  source = _corpus(tmp_path / "in", _line(speaker=name))
  prepare(source, tmp_path / "out", config=CONFIG)
  split = dataset.open_split(tmp_path / "out", "train")
  assert set(split.tasks) == {"ann", name}
  assert split[split.tasks.index(name)].task == name


@pytest.fixture
def open_folder():
  """A folder that any user may enter, which `tmp_path` is not."""
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    folder.chmod(0o755)
    yield folder


def test_no_write_permission(open_folder):
  source = _corpus(open_folder / "in", _recording("bad.wav"))
  place = open_folder / "place"
  place.mkdir()
  place.chmod(0o555)
  script = """
    import os, sys
    from hra.config import PrepareConfig
    from hra.data.corpora import source
    from hra.data import prepare
    from hra.errors import StorageError
    import tensorflow_datasets
    if os.geteuid() == 0:
      os.seteuid(65534)
    try:
      prepare.prepare({"train": sys.argv[1]}, sys.argv[2])
    except StorageError as error:
      print(error)
  """
  said = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script), source, place / "out"],
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert f"{place / 'out'}: " in said
  assert "Permission denied" in said
  assert "choose another place" in said


def test_a_full_disk(tmp_path):
  source = _corpus(tmp_path / "in", _recording("bad.wav", 3.0))
  with disk.mounted(tmp_path / "small", options="size=120k") as small:
    with pytest.raises(StorageError, match="No space left on device") as caught:
      prepare(source, small / "out", config=CONFIG)
    assert "free some space" in str(caught.value)
    assert not (small / "out").exists()
    disk.resize(small, size="10m")
    summary = prepare(source, small / "out", config=CONFIG)
    assert summary["utterances"] == GOOD + 1


@pytest.mark.parametrize("which", ["source", "recording", "out"])
def test_a_bucket_that_cannot_be_reached(tmp_path, which):
  source = _corpus(tmp_path / "in", _recording("bad.wav"))
  out = str(tmp_path / "out")
  if which == "recording":
    remote = "s3://nowhere/bad.wav"
    source.write_text(source.read_text().replace("bad.wav", remote))
  arguments = {
    "source": ("s3://nowhere/m.jsonl", out),
    "recording": (source, out),
    "out": (source, "s3://nowhere/out"),
  }[which]
  script = """
    import dataclasses, sys, s3fs
    from hra.config import PrepareConfig
    from hra.data.prepare import prepare
    from hra.errors import StorageError
    s3fs.S3FileSystem.retries = 1
    config = PrepareConfig(dev_fraction=0, test_fraction=0, jobs=1)
    try:
      prepare(sys.argv[1], sys.argv[2], config=config)
    except StorageError as error:
      print(error)
  """
  # Another process: file systems of buckets are made once in each.
  said = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script), *arguments],
    env={
      **os.environ,
      "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
      "AWS_MAX_ATTEMPTS": "1",
      "AWS_ACCESS_KEY_ID": "nobody",
      "AWS_SECRET_ACCESS_KEY": "nothing",
      "HRA_CACHE": str(tmp_path / "cache"),
    },
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert "s3://nowhere" in said
  assert "Could not connect" in said
  assert "check the address, your credentials" in said
