"""The JobSet manifest, held to what Kubernetes knows of JobSets.

By JobSet's API as kubeflow-trainer-api has it; and, where $HRA_JOBSET_CRD names the
CustomResourceDefinition's file (`kubectl get crd jobsets.jobset.x-k8s.io -o yaml`), by
the schema in that.
"""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from launched import GOLDENS, GPU_PODS, HARD, TPU_SLICES

from launch import jobset

MANIFESTS = [jobset.manifest(job) for job in (TPU_SLICES, GPU_PODS)]


@pytest.fixture(scope="module")
def as_read():
  """A manifest as the API's own types have it, less what they don't know."""
  models = pytest.importorskip(
    "kubeflow_trainer_api.models.jobset_v1alpha2_job_set",
    reason="JobSet's API isn't here: pip install kubeflow-trainer-api",
  )
  return lambda manifest: models.JobsetV1alpha2JobSet.from_dict(
    manifest
  ).to_dict()


@pytest.fixture(scope="module")
def problems():
  """What the CustomResourceDefinition's schema has against a manifest."""
  path = os.environ.get("HRA_JOBSET_CRD")
  if not path:
    pytest.skip("$HRA_JOBSET_CRD names no CustomResourceDefinition of JobSet")
  jsonschema = pytest.importorskip("jsonschema")
  loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
  versions = yaml.load(Path(path).read_text(), loader)["spec"]["versions"]
  [schema] = [
    version["schema"]["openAPIV3Schema"]
    for version in versions
    if version["name"] == MANIFESTS[0]["apiVersion"].split("/")[1]
  ]
  validator = jsonschema.Draft202012Validator(_strict(schema))
  return lambda manifest: [
    f"{error.json_path}: {error.message}"
    for error in validator.iter_errors(manifest)
  ]


def _strict(schema: Any) -> Any:
  """The schema as a server applies it with --validate=strict: nothing unknown."""
  if isinstance(schema, list):
    return [_strict(each) for each in schema]
  if not isinstance(schema, dict):
    return schema
  strict = {name: _strict(each) for name, each in schema.items()}
  if strict.get("x-kubernetes-int-or-string"):
    strict.pop("type", None)
  if "properties" in strict and "type" in strict:
    strict.setdefault("additionalProperties", False)
  return strict


def _spoilt(manifest: dict[str, Any]) -> list[dict[str, Any]]:
  """Manifests that are no JobSets any more."""
  unknown, wrong, missing = (copy.deepcopy(manifest) for _ in range(3))
  [pods] = [
    each["template"]["spec"]["template"]["spec"]
    for each in unknown["spec"]["replicatedJobs"]
  ]
  pods["restartpolicy"] = pods.pop("restartPolicy")
  wrong["spec"]["replicatedJobs"][0]["replicas"] = "two"
  del missing["spec"]["failurePolicy"]["rules"][0]["action"]
  return [unknown, wrong, missing]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_is_one_of_jobsets_api(as_read, manifest):
  assert as_read(manifest) == manifest


def test_the_api_refuses_what_is_none(as_read):
  unknown, wrong, _ = _spoilt(MANIFESTS[0])
  assert as_read(unknown) != unknown
  with pytest.raises(ValueError, match="replicas"):
    as_read(wrong)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_is_valid_by_the_definition(problems, manifest):
  assert problems(manifest) == []


def test_the_definition_refuses_what_is_none(problems):
  assert all(problems(spoilt) for spoilt in _spoilt(MANIFESTS[0]))


def test_yaml_says_what_the_manifest_says():
  for name, manifest in zip(
    ("jobset_tpu.yaml", "jobset_gpu.yaml"), MANIFESTS, strict=True
  ):
    assert yaml.safe_load((GOLDENS / name).read_text()) == manifest


def test_kubernetes_expands_nothing_in_words():
  """It puts variables in place of $(NAME), and one $ in place of two."""
  [workers] = MANIFESTS[0]["spec"]["replicatedJobs"]
  [container] = workers["template"]["spec"]["template"]["spec"]["containers"]
  flag = container["command"][-1]
  assert flag.replace("$$", "$") == f"--config.data.path={HARD}"
  assert "$" not in flag.replace("$$", "")
