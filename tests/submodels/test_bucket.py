"""A store of Submodels in a bucket: what was written there is read there."""

import jax
import numpy as np
import tiny

from hra import submodels
from hra.adapters import families
from hra.config import AdapterConfig


def test_a_store_in_a_bucket_is_read_where_it_was_written(bucket):
  adapter = AdapterConfig(width=4)
  made = families.build(adapter, tiny.BACKBONE, mels=tiny.FRONTEND.num_mels)
  key = jax.random.key(0)
  shared, row = made.init_shared(key), made.init_task(key)
  for task in ("anna", "bert/b"):
    submodels.save(
      bucket,
      submodels.Submodel(
        task=task,
        adapter=adapter,
        row=row,
        shared=shared,
        backbone_fingerprint="backbone",
        shared_fingerprint=submodels.save_shared(bucket, shared),
        summary={},
      ),
    )
  store = submodels.Store(bucket)
  assert set(store) == {"anna", "bert/b"}
  found = store["bert/b"]
  for ours, theirs in ((found.row, row), (found.shared, shared)):
    jax.tree.map(np.testing.assert_array_equal, ours, dict(theirs))
