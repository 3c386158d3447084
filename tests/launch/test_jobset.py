"""The JobSet manifest, held to what Kubernetes knows of JobSets.

By enums and ranges that stand here; by JobSet's API as kubeflow-trainer-api has it; and, where $HRA_JOBSET_CRD names the
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


ACTIONS = ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
JOB = "spec replicatedJobs 0"


def _at(manifest: Any, path: str) -> Any:
  for name in path.split():
    manifest = manifest[int(name) if name.isdigit() else name]
  return manifest


def _objections(manifest: dict[str, Any]) -> list[str]:
  """What JobSet and Job have against the values of their own fields."""
  policy = manifest["spec"]["failurePolicy"]
  job = _at(manifest, f"{JOB} template spec")
  allowed = {
    "apiVersion": (manifest["apiVersion"], ["jobset.x-k8s.io/v1alpha2"]),
    "kind": (manifest["kind"], ["JobSet"]),
    "restartStrategy": (
      policy["restartStrategy"],
      ["Recreate", "BlockingRecreate"],
    ),
    "completionMode": (job["completionMode"], ["Indexed"]),
    "restartPolicy": (
      _at(job, "template spec restartPolicy"),
      ["Never", "OnFailure"],
    ),
    **{
      f"action of {rule['name']}": (rule["action"], ACTIONS)
      for rule in policy["rules"]
    },
    **{
      f"action {number} of pods": (rule["action"], ["FailJob"])
      for number, rule in enumerate(job["podFailurePolicy"]["rules"])
    },
    **{
      f"operator {number}": (rule["onExitCodes"]["operator"], ["In", "NotIn"])
      for number, rule in enumerate(job["podFailurePolicy"]["rules"])
      if "onExitCodes" in rule
    },
  }
  least = {
    "maxRestarts": (policy["maxRestarts"], 0),
    "replicas": (_at(manifest, f"{JOB} replicas"), 1),
    "parallelism": (job["parallelism"], 1),
    "completions": (job["completions"], job["parallelism"]),
    "backoffLimit": (job["backoffLimit"], 0),
    "activeDeadlineSeconds": (job.get("activeDeadlineSeconds", 1), 1),
    "terminationGracePeriodSeconds": (
      _at(job, "template spec terminationGracePeriodSeconds"),
      1,
    ),
  }
  return [
    *(name for name, (value, values) in allowed.items() if value not in values),
    *(
      name
      for name, (value, low) in least.items()
      if not isinstance(value, int) or value < low
    ),
  ]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_has_values_that_there_are(manifest):
  assert _objections(manifest) == []


@pytest.mark.parametrize(
  ("path", "name", "value"),
  [
    ("apiVersion", "apiVersion", "jobset.x-k8s.io/v1"),
    ("kind", "kind", "Jobset"),
    ("spec failurePolicy restartStrategy", "restartStrategy", "Blocking"),
    ("spec failurePolicy maxRestarts", "maxRestarts", -1),
    ("spec failurePolicy rules 0 action", "action of badInput", "FailJob"),
    (f"{JOB} replicas", "replicas", 0),
    (f"{JOB} template spec parallelism", "parallelism", -1),
    (f"{JOB} template spec completions", "completions", "64"),
    (f"{JOB} template spec completionMode", "completionMode", "indexed"),
    (f"{JOB} template spec activeDeadlineSeconds", "activeDeadlineSeconds", 0),
    (
      f"{JOB} template spec template spec restartPolicy",
      "restartPolicy",
      "Always",
    ),
    (
      f"{JOB} template spec podFailurePolicy rules 0 action",
      "action 0 of pods",
      "FailJobSet",
    ),
    (
      f"{JOB} template spec podFailurePolicy rules 0 onExitCodes operator",
      "operator 0",
      "in",
    ),
  ],
)
def test_a_value_that_there_is_not_is_found(path, name, value):
  manifest = copy.deepcopy(MANIFESTS[0])
  folder, _, last = path.rpartition(" ")
  _at(manifest, folder)[last] = value
  assert _objections(manifest) == [name]


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
