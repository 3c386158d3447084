"""A page that is watched, beside a server whose answers the test decides."""

import dataclasses

import numpy as np
import pytest
import soundfile
import soxr
from stub_server import Stub, serving

SECONDS = 8


@pytest.fixture(scope="module")
def driver():
  playwright = pytest.importorskip("playwright.sync_api")
  import chromium

  if chromium.CHROMIUM is None:
    pytest.skip("no Chromium here")
  with playwright.sync_playwright() as driver:
    yield driver


@pytest.fixture(scope="module")
def murmur():
  """Samples at 16 kHz that are nowhere alike, below 4 kHz."""
  noise = np.random.default_rng(0).standard_normal(SECONDS * 8000)
  return soxr.resample(0.1 * noise, 8000, 16000)


@pytest.fixture(scope="module")
def browser(driver, murmur, tmp_path_factory):
  """One whose microphone hears the murmur."""
  import chromium

  heard = tmp_path_factory.mktemp("microphone") / "murmur.wav"
  soundfile.write(heard, soxr.resample(murmur, 16000, 48000), 48000)
  browser = chromium.launch(driver, heard)
  yield browser
  browser.close()


@pytest.fixture
def stub():
  stub = Stub(
    speakers=["anna", "bert", "zoe"],
    texts={
      None: "the whether is nice to day",
      "anna": "the weather is nice today",
      "bert": "the whether is nice to day",
    },
  )
  with serving(stub):
    yield stub


@pytest.fixture
def context(browser):
  context = browser.new_context(viewport={"width": 1100, "height": 800})
  context.set_default_timeout(8000)
  yield context
  context.close()


@dataclasses.dataclass
class Watched:
  """What a page must not do."""

  errors: list[str] = dataclasses.field(default_factory=list)
  elsewhere: list[str] = dataclasses.field(default_factory=list)


@pytest.fixture
def page(context, stub):
  """Opened, and watched: no error, no refused script, nothing from elsewhere."""
  page, watched = context.new_page(), Watched()
  page.on("pageerror", lambda error: watched.errors.append(str(error)))
  page.on(
    "console",
    lambda message: (
      watched.errors.append(message.text)
      if message.type == "error" and "Failed to load" not in message.text
      else None
    ),
  )
  page.on(
    "request",
    lambda request: (
      None
      if request.url.startswith((stub.url, "blob:", "data:"))
      else watched.elsewhere.append(request.url)
    ),
  )
  page.goto(stub.url)
  page.wait_for_selector("#server[data-state=there]")
  yield page
  assert watched == Watched()


@pytest.fixture
def recording(tmp_path):
  path = tmp_path / "morning.wav"
  soundfile.write(path, 0.1 * np.sin(np.arange(16000) / 9), 16000)
  return path
