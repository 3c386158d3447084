"""The page in headless Chromium, beside a server whose answers the test decides."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import soundfile

from stub_server import PAGE, Stub, serving

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(
  filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
  None,
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
RATE = 48000
TONE = 440.0

expect = playwright.expect


@pytest.fixture(scope="module")
def driver():
  if CHROMIUM is None:
    pytest.skip("no Chromium here")
  with playwright.sync_playwright() as driver:
    yield driver


def _launch(driver, heard):
  return driver.chromium.launch(
    executable_path=CHROMIUM,
    args=[
      "--no-sandbox",
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
      f"--use-file-for-fake-audio-capture={heard}",
    ],
  )


@pytest.fixture(scope="module")
def browser(driver, tmp_path_factory):
  """One whose microphone hears a tone."""
  times = np.arange(10 * RATE) / RATE
  tone = tmp_path_factory.mktemp("microphone") / "tone.wav"
  soundfile.write(tone, 0.3 * np.sin(2 * np.pi * TONE * times), RATE)
  browser = _launch(driver, tone)
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


def _choose(page, speaker):
  page.get_by_label("Speaker", exact=True).fill(speaker)
  page.keyboard.press("Enter")


def _card(page, place=0):
  return page.get_by_role("article").nth(place)


def _side(page, kind, place=0):
  return _card(page, place).locator(f"section.{kind}")


def test_both_transcripts_side_by_side(page, stub, recording):
  _choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("3 words differ")
  backbone, submodel = _side(page, "backbone"), _side(page, "submodel")
  expect(backbone.locator(".text")).to_have_text(stub.texts[None])
  expect(submodel.locator(".text")).to_have_text(stub.texts["anna"])
  assert backbone.locator("mark").all_inner_texts() == ["whether", "to day"]
  assert submodel.locator("mark").all_inner_texts() == ["weather", "today"]
  expect(submodel).to_contain_text("With anna’s Submodel")
  expect(submodel).to_contain_text("Version 3, 0a1b2c3d. Answered in")
  expect(submodel).to_contain_text("loading 4 ms, computing 21 ms")
  expect(backbone).not_to_contain_text("ersion")
  assert sorted(stub.asked) == ["tiny", "tiny:anna"]
  assert {sound for _, sound in stub.sounds} == {recording.read_bytes()}
  left, right = backbone.bounding_box(), submodel.bounding_box()
  assert left["y"] == right["y"]
  assert left["x"] + left["width"] <= right["x"]
  expect(page.locator("#told")).to_have_text("morning.wav: 3 words differ.")


def test_equal_transcripts_have_no_marks(page, recording):
  _choose(page, "bert")
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("both heard the same")
  expect(_card(page).locator("mark")).to_have_count(0)


@pytest.mark.parametrize(
  ("reason", "said"),
  [
    ("not better", "On its dev recordings the Submodel was no better."),
    ("unknown", "The store has no Submodel of this speaker."),
  ],
)
def test_says_where_the_backbone_answered_instead(
  page, stub, recording, reason, said
):
  stub.receipts["anna"] = {
    "submodel": "anna",
    "applied": "backbone",
    "version": None,
    "fingerprint": None,
    "reason": reason,
  }
  _choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text(
    "the backbone answered twice"
  )
  submodel = _side(page, "submodel")
  expect(submodel.locator("h3")).to_have_text(
    "Backbone, in place of anna’s Submodel"
  )
  expect(submodel).to_contain_text(said)


def test_backbone_alone_is_asked_once(page, stub, recording):
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("transcribed")
  expect(_side(page, "submodel")).to_have_count(0)
  assert stub.asked == ["tiny"]


def test_several_files_are_heard_in_order(page, stub, tmp_path):
  paths = [tmp_path / f"{name}.flac" for name in "abc"]
  for path in paths:
    soundfile.write(path, np.zeros(1600), 16000)
  page.set_input_files("#files", paths)
  names = ["a.flac", "b.flac", "c.flac"]
  expect(page.get_by_role("article")).to_have_count(3)
  assert page.locator("article h2").all_inner_texts() == names
  expect(page.locator("#told")).to_have_text("c.flac: transcribed.")
  assert [name for name, _ in stub.sounds] == names


def test_dropped_anywhere(page, stub, recording):
  page.evaluate(
    """(bytes) => {
      const file = new File([new Uint8Array(bytes)], "dropped.wav");
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(file);
      for (const kind of ["dragenter", "dragover", "drop"]) {
        document.querySelector("h1").dispatchEvent(new DragEvent(
          kind, { dataTransfer, bubbles: true, cancelable: true }));
      }
    }""",
    list(recording.read_bytes()),
  )
  expect(page.locator("article h2")).to_have_text("dropped.wav")
  expect(_card(page).locator(".summary")).to_have_text("transcribed")
  assert stub.sounds == [("dropped.wav", recording.read_bytes())]


def test_other_formats_are_converted_here(page, stub, tmp_path):
  path = tmp_path / "phone.m4a"  # read by its bytes, whatever its name says
  times = np.arange(44100) / 44100
  both = np.stack([np.sin(2 * np.pi * TONE * times), np.zeros(44100)], 1)
  with path.open("wb") as file:
    soundfile.write(file, 0.4 * both, 44100, format="WAV")
  page.set_input_files("#files", path)
  expect(_card(page).locator(".summary")).to_have_text("transcribed")
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


def test_names_and_transcripts_are_data(page, stub, recording):
  name = "<img src=x onerror=alert(1)>"
  stub.speakers.append(name)
  stub.texts[name] = "<b>bold</b> &amp; <script>alert(2)</script>"
  page.reload()
  _choose(page, name)
  page.set_input_files("#files", recording)
  expect(_side(page, "submodel").locator(".text")).to_have_text(
    stub.texts[name]
  )
  expect(_side(page, "submodel").locator("h3")).to_contain_text(name)
  assert stub.asked[-1].startswith("tiny")
  assert f"tiny:{name}" in stub.asked
  assert page.locator("main img, main b, main script").count() == 0


def _pitch(samples, rate):
  spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
  return np.argmax(spectrum) * rate / len(samples)


def test_records(page, stub):
  _choose(page, "anna")
  page.get_by_role("button", name="Record", exact=True).click()
  expect(page.get_by_role("timer")).to_have_text("0:01")
  page.get_by_role("button", name="Stop and transcribe").click()
  expect(page.locator("article h2")).to_have_text("Recording 1")
  expect(_card(page).locator(".summary")).to_have_text("3 words differ")
  samples, rate = stub.sound(0)
  assert soundfile.info(_file(stub)).subtype == "PCM_16"
  assert (rate, samples.ndim) == (16000, 1)
  assert 1.0 <= len(samples) / rate < 4.0
  assert _pitch(samples, rate) == pytest.approx(TONE, abs=3)
  assert stub.sounds[0][1] == stub.sounds[1][1]
  expect(page.get_by_role("timer")).to_be_hidden()


def _file(stub):
  import io

  return io.BytesIO(stub.sounds[0][1])


def test_a_recording_is_discarded(page, stub):
  page.get_by_role("button", name="Record", exact=True).click()
  page.get_by_role("button", name="Discard").click()
  expect(page.get_by_role("button", name="Record", exact=True)).to_be_focused()
  expect(page.get_by_role("article")).to_have_count(0)
  assert stub.asked == []


def test_a_recording_outlives_a_field_without_a_name(page, stub):
  _choose(page, "anna")
  page.get_by_role("button", name="Record", exact=True).click()
  expect(page.get_by_role("timer")).to_have_text("0:01")
  _choose(page, "nobody")
  page.get_by_role("button", name="Stop and transcribe").click()
  expect(_card(page).locator(".summary")).to_have_text("3 words differ")


def test_a_microphone_that_is_silent(driver, stub, tmp_path):
  silence = tmp_path / "silence.wav"
  soundfile.write(silence, np.zeros(RATE), RATE)
  browser = _launch(driver, silence)
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


@pytest.mark.parametrize(
  ("status", "said"),
  [
    (400, "The server can't use this recording."),
    (404, "The server has no such speaker, or this API key may not use it."),
    (409, "This speaker's Submodel can't be used with the backbone."),
    (413, "The recording is too long or too large for this server."),
    (429, "That were too many requests for now; try again in a while."),
    (500, "The server failed (status 500)."),
    (503, "The server can't answer now; try again in a while."),
  ],
)
def test_a_refusal_is_a_sentence(page, stub, recording, status, said):
  stub.refusals = [(status, {})] * 2
  _choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("failed")
  for kind in ("backbone", "submodel"):
    expect(_side(page, kind).locator(".text")).to_have_text(said)
    expect(_side(page, kind)).to_contain_text("as the test wants it")
  page.get_by_role("button", name="Transcribe morning.wav again").click()
  expect(_card(page).locator(".summary")).to_have_text("3 words differ")


def test_one_side_may_fail(page, stub, recording):
  stub.refusals = [(413, {})]
  _choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("half of it failed")
  expect(_card(page).locator("section.failed")).to_have_count(1)


def test_a_busy_server_is_asked_again(page, stub, recording):
  stub.refusals = [(503, {"Retry-After": "1"}), (429, {"Retry-After": "1"})]
  page.set_input_files("#files", recording)
  expect(_side(page, "backbone")).to_contain_text("trying again in 1 s")
  expect(_card(page).locator(".summary")).to_have_text("transcribed")
  assert stub.asked == ["tiny"] * 3


def test_a_server_that_is_gone_and_comes_back(page, context, stub, recording):
  context.route("**/v1/**", lambda route: route.abort())
  page.reload()
  expect(page.locator("#server")).to_contain_text("The server doesn't answer.")
  page.set_input_files("#files", recording)
  expect(page.get_by_role("alert")).to_contain_text("Try again when it answers")
  context.unroute("**/v1/**")
  page.get_by_role("button", name="Ask again").click()
  expect(page.locator("#server")).to_have_text("tiny · 3 speakers")
  expect(page.get_by_role("button", name="Ask again")).to_be_hidden()
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("transcribed")
  expect(page.get_by_role("alert")).to_be_hidden()


def test_a_key(page, stub, recording):
  stub.key = "secret"
  page.reload()
  expect(page.locator("#server")).to_have_text("The server asks for an API key.")
  page.get_by_label("API key").fill("wrong")
  page.keyboard.press("Enter")
  expect(page.locator("#server")).to_contain_text("doesn't know this API key")
  page.get_by_label("API key").fill("secret")
  page.get_by_role("button", name="Use").click()
  expect(page.get_by_label("Speaker", exact=True)).to_be_focused()
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("transcribed")
  page.reload()
  expect(page.locator("#server")).to_have_text("tiny · 3 speakers")
  assert page.evaluate("localStorage.length") == 0
  assert "secret" not in page.url


def test_a_key_for_one_speaker_and_no_backbone(page, stub, recording):
  stub.speakers, stub.backbone = ["anna"], None
  page.reload()
  expect(page.get_by_label("Speaker", exact=True)).to_have_value("anna")
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("transcribed")
  expect(_side(page, "submodel")).to_contain_text("With anna’s Submodel")
  assert stub.asked == ["tiny:anna"]
  page.get_by_label("Speaker", exact=True).fill("")
  page.set_input_files("#files", recording)
  expect(page.get_by_role("alert")).to_contain_text("may not use the backbone")


def test_thousands_of_speakers(page, stub):
  stub.speakers = [f"speaker-{number}" for number in range(10_000)]
  page.reload()
  expect(page.locator("#server")).to_have_text("tiny · 10,000 speakers")
  field = page.get_by_label("Speaker", exact=True)
  field.click()
  expect(page.get_by_role("option")).to_have_count(100)
  expect(page.locator("#more")).to_have_text("and 9,900 more")
  field.press_sequentially("999")
  expect(page.get_by_role("option")).to_have_count(19)
  field.fill("speaker-9999")
  expect(page.get_by_role("option")).to_have_text(["speaker-9999"])
  field.fill("nobody")
  expect(page.locator("#more")).to_have_text("No speaker matches.")
  page.keyboard.press("Enter")
  expect(page.locator("#speaker-note")).to_contain_text("No speaker is called")
  expect(field).to_have_attribute("aria-invalid", "true")


def test_a_newcomer_is_listed_without_a_reload(page, stub):
  page.evaluate("performance.now = () => 1e6")
  stub.speakers.append("newcomer")
  page.get_by_label("Speaker", exact=True).click()
  expect(page.get_by_role("option", name="newcomer")).to_be_visible()


def test_by_keyboard_alone(page, stub, recording):
  press = page.keyboard.press
  field = page.get_by_label("Speaker", exact=True)
  expect(page.locator("#server")).to_have_text("tiny · 3 speakers")
  press("Tab")
  expect(page.get_by_role("link", name="Skip")).to_be_focused()
  press("Tab")
  expect(field).to_be_focused()
  expect(page.get_by_role("listbox")).to_be_hidden()
  press("ArrowDown")
  expect(page.get_by_role("listbox")).to_be_visible()
  press("ArrowUp")  # the last of three
  press("ArrowUp")
  assert field.get_attribute("aria-activedescendant") == "speaker-1"
  expect(page.locator("#speaker-1")).to_have_text("bert")
  press("Escape")
  expect(page.get_by_role("listbox")).to_be_hidden()
  page.keyboard.type("AN")
  press("Enter")
  expect(field).to_have_value("anna")
  press("Tab")
  record = page.get_by_role("button", name="Record", exact=True)
  expect(record).to_be_focused()
  press("Space")
  stop = page.get_by_role("button", name="Stop and transcribe")
  expect(stop).to_be_focused()
  expect(page.get_by_role("timer")).to_have_text("0:01")
  press("Enter")
  expect(_card(page).locator(".summary")).to_have_text("3 words differ")
  expect(record).to_be_focused()
  press("Tab")
  expect(page.locator("#files")).to_be_focused()
  outline = "e => getComputedStyle(e).outlineStyle"
  assert page.locator("#drop").evaluate(outline) == "solid"
  press("Tab")
  expect(page.get_by_role("button", name="API key")).to_be_focused()
  press("Tab")
  expect(
    page.get_by_role("button", name="Transcribe Recording 1 again")
  ).to_be_focused()
  press("Enter")
  expect(page.get_by_role("article")).to_have_count(2)
  expect(_card(page).locator(".summary")).to_have_text("3 words differ")
  press("Tab")
  expect(page.locator(".remove").nth(1)).to_be_focused()
  press("Enter")
  expect(page.get_by_role("article")).to_have_count(1)
  expect(page.locator(".remove")).to_be_focused()
  press("Enter")
  expect(page.locator("#empty")).to_be_visible()
  expect(record).to_be_focused()


def test_removing_a_card_hangs_up(page, stub, recording):
  stub.refusals = [(503, {"Retry-After": "5"})]
  page.set_input_files("#files", recording)
  expect(_side(page, "backbone")).to_contain_text("trying again")
  page.get_by_role("button", name="Remove").click()
  page.set_input_files("#files", recording)  # doesn't wait for the first
  expect(_card(page).locator(".summary")).to_have_text("transcribed")
  assert stub.asked == ["tiny"] * 2


WORDS = [
  ("", "", [], [], 0),
  ("a b c", "a b c", [], [], 0),
  ("a b c", "", ["a", "b", "c"], [], 3),
  ("", "a", [], ["a"], 1),
  ("a b c", "a x c", ["b"], ["x"], 1),
  ("a c", "a b c", [], ["b"], 1),
  ("b a", "a b", ["b"], ["b"], 2),
  ("Hello, world.", "hello world", [], [], 0),
  ("don't", "dont", ["don't"], ["dont"], 1),
  ("Ärger – ja", "ärger – nein", ["ja"], ["nein"], 1),
  ("a a a", "a a", ["a"], [], 1),
  ("to day is", "today is", ["to", "day"], ["today"], 2),
]


@pytest.mark.parametrize(("left", "right", "only", "others", "edits"), WORDS)
def test_words(page, left, right, only, others, edits):
  found = page.evaluate(
    "async (texts) => (await import('./words.js')).compare(...texts)",
    [left, right],
  )
  marked = [
    [word["text"] for word in found[side] if word["differs"]]
    for side in ("left", "right")
  ]
  assert marked == [only, others]
  assert found["edits"] == edits
  for side, text in (("left", left), ("right", right)):
    assert [word["text"] for word in found[side]] == text.split()


def test_words_of_half_an_hour(page):
  words = [f"w{number % 977}" for number in range(5000)]
  other = [*words]
  other[::7] = ["else"] * len(other[::7])
  found = page.evaluate(
    "async (texts) => (await import('./words.js')).compare(...texts).edits",
    [" ".join(words), " ".join(other)],
  )
  assert found == len(other[::7])


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_fits(page, recording, width):
  page.set_viewport_size({"width": width, "height": 740})
  _choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("3 words differ")
  page.get_by_role("button", name="API key").click()
  assert page.evaluate("document.documentElement.scrollWidth") <= width
  for button in page.locator("button:visible").all():
    box = button.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_little_moves_where_none_shall(context, stub, recording):
  page = context.new_page()
  page.emulate_media(reduced_motion="reduce")
  stub.refusals = [(503, {"Retry-After": "5"})]
  page.goto(stub.url)
  page.set_input_files("#files", recording)
  busy = page.locator("[aria-busy] .text")
  name = "e => getComputedStyle(e, '::before').animationName"
  assert busy.evaluate(name) == "none"
  page.emulate_media(reduced_motion="no-preference")
  assert busy.evaluate(name) == "breathe"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_legible(page, stub, recording, scheme):
  page.emulate_media(color_scheme=scheme)
  _show_all(page, stub, recording)
  faint = page.evaluate(CONTRAST)
  assert faint == []


def _show_all(page, stub, recording):
  """A card of each sort, a warning, the list and the key's field."""
  _choose(page, "anna")
  stub.receipts["zoe"] = {"applied": "backbone", "reason": "not better"}
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("3 words differ")
  _choose(page, "zoe")
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text(
    "the backbone answered twice"
  )
  stub.refusals = [(413, {})] * 2
  page.set_input_files("#files", recording)
  expect(_card(page).locator(".summary")).to_have_text("failed")
  page.get_by_role("button", name="API key").click()
  _choose(page, "nobody")
  page.set_input_files("#files", recording)
  expect(page.get_by_role("alert")).to_be_visible()
  page.get_by_label("Speaker", exact=True).fill("")
  page.keyboard.press("ArrowDown")
  expect(page.locator(".active")).to_be_visible()


CONTRAST = """() => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => colour.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const own = rgba(getComputedStyle(at).backgroundColor);
      if (own[3] === 255) return own;
    }
    return [255, 255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const box = element.getBoundingClientRect();
    if ((!own && element.tagName !== "INPUT") || box.width < 2 || element.disabled) continue;
    if (!element.checkVisibility()) continue;
    const pair = [rgba(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) faint.push([element.outerHTML.slice(0, 80), ratio]);
  }
  return faint;
}"""


def test_everything_has_a_name_and_a_role(page, stub, recording):
  _show_all(page, stub, recording)
  assert page.evaluate("document.documentElement.lang") == "en"
  assert page.title()
  nameless = page.evaluate(
    """() => {
      const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
      const wrong = ids.filter((id, i) => ids.indexOf(id) !== i);
      for (const e of document.querySelectorAll(
        "[aria-controls], [aria-describedby], [aria-labelledby], [aria-activedescendant]")) {
        for (const name of ["controls", "describedby", "labelledby", "activedescendant"]) {
          const id = e.getAttribute(`aria-${name}`);
          if (id && !document.getElementById(id)) wrong.push(id);
        }
      }
      for (const e of document.querySelectorAll("button, input, audio, [role=listbox]")) {
        const named = e.ariaLabel || e.textContent.trim() || e.labels?.length;
        if (!named && e.ariaHidden !== "true") wrong.push(e.outerHTML);
        const box = e.getBoundingClientRect();
        if (e.matches("button.plain, button.record") && box.width && box.height < 24) {
          wrong.push(`${e.outerHTML} is small`);
        }
      }
      const levels = [...document.querySelectorAll("h1, h2, h3")].map((e) => +e.tagName[1]);
      if (levels.some((level, i) => level > (levels[i - 1] ?? 0) + 1)) wrong.push("levels");
      return wrong;
    }"""
  )
  assert nameless == []
  for role in ("banner", "main", "form", "combobox", "listbox", "alert"):
    expect(page.get_by_role(role)).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, stub, recording, scheme):
  axe = pytest.importorskip("axe_playwright_python.sync_playwright")
  context = browser.new_context(color_scheme=scheme, bypass_csp=True)
  page = context.new_page()
  page.goto(stub.url)
  _show_all(page, stub, recording)
  found = axe.Axe().run(page)
  assert found.violations_count == 0, found.generate_report()
  context.close()


def test_nothing_inline_and_nothing_from_elsewhere():
  html = (PAGE / "index.html").read_text()
  assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*src=)", html)
  for path in PAGE.iterdir():
    found = re.findall(r"https?://[^\s\"']+", path.read_text())
    assert set(found) <= {"http://www.w3.org/2000/svg"}, path
    assert "eval(" not in path.read_text()
    assert "innerHTML" not in path.read_text()
