"""The dimension key: one letter, one meaning, in every shape suffix.

An array named `mel_BTF` has axes (utterance, frame, mel bin). A name without a
suffix is a scalar or a tree.

  K  distinct tasks in a batch
  B  utterances (of one task where K stands before it, else of the batch)
  S  audio samples at 16 kHz;  R  those of an impulse response
  T  frames, before or after subsampling
  F  mel bins
  D  width of the backbone's residual stream
  H  width of the recurrent controller
  C  channels of a convolution
  A  attention heads;  I  width of one head
  L  layers
  U  labels of one utterance;  P  states of a prediction net, U + 1
  Z  anti-diagonals of a transducer's lattice, T + U;  M  the next ones of them
  Q  durations that a transducer tells apart
  V  vocabulary, the CTC blank included
  W  hypotheses of a beam search
  N  rows of a task table
  E  task embedding

Lengths are always `lengths_B` (counts of valid elements), never paddings.
"""

SAMPLE_RATE = 16_000
"""Samples per second of every waveform inside the program."""
