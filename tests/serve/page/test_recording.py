"""A microphone, and files that the page makes into WAV."""

import io

import numpy as np
import pytest
import soundfile
from chromium import card, choose, expect, launch

TONE = 440.0
PIECE = 1600
"""Samples: longer than the blocks that the page takes from the microphone."""


def test_records_what_is_heard_and_nothing_else(page, stub, murmur):
  choose(page, "anna")
  page.get_by_role("button", name="Record", exact=True).click()
  expect(page.get_by_role("timer")).to_have_text("0:01")
  page.get_by_role("button", name="Stop and transcribe").click()
  expect(page.locator("article h2")).to_have_text("Recording 1")
  expect(card(page).locator(".summary")).to_have_text("3 words differ")
  samples, rate = stub.sound(0)
  assert soundfile.info(_file(stub)).subtype == "PCM_16"
  assert (rate, samples.ndim) == (16000, 1)
  assert 1.0 <= len(samples) / rate < 4.0
  # A busy machine's microphone may leave out a moment; the page must not.
  assert np.median(_likenesses(samples[PIECE:], murmur)) > 0.99
  assert stub.sounds[0][1] == stub.sounds[1][1]
  expect(page.get_by_role("timer")).to_be_hidden()


def test_a_recording_is_discarded(page, stub):
  page.get_by_role("button", name="Record", exact=True).click()
  expect(page.get_by_role("timer")).to_have_text("0:01")
  page.get_by_role("button", name="Discard").click()
  expect(page.get_by_role("button", name="Record", exact=True)).to_be_focused()
  page.wait_for_timeout(800)
  expect(page.get_by_role("article")).to_have_count(0)
  assert stub.asked == []


def test_a_recording_outlives_a_field_without_a_name(page, stub):
  choose(page, "anna")
  page.get_by_role("button", name="Record", exact=True).click()
  expect(page.get_by_role("timer")).to_have_text("0:01")
  choose(page, "nobody")
  page.get_by_role("button", name="Stop and transcribe").click()
  expect(card(page).locator(".summary")).to_have_text("3 words differ")


def test_a_microphone_that_is_silent(driver, stub, tmp_path):
  silence = tmp_path / "silence.wav"
  soundfile.write(silence, np.zeros(48000), 48000)
  browser = launch(driver, silence)
  page = browser.new_page()
  page.goto(stub.url)
  page.get_by_role("button", name="Record", exact=True).click()
  page.get_by_role("button", name="Stop and transcribe").click()
  expect(page.get_by_role("alert")).to_contain_text("nothing but silence")
  assert stub.asked == []
  browser.close()


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("NotAllowedError", "was not allowed to use the microphone"),
    ("NotFoundError", "No microphone was found."),
    ("NotReadableError", "another program may hold it"),
  ],
)
def test_a_microphone_that_is_refused(context, stub, name, said):
  context.add_init_script(
    "navigator.mediaDevices.getUserMedia = () => "
    f"Promise.reject(new DOMException('', '{name}'))"
  )
  page = context.new_page()
  page.goto(stub.url)
  page.get_by_role("button", name="Record", exact=True).click()
  expect(page.get_by_role("alert")).to_contain_text(said)
  expect(page.get_by_role("button", name="Record", exact=True)).to_be_enabled()


def test_where_browsers_hand_out_no_microphone(context, stub):
  context.add_init_script(
    "Object.defineProperty(window, 'isSecureContext', { value: false })"
  )
  page = context.new_page()
  page.goto(stub.url)
  expect(page.get_by_role("button", name="Record", exact=True)).to_be_disabled()
  expect(page.locator("#record-note")).to_contain_text("over https")


def test_other_formats_are_converted_here(page, stub, tmp_path):
  path = tmp_path / "phone.m4a"  # read by its bytes, whatever its name says
  times = np.arange(44100) / 44100
  both = np.stack([np.sin(2 * np.pi * TONE * times), np.zeros(44100)], 1)
  with path.open("wb") as file:
    soundfile.write(file, 0.4 * both, 44100, format="WAV")
  page.set_input_files("#files", path)
  expect(card(page).locator(".summary")).to_have_text("transcribed")
  samples, rate = stub.sound(0)
  assert stub.sounds[0][0] == "phone.m4a.wav"
  assert (rate, samples.ndim) == (16000, 1)
  assert len(samples) == pytest.approx(16000, abs=200)
  assert _pitch(samples, rate) == pytest.approx(TONE, abs=2)
  assert np.abs(samples).max() == pytest.approx(0.2, rel=0.05)


def test_no_recording_at_all(page, stub, tmp_path):
  path = tmp_path / "letter.doc"
  path.write_bytes(b"Dear Sir or Madam")
  page.set_input_files("#files", path)
  expect(page.get_by_role("alert")).to_have_text(
    "letter.doc is no recording that this browser can read."
  )
  assert stub.asked == []


def _pitch(samples, rate):
  spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
  return np.argmax(spectrum) * rate / len(samples)


def _likenesses(samples, whole):
  """Of each whole piece of a recording."""
  pieces = samples[: len(samples) // PIECE * PIECE].reshape(-1, PIECE)
  return [_likeness(piece, whole) for piece in pieces]


def _likeness(part, whole):
  """The correlation of a part with the best place of a whole that is repeated.

  A microphone of 48 kHz may begin a third of a sample or two beside the whole's.
  """
  size = len(whole)
  spectrum, turns = np.fft.rfft(whole), np.fft.rfftfreq(size)
  shifts = np.exp(2j * np.pi * turns * np.arange(3)[:, None] / 3)
  return max(
    _likeness_by_samples(part, each)
    for each in np.fft.irfft(spectrum * shifts, size)
  )


def _likeness_by_samples(part, whole):
  size = len(whole)
  spectrum = np.fft.rfft(part, size).conj() * np.fft.rfft(whole)
  place = np.argmax(np.fft.irfft(spectrum, size))
  found = np.resize(np.roll(whole, -place), len(part))
  return np.corrcoef(part, found)[0, 1]


def _file(stub):
  return io.BytesIO(stub.sounds[0][1])
