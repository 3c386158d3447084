"""Banks of recorded sounds: made once, whole or refused, found again."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from hra.config import MultistyleConfig
from hra.config.sound import RoomsConfig
from hra.data import audio, rooms, sounds
from hra.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("HRA_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache" / "sounds"


def write(path, *, seconds=0.3, rate=16_000, seed=0, channels=1):
  rng = np.random.default_rng(seed)
  wave = 0.1 * rng.standard_normal((round(seconds * rate), channels))
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path, wave, rate)
  return path


@pytest.fixture
def folder(tmp_path):
  out = tmp_path / "noise"
  write(out / "b.wav")
  write(out / "a" / "street.flac", rate=22_050, seed=1)
  write(out / "a" / "Rain.OGG", rate=8_000, seed=2, channels=2)
  write(out / ".hidden.wav")
  (out / "LICENSE").write_text("not a sound")
  return out


def noise(path):
  return MultistyleConfig(noise="files", noise_files=str(path))


def response(path):
  return MultistyleConfig(reverb="files", responses=str(path))


def test_a_folder_is_read_by_name_and_resampled(folder):
  bank = sounds.opened(noise(folder)).noise
  names = ("a/Rain.OGG", "a/street.flac", "b.wav")
  assert len(bank) == 3
  for index, name in enumerate(names):
    np.testing.assert_array_equal(bank[index], audio.decode(folder / name))
    assert bank[index].dtype == np.float32
    assert len(bank[index]) == pytest.approx(4800, abs=2)
  assert sounds.opened(noise(folder)).responses.ends == ()


def test_nothing_is_opened_that_nothing_asks_for(cache):
  for config in (MultistyleConfig(), MultistyleConfig(noise="coloured")):
    assert sounds.opened(config) == sounds.Sounds()
    assert sounds.fingerprints(config, sounds.Sounds()) == {}
  assert not cache.exists()


def test_a_manifest_may_name_segments(folder, tmp_path):
  manifest = tmp_path / "noise.jsonl"
  lines = [
    {"audio_filepath": "noise/b.wav", "duration": 0.3},
    {"audio_filepath": "noise/b.wav", "offset": 0.1, "duration": 0.05},
  ]
  manifest.write_text("\n".join(map(json.dumps, lines)))
  bank = sounds.opened(noise(manifest)).noise
  whole_S = audio.decode(folder / "b.wav")
  np.testing.assert_array_equal(bank[0], whole_S)
  np.testing.assert_array_equal(bank[1], whole_S[1600:2400])


def test_a_bank_is_made_once_and_again_for_other_files(folder, monkeypatch):
  config = noise(folder)
  first = sounds.opened(config)
  reads = []
  read = audio.read_record

  def counted(record, **kwargs):
    reads.append(record.path)
    return read(record, **kwargs)

  monkeypatch.setattr(audio, "read_record", counted)
  again = sounds.opened(config)
  assert reads == []
  np.testing.assert_array_equal(first.noise.samples_S, again.noise.samples_S)
  assert first.noise.fingerprint == again.noise.fingerprint
  write(folder / "b.wav", seed=9)
  os.utime(folder / "b.wav", (1, 1))
  other = sounds.opened(config)
  assert len(reads) == 3
  assert other.noise.fingerprint != first.noise.fingerprint


def test_the_same_recordings_elsewhere_have_the_same_fingerprint(
  folder, tmp_path
):
  shutil.copytree(folder, tmp_path / "copy")
  there = noise(tmp_path / "copy")
  told = sounds.fingerprints(there, sounds.opened(there))
  here = noise(folder)
  assert told == sounds.fingerprints(here, sounds.opened(here))
  assert told.keys() == {"noise_files"}


def test_what_is_half_written_is_never_seen(folder, cache, monkeypatch):
  write_json = sounds.write_json

  def full(path, values):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(sounds, "write_json", full)
  with pytest.raises(InputError, match=r"\$HRA_CACHE.*No space left.*free"):
    sounds.opened(noise(folder))
  assert list(cache.iterdir()) == []
  monkeypatch.setattr(sounds, "write_json", write_json)
  sounds.opened(noise(folder))
  assert len(list(cache.iterdir())) == 1


def test_another_process_may_be_faster(folder, cache, tmp_path, monkeypatch):
  made = sounds.opened(noise(folder)).noise
  (kept,) = cache.iterdir()
  kept.rename(tmp_path / "theirs")
  write_json = sounds.write_json

  def slow(path, values):
    write_json(path, values)
    shutil.copytree(tmp_path / "theirs", kept)

  monkeypatch.setattr(sounds, "write_json", slow)
  again = sounds.opened(noise(folder)).noise
  np.testing.assert_array_equal(made.samples_S, again.samples_S)
  assert list(cache.iterdir()) == [kept]


def test_a_damaged_bank_says_what_to_delete(folder, cache):
  sounds.opened(noise(folder))
  (kept,) = cache.iterdir()
  samples = kept / "samples.f32"
  samples.write_bytes(samples.read_bytes()[:-4])
  with pytest.raises(InputError, match=rf"delete {kept}: it is made again"):
    sounds.opened(noise(folder))
  (kept / "index.json").write_text("{")
  with pytest.raises(InputError, match=rf"delete {kept}: it is made again"):
    sounds.opened(noise(folder))


def test_all_that_is_wrong_is_listed_at_once(folder):
  (folder / "broken.wav").write_bytes(b"RIFF, but no more")
  soundfile.write(folder / "silent.wav", np.zeros(900), 16_000)
  with pytest.raises(InputError) as caught:
    sounds.opened(noise(folder))
  message = str(caught.value)
  assert message.startswith(f"{folder}: expected recordings that can be used")
  assert "2 problems" in message
  assert "broken.wav: expected a readable WAV, FLAC, OGG or MP3" in message
  assert "silent.wav: expected a recording with sound" in message


def test_lines_of_a_manifest_are_named(folder, tmp_path):
  manifest = tmp_path / "noise.jsonl"
  manifest.write_text('{"audio_filepath": "noise/gone.wav"}\n')
  with pytest.raises(InputError, match=r"noise\.jsonl:1: .*no such file in"):
    sounds.opened(noise(manifest))
  manifest.write_text('{"audio_filepath": "noise/b.wav"}\n{"audio": 1}\nx\n')
  with pytest.raises(InputError, match=r"(?s)2 problems.*jsonl:2: .*jsonl:3: "):
    sounds.opened(noise(manifest))
  manifest.write_text("[\n]")
  with pytest.raises(InputError, match="got a JSON array"):
    sounds.opened(noise(manifest))


def test_where_there_is_nothing(tmp_path):
  (tmp_path / "empty").mkdir()
  with pytest.raises(
    InputError, match=r"multistyle\.noise_files: expected recordings.*got none"
  ):
    sounds.opened(noise(tmp_path / "empty"))
  with pytest.raises(InputError, match="gone: expected a folder or a manifest"):
    sounds.opened(response(tmp_path / "gone"))


def test_impulse_responses_have_one_channel_and_end(tmp_path):
  path = write(tmp_path / "r" / "hall.wav", channels=2)
  with pytest.raises(InputError, match=r"hall\.wav: .*one channel, got 2"):
    sounds.opened(response(path.parent))
  write(path, seconds=10.5)
  with pytest.raises(InputError, match=r"at most 10 s, got 10\.50 s"):
    sounds.opened(response(path.parent))
  write(path, seconds=1.5)
  bank = sounds.opened(response(path.parent)).responses
  np.testing.assert_array_equal(bank[0], audio.decode(path))


def test_rooms_are_simulated_once(monkeypatch):
  calls = []

  def responses(config):
    calls.append(config)
    return iter([np.ones(config.count, np.float32)])

  monkeypatch.setattr(rooms, "responses", responses)
  monkeypatch.setattr(rooms, "version", lambda: "1.0")
  config = MultistyleConfig(reverb="rooms", rooms=RoomsConfig(count=5))
  for _ in range(2):
    assert sounds.opened(config).responses[0].tolist() == [1] * 5
  assert len(calls) == 1
  assert sounds.fingerprints(config, sounds.opened(config)) == {}
  config.rooms.seed = 1
  sounds.opened(config)
  monkeypatch.setattr(rooms, "version", lambda: "1.1")
  sounds.opened(config)
  assert len(calls) == 3


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('{"anna": 1.5}', "'anna': expected a part between 0 and 1, got 1.5"),
    ('{"anna": true}', "expected a part between 0 and 1, got True"),
    ('{"anna": NaN}', "expected a part between 0 and 1, got nan"),
    ('{"ana": 0.5}', "did you mean 'anna'"),
  ],
)
def test_parts_of_tasks_are_checked(tmp_path, text, message):
  path = tmp_path / "parts.json"
  path.write_text(text)
  with pytest.raises(InputError, match=message):
    sounds.read_parts(path, tasks=["anna", "bert"])
  path.write_text('{"anna": 0, "bert": 0.5}')
  told = sounds.read_parts(path, tasks=["anna", "bert"])
  assert told == {"anna": 0.0, "bert": 0.5}
  assert sounds.read_parts("", tasks=["anna"]) == {}
