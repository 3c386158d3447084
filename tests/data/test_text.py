"""Normalised transcripts: what is spelling, and what is not said at all."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hra.data.text import normalize_transcript

PERSIAN = (
  "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # with a non-joiner
)
NASTY = st.text(
  st.sampled_from("aB1 .'\u2019`\u00b4\u0149\u00ad\u0301\u200c\u200d")
)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("  Hello,\tWORLD!\n", "hello world"),
    (
      "It\u2019s the dogs' \u2018day\u2019 - isn`t it?",
      "it's the dogs day isn't it",
    ),
    ("rock ' n ' roll", "rock n roll"),
    ("well-known e.g. 3%", "well known e g 3"),
    ("ÉTÉ Straße İ", "été straße i̇"),
    ("ﬁne \uff21\u00ad\ufeffb", "fine ab"),
    ("मैं हूँ", "मैं हूँ"),
    (PERSIAN, PERSIAN),
    ("?!", ""),
    ("don\u00b4t I\u2764\ufe0fyou \U0001f468\u200d\U0001f469", "don't i you"),
    ("a \u00a8 b", "a b"),
    ("e\u00ad\u0301", "é"),
  ],
)
def test_normalize_transcript(text, expected):
  assert normalize_transcript(text) == expected


@given(st.text(max_size=30) | NASTY)
@example("\u0149")  # NFKC makes it an apostrophe and an n
@example("a''\u200cb")
def test_normalizing_twice_changes_nothing(text):
  once = normalize_transcript(text)
  assert normalize_transcript(once) == once
  assert once == " ".join(once.split())


@given(st.text(max_size=30) | NASTY)
def test_words_have_letters_and_apostrophes_only_inside(text):
  for word in normalize_transcript(text).split():
    assert any(map(str.isalnum, word))
    assert word == word.strip("'")
    assert not word.startswith(("\u200c", "\u200d"))
    spelt = set(word) - set("'\u200c\u200d")
    assert {unicodedata.category(mark)[0] for mark in spelt} <= set("LNM")


@given(st.text(st.characters(categories=["L", "N"]), max_size=20))
def test_letters_and_digits_are_kept(text):
  spelt = unicodedata.normalize("NFKC", text).lower()
  if spelt.isalnum() and "\u02bc" not in spelt:
    assert normalize_transcript(text) == unicodedata.normalize("NFKC", spelt)
