"""Submodels: what tasks own, as files, and the stores that they are in."""

from hra.submodels.file import Entry, Kind, Submodel, Verdict
from hra.submodels.folder import create, load, save, save_shared
from hra.submodels.names import file_name, task_of
from hra.submodels.shared import shared_fingerprint
from hra.submodels.shelf import OtherTask
from hra.submodels.store import Store

__all__ = [
  "Entry",
  "Kind",
  "OtherTask",
  "Store",
  "Submodel",
  "Verdict",
  "create",
  "file_name",
  "load",
  "save",
  "save_shared",
  "shared_fingerprint",
  "task_of",
]
