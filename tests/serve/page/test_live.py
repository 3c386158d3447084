"""The page beside the real server: its routes, its headers, its keys, its engine."""

import re

import fake_engine
import live_server
import numpy as np
import pytest
import serve_stores
import soundfile
import tiny
from chromium import card, choose, expect, side

from hra.config import EngineConfig
from hra.data.synthetic.espeak import Espeak
from hra.evaluate.recognizer import load_backbone
from hra.serve import keys
from hra.serve.engine import Engine

SPEAKERS = ("anna", "bert")
ANSWERED = re.compile("there|gone")


@pytest.fixture(scope="module")
def speech():
  """A sentence that the bundled backbone knows."""
  with Espeak() as espeak:
    text = "the blue dog sleeps in the garage"
    spoken = espeak.speak([text], voice="pitch 80 120\n", rate=150, kind="text")
  return np.asarray(spoken, np.float32)


@pytest.fixture(scope="module")
def recognizer():
  return load_backbone("tiny")


@pytest.fixture(scope="module")
def people(recognizer):
  return [
    serve_stores.submodel(recognizer, name, seed, adapter=tiny.ADAPTER)
    for seed, name in enumerate(SPEAKERS)
  ]


@pytest.fixture(scope="module")
def live(recognizer, people):
  config = EngineConfig(
    slots=2, batch_sizes=(2,), bucket_seconds=(4.0,), refresh_seconds=60.0
  )
  engine = Engine(recognizer, serve_stores.Shelf(*people), config)
  assert engine.wait_until_ready(120)
  with live_server.serving(live_server.service(engine)) as live:
    yield live


def _opened(context, url):
  """The page, when the server has said who is there, and what it complains of."""
  page, wrong = context.new_page(), []
  page.on("pageerror", lambda error: wrong.append(str(error)))
  page.on(
    "console",
    lambda told: wrong.append(told.text) if told.type == "error" else None,
  )
  page.goto(url)
  expect(page.locator("#server")).to_have_attribute("data-state", ANSWERED)
  return page, wrong


def test_both_transcripts_are_those_of_the_engine(
  context, live, recognizer, people, speech, tmp_path
):
  path = tmp_path / "sentence.wav"
  soundfile.write(path, speech, 16000)
  heard, _ = soundfile.read(path, dtype="float32")
  page, wrong = _opened(context, live.url)
  expect(page.locator("#server")).to_have_text("tiny · 2 speakers")
  for submodel in people:
    texts = recognizer.transcribe([heard] * 2, [None, submodel])
    assert texts[0] != texts[1]
    choose(page, submodel.task)
    page.set_input_files("#files", path)
    for kind, text in zip(("backbone", "submodel"), texts, strict=True):
      expect(side(page, kind).locator(".text")).to_have_text(text)
    told = submodel.fingerprint[:8]
    expect(side(page, "submodel")).to_contain_text(f"Version 1, {told}.")
    expect(side(page, "submodel")).to_contain_text("computing")
  assert wrong == []


def test_records_under_the_servers_own_policy(context, live):
  page, wrong = _opened(context, live.url)
  choose(page, "anna")
  page.get_by_role("button", name="Record", exact=True).click()
  expect(page.get_by_role("timer")).to_have_text("0:01")
  page.get_by_role("button", name="Stop and transcribe").click()
  expect(card(page).locator("section.failed")).to_have_count(0)
  expect(side(page, "submodel")).to_contain_text("Version 1")
  length = """player => player.duration || new Promise((resolve) => {
    player.onloadedmetadata = () => resolve(player.duration);
  })"""
  assert card(page).locator("audio").evaluate(length) >= 1
  assert wrong == []


@pytest.fixture
def locked(tmp_path):
  """A server with keys, whose engine computes nothing, and a key for anna."""
  path = tmp_path / "keys.json"
  token = keys.add(path, "phone", speakers=["anna"])
  engine = fake_engine.Engine()
  parts = live_server.service(engine, keys=keys.Keys.open(path))
  with live_server.serving(parts) as live:
    yield live, token


def test_a_key_shows_its_own_speakers(context, locked, tmp_path):
  live, token = locked
  page, _ = _opened(context, live.url)
  expect(page.locator("#server")).to_have_text(
    "The server asks for an API key."
  )
  page.get_by_label("API key").fill("hra_wrong_one")
  page.keyboard.press("Enter")
  expect(page.locator("#server")).to_contain_text("doesn't know this API key")
  page.get_by_label("API key").fill(token)
  page.keyboard.press("Enter")
  expect(page.locator("#server")).to_have_text("tiny · 1 speaker")
  expect(page.get_by_label("Speaker", exact=True)).to_have_value("anna")
  path = tmp_path / "sentence.wav"
  path.write_bytes(live_server.wav(live_server.wave()))
  page.set_input_files("#files", path)
  expect(side(page, "submodel").locator(".text")).to_contain_text("anna said")
  expect(side(page, "backbone").locator(".text")).to_contain_text("nobody said")
  assert token not in live.logged.getvalue()


def test_a_file_that_is_no_recording(context, live, tmp_path):
  path = tmp_path / "letter.wav"
  path.write_bytes(b"Dear Sir or Madam")
  page, _ = _opened(context, live.url)
  page.set_input_files("#files", path)
  expect(side(page, "backbone").locator(".text")).to_have_text(
    "The server can't use this recording."
  )
  expect(side(page, "backbone").locator(".receipt")).not_to_be_empty()
