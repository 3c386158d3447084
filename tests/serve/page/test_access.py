"""Without a mouse, on small screens, in the dark, and with a screen reader's eyes."""

import re

import pytest
from chromium import card, choose, expect
from stub_server import PAGE

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
  expect(card(page).locator(".summary")).to_have_text("3 words differ")
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
  expect(card(page).locator(".summary")).to_have_text("3 words differ")
  press("Tab")
  expect(page.locator(".remove").nth(1)).to_be_focused()
  press("Enter")
  expect(page.get_by_role("article")).to_have_count(1)
  expect(page.locator(".remove")).to_be_focused()
  press("Enter")
  expect(page.locator("#empty")).to_be_visible()
  expect(record).to_be_focused()


def test_fits(page, recording):
  choose(page, "anna")
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("3 words differ")
  page.get_by_role("button", name="API key").click()
  for width in (320, 360, 768, 1280):
    page.set_viewport_size({"width": width, "height": 740})
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
        const told = e.matches("button") && e.textContent.trim();
        const named = e.ariaLabel || e.labels?.length || told;
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


def _show_all(page, stub, recording):
  """A card of each sort, a warning, the list and the key's field."""
  choose(page, "anna")
  stub.receipts["zoe"] = {"applied": "backbone", "reason": "not better"}
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("3 words differ")
  choose(page, "zoe")
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text(
    "the backbone answered twice"
  )
  stub.refusals = [(413, {})] * 2
  page.set_input_files("#files", recording)
  expect(card(page).locator(".summary")).to_have_text("failed")
  page.get_by_role("button", name="API key").click()
  choose(page, "nobody")
  page.set_input_files("#files", recording)
  expect(page.get_by_role("alert")).to_be_visible()
  page.get_by_label("Speaker", exact=True).fill("")
  page.keyboard.press("ArrowDown")
  expect(page.locator(".active")).to_be_visible()
