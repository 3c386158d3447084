"""What an environment says of a job's processes."""

import pytest

from hra import cluster

SLURM = {
  "SLURM_JOB_ID": "1",
  "SLURM_STEP_NODELIST": "a",
  "SLURM_PROCID": "0",
}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a"}


@pytest.mark.parametrize(
  ("environment", "several"),
  [
    ({**SLURM, "SLURM_NTASKS": "2"}, True),
    ({**SLURM, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "2"}, True),
    ({**SLURM, "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "1"}, False),
    # A batch script is no step.
    ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}, False),
    ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "2"}, True),
    ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}, False),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a"}, False),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, False),
    (
      {
        cluster.ADDRESS: "a:1",
        cluster.COUNT: "2",
        "JOB_COMPLETION_INDEX": "1",
      },
      True,
    ),
    # What is said explicitly goes before what a scheduler says.
    ({**SLURM, "SLURM_NTASKS": "2", cluster.COUNT: "1"}, False),
  ],
)
def test_whether_there_are_several(environment, several):
  assert cluster.are_expected(environment) is several
