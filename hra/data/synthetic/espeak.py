"""Formant synthesis by espeak-ng: phonemes or text in, 16 kHz waveform out.

The library comes with the PyPI package `espeakng_loader` and is driven through
ctypes. It keeps state from one call to the next (pitch flutter, the phase of
the glottal wave, its noise) that no call resets, so the same sentence sounds
different the second time. Every call here therefore loads the library afresh,
speaks and unloads it. With a data folder that holds English only this costs
0.3 ms of about 2 ms an utterance (a fork would cost 2 ms).
"""

import _ctypes
import ctypes
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import soxr

from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.keys import stable_hash

_LANGUAGE = "en-us"
_DATA = (
  "phontab",
  "phonindex",
  "phondata",
  "intonations",
  "en_dict",
  "lang/gmw/en",
  "lang/gmw/en-US",
)
_SYNCHRONOUS = 1
_UTF8 = 1
_PHONEME_INPUT = 0x100
_RATE = 1
_SEPARATOR = ord("|") << 8

_unload = getattr(_ctypes, "dlclose" if os.name == "posix" else "FreeLibrary")
_Callback = ctypes.CFUNCTYPE(
  ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


Words: TypeAlias = tuple[tuple[str, ...], ...]
"""A sentence's words as espeak-ng's phoneme mnemonics; stress marks (' and ,)
precede their vowel."""


def notation(words: Words) -> str:
  """The phonemes as `Espeak.speak` reads them: p|l|'i:|z t|'3:|n."""
  return " ".join("|".join(word) for word in words)


def version() -> str:
  """The installed release of the synthesiser.

  Raises:
    InputError: the package is missing.
  """
  try:
    return importlib.metadata.version("espeakng_loader")
  except importlib.metadata.PackageNotFoundError as error:
    raise InputError(
      "speech synthesis",
      expected="the package espeakng-loader",
      got="none installed",
      fix="run: pip install 'hra[quickstart]'",
    ) from error


class Espeak:
  """The synthesiser, with a private data folder; use it as a context.

  What a method returns is a pure function of its arguments: the same in every
  process and after whatever was spoken before. Not for concurrent threads.

  Raises:
    InputError: the package `espeakng_loader` is missing.
  """

  def __init__(self):
    version()
    import espeakng_loader  # optional: the quickstart extra

    source = Path(espeakng_loader.get_data_path())
    self._folder = tempfile.TemporaryDirectory(prefix="hra-espeak-")
    root = Path(self._folder.name)
    self._data = root / "espeak-ng-data"
    self._variants = self._data / "voices" / "!v"
    self._variants.mkdir(parents=True)
    for name in _DATA:
      (self._data / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(source / name, self._data / name)
    # A copy of its own: a library that something else in the process holds
    # would not be unloaded, and would keep its state.
    library = Path(espeakng_loader.get_library_path())
    self._library = root / library.name
    shutil.copyfile(library, self._library)
    self._pronounced: dict[str, Words] = {}
    self._samples: list[bytes] = []
    self._callback = _Callback(self._collect)

  def __enter__(self) -> "Espeak":
    return self

  def __exit__(self, *_: object) -> None:
    self._folder.cleanup()

  def phonemes(self, text: str) -> Words:
    """The pronunciation of one clause of English text."""
    if text not in self._pronounced:
      self._pronounced[text] = self._translate(text)
    return self._pronounced[text]

  def speak(
    self,
    pieces: Sequence[str | float],
    *,
    voice: str,
    rate: int,
    kind: Literal["phonemes", "text"] = "phonemes",
  ) -> np.ndarray:
    """Speaks the pieces, one after the other.

    Args:
      pieces: phonemes (`notation`) or text, as `kind` says; a number is a
        silence in seconds.
      voice: the text of an espeak-ng voice variant ("pitch 80 120\\n...").
      rate: words per minute, 80 to 450.

    Returns:
      wave_S, float32 in [-1, 1] at 16 kHz.
    """
    # A name that starts with a digit is silently taken for a variant's number.
    name = f"v{stable_hash(voice):016x}"
    self._write_variant(name, voice)
    chunks: list[np.ndarray] = []
    with self._loaded(f"{_LANGUAGE}+{name}") as library:
      library.espeak_SetParameter(_RATE, rate, 0)
      native_rate = library.espeak_ng_GetSampleRate()
      for piece in pieces:
        if isinstance(piece, str):
          chunks.append(self._synthesize(library, piece, kind))
        else:
          chunks.append(np.zeros(round(piece * native_rate), np.float32))
    if not chunks:
      return np.zeros(0, np.float32)
    wave = np.concatenate(chunks)
    return soxr.resample(wave, native_rate, SAMPLE_RATE, quality="HQ")

  def _translate(self, text: str) -> Words:
    with self._loaded(_LANGUAGE) as library:
      translate = library.espeak_TextToPhonemes
      translate.restype = ctypes.c_char_p
      pointer = ctypes.c_char_p(text.encode())
      clauses = []
      while pointer.value:
        clauses.append(
          translate(ctypes.byref(pointer), _UTF8, _SEPARATOR).decode()
        )
    words = (
      tuple(
        phoneme
        for phoneme in word.split("|")
        if phoneme and not phoneme.startswith("_")
      )
      for word in " ".join(clauses).split()
    )
    return tuple(word for word in words if word)

  def _synthesize(
    self, library: ctypes.CDLL, piece: str, kind: str
  ) -> np.ndarray:
    text = (f"[[{piece}]]" if kind == "phonemes" else piece).encode()
    self._samples.clear()
    _check(
      library.espeak_Synth(
        text, len(text) + 1, 0, 1, 0, _UTF8 | _PHONEME_INPUT, None, None
      ),
      "espeak_Synth",
    )
    samples = np.frombuffer(b"".join(self._samples), np.int16)
    return samples.astype(np.float32) / 32768

  def _collect(
    self,
    samples: "ctypes._Pointer[ctypes.c_short]",
    count: int,
    events: int | None,
  ) -> int:
    if count > 0:
      self._samples.append(ctypes.string_at(samples, 2 * count))
    return 0

  def _write_variant(self, name: str, voice: str) -> None:
    path = self._variants / name
    if not path.exists():
      path.write_text(f"language variant\nname {name}\n{voice}\n")

  @contextmanager
  def _loaded(self, voice: str) -> Iterator[ctypes.CDLL]:
    library = ctypes.CDLL(str(self._library))
    try:
      library.espeak_ng_InitializePath(os.fsencode(self._data))
      _check(library.espeak_ng_Initialize(None), "espeak_ng_Initialize")
      _check(
        library.espeak_ng_InitializeOutput(_SYNCHRONOUS, 0, None),
        "espeak_ng_InitializeOutput",
      )
      library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # else the time of day
      library.espeak_SetSynthCallback(self._callback)
      _check(library.espeak_SetVoiceByName(voice.encode()), voice)
      yield library
      library.espeak_ng_Terminate()
    finally:
      _unload(library._handle)


def _check(status: int, call: str) -> None:
  if status:
    raise RuntimeError(f"espeak-ng: {call} failed with status {status}")
