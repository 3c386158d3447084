"""Metrics of successive steps -> one line of them.

Enters: each step's metrics and batch, on the devices. Leaves: numbers, fetched
only when the line is due; None where nothing weighed in.
"""

import time

import jax
import numpy as np

from hra import processes
from hra.data.batching import Batch
from hra.dims import SAMPLE_RATE
from hra.train.step import Metrics


class Window:
  """Metrics of the steps since the last line; fetched only when asked."""

  def __init__(self) -> None:
    self._start = time.perf_counter()
    self._metrics: list[Metrics] = []
    self._seconds: list[jax.Array | np.ndarray] = []

  def add(self, metrics: Metrics, batch: Batch) -> None:
    self._metrics.append(metrics)
    self._seconds.append(batch.lengths_KB)

  def __bool__(self) -> bool:
    return bool(self._metrics)

  def summary(self) -> dict[str, float | None]:
    """The loss is a mean over labels, the rows' norm over rows that moved."""
    metrics, lengths = processes.fetch((self._metrics, self._seconds))
    elapsed = time.perf_counter() - self._start
    weights = np.array([m.weight_K for m in metrics], np.float64)
    losses = np.array([m.loss_K for m in metrics], np.float64)
    utterances = sum(int((length > 0).sum()) for length in lengths)
    audio = sum(float(length.sum()) for length in lengths) / SAMPLE_RATE
    norms = np.array([m.row_norm_K for m in metrics], np.float64)
    loss, row_norm = None, None
    if weights.any():
      loss = float((losses * weights).sum() / weights.sum())
      row_norm = float(norms[weights > 0].mean())
    return {
      "seconds": elapsed,
      "loss": loss,
      "shared_norm": float(np.mean([m.shared_norm for m in metrics])),
      "row_norm": row_norm,
      "skipped": float(sum(int(m.bad_K.sum()) for m in metrics)),
      "shared_skipped": float(sum(int(m.shared_skipped) for m in metrics)),
      "utterances_per_second": utterances / elapsed,
      "audio_seconds_per_second": audio / elapsed,
    }
