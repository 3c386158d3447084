"""Evaluation: transcripts of a split -> WER per task with intervals, report."""
