"""Files in, two transcripts side by side out."""

import numpy as np
import pytest
import soundfile
from chromium import card, choose, expect, side


def test_both_transcripts_side_by_side(page, stub, recording):
  choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("3 words differ")
  backbone, submodel = side(page, "backbone"), side(page, "submodel")
  expect(backbone.locator(".text")).to_have_text(stub.texts[None])
  expect(submodel.locator(".text")).to_have_text(stub.texts["anna"])
  assert backbone.locator("mark").all_inner_texts() == ["whether", "to day"]
  assert submodel.locator("mark").all_inner_texts() == ["weather", "today"]
  expect(submodel).to_contain_text("With anna's Submodel")
  expect(submodel).to_contain_text("Version 3, 0a1b2c3d.\nAnswered in")
  expect(submodel).to_contain_text("loading 4\u00a0ms, computing 21\u00a0ms")
  expect(backbone).not_to_contain_text("ersion")
  assert sorted(stub.asked) == ["tiny", "tiny:anna"]
  assert {sound for _, sound in stub.sounds} == {recording.read_bytes()}
  left, right = backbone.bounding_box(), submodel.bounding_box()
  assert left["y"] == right["y"]
  assert left["x"] + left["width"] <= right["x"]
  expect(page.locator("#told")).to_have_text("morning.wav: 3 words differ.")


def test_equal_transcripts_have_no_marks(page, recording):
  choose(page, "bert")
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("both heard the same")
  expect(card(page).locator("mark")).to_have_count(0)


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
  choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text(
    "the backbone answered twice"
  )
  submodel = side(page, "submodel")
  expect(submodel.locator("h3")).to_have_text(
    "Backbone, in place of anna's Submodel"
  )
  expect(submodel).to_contain_text(said)


def test_backbone_alone_is_asked_once(page, stub, recording):
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("transcribed")
  expect(side(page, "submodel")).to_have_count(0)
  expect(side(page, "backbone").locator(".text")).to_have_text(stub.texts[None])
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
  expect(card(page).locator(".summary")).to_have_text("transcribed")
  assert stub.sounds == [("dropped.wav", recording.read_bytes())]


def test_names_and_transcripts_are_data(page, stub, recording):
  name = "<img src=x onerror=alert(1)>"
  stub.speakers.append(name)
  stub.texts[name] = "<b>bold</b> &amp; <script>alert(2)</script>"
  page.reload()
  choose(page, name)
  page.set_input_files("#files", recording)
  expect(side(page, "submodel").locator(".text")).to_have_text(stub.texts[name])
  expect(side(page, "submodel").locator("h3")).to_contain_text(name)
  assert stub.asked[-1].startswith("tiny")
  assert f"tiny:{name}" in stub.asked
  assert page.locator("main img, main b, main script").count() == 0
