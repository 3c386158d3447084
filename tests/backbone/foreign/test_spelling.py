"""Tokenizers of others: text <-> ids as the originals, from their own files."""

import json
import pickle

import originals
import pytest
import whispers

from hra.data.tokenizer import Tokenizer
from hra.errors import InputError

transformers = originals.transformers
TEXTS = ("ab ba c", "a", "", "cab  abc", "b a b a", "abba caba c c")
WORDS = ("'c ab'", "c'e")


def _order(tokenizer, blank):
  ids = [id for id in range(tokenizer.vocabulary) if id != blank]
  return [blank, *ids]


def _loaded(folder, family, blank):
  folder.mkdir()
  original = originals.tokenizer(family, folder, blank=blank)
  original.save_pretrained(folder)
  return original, Tokenizer.load(folder)


@pytest.mark.parametrize("blank", [0, 3, 7])
@pytest.mark.parametrize(
  "family", ["parakeet", "w2v_bert", "parakeet_rnnt", "parakeet_tdt"]
)
def test_text_and_ids_equal_the_original_s(tmp_path, family, blank):
  original, ours = _loaded(tmp_path / "original", family, blank)
  assert ours.vocabulary == len(original) == originals.VOCABULARY
  pad = original.pad_token_id
  assert ours.blank == blank
  assert (pad == blank) == (family != "parakeet_tdt")
  order = _order(ours, blank)
  assert list(ours.labels[1:]) == original.convert_ids_to_tokens(order[1:])
  for text in (*TEXTS, *(WORDS if family == "w2v_bert" else ())):
    labels = ours.encode(text)
    ids = [order[label] for label in labels]
    assert ids == original(text, add_special_tokens=False).input_ids
    assert 0 not in labels
    expected = original.decode(
      ids, skip_special_tokens=True, group_tokens=False
    )
    assert ours.decode(labels) == expected
    assert ours.decode([0, *labels, 0]) == expected
    assert ours.unknown(text) == []


@pytest.mark.parametrize("family", ["parakeet", "w2v_bert"])
def test_every_pair_of_labels_is_read_as_the_original_reads_it(
  tmp_path, family
):
  original, ours = _loaded(tmp_path / "original", family, 3)
  order = _order(ours, 3)
  for first in range(ours.vocabulary):
    for second in range(ours.vocabulary):
      ids = [order[first], order[second]]
      expected = original.decode(
        ids, skip_special_tokens=True, group_tokens=False
      )
      assert ours.decode([first, second]) == expected
  with pytest.raises(IndexError):
    ours.decode([ours.vocabulary])


@pytest.mark.parametrize("family", ["parakeet", "w2v_bert"])
def test_other_spellings_are_spelt_as_the_vocabulary_is(tmp_path, family):
  _, ours = _loaded(tmp_path / "original", family, 7)
  assert ours.encode("A Ba, C!") == ours.encode("a ba c")
  assert ours.encode("aöb \u2603 c") == ours.encode("ab c")
  assert ours.unknown("Ab, zÖ!") == ["z", "ö"]
  assert ours.encode("\uff41b") == ours.encode("ab")  # full width
  if family == "w2v_bert":
    assert ours.encode("c\u2019a") == ours.encode("c'a")
    assert ours.unknown("c\u2019a") == []


def test_upper_case_vocabularies_that_call_themselves_lower(tmp_path):
  """transformers looks up what is raised, and lowers what is said."""
  (tmp_path / "v.json").write_text(
    json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4, "CH": 5})
  )
  for lower in (True, False):
    original = transformers.Wav2Vec2CTCTokenizer(
      str(tmp_path / "v.json"), do_lower_case=lower
    )
    folder = tmp_path / str(lower)
    folder.mkdir()
    original.save_pretrained(folder)
    ours = Tokenizer.load(folder)
    assert ours.vocabulary == len(original) == 8  # <s> and </s> are added
    for text in ("AB BA", "A CHB", "ACH B"):
      ids = original(text, add_special_tokens=False).input_ids
      assert ours.encode(text) == ids
      assert ours.decode(ids) == original.decode(
        ids, skip_special_tokens=True, group_tokens=False
      )
    assert ours.encode("ab") == ours.encode("AB")


@pytest.mark.parametrize("family", ["parakeet", "w2v_bert"])
def test_saved_loaded_and_pickled_is_the_same(tmp_path, family):
  _, ours = _loaded(tmp_path / "original", family, 7)
  (tmp_path / "saved").mkdir()
  ours.save(tmp_path / "saved" / ours.name)
  for name in (ours.name, "tokenizer_config.json"):
    saved = (tmp_path / "saved" / name).read_bytes()
    assert saved == (tmp_path / "original" / name).read_bytes()
  for other in (
    Tokenizer.load(tmp_path / "saved"),
    Tokenizer.load(tmp_path / "saved" / ours.name),
    pickle.loads(pickle.dumps(ours)),
  ):
    assert other.hash == ours.hash
    assert other.labels == ours.labels
    assert other.encode(TEXTS[0]) == ours.encode(TEXTS[0])
  _, another = _loaded(tmp_path / "another", family, 6)
  assert another.hash != ours.hash


def test_what_is_no_tokenizer(tmp_path):
  _loaded(tmp_path / "original", "w2v_bert", 7)
  vocabulary = tmp_path / "original" / "vocab.json"
  for spoilt, got in (
    ({"a": 0, "b": 2, "[PAD]": 3}, "don't count"),
    ([1], "no JSON object"),
  ):
    vocabulary.write_text(json.dumps(spoilt))
    with pytest.raises(InputError, match=rf"vocab\.json: .*{got}"):
      Tokenizer.load(vocabulary.parent)
  (tmp_path / "original" / "tokenizer_config.json").unlink()
  with pytest.raises(InputError, match=r"tokenizer_config\.json: "):
    Tokenizer.load(vocabulary)


@pytest.mark.parametrize("times", [True, False])
def test_whisper_spells_as_its_own_tokenizer(tmp_path, times):
  """Behind a space, as the model speaks, and without marks and times."""
  original = whispers.tokenizer(times=times)
  original.save_pretrained(tmp_path)
  if times:  # what pads is no matter
    whispers.change(tmp_path, "tokenizer_config.json", pad_token=None)
  ours = Tokenizer.load(tmp_path)
  expected = len(original) + (0 if times else 1501)
  assert (ours.vocabulary, ours.blank) == (expected, whispers.END)
  order = _order(ours, whispers.END)
  start, time = (
    ours.labels.index(name) for name in ("<|startoftranscript|>", "<|0.02|>")
  )
  assert time == whispers.NO_TIMES + 2
  for text in (*TEXTS, "Abcd é 東 ß", "it's 5 o'clock, isn't it?"):
    ids = original(f" {text}", add_special_tokens=False).input_ids
    assert [order[label] for label in ours.encode(text)] == ids
    spoken = original.decode(ids, skip_special_tokens=True).strip()
    assert spoken == text
    labels = ours.encode(text)
    assert ours.decode([start, time, *labels, time, 0]) == text.strip()
  assert ours.labels[-1] == ("<|1.00|>" if times else "<|30.00|>")
