"""Corpora in every form that people have them -> records.

Enters: manifests, folders, archives, `tfds:NAME`. Leaves: lists of
`hra.data.records.Record`; no audio is decoded.
"""
