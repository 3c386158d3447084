"""A page that is watched, beside a server whose answers the test decides."""

import dataclasses

import numpy as np
import pytest
import soundfile
from stub_server import Stub, serving

RATE = 48000
TONE = 440.0


@pytest.fixture(scope="module")
def driver():
  playwright = pytest.importorskip("playwright.sync_api")
  import chromium

  if chromium.CHROMIUM is None:
    pytest.skip("no Chromium here")
  with playwright.sync_playwright() as driver:
    yield driver


@pytest.fixture(scope="module")
def browser(driver, tmp_path_factory):
  """One whose microphone hears a tone."""
  times = np.arange(10 * RATE) / RATE
  tone = tmp_path_factory.mktemp("microphone") / "tone.wav"
  soundfile.write(tone, 0.3 * np.sin(2 * np.pi * TONE * times), RATE)
  import chromium

  browser = chromium.launch(driver, tone)
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
  yield page
  assert watched == Watched()


@pytest.fixture
def recording(tmp_path):
  path = tmp_path / "morning.wav"
  soundfile.write(path, 0.1 * np.sin(np.arange(16000) / 9), 16000)
  return path
