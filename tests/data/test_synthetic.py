"""Properties of the synthesised corpora: purity, rules, splits, files."""

import collections
import dataclasses
import hashlib
import itertools
import json
import subprocess
import sys
import time
import wave

import numpy as np
import pytest

from hra.config import SyntheticConfig
from hra.config_tree import ConfigError
from hra.data.synthetic import (
  acoustics,
  combinations,
  corpus,
  espeak,
  phonology,
  sentences,
  speakers,
)
from hra.dims import SAMPLE_RATE
from hra.errors import InputError

pytest.importorskip("espeakng_loader")

TEXTS = (
  "please turn on the kitchen light",
  "my brother is not hungry",
  "the train to the station leaves at seven",
)
VOICE = speakers.Voice(name="plain", pitch=100, pitch_span=40, tract=1.0)


@pytest.fixture(scope="module")
def synth():
  with espeak.Espeak() as engine:
    yield engine


def atypical(count, **changes):
  return speakers.atypical_speakers(SyntheticConfig(speakers=count, **changes))


def digest(wave_S):
  return hashlib.sha256(wave_S.tobytes()).hexdigest()


def words_of(text):
  return tuple(tuple(word.split("|")) for word in text.split())


def say(engine, text, voice=VOICE):
  return engine.speak(
    [espeak.notation(engine.phonemes(text))],
    voice=voice.definition(),
    rate=voice.rate,
  )


def pitch_of(wave_S):
  """Hertz: the median over frames of the autocorrelation's first high peak."""
  found = []
  for start in range(0, len(wave_S) - 1024, 512):
    frame = wave_S[start : start + 1024]
    if np.sqrt(np.mean(frame**2)) < 0.05:
      continue
    correlation = np.correlate(frame, frame, "full")[1023:]
    inner = correlation[50:230]
    peaks = (inner > correlation[49:229]) & (inner > correlation[51:231])
    high = np.flatnonzero(peaks & (inner > 0.8 * inner.max()))
    if len(high):
      found.append(SAMPLE_RATE / (50 + high[0]))
  return float(np.median(found))


# -- the synthesiser


def test_speech_is_a_pure_function_in_any_order_and_process(synth):
  forward = {text: digest(say(synth, text)) for text in TEXTS}
  backward = {text: digest(say(synth, text)) for text in reversed(TEXTS)}
  code = (
    "import hashlib\n"
    "from hra.data.synthetic import espeak\n"
    "with espeak.Espeak() as engine:\n"
    f"  words = espeak.notation(engine.phonemes({TEXTS[1]!r}))\n"
    f"  wave = engine.speak([words], voice={VOICE.definition()!r}, rate=150)\n"
    "print(hashlib.sha256(wave.tobytes()).hexdigest())\n"
  )
  elsewhere = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert forward == backward
  assert elsewhere.stdout.strip() == forward[TEXTS[1]]


def test_breath_noise_does_not_follow_the_clock(synth):
  breathy = dataclasses.replace(VOICE, breath=8)
  before = say(synth, TEXTS[1], breathy)
  time.sleep(1.1)  # espeak-ng seeds its noise with the time in seconds
  np.testing.assert_array_equal(say(synth, TEXTS[1], breathy), before)
  assert not np.array_equal(before, say(synth, TEXTS[1]))


def test_phonemes_speak_as_their_text(synth):
  for text in TEXTS:
    spoken = synth.speak(
      [text], voice=VOICE.definition(), rate=150, kind="text"
    )
    np.testing.assert_array_equal(spoken, say(synth, text))


def test_numbers_among_the_pieces_are_silences(synth):
  voice = VOICE.definition()
  once = synth.speak(["k|'a|t"], voice=voice, rate=150)
  later = synth.speak([0.5, "k|'a|t"], voice=voice, rate=150)
  assert len(later) - len(once) == pytest.approx(0.5 * SAMPLE_RATE, abs=2)
  assert np.abs(later[: int(0.45 * SAMPLE_RATE)]).max() < 1e-3
  assert np.abs(once).max() > 0.1


def test_a_slow_voice_takes_longer(synth):
  slow = dataclasses.replace(VOICE, rate=90)
  assert len(say(synth, TEXTS[2], slow)) > 1.3 * len(say(synth, TEXTS[2]))


def test_every_voice_speaks_at_its_pitch(synth):
  voices = speakers.typical_voices(12, seed=0)
  for voice in voices:
    heard = pitch_of(say(synth, TEXTS[2], voice))
    low, high = voice.pitch, voice.pitch + voice.pitch_span
    assert 0.85 * low < heard < 1.1 * high, (voice, heard)


def test_a_shorter_tract_has_higher_formants(synth):
  def centroid(tract):
    wave_S = say(synth, TEXTS[2], dataclasses.replace(VOICE, tract=tract))
    hertz = np.fft.rfftfreq(len(wave_S), 1 / SAMPLE_RATE)
    power = np.abs(np.fft.rfft(wave_S)) ** 2
    voiced = hertz < 3500
    return np.sum(hertz[voiced] * power[voiced]) / np.sum(power[voiced])

  assert centroid(1.3) > 1.1 * centroid(1.1) > 1.1**2 * centroid(0.9)


def test_a_missing_synthesiser_names_the_extra(monkeypatch):
  def missing(_):
    raise espeak.importlib.metadata.PackageNotFoundError

  monkeypatch.setattr(espeak.importlib.metadata, "version", missing)
  with pytest.raises(InputError, match=r"pip install 'hra\[quickstart\]'"):
    espeak.Espeak()


def test_the_modules_import_no_jax():
  code = "import sys, hra.data.synthetic.worker; print('jax' in sys.modules)"
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert result.stdout.strip() == "False"


# -- sentences


def test_splits_are_disjoint_large_and_share_their_words():
  splits = {split: sentences.sentences(split) for split in sentences.SPLITS}
  sentences.check_disjoint(**splits)
  every = [text for texts in splits.values() for text in texts]
  assert len(every) == len(set(every))
  assert len(splits["train"]) >= 2000
  assert min(len(splits["dev"]), len(splits["test"])) >= 250
  assert all(3 <= len(text.split()) <= 8 for text in every)
  assert all(
    text.replace(" ", "").isalpha() and text.islower() for text in every
  )
  known = {word for text in splits["train"] for word in text.split()}
  assert sentences.vocabulary() == known
  assert len(known) >= 120


def test_check_disjoint_names_the_shared_sentence():
  with pytest.raises(ValueError, match="train and test share 'b c'"):
    sentences.check_disjoint(train=["a", "b c"], dev=["d"], test=["b c"])


def test_sample_has_no_repeats_and_refuses_too_many():
  rng = np.random.default_rng(0)
  assert len(set(sentences.sample("dev", 200, rng=rng))) == 200
  with pytest.raises(InputError, match="dev_utterances"):
    sentences.sample("dev", 100_000, rng=rng)


# -- rules


@pytest.mark.parametrize(
  ("rule", "before", "after"),
  [
    ("fronting", "k|'I|tS|@|n g|'oU", "t|'I|t|@|n d|'oU"),
    ("backing", "t|'eI|k d|'0|g", "k|'eI|k g|'0|g"),
    ("glottal_stops", "b|'0|t#|@L k|'a|t", "b|'0|?|@L ?|'a|?"),
    ("stopping", "s|'i: z|'u: f|'I|S v|'a|n", "t|'i: d|'u: p|'I|t b|'a|n"),
    ("lisping", "s|'i: z|'u:", "T|'i: D|'u:"),
    ("retracting", "s|'i: T|'I|N|k", "S|'i: s|'I|N|k"),
    ("devoicing", "b|'I|g v|'a|n", "p|'I|k f|'a|n"),
    ("voicing", "p|'I|k f|'a|n", "b|'I|g v|'a|n"),
    ("raising", "h|'a|t b|'E|d", "h|'E|t b|'I|d"),
    ("lowering", "h|'i: b|'E|d", "h|'I b|'a|d"),
    ("centralising", "h|'a|t b|'i:|t", "h|'@|t b|'I|t"),
    ("gliding", "r|'E|d l|'aI|t", "w|'E|d w|'aI|t"),
    ("lateralising", "r|'E|d w|'E|t", "l|'E|d l|'E|t"),
    ("nasalising", "b|'E|d g|'oU", "m|'E|n N|'oU"),
    ("denasalising", "m|'a|n s|'I|N", "b|'a|d s|'I|g"),
    ("cluster_reduction", "s|t|'0|p p|l|'eI", "t|'0|p p|'eI"),
    ("cluster_breaking", "s|t|r|'i:|t", "s|@|t|@|r|'i:|t"),
    ("final_deletion", "k|'a|t g|'oU", "k|'a g|'oU"),
    ("initial_deletion", "k|'a|t 'oU|l|d", "'a|t 'oU|l|d"),
    ("weak_syllable_deletion", "t|@|d|'eI D|@2", "d|'eI D|@2"),
  ],
)
def test_a_rule_does_what_its_name_says(rule, before, after):
  rng = np.random.default_rng(0)
  changed = phonology.apply(rule, words_of(before), probability=1.0, rng=rng)
  assert espeak.notation(changed) == after


def test_stutter_repeats_the_first_sound():
  changed = phonology.apply(
    "stutter",
    words_of("b|'O:|l 'aI"),
    probability=1.0,
    rng=np.random.default_rng(0),
  )
  assert changed[-1] == ("'aI",)
  assert set(changed) == {
    ("b", "@"),
    ("b", "'O:", "l"),
    ("aI", "?"),
    ("'aI",),
  }


@pytest.mark.parametrize(
  "rule", [rule for group in phonology.GROUPS.values() for rule in group]
)
def test_a_rule_of_no_probability_changes_nothing_and_half_changes_some(
  rule, synth
):
  rng = np.random.default_rng(0)
  texts = sentences.sentences("dev")[::5]
  spoken = [synth.phonemes(text) for text in texts]
  changes = {
    probability: sum(
      phonology.apply(rule, words, probability=probability, rng=rng) != words
      for words in spoken
    )
    for probability in (0.0, 0.2, 1.0)
  }
  assert changes[0.0] == 0
  assert 0 < changes[0.2] < changes[1.0]


def test_rules_speak_only_phonemes_that_the_language_has(synth):
  """espeak-ng ends the input at a mnemonic that it doesn't know."""
  known = {
    phonology.stress_and_symbol(phoneme)[1]
    for text in sentences.sentences("train")[::7]
    for word in synth.phonemes(text)
    for phoneme in word
  }
  targets = {
    target
    for table in phonology.SUBSTITUTIONS.values()
    for target in table.values()
  }
  assert targets <= known | {"?"}
  assert {
    source for table in phonology.SUBSTITUTIONS.values() for source in table
  } - known <= {"t2"}


# -- speakers


def test_unseen_voices_have_other_vocal_tracts_than_typical_ones():
  low, high = speakers._TRACT
  width = (high - low) / speakers._SLICES
  slices = [
    {int((voice.tract - low) / width) for voice in voices}
    for voices in (
      speakers.typical_voices(200, seed=3),
      speakers.unseen_voices(200, seed=3),
    )
  ]
  assert not slices[0] & slices[1]
  assert slices[0] | slices[1] == set(range(speakers._SLICES))


def test_a_speaker_depends_on_seed_and_name_alone():
  few = atypical(3, seed=1, severity=0.7)
  many = atypical(9, seed=1, severity=0.7)
  other = atypical(3, seed=2, severity=0.7)
  assert few == many[:3]
  assert [speaker.name for speaker in few] == [
    "speaker-00",
    "speaker-01",
    "speaker-02",
  ]
  assert all(a != b for a, b in zip(few, other, strict=True))


def test_severity_adds_habits_and_changes_more_phonemes(synth):
  texts = sentences.sentences("dev")[::20]
  spoken = [synth.phonemes(text) for text in texts]
  changed = []
  for severity in (0.0, 0.3, 0.6, 1.0):
    total = 0
    for speaker in atypical(12, severity=severity):
      rng = np.random.default_rng(0)
      for words in spoken:
        said = speaker.pronounce(words, rng=rng)
        total += len(set(words) - set(said))
    changed.append(total)
  assert changed[0] == 0
  assert changed == sorted(set(changed))
  mild = atypical(12, severity=0.3)
  severe = atypical(12, severity=0.9)
  for less, more in zip(mild, severe, strict=True):
    assert set(less.rules) <= set(more.rules)


def test_speakers_contradict_each_other():
  rules = [
    {rule for rule, _ in speaker.rules}
    for speaker in atypical(20, severity=0.6)
  ]
  for group in ("place", "voice", "vowels", "liquids", "nasality"):
    heard = set().union(*rules) & set(phonology.GROUPS[group])
    assert len(heard) >= 2, group
    assert all(len(own & set(phonology.GROUPS[group])) <= 1 for own in rules)


def test_pauses_cut_a_sentence_without_losing_words():
  speaker = speakers.Speaker(VOICE, pauses=0.6)
  words = tuple((f"w{i}",) for i in range(12))
  pieces = speaker.phrases(words, rng=np.random.default_rng(0))
  silences = [piece for piece in pieces if isinstance(piece, float)]
  texts = [piece for piece in pieces if isinstance(piece, str)]
  assert " ".join(texts) == espeak.notation(words)
  assert len(silences) == len(texts) - 1 > 0


# -- pools of combinations

POOLS = ("training", "held_out")


def rules_of(speaker):
  return [rule for rule, _ in speaker.rules]


@pytest.fixture(scope="module")
def pools():
  """Pool -> (seed, severity) -> 300 speakers."""
  return {
    pool: {
      (seed, severity): atypical(
        300, seed=seed, severity=severity, combinations=pool
      )
      for seed in (0, 1, 2)
      for severity in (0.4, 0.6, 1.0)
    }
    for pool in ("any", *POOLS)
  }


def everyone(drawn):
  return [speaker for members in drawn.values() for speaker in members]


def pairs_heard(drawn):
  return {
    pair
    for speaker in everyone(drawn)
    for pair in itertools.combinations(rules_of(speaker), 2)
  }


def test_no_held_out_combination_stands_in_a_training_one(pools):
  known = pairs_heard(pools["training"])
  assert len(known) > 100
  for speaker in everyone(pools["held_out"]):
    assert set(itertools.combinations(rules_of(speaker), 2)) - known
  whole = [
    {frozenset(rules_of(speaker)) for speaker in everyone(pools[pool])}
    for pool in POOLS
  ]
  assert min(map(len, whole)) > 500
  assert not whole[0] & whole[1]
  assert not any(held <= train for held in whole[1] for train in whole[0])


def test_only_pairs_that_are_held_out_are_missing_in_training(pools):
  every = pairs_heard(pools["any"])
  held_out = set(
    combinations.held_out_pairs(itertools.chain(*phonology.GROUPS.values()))
  )
  assert every - pairs_heard(pools["training"]) == every & held_out
  assert pairs_heard(pools["held_out"]) == every


def test_a_pool_moves_how_often_a_rule_occurs_but_little(pools):
  for severity in (0.4, 0.6):
    counts = {
      pool: collections.Counter(
        rule
        for (_, own), members in drawn.items()
        if own == severity
        for speaker in members
        for rule in rules_of(speaker)
      )
      for pool, drawn in pools.items()
    }
    for rule in itertools.chain(*phonology.GROUPS.values()):
      held, train = (counts[pool][rule] for pool in POOLS)
      noise = 3 * np.sqrt(held + train)  # of the difference of two counts
      assert abs(held - train) < 0.3 * max(held, train) + noise, rule
      assert min(held, train) > 0


def test_a_pool_leaves_the_severity_as_it_was(pools):
  for key, members in pools["any"].items():
    count = [len(speaker.rules) for speaker in members]
    for pool in POOLS:
      drawn = pools[pool][key]
      if pool == "training":  # whose speakers have the names of any
        assert [len(speaker.rules) for speaker in drawn] == count
        assert [speaker.effects for speaker in drawn] == [
          speaker.effects for speaker in members
        ]
      strength = [
        np.mean([sum(p for _, p in each.rules) for each in group])
        for group in (members, drawn)
      ]
      assert strength[1] == pytest.approx(strength[0], rel=0.12)


def test_the_pools_have_no_name_and_no_voice_in_common(pools):
  training, held_out = (pools[pool][0, 0.6] for pool in POOLS)
  assert held_out[0].name == "newcomer-00"
  assert not {each.name for each in training} & {each.name for each in held_out}
  assert not {each.voice.definition() for each in training} & {
    each.voice.definition() for each in held_out
  }


def test_speakers_of_any_combination_are_who_they_always_were():
  """Corpora that people have made would be others if this digest changed.

  Then `corpus._FORMAT` has to rise, and the quickstart to be run again.
  """
  drawn = hashlib.sha256()
  for severity in (0.0, 0.5, 0.6, 1.6):
    for speaker in atypical(60, severity=severity):
      habits = (speaker.rules, speaker.pauses, speaker.effects)
      drawn.update(repr((speaker.voice, *habits)).encode())
  assert drawn.hexdigest()[:16] == "259e6d25a025fd88"


def test_a_spread_of_severity_gives_mild_and_severe_speakers():
  even = atypical(200, severity=0.6)
  spread = atypical(200, severity=0.6, severity_spread=0.3)
  assert {each.severity for each in even} == {0.6}
  own = np.array([each.severity for each in spread])
  assert own.min() >= 0.3
  assert own.max() <= 0.9
  assert np.mean(own) == pytest.approx(0.6, abs=0.04)
  assert np.std(own) == pytest.approx(0.3 / np.sqrt(3), rel=0.1)
  rules = [len(each.rules) for each in spread]
  assert np.corrcoef(own, rules)[0, 1] > 0.7


def test_describe_says_by_name_what_a_corpus_holds():
  spec = SyntheticConfig(
    speakers=4, severity=0.6, severity_spread=0.2, combinations="held_out"
  )
  described = corpus.describe(spec)
  assert described == json.loads(json.dumps(described))
  assert list(described) == list(corpus.cast(spec))
  for name, speaker in corpus.cast(spec).items():
    assert described[name]["severity"] == speaker.severity
    assert described[name]["rules"] == dict(speaker.rules)
    assert described[name]["strength"] == pytest.approx(
      sum(chance for _, chance in speaker.rules)
    )
    assert described[name]["effects"] == dict(speaker.effects)


def test_no_corpus_tests_on_what_another_trains_on():
  specs = [
    SyntheticConfig(
      speakers=40, train_utterances=60, seed=seed, combinations=pool
    )
    for seed, pool in ((0, "training"), (1, "training"), (0, "held_out"))
  ]
  said = {split: set() for split in sentences.SPLITS}
  for spec in specs:
    for utterance in corpus.plan(spec):
      said[utterance.split].add(utterance.text)
  assert min(map(len, said.values())) > 200
  sentences.check_disjoint(**said)


def test_fewer_recordings_are_the_first_of_more():
  """So that budgets of recordings are nested and share one test split."""

  def planned(train, dev):
    spec = SyntheticConfig(
      speakers=2, train_utterances=train, dev_utterances=dev
    )
    return set(corpus.plan(spec))

  few, many = planned(4, 1), planned(32, 8)
  assert few < many
  assert {each for each in many if each.split == "test"} < few


# -- sound


def band_power(wave_S, low, high):
  hertz = np.fft.rfftfreq(len(wave_S), 1 / SAMPLE_RATE)
  power = np.abs(np.fft.rfft(wave_S)) ** 2
  return power[(hertz >= low) & (hertz < high)].sum()


def test_noise_has_the_asked_snr_and_colour():
  rng = np.random.default_rng(0)
  speech_S = 0.1 * rng.standard_normal(40_000).astype(np.float32)
  tilts = []
  for colour in (0.0, 1.0, 2.0):
    noisy_S = acoustics.add_noise(speech_S, snr=12.0, colour=colour, rng=rng)
    noise_S = noisy_S - speech_S
    ratio = 10 * np.log10(np.mean(speech_S**2) / np.mean(noise_S**2))
    assert ratio == pytest.approx(12.0, abs=0.05)
    octaves = [band_power(noise_S, 500 * 2**i, 1000 * 2**i) for i in (0, 3)]
    tilts.append(10 * np.log10(octaves[1] / octaves[0]) / 3)
  assert tilts == pytest.approx([3.0, 0.0, -3.0], abs=0.6)  # dB an octave


def test_effects_do_what_their_names_say(synth):
  wave_S = say(synth, TEXTS[0])

  def changed(effect, strength=1.0):
    return acoustics.apply(
      effect, wave_S, strength=strength, rng=np.random.default_rng(0)
    )

  for effect in acoustics.EFFECTS:
    assert changed(effect).shape == wave_S.shape
    assert np.isfinite(changed(effect)).all()
    np.testing.assert_array_equal(changed(effect, 0.0), wave_S)
  high = band_power(wave_S, 3000, 8000)
  assert band_power(changed("muffling"), 3000, 8000) < 0.2 * high
  assert band_power(changed("breath_noise"), 3000, 8000) > 1.5 * high
  nasal_S = changed("nasal_resonance")
  assert band_power(nasal_S, 220, 320) > 4 * band_power(wave_S, 220, 320)
  assert band_power(nasal_S, 850, 950) < 0.2 * band_power(wave_S, 850, 950)
  tone_S = np.sin(np.arange(SAMPLE_RATE) * 0.2).astype(np.float32)
  swung_S = acoustics.apply(
    "tremor", tone_S, strength=1.0, rng=np.random.default_rng(0)
  )
  levels = np.abs(swung_S).reshape(-1, 400).max(axis=1)
  assert levels.max() > 2 * levels.min()


def test_to_level_never_clips():
  wave_S = np.zeros(1000, np.float32)
  wave_S[500] = 0.5
  assert np.abs(acoustics.to_level(wave_S, decibels=-3.0)).max() <= 0.99


# -- the corpus

SPEC = SyntheticConfig(
  speakers=2,
  unseen_speakers=2,
  train_utterances=3,
  dev_utterances=2,
  test_utterances=2,
  severity=0.8,
)


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def snapshot(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("corpus") / "one"
  manifests = corpus.synthesize(folder, spec=SPEC, jobs=1, progress=False)
  return folder, manifests


def test_manifests_describe_audible_recordings(made):
  folder, manifests = made
  texts = {split: read(path) for split, path in manifests.items()}
  assert {split: len(rows) for split, rows in texts.items()} == {
    "train": 6,
    "dev": 4,
    "test": 4,
  }
  for rows in texts.values():
    assert {row["speaker"] for row in rows} == {"speaker-00", "speaker-01"}
    for row in rows:
      with wave.open(str(folder / row["audio_filepath"]), "rb") as file:
        assert file.getparams()[:3] == (1, 2, SAMPLE_RATE)
        count = file.getnframes()
        pcm_S = np.frombuffer(file.readframes(count), "<i2") / 32768
      assert row["duration"] == pytest.approx(count / SAMPLE_RATE, abs=1e-4)
      assert 0.8 < row["duration"] < 8.0
      assert 0.02 < np.sqrt(np.mean(pcm_S**2)) < 0.2
      assert np.abs(pcm_S).max() < 1.0
  sentences.check_disjoint(
    **{split: [row["text"] for row in rows] for split, rows in texts.items()}
  )


def test_the_number_of_processes_changes_no_byte(made, tmp_path):
  corpus.synthesize(tmp_path / "two", spec=SPEC, jobs=3, progress=False)
  assert snapshot(tmp_path / "two") == snapshot(made[0])


def test_the_shares_are_a_partition_of_the_plan(made):
  recorded = [
    name
    for share in range(3)
    for name, _ in corpus.speak_all(made[0], spec=SPEC, share=share, shares=3)
  ]
  assert sorted(recorded) == sorted(each.id for each in corpus.plan(SPEC))


def test_an_interrupted_corpus_goes_on_and_a_whole_one_is_left(
  made, tmp_path, monkeypatch
):
  whole = snapshot(made[0])
  folder = tmp_path / "torn"
  for name, content in whole.items():
    if name == "spec.json" or "train" in name.split("/"):
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      (folder / name).write_bytes(content)
  kept = next(folder.rglob("*.wav"))
  before = kept.stat().st_mtime_ns
  corpus.synthesize(folder, spec=SPEC, jobs=1, progress=False)
  assert snapshot(folder) == whole
  assert kept.stat().st_mtime_ns == before

  def never(*_, **__):
    raise AssertionError("a complete corpus was synthesised again")

  monkeypatch.setattr(corpus, "_run_workers", never)
  corpus.synthesize(folder, spec=SPEC, jobs=1, progress=False)


def test_a_folder_of_another_spec_is_refused(made):
  other = SyntheticConfig(severity=0.1)
  with pytest.raises(InputError, match="another spec"):
    corpus.synthesize(made[0], spec=other, progress=False)
  with pytest.raises(InputError, match="a new or empty folder"):
    corpus.synthesize(made[0] / "audio", spec=SPEC, progress=False)


def test_a_worker_that_fails_leaves_no_manifest(tmp_path):
  folder = tmp_path / "blocked"
  corpus._claim(folder, corpus._identity(SPEC))
  (folder / "audio").write_text("in the way")
  with pytest.raises(subprocess.CalledProcessError):
    corpus.synthesize(folder, spec=SPEC, jobs=1, progress=False)
  assert not list(folder.glob("*.jsonl"))


def test_typical_tests_are_spoken_by_unseen_voices_only():
  spec = SyntheticConfig(
    population="typical", speakers=3, unseen_speakers=2, train_utterances=5
  )
  heard = {split: set() for split in sentences.SPLITS}
  for utterance in corpus.plan(spec):
    heard[utterance.split].add(utterance.speaker)
  assert heard["train"] == heard["dev"]
  assert heard["train"] == {"typical-00", "typical-01", "typical-02"}
  assert heard["test"] == {"unseen-00", "unseen-01"}


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("speakers", 0),
    ("severity", -0.5),
    ("severity_spread", 0.7),
    ("snr_low", 50.0),
    ("seed", -1),
  ],
)
def test_a_spec_that_cannot_stand_is_refused(tmp_path, field, value):
  spec = SyntheticConfig()
  setattr(spec, field, value)
  with pytest.raises(ConfigError, match=f"synthetic.{field}"):
    corpus.synthesize(tmp_path / "none", spec=spec, progress=False)


@pytest.mark.parametrize(
  ("pool", "severity", "spread"),
  [
    ("held_out", 0.3, 0.0),  # some would have a single habit
    ("held_out", 0.5, 0.2),
    ("training", 0.9, 0.2),
  ],
)
def test_a_pool_that_a_severity_cannot_fill_is_refused(
  tmp_path, pool, severity, spread
):
  spec = SyntheticConfig(
    combinations=pool, severity=severity, severity_spread=spread
  )
  with pytest.raises(ConfigError, match=r"synthetic\.severity"):
    corpus.synthesize(tmp_path / "none", spec=spec, progress=False)


def test_what_came_later_leaves_the_identity_of_corpora_alone():
  plain = json.loads(corpus._identity(SyntheticConfig()))["spec"]
  every = {field.name for field in dataclasses.fields(SyntheticConfig)}
  assert set(plain) == every - {"combinations", "severity_spread"}
  pooled = SyntheticConfig(combinations="training")
  assert json.loads(corpus._identity(pooled))["spec"] == {
    **plain,
    "combinations": "training",
  }
