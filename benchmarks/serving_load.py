"""`hra serve` under a load whose speakers take turns in too few slots.

    python benchmarks/serving_load.py

64 random Submodels of the bundled backbone say 64 different things of one recording. A
server with 16 slots is asked for them in turn, which is the worst order for its slots,
by OpenAI's client on loopback: blocks of many requests at once, and of one at a time,
take turns. Each answer has to be the offline transcript of its speaker. Writes
docs/serving_load.json and docs/serving_load.md.
"""

import asyncio
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import jax
import numpy as np
import openai
import results
import soundfile
import tqdm
from absl import app, flags, logging

from hra import submodels
from hra.adapters import families
from hra.commands import process
from hra.config import AdapterConfig
from hra.data.audio import decode_int16, encode_int16
from hra.dims import SAMPLE_RATE
from hra.evaluate.recognizer import Recognizer, load_backbone

BACKBONE, SECONDS = "tiny", 2.0
ADAPTER = AdapterConfig(width=16)


def define_flags() -> None:
  """Only of the program: tests import this module too."""
  results.define_out()
  flags.DEFINE_integer("speakers", 64, "Submodels that take turns.")
  flags.DEFINE_integer("slots", 16, "Of the server.")
  flags.DEFINE_integer("requests", 1_000, "Of each way of asking.")
  flags.DEFINE_integer("blocks", 5, "That they are divided into.")
  flags.DEFINE_integer("at_once", 32, "Requests that are on their way.")


class Asked(NamedTuple):
  """One request, as its client saw it."""

  seconds: float
  loading: float
  """Of them, waiting for the Submodel."""
  right: bool


def wave() -> np.ndarray:
  """Tones that change, as 16 bits hold them."""
  rng = np.random.default_rng(0)
  parts = [
    rng.uniform(0.05, 0.3) * np.sin(np.arange(4_000) * rng.uniform(0.05, 1.5))
    for _ in range(round(SECONDS * SAMPLE_RATE / 4_000))
  ]
  return decode_int16(encode_int16(np.concatenate(parts)))


def publish(folder: Path, recognizer: Recognizer, speakers: int) -> list[str]:
  """A store of random Submodels; the offline transcript of each."""
  stored = recognizer.stored
  adapter = families.build(ADAPTER, stored.config, mels=stored.frontend.width)
  shared = adapter.init_shared(jax.random.key(0))
  fingerprint = submodels.shared_fingerprint(shared)
  store = submodels.create(folder)
  for number in range(speakers):
    row = adapter.init_task(jax.random.key(number))
    rng = np.random.default_rng(number)
    loud = jax.tree.map(
      lambda leaf, rng=rng: np.asarray(
        leaf + 0.3 * rng.standard_normal(leaf.shape), leaf.dtype
      ),
      row,
    )
    store.publish(
      submodels.Submodel(
        task=name(number),
        adapter=ADAPTER,
        row=loud,
        shared=jax.device_get(shared),
        backbone_fingerprint=stored.fingerprint,
        shared_fingerprint=fingerprint,
        summary={},
        tokenizer=stored.tokenizer.hash,
      )
    )
  chosen = [store[name(number)] for number in range(speakers)]
  return recognizer.transcribe([wave()] * speakers, chosen)


def name(number: int) -> str:
  return f"speaker-{number:02}"


@contextlib.contextmanager
def served(store: Path, *settings: str) -> Iterator[str]:
  """The address of a server, from when it is ready on."""
  flags_ = (f"--backbone={BACKBONE}", f"--store={store}", "--port=0")
  with subprocess.Popen(
    [
      sys.executable,
      *("-m", "hra.commands.serve", *flags_, *settings),
      "--config.limits.requests_per_minute=0",
      "--config.limits.at_once=0",
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  ) as server:
    assert server.stdout is not None
    try:
      url = server.stdout.readline().split()[2].rstrip(";")
      while "ready after" not in (line := server.stdout.readline()):
        assert line, "the server ended"
      yield url
    finally:
      server.terminate()


async def ask(
  url: str, expected: Sequence[str], *, requests: int, at_once: int
) -> list[Asked]:
  """Requests of all speakers in turn."""
  file = io.BytesIO()
  soundfile.write(file, wave(), SAMPLE_RATE, format="WAV", subtype="PCM_16")
  limit = asyncio.Semaphore(at_once)

  async def one(client: openai.AsyncOpenAI, number: int) -> Asked:
    speaker = number % len(expected)
    async with limit:
      start = time.perf_counter()
      found: Any = await client.audio.transcriptions.create(
        model=f"{BACKBONE}:{name(speaker)}",
        file=("speech.wav", file.getvalue()),
      )
      seconds = time.perf_counter() - start
    right = found.text == expected[speaker]
    right = right and found.hra["submodel"] == name(speaker)
    return Asked(seconds, found.hra["seconds"]["loading"], right)

  async with openai.AsyncOpenAI(
    base_url=f"{url}/v1", api_key="none", max_retries=0
  ) as client:
    return await asyncio.gather(*(one(client, i) for i in range(requests)))


def told(asked: Sequence[Asked], seconds: float) -> dict[str, float]:
  """Figures of one way of asking.

  Args:
    seconds: that all of it took.
  """
  each = np.array([one.seconds for one in asked])
  loading = np.array([one.loading for one in asked])
  return {
    "requests": len(asked),
    "wrong": sum(not one.right for one in asked),
    "per_second": len(asked) / seconds,
    "p50_ms": 1000 * float(np.quantile(each, 0.5)),
    "p99_ms": 1000 * float(np.quantile(each, 0.99)),
    "loading_p50_ms": 1000 * float(np.quantile(loading, 0.5)),
    "loading_p99_ms": 1000 * float(np.quantile(loading, 0.99)),
    "loading_share": float(loading.sum() / each.sum()),
  }


def figures(url: str) -> dict[str, float]:
  """The engine's counters."""
  lines = httpx2.get(f"{url}/metrics").text.splitlines()
  pairs = (line.split(" ") for line in lines if line.startswith("hra_engine_"))
  return {name: float(value) for name, value in pairs}


def measure(
  url: str,
  expected: Sequence[str],
  *,
  requests: int,
  blocks: int,
  at_once: int,
) -> dict[str, Any]:
  """Both ways of asking, block by block."""
  ways = {"at once": at_once, "one at a time": 1}
  asked: dict[str, list[Asked]] = {way: [] for way in ways}
  seconds = dict.fromkeys(ways, 0.0)
  before = figures(url)
  for block in tqdm.trange(blocks, desc="blocks"):
    for way in ways if block % 2 else reversed(ways):
      start = time.perf_counter()
      asked[way] += asyncio.run(
        ask(url, expected, requests=requests // blocks, at_once=ways[way])
      )
      seconds[way] += time.perf_counter() - start
  after = figures(url)
  counted = ("evictions_total", "loads_total", "compilations_total")
  return {
    "ways": {way: told(asked[way], seconds[way]) for way in ways},
    "engine": {
      each: after[f"hra_engine_{each}"] - before[f"hra_engine_{each}"]
      for each in counted
    },
  }


def markdown(about: Mapping[str, str], found: Mapping[str, Any]) -> str:
  engine = found["engine"]
  note = (
    f"{found['speakers']} speakers ({found['different']} different transcripts) "
    f"in turn, {found['slots']} slots, {found['at_once']} requests at once or 1"
  )
  rows = [
    f"| {way} | {each['requests']} | {each['wrong']} | {each['per_second']:.0f} "
    f"| {each['p50_ms']:.0f} | {each['p99_ms']:.0f} "
    f"| {each['loading_p50_ms']:.1f} | {each['loading_p99_ms']:.1f} "
    f"| {100 * each['loading_share']:.0f}% |"
    for way, each in found["ways"].items()
  ]
  return "\n".join(
    [
      "# A load that forces eviction",
      "",
      results.title(about, note=note),
      "",
      "| | requests | wrong | per second | p50 ms | p99 ms | loading p50 ms "
      "| loading p99 ms | loading's share |",
      "|---|---|---|---|---|---|---|---|---|",
      *rows,
      "",
      f"Meanwhile {engine['evictions_total']:.0f} evictions, "
      f"{engine['loads_total']:.0f} loads and "
      f"{engine['compilations_total']:.0f} compilations. Client and server shared "
      "the cores.",
      "",
    ]
  )


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  given = flags.FLAGS
  with tempfile.TemporaryDirectory() as folder:
    store = Path(folder) / "store"
    expected = publish(store, load_backbone(BACKBONE), given.speakers)
    with served(store, f"--config.engine.slots={given.slots}") as url:
      found = measure(
        url,
        expected,
        requests=given.requests,
        blocks=given.blocks,
        at_once=given.at_once,
      )
  found |= {
    "speakers": given.speakers,
    "different": len(set(expected)),
    "slots": given.slots,
    "at_once": given.at_once,
  }
  about = results.about("serving_load")
  results.write(
    "serving_load",
    figures={**about, **found},
    markdown=markdown(about, found),
    out=given.out,
  )


if __name__ == "__main__":
  define_flags()
  app.run(main)
