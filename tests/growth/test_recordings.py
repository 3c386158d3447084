"""Few recordings: what is held out of them, and in which shapes they train."""

import json

import newcomers
import numpy as np
import pytest
import soundfile

from hra import run
from hra.data.dataset import open_split, split_names
from hra.errors import InputError
from hra.growth import recordings
from hra.growth.options import Options


def _prepared(finished, tmp_path, manifest, *, fit="row", **options):
  parent = run.reopen(finished("table"))
  corpus = recordings.read(str(manifest), task="")
  config = recordings.configuration(
    parent, label="new", fit=fit, options=Options(**options)
  )
  return recordings.prepared(parent, config, corpus, tmp_path / "data")


@pytest.mark.parametrize(("count", "held_out"), [(4, 2), (5, 2), (8, 2)])
def test_that_two_sentences_at_least_are_held_out(
  finished, tmp_path, count, held_out
):
  manifest = newcomers.write(tmp_path / "new", count=count)
  config = _prepared(finished, tmp_path, manifest)
  assert split_names(config.data.path) == ["dev", "train"]
  assert len(open_split(config.data.path, "dev")) == held_out
  assert len(open_split(config.data.path, "train")) == count - held_out
  assert config.data.test_split == "dev"
  assert (config.train.select, config.train.patience) == ("best", 3)


def test_that_who_else_joins_changes_nothing_of_what_is_held_out(
  finished, tmp_path
):
  few = newcomers.write(tmp_path / "few", names=("zoe",), count=4)
  many = newcomers.write(tmp_path / "many", names=("yan",), count=8)
  together = tmp_path / "together.jsonl"
  lines = [
    {
      **line,
      "audio_filepath": str(path.parent / line["audio_filepath"]),
      "text": line["text"] * (1 + (path == many)),  # none that both say
    }
    for path in (few, many)
    for line in map(json.loads, path.read_text().splitlines())
  ]
  together.write_text("".join(json.dumps(line) + "\n" for line in lines))
  alone = tmp_path / "alone.jsonl"
  alone.write_text("".join(json.dumps(line) + "\n" for line in lines[4:]))
  held = {}
  for name, manifest in (("alone", alone), ("both", together)):
    config = _prepared(finished, tmp_path / name, manifest)
    split = open_split(config.data.path, "dev")
    held[name] = [
      text
      for task, text in zip(split.tasks, split.texts, strict=True)
      if task == "yan"
    ]
  assert held["both"] == held["alone"]
  assert len(held["alone"]) == 2


def test_that_a_manifest_that_is_divided_stays_so(finished, tmp_path):
  manifest = newcomers.write(tmp_path / "new", count=7)
  lines = [json.loads(line) for line in manifest.read_text().splitlines()]
  for line, split in zip(
    lines[:4], ("dev", "test", "test", "test"), strict=True
  ):
    line["split"] = split
  manifest.write_text("\n".join(map(json.dumps, lines)) + "\n")
  config = _prepared(finished, tmp_path, manifest)
  sizes = {n: len(open_split(config.data.path, n)) for n in ("dev", "test")}
  assert sizes == {"dev": 1, "test": 3}
  assert config.data.test_split == "test"


def test_that_settings_are_those_of_the_run_unless_they_are_given(
  finished, tmp_path
):
  manifest = newcomers.write(tmp_path / "new")
  parent = run.reopen(finished("table")).config
  config = _prepared(
    finished,
    tmp_path,
    manifest,
    steps=40,
    settings=("train.rows.learning_rate=0.5",),
  )
  assert config.train.steps == 40
  assert config.train.eval_every == 5
  assert config.train.shared_part == 0
  assert config.train.rows.learning_rate == 0.5
  assert config.train.rows.schedule == parent.train.rows.schedule
  assert config.data.speed_high == parent.data.speed_high
  assert config.data.multistyle == parent.data.multistyle
  assert config.data.bucket_seconds == parent.data.bucket_seconds
  assert parent.train.rows.learning_rate != 0.5


@pytest.mark.parametrize(
  "setting",
  ["train.shared_part=1.0", "train.mode=pretrain", "data.grouping=pooled"],
)
def test_that_what_is_shared_stays_frozen(finished, tmp_path, setting):
  manifest = newcomers.write(tmp_path / "new")
  with pytest.raises(InputError, match=setting.partition("=")[0]):
    _prepared(finished, tmp_path, manifest, settings=(setting,))


@pytest.mark.parametrize("start", ["", "other.safetensors"])
def test_that_what_rows_start_from_is_named_by_its_option(
  finished, tmp_path, start
):
  manifest = newcomers.write(tmp_path / "new")
  given = {"start": start, "settings": ("train.rows_from=peft/zoe",)}
  with pytest.raises(InputError, match=r"rows_from.*'peft/zoe'; give --start"):
    _prepared(finished, tmp_path, manifest, **given)
  given["start"] = "peft/zoe"
  config = _prepared(finished, tmp_path, manifest, **given)
  assert config.train.rows_from == "peft/zoe"


def test_that_a_given_name_is_that_of_recordings_without_any(tmp_path):
  manifest = newcomers.write(tmp_path / "new")
  lines = [json.loads(line) for line in manifest.read_text().splitlines()]
  del lines[0]["speaker"], lines[3]["speaker"]
  manifest.write_text("\n".join(map(json.dumps, lines)) + "\n")
  corpus = recordings.read(str(manifest), task="zoe")
  assert corpus.tasks == ["zoe"]
  assert len(corpus.records) == len(lines)


def test_that_bad_recordings_are_all_listed_or_left_out(finished, tmp_path):
  manifest = newcomers.write(tmp_path / "new", count=8)
  for index in (0, 3):
    (tmp_path / "new" / f"zoe-{index}.wav").write_bytes(b"no sound")
  with pytest.raises(InputError, match=r"(?s)jsonl:1.*jsonl:4.*--skip_bad"):
    _prepared(finished, tmp_path, manifest)
  config = _prepared(finished, tmp_path, manifest, skip_bad=True)
  kept = [len(open_split(config.data.path, n)) for n in ("train", "dev")]
  assert sum(kept) == 6


def test_that_recordings_longer_than_the_run_takes_are_refused(
  finished, tmp_path
):
  manifest = newcomers.write(tmp_path / "new")
  wave = np.zeros(16_000 * 61, np.float32)
  soundfile.write(tmp_path / "new" / "zoe-1.wav", wave, 16_000)
  with pytest.raises(InputError, match=r"jsonl:2.*60"):
    _prepared(finished, tmp_path, manifest)
