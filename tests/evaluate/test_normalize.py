"""Text normalisation: what is an error and what is not."""

import builtins
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hra.errors import InputError
from hra.evaluate.normalize import describe, normalizer

basic = normalizer("basic")


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("Hello,  WORLD!\n", "hello world"),
    ("don't", "don't"),
    ("don\u2019t", "don't"),
    ("the dogs' 'quoted' tail", "the dogs quoted tail"),
    ("'tis rock ''n'' roll", "tis rock n roll"),
    ("two''quotes inside", "two quotes inside"),
    ("well-known/unknown", "well known unknown"),
    ("soft\u00adhyphen", "softhyphen"),
    ("\uff46\uff55\uff4c\uff4c width", "full width"),
    ("cafe\u0301", "café"),
    ("$5 + 3_4", "5 3 4"),
    ("हिन्दी में", "हिन्दी में"),
    ("... !?", ""),
    ("", ""),
  ],
)
def test_basic_examples(text: str, expected: str):
  assert basic(text) == expected


@given(st.text())
def test_basic_is_idempotent_and_single_spaced(text: str):
  once = basic(text)
  assert basic(once) == once
  assert once == " ".join(once.split())


@given(st.text())
def test_basic_leaves_no_punctuation_but_inner_apostrophes(text: str):
  for word in basic(text).split():
    assert not word.startswith("'")
    assert not word.endswith("'")
    for mark in word:
      kept = mark in "'\u200c\u200d"  # joiners spell Persian and Indic words
      assert kept or unicodedata.category(mark)[0] not in "PSZC"


def test_whisper_unifies_spelling_and_numerals():
  whisper = normalizer("whisper")
  assert whisper("The colour of twenty-one") == whisper("the color of 21")


def test_whisper_without_its_package_says_what_to_install(monkeypatch):
  real_import = builtins.__import__

  def no_whisper(name, *args, **kwargs):
    if name.startswith("whisper_normalizer"):
      raise ModuleNotFoundError(name)
    return real_import(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", no_whisper)
  with pytest.raises(InputError, match=r"pip install 'hra\[whisper\]'"):
    normalizer("whisper")


def test_unknown_names_are_refused_with_the_choices():
  for function in (normalizer, describe):
    with pytest.raises(InputError, match="'basic', 'whisper'"):
      function("upper")  # type: ignore[arg-type]


def test_descriptions_name_the_normalizer():
  assert describe("basic").startswith("basic")
  assert describe("whisper").startswith("whisper")
