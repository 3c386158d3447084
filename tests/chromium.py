"""A headless Chromium of the system, and what tests ask of the page in it.

Tests that import this are skipped where playwright isn't there.
"""

import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

CHROMIUM = next(
  filter(
    None,
    map(shutil.which, ("chromium", "chromium-browser", "google-chrome")),
  ),
  None,
)


def launch(driver, heard):
  return driver.chromium.launch(
    executable_path=CHROMIUM,
    args=[
      "--no-sandbox",
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
      f"--use-file-for-fake-audio-capture={heard}",
    ],
  )


def choose(page, speaker):
  page.get_by_label("Speaker", exact=True).fill(speaker)
  page.keyboard.press("Enter")


def card(page, place=0):
  return page.get_by_role("article").nth(place)


def side(page, kind, place=0):
  return card(page, place).locator(f"section.{kind}")
