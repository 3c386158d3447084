"""Who may be chosen, with which key."""

from chromium import card, expect, side


def test_a_key(page, stub, recording):
  stub.key = "secret"
  page.reload()
  expect(page.locator("#server")).to_have_text(
    "The server asks for an API key."
  )
  page.get_by_label("API key").fill("wrong")
  page.keyboard.press("Enter")
  expect(page.locator("#server")).to_contain_text("doesn't know this API key")
  page.get_by_label("API key").fill("secret")
  page.get_by_role("button", name="Use").click()
  expect(page.get_by_label("Speaker", exact=True)).to_be_focused()
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("transcribed")
  page.reload()
  expect(page.locator("#server")).to_have_text("tiny · 3 speakers")
  assert page.evaluate("localStorage.length") == 0
  assert "secret" not in page.url


def test_a_key_for_one_speaker_and_no_backbone(page, stub, recording):
  stub.speakers, stub.backbone = ["anna"], None
  page.reload()
  expect(page.get_by_label("Speaker", exact=True)).to_have_value("anna")
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("transcribed")
  expect(side(page, "submodel")).to_contain_text("With anna's Submodel")
  assert stub.asked == ["tiny:anna"]
  page.get_by_label("Speaker", exact=True).fill("")
  page.set_input_files("#files", recording)
  expect(page.get_by_role("alert")).to_contain_text("may not use the backbone")


def test_a_lone_speaker_is_chosen_once_for_each_key(page, stub):
  stub.speakers = ["anna"]
  page.reload()
  field = page.get_by_label("Speaker", exact=True)
  expect(field).to_have_value("anna")
  # Each look at the clock is long after the one before: all is asked for anew.
  page.evaluate("let now = 0; performance.now = () => now += 1e6")
  field.fill("")
  for name in ("bert", "zoe"):
    stub.speakers = [name]
    page.locator("#record").focus()
    field.focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option")).to_have_text([name])
    expect(field).to_have_value("")
    page.keyboard.press("Escape")
  page.get_by_role("button", name="API key").click()
  page.get_by_label("API key").fill("another")
  page.get_by_role("button", name="Use").click()
  expect(field).to_have_value("zoe")


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
