"""A job -> a JobSet for Kubernetes, which Kueue queues if one is named.

A slice of TPUs is one Job of the set, GPU and CPU hosts are the pods of one. Bad input
(exit code 2) fails the set; what was interrupted and has saved (75), or lost its node,
is started again as often as that happens; what died counts against the retries. JobSet
has told these apart since 0.10; an older one ends the set at all three.
"""

from typing import Any

import yaml

from hra import cluster
from hra.errors import InputError
from launch import accelerators, submitting
from launch.job import (
  BAD_INPUT,
  INTERRUPTED,
  TERMINATED,
  Job,
  Submission,
  check_unused,
  command,
  environment,
  required,
)

_NAME = "jobset"
_WORKERS = "w"
_PORT = 8476
_NAME_LIMIT = 63


def render(job: Job) -> Submission:
  """What `kubectl` reads."""
  text = yaml.safe_dump(manifest(job), sort_keys=False, width=2**20)
  return Submission(("kubectl", "create", "--filename=-"), text)


def launch(job: Job) -> int:
  """Submits the job."""
  print(submitting.submit(render(job), "Kubernetes"))
  return 0


def manifest(job: Job) -> dict[str, Any]:
  """The JobSet as data."""
  check_unused(job, ("pause", "slurm", "tpu_vm"), _NAME)
  required(
    job.kubernetes.image, "image", _NAME, "such as --image=registry/hra:1"
  )
  slices, hosts = _size(job)
  _check_name(job, slices, hosts)
  kubernetes = job.kubernetes
  tpus = isinstance(job.devices, accelerators.Tpus)
  labels = {"kueue.x-k8s.io/queue-name": kubernetes.queue}
  # Each Job of the set gets a node pool, which is a slice, to itself.
  exclusive = {
    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
  }
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": job.name,
      "namespace": kubernetes.namespace,
      **({"labels": labels} if kubernetes.queue else {}),
      **({"annotations": exclusive} if tpus else {}),
    },
    "spec": {
      "network": {"enableDNSHostnames": True},
      "failurePolicy": _failure_policy(job),
      "replicatedJobs": [
        {
          "name": _WORKERS,
          "replicas": slices,
          "template": {"spec": _job_spec(job, hosts)},
        }
      ],
    },
  }


def _size(job: Job) -> tuple[int, int]:
  """Slices, and hosts of each."""
  devices = job.devices
  if job.processes > 1:
    raise InputError(
      "--processes",
      expected=f"1 on each machine with --launcher={_NAME}",
      got=str(job.processes),
      fix="a process there has all devices of its pod",
    )
  if not isinstance(devices, accelerators.Tpus):
    return 1, job.hosts or 1
  if job.hosts not in (0, devices.hosts * devices.slices):
    raise InputError(
      "--hosts",
      expected=f"{devices.hosts * devices.slices} for {job.accelerator}, or none",
      got=str(job.hosts),
    )
  return devices.slices, devices.hosts


def _check_name(job: Job, slices: int, hosts: int) -> None:
  """A pod is called NAME-w-SLICE-HOST-12345."""
  longest = f"-{_WORKERS}-{slices - 1}-{hosts - 1}-12345"
  room = _NAME_LIMIT - len(longest)
  if len(job.name) > room:
    raise InputError(
      "--name",
      expected=f"at most {room} characters, for the names of pods",
      got=f"{len(job.name)}: {job.name!r}",
    )


def _failure_policy(job: Job) -> dict[str, Any]:
  """What happens to the set when a Job of it failed; by default a restart."""
  rules = [
    {
      "name": "badInput",
      "action": "FailJobSet",
      "onJobFailureReasons": ["PodFailurePolicy"],
      "onJobFailureMessagePatterns": [f"exit code {BAD_INPUT} "],
    },
    {
      "name": "interrupted",
      "action": "RestartJobSetAndIgnoreMaxRestarts",
      "onJobFailureReasons": ["PodFailurePolicy"],
      "onJobFailureMessagePatterns": [
        f"exit code ({INTERRUPTED}|{TERMINATED}) ",
        "condition DisruptionTarget ",
      ],
    },
  ]
  if job.hours:
    rules.append(
      {
        "name": "outOfTime",
        "action": "FailJobSet",
        "onJobFailureReasons": ["DeadlineExceeded"],
      }
    )
  return {
    "maxRestarts": job.retries,
    # All pods have gone before the first comes back under its old name.
    "restartStrategy": "BlockingRecreate",
    "rules": rules,
  }


def _job_spec(job: Job, hosts: int) -> dict[str, Any]:
  fails = [
    *(
      {
        "action": "FailJob",
        "onExitCodes": {
          "containerName": "hra",
          "operator": "In",
          "values": codes,
        },
      }
      for codes in ([BAD_INPUT], [INTERRUPTED, TERMINATED])
    ),
    {
      "action": "FailJob",
      "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    },
  ]
  deadline = {"activeDeadlineSeconds": round(job.hours * 3600)}
  return {
    "completionMode": "Indexed",
    "parallelism": hosts,
    "completions": hosts,
    "backoffLimit": 0,
    **(deadline if job.hours else {}),
    "podFailurePolicy": {"rules": fails},
    "template": {"spec": _pod_spec(job, hosts)},
  }


def _pod_spec(job: Job, hosts: int) -> dict[str, Any]:
  kubernetes = job.kubernetes
  devices = job.devices
  selector = dict(each.split("=", 1) for each in kubernetes.selectors)
  if isinstance(devices, accelerators.Tpus):
    kind = accelerators.KINDS[devices.kind]
    selector |= {
      "cloud.google.com/gke-tpu-accelerator": kind.node_label,
      "cloud.google.com/gke-tpu-topology": devices.topology,
    }
  several = isinstance(devices, accelerators.Tpus) and devices.slices > 1
  chosen = {
    # What slices say to each other passes through the hosts' own network.
    "hostNetwork": several,
    "dnsPolicy": "ClusterFirstWithHostNet" if several else "",
    "priorityClassName": kubernetes.priority,
    "serviceAccountName": kubernetes.service_account,
    "nodeSelector": selector,
  }
  claims = [each.split(":", 1)[0] for each in kubernetes.mounts]
  volumes = [
    {"name": f"mount-{number}", "persistentVolumeClaim": {"claimName": claim}}
    for number, claim in enumerate(claims)
  ]
  return {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": job.grace,
    **{name: value for name, value in chosen.items() if value},
    "containers": [_container(job, hosts)],
    **({"volumes": volumes} if volumes else {}),
  }


def _container(job: Job, hosts: int) -> dict[str, Any]:
  mounts = [
    {"name": f"mount-{number}", "mountPath": each.split(":", 1)[1]}
    for number, each in enumerate(job.kubernetes.mounts)
  ]
  resources = _resources(job)
  variables = _variables(job, hosts)
  return {
    "name": "hra",
    "image": job.kubernetes.image,
    "command": [_literal(word) for word in command(job)],
    **({"workingDir": job.folder} if job.folder else {}),
    **({"env": variables} if variables else {}),
    **({"resources": resources} if resources else {}),
    **({"volumeMounts": mounts} if mounts else {}),
  }


def _variables(job: Job, hosts: int) -> list[dict[str, Any]]:
  """The environment; hosts of TPUs find each other by themselves.

  Each pod's index is in JOB_COMPLETION_INDEX.
  """
  variables = environment(job)
  if hosts > 1 and not isinstance(job.devices, accelerators.Tpus):
    first = f"{job.name}-{_WORKERS}-0-0.{job.name}"
    variables |= {
      cluster.ADDRESS: f"{first}:{job.port or _PORT}",
      cluster.COUNT: str(hosts),
    }
  return [
    *(
      {"name": name, "value": _literal(value)}
      for name, value in variables.items()
    ),
    *(_secret(job, name) for name in job.secrets),
  ]


def _literal(text: str) -> str:
  """Kubernetes puts variables in place of $(NAME), and a $ in place of two."""
  return text.replace("$", "$$")


def _secret(job: Job, name: str) -> dict[str, Any]:
  secret = required(
    job.kubernetes.secret,
    "secret",
    _NAME,
    f"the Secret of Kubernetes that holds {name}",
  )
  return {
    "name": name,
    "valueFrom": {"secretKeyRef": {"name": secret, "key": name}},
  }


def _resources(job: Job) -> dict[str, Any]:
  asked = {
    "cpu": str(job.cpus) if job.cpus else "",
    "memory": f"{job.memory_gib}Gi" if job.memory_gib else "",
  }
  asked = {name: value for name, value in asked.items() if value}
  devices = job.devices
  limits: dict[str, Any] = {}
  if isinstance(devices, accelerators.Tpus):
    limits = {"google.com/tpu": devices.chips_per_host}
  elif isinstance(devices, accelerators.Gpus):
    limits = {"nvidia.com/gpu": devices.per_host}
  return {
    name: each
    for name, each in (("requests", asked), ("limits", limits))
    if each
  }
