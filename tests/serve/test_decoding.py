"""Decoding in processes: the samples of `hra.data.audio`, and no way to harm others."""

import asyncio
import contextlib
import io
import os
import pathlib
import signal
import sys
import time

import numpy as np
import pytest
import soundfile

from hra.config.serve import LimitsConfig
from hra.data import audio
from hra.errors import InputError
from hra.serve import interface
from hra.serve.decoding import Decoders, TookTooLong

_LIMITS = LimitsConfig(decoders=1, max_seconds=60.0, decode_seconds=20.0)

HARMFUL = """
import os, sys, time, signal
from hra.data import audio
from hra.serve import decoding_worker
whole = audio.decode_open

def decode_open(descriptor, where, *, limits):
  word = os.pread(descriptor, 16, 0)
  if word == b"crash":
    os.kill(os.getpid(), signal.SIGSEGV)
  if word == b"hang":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    while True:
      time.sleep(1)
  if word == b"stop":
    os.kill(os.getpid(), signal.SIGSTOP)
  if word == b"hunger":
    bytearray(4 << 30)
  if word == b"leave":
    print("last words", file=sys.stderr)
    os._exit(3)
  if word == b"chatter":
    os.write(1, b"x" * 1000)
    os.write(2, b"x" * 1000)
  if word == b"lie":
    os.write(5, b"no length of a line")
    time.sleep(9)
  return whole(descriptor, where, limits=limits)

audio.decode_open = decode_open
decoding_worker.main()
"""


@contextlib.asynccontextmanager
async def _decoders(limits=_LIMITS, code=None):
  command = {} if code is None else {"worker": (sys.executable, "-c", code)}
  decoders = Decoders(limits, **command)
  try:
    yield decoders
  finally:
    await decoders.close()


def _sound(seconds=0.5, rate=16_000, **options):
  time_S = np.arange(round(seconds * rate)) / rate
  noise_S = np.random.default_rng(0).standard_normal(len(time_S))
  file = io.BytesIO()
  wave_S = 0.3 * np.sin(2 * np.pi * 300 * time_S) + 0.05 * noise_S
  soundfile.write(file, wave_S, rate, **({"format": "WAV"} | options))
  return file.getvalue()


def test_the_samples_of_audio_read(tmp_path):
  async def run():
    async with _decoders() as decoders:
      for name, data in {
        "wav": _sound(),
        "flac": _sound(rate=44_100, format="FLAC"),
        "ogg": _sound(rate=8_000, format="OGG"),
        "mp3": _sound(format="MP3"),
        "float": _sound(subtype="FLOAT"),
      }.items():
        path = tmp_path / name
        path.write_bytes(data)
        expected_S = audio.decode(path)
        for given in (data, path):
          wave_S = await decoders.decode(given)
          np.testing.assert_array_equal(wave_S, expected_S)
          assert wave_S.dtype == np.float32

  asyncio.run(run())


@pytest.mark.parametrize(
  "data", [b"", b"RIFF", _sound()[:3000], b"\0" * 5000, _sound()[44:]]
)
def test_what_is_no_recording(data):
  async def run():
    async with _decoders() as decoders:
      with pytest.raises(InputError, match=r"^the recording: expected") as told:
        await decoders.decode(data)
      assert type(told.value) is InputError
      assert len(await decoders.decode(_sound())) == 8_000

  asyncio.run(run())


def test_paths_that_are_no_files(tmp_path):
  async def run():
    os.mkfifo(tmp_path / "pipe")
    async with _decoders() as decoders:
      for path in (tmp_path / "none", tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError):
          await decoders.decode(path)

  asyncio.run(run())


def test_two_hours_are_refused_from_the_header():
  hours_S = np.zeros(2 * 3600 * 16_000, np.int16)
  hours_S[::16_000] = 1_000
  file = io.BytesIO()
  soundfile.write(file, hours_S, 16_000, format="FLAC")
  assert len(file.getvalue()) < 10 << 20

  async def run():
    async with _decoders() as decoders:
      await decoders.decode(_sound())
      began = time.monotonic()
      with pytest.raises(interface.TooLong, match=r"7200\.00 s; cut it$"):
        await decoders.decode(file.getvalue())
      assert time.monotonic() - began < 1

  asyncio.run(run())


@pytest.mark.parametrize(
  ("harm", "error", "told"),
  [
    ("crash", InputError, "one that ends the decoder (SIGSEGV)"),
    ("hunger", InputError, "one that needs more"),
    ("hang", TookTooLong, "one that takes longer"),
    ("stop", TookTooLong, "one that takes longer"),
  ],
)
def test_harm_is_the_recordings_own(harm, error, told):
  limits = LimitsConfig(decoders=1, decode_seconds=0.5)

  async def run():
    async with _decoders(limits, HARMFUL) as decoders:
      await decoders.decode(_sound())
      for _ in range(2):
        with pytest.raises(error) as said:
          await asyncio.wait_for(decoders.decode(harm.encode()), 10)
        assert said.value.got == told
        assert type(said.value) is error
        assert len(await decoders.decode(_sound())) == 8_000

  asyncio.run(run())


def test_a_process_that_ends_by_itself_says_why():
  async def run():
    async with _decoders(_LIMITS, HARMFUL) as decoders:
      with pytest.raises(RuntimeError, match=r"code 3:\nlast words"):
        await decoders.decode(b"leave")
      assert len(await decoders.decode(_sound())) == 8_000

  asyncio.run(run())


def test_what_libraries_print_breaks_nothing():
  async def run():
    async with _decoders(_LIMITS, HARMFUL) as decoders:
      with pytest.raises(InputError, match="readable"):
        await decoders.decode(b"chatter")
      (process,) = decoders._started
      assert process._errors.seek(0, os.SEEK_END) == 0

  asyncio.run(run())


def test_a_process_that_was_taken_over_is_not_believed():
  says = """
import os, socket, sys, time
parent = socket.socket(fileno=0)
while True:
  socket.recv_fds(parent, 1, 1)
  parent.sendall({said!r})
"""
  head = b'{"samples": 99999999999}'
  length = len(head).to_bytes(4, "little")
  lies = [b"\xff\xff\xff\xff", length + head, b"\4\0\0\0null", b"\2\0\0\0{]"]

  async def run(said):
    async with _decoders(_LIMITS, says.format(said=said)) as decoders:
      with pytest.raises(InputError, match="ends the decoder"):
        await asyncio.wait_for(decoders.decode(b"x"), 30)

  for said in lies:
    asyncio.run(run(said))


def test_killed_processes_are_replaced():
  async def run():
    async with _decoders(LimitsConfig(decoders=2)) as decoders:
      for _ in range(3):
        for process in list(decoders._started):
          process.kill()
        told = await asyncio.gather(
          *(decoders.decode(_sound()) for _ in range(4)),
          return_exceptions=True,
        )
        whole = [each for each in told if not isinstance(each, InputError)]
        assert len(whole) >= 2
        assert {len(each) for each in whole} == {8_000}
        assert len(decoders._started) == 2

  asyncio.run(run())


def test_what_waits_is_bounded_and_what_is_given_up_is_not_begun(tmp_path):
  limits = LimitsConfig(decoders=1, decode_seconds=30.0, decoder_queue=3)
  seen = tmp_path / "seen"
  code = f"""
import os, time
from hra.data import audio
from hra.serve import decoding_worker
whole = audio.decode_open
def decode_open(descriptor, where, *, limits):
  with open({str(seen)!r}, "a") as file:
    file.write("x")
  time.sleep(0.3)
  return whole(descriptor, where, limits=limits)
audio.decode_open = decode_open
decoding_worker.main()
"""

  async def run():
    async with _decoders(limits, code) as decoders:
      sound = _sound()
      tasks = [asyncio.create_task(decoders.decode(sound)) for _ in range(4)]
      await asyncio.sleep(0)
      for _ in range(1_000):
        with pytest.raises(interface.Overloaded):
          await decoders.decode(sound)
      for task in tasks[1:]:
        task.cancel()
      await asyncio.wait(tasks)
      assert not tasks[0].exception()
      assert len(await decoders.decode(_sound())) == 8_000
    assert seen.read_text() == "xx"

  asyncio.run(run())


def test_what_is_given_up_keeps_no_bytes():
  slow = "import sys, time; time.sleep(600)"

  async def run():
    async with _decoders(_LIMITS, slow) as decoders:
      first = asyncio.create_task(decoders.decode(b"x"))
      await asyncio.sleep(0.1)
      sound = _sound()
      before = sys.getrefcount(sound)
      for _ in range(5):
        task = asyncio.create_task(decoders.decode(sound))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        del task
      assert sys.getrefcount(sound) == before
      first.cancel()

  asyncio.run(run())


def test_who_is_given_up_while_decoded_leaves_no_second_one_beside():
  """A slot is free when its thread is, not when its caller is gone."""
  slow = "import sys, time; time.sleep(600)"

  async def run():
    async with _decoders(_LIMITS, slow) as decoders:
      for _ in range(3):
        task = asyncio.create_task(decoders.decode(b"x"))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
      assert decoders._threads._work_queue.qsize() == 0

  asyncio.run(run())


def test_closing_ends_what_is_decoded():
  async def run():
    async with _decoders(LimitsConfig(decoders=2), HARMFUL) as decoders:
      await decoders.decode(_sound())
      tasks = [asyncio.create_task(decoders.decode(b"hang")) for _ in range(3)]
      await asyncio.sleep(0.3)
      began = time.monotonic()
      await decoders.close()
      assert time.monotonic() - began < 5
      for told in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(told, interface.Closed | asyncio.CancelledError)
      with pytest.raises(interface.Closed):
        await decoders.decode(_sound())
      assert not decoders._started

  asyncio.run(run())


def test_processes_end_with_their_parent(tmp_path):
  code = f"""
import asyncio, os, pathlib
from hra.config.serve import LimitsConfig
from hra.serve.decoding import Decoders
decoders = Decoders(LimitsConfig(decoders=2))
asyncio.run(decoders.decode({_sound()!r}))
pids = [str(process._process.pid) for process in decoders._started]
pathlib.Path({str(tmp_path / "pids")!r}).write_text(" ".join(pids))
os.kill(os.getpid(), {signal.SIGKILL})
"""

  async def run():
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await parent.wait() == -signal.SIGKILL
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    for _ in range(100):
      if not any(_runs(pid) for pid in pids):
        return
      await asyncio.sleep(0.1)
    raise AssertionError("they go on")

  asyncio.run(run())


def _runs(pid):
  try:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return False
  return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_process_is_told_no_secrets_and_leaves_no_core(monkeypatch):
  monkeypatch.setenv("HRA_SECRET", "x")

  async def run():
    async with _decoders() as decoders:
      await decoders.decode(_sound())
      (process,) = decoders._started
      of = pathlib.Path(f"/proc/{process._process.pid}")
      assert b"HRA_SECRET" not in (of / "environ").read_bytes()
      limits = (of / "limits").read_text().splitlines()
      (core,) = (line for line in limits if line.startswith("Max core file"))
      assert core.split()[4:6] == ["0", "0"]
      (space,) = (line for line in limits if line.startswith("Max address"))
      assert space.split()[3] == str(2048 << 20)

  asyncio.run(run())
