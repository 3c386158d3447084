"""What a server refuses, and one that isn't there."""

import pytest
from chromium import card, choose, expect, side


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
  choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("failed")
  for kind in ("backbone", "submodel"):
    expect(side(page, kind).locator(".text")).to_have_text(said)
    expect(side(page, kind)).to_contain_text("as the test wants it")
  page.get_by_role("button", name="Transcribe morning.wav again").click()
  expect(card(page).locator(".summary")).to_have_text("3 words differ")


def test_one_side_may_fail(page, stub, recording):
  stub.refusals = [(413, {})]
  choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("half of it failed")
  expect(card(page).locator("section.failed")).to_have_count(1)


def test_a_busy_server_is_asked_again(page, stub, recording):
  stub.refusals = [(503, {"Retry-After": "1"}), (429, {"Retry-After": "1"})]
  page.set_input_files("#files", recording)
  expect(side(page, "backbone")).to_contain_text("trying again in 1 s")
  expect(card(page).locator(".summary")).to_have_text("transcribed")
  assert stub.asked == ["tiny"] * 3


def test_a_server_that_is_gone_and_comes_back(page, context, stub, recording):
  context.route("**/v1/**", lambda route: route.abort())
  page.reload()
  expect(page.locator("#server")).to_contain_text("The server doesn't answer.")
  page.set_input_files("#files", recording)
  expect(page.get_by_role("alert")).to_contain_text("Try again when it answers")
  context.unroute("**/v1/**")
  page.set_viewport_size({"width": 320, "height": 700})
  again = page.get_by_role("button", name="Ask again")
  assert again.bounding_box()["height"] < 30  # on one line
  again.click()
  expect(page.locator("#server")).to_have_text("tiny · 3 speakers")
  expect(page.get_by_role("button", name="Ask again")).to_be_hidden()
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("transcribed")
  expect(page.get_by_role("alert")).to_be_hidden()


def test_removing_a_card_hangs_up(page, stub, recording):
  stub.refusals = [(503, {"Retry-After": "5"})]
  page.set_input_files("#files", recording)
  expect(side(page, "backbone")).to_contain_text("trying again")
  page.get_by_role("button", name="Remove").click()
  page.set_input_files("#files", recording)  # doesn't wait for the first
  expect(card(page).locator(".summary")).to_have_text("transcribed")
  assert stub.asked == ["tiny"] * 2
