"""What several processes of a job agree on."""

import json
import signal
import socket
import time
import types

import pytest
import several

from hra import cluster, joining, processes
from hra.commands import main as cli
from hra.commands import process
from hra.errors import InputError, Interrupted


@pytest.fixture(scope="module")
def told():
  ends = several.ended(several.start(several.worker("agree")))
  assert [each.code for each in ends] == [0, 0], ends
  return [json.loads(each.out.splitlines()[-1]) for each in ends]


def test_processes_know_who_they_are(told):
  assert [each["index"] for each in told] == [0, 1]
  assert [each["count"] for each in told] == [2, 2]
  assert [each["first"] for each in told] == [True, False]
  assert [each["devices"] for each in told] == [[2, 1], [2, 1]]


def test_the_first_alone_does_and_says(told):
  assert [each["done"] for each in told] == [["written"], []]
  assert [each["found"] for each in told] == [1, 1]
  assert [each["says"] for each in told] == [{"from": 0}] * 2


def test_any_of(told):
  assert [each["any"] for each in told] == [[True, False, True]] * 2


def test_what_one_asks_for_is_done_by_all_at_one_point(told):
  first, second = (each["points"] for each in told)
  assert first == second
  assert [why for _, why in first] == ["save 1", "stop", "save 2"]


@pytest.mark.parametrize("who", [0, 1])
def test_who_fails_ends_all_with_its_code_and_reason(who):
  ends = several.ended(several.start(several.worker("fail", str(who))))
  assert [each.code for each in ends] == [2, 2], ends
  assert ends[1 - who].err.splitlines()[-1] == (
    f"hra: stopped, as process {who} of 2 has failed: no bread"
  )


def test_a_verb_ends_when_all_processes_have_come_to_its_end(monkeypatch):
  done = []
  verb = types.SimpleNamespace(main=lambda argv: done.append("its work"))
  monkeypatch.setattr(cli, "_module", lambda name: verb)
  monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: main(["hra"]))
  monkeypatch.setattr(cli.logging, "set_verbosity", lambda level: None)
  monkeypatch.setattr(processes, "wait_for_all", done.append)
  cli._run_verb("evaluate")
  assert done == ["its work", "end"]


def test_who_is_stopped_waits_for_the_others_too(monkeypatch):
  done = []

  def stopped(argv):
    raise Interrupted("at step 3")

  monkeypatch.setattr(processes, "wait_for_all", done.append)
  with pytest.raises(Interrupted, match="at step 3"):
    cli._until_all_end(stopped, ["hra"])
  assert done == ["end"]


@pytest.mark.slow
def test_the_first_may_take_longer_than_a_heartbeat():
  jobs = several.start(several.worker("late", "20"), HRA_HEARTBEAT_SECONDS="5")
  ends = several.ended(jobs)
  assert [each.code for each in ends] == [0, 0], ends
  assert ends[0].out == "reported\n"


def test_who_waits_for_an_answer_gets_it_before_all_end():
  ends = several.ended(several.start(several.worker("asks")), seconds=120)
  assert [each.code for each in ends] == [75, 75], ends
  assert [each.err for each in ends] == ["hra evaluate: stopped\n"] * 2


@pytest.mark.parametrize("who", [0, 1])
def test_a_signal_is_heard_where_one_waits_for_another(who):
  jobs = several.start(several.worker("waits"))
  for job in jobs:
    assert job.stdout.readline() == "joined\n"
  time.sleep(1)  # until they wait
  jobs[who].send_signal(signal.SIGTERM)
  ends = several.ended(jobs, seconds=60)
  assert [each.code for each in ends] == [143, 143], ends
  assert ends[who].err.splitlines()[-1] == "hra evaluate: stopped"


def test_one_process_waits_for_nobody():
  assert (processes.index(), processes.count()) == (0, 1)
  assert processes.is_first()
  processes.wait_for_all("nobody")
  assert not processes.any_of(False)
  assert processes.any_of(True)
  assert processes.first_says([1]) == [1]
  agreed = processes.Agreed("stop")
  assert agreed.reached() is None
  agreed.ask("because")
  assert [agreed.reached(), agreed.reached()] == ["because", None]


ADDRESS, COUNT, INDEX = cluster.ADDRESS, cluster.COUNT, cluster.INDEX


@pytest.mark.parametrize(
  ("given", "where"),
  [
    ({ADDRESS: "a:1", COUNT: "2"}, INDEX),
    ({ADDRESS: "a:1", INDEX: "0"}, COUNT),
    ({COUNT: "2", INDEX: "0"}, ADDRESS),
    ({ADDRESS: "a:1", COUNT: "2", INDEX: "2"}, INDEX),
    ({ADDRESS: "a:1", COUNT: "two", INDEX: "0"}, COUNT),
    ({ADDRESS: "a:1", COUNT: "0", INDEX: "0"}, COUNT),
    ({ADDRESS: "a:1", COUNT: "2", INDEX: "-1"}, INDEX),
    ({ADDRESS: "a", COUNT: "2", INDEX: "1"}, ADDRESS),
    ({ADDRESS: "a:65536", COUNT: "2", INDEX: "1"}, ADDRESS),
  ],
)
def test_an_environment_that_contradicts_itself_is_refused(
  monkeypatch, given, where
):
  for name in (ADDRESS, COUNT, INDEX):
    monkeypatch.delenv(name, raising=False)
  for name, value in given.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(InputError) as raised:
    joining.join()
  assert raised.value.where == f"${where}"


@pytest.mark.parametrize(
  "given",
  [
    {},
    {COUNT: "1"},
    {ADDRESS: "a:1", COUNT: "1", INDEX: "0"},
    {
      "SLURM_JOB_ID": "1",
      "SLURM_STEP_NODELIST": "a",
      "SLURM_PROCID": "0",
      "SLURM_LOCALID": "0",
      "SLURM_NTASKS": "1",
    },
    {
      "SLURM_JOB_ID": "1",
      "SLURM_STEP_NODELIST": "a",
      "SLURM_PROCID": "0",
      "SLURM_LOCALID": "0",
      "SLURM_NTASKS": "4",
      "SLURM_STEP_NUM_TASKS": "1",
    },
    {"TPU_WORKER_HOSTNAMES": "localhost", "JAX_PLATFORMS": "tpu"},
  ],
)
def test_a_single_process_joins_nobody(monkeypatch, given):
  for name, value in given.items():
    monkeypatch.setenv(name, value)
  joining.join()
  assert processes.count() == 1


@pytest.mark.parametrize(
  "given",
  [
    {ADDRESS: "a:1", COUNT: "2", INDEX: "1"},
    {"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "tpu"},
  ],
)
def test_a_command_of_one_process_refuses_before_it_joins(monkeypatch, given):
  for name, value in given.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(joining, "join", lambda: pytest.fail("joined"))
  with pytest.raises(InputError, match=r"one of several.*JAX_PLATFORMS=cpu"):
    process.set_up()


@pytest.mark.parametrize("place", [0, 1])
def test_who_waits_for_others_in_vain_says_so(place):
  jobs = several.start(several.worker("agree"), HRA_JOIN_SECONDS="1")
  jobs[1 - place].kill()
  (end,) = several.ended([jobs[place]])
  jobs[1 - place].communicate()
  assert end.code == 1
  assert "expected all processes of the job within 1 s, got fewer" in end.err


def test_a_port_that_is_taken_may_be_free_when_it_is_tried_again():
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    jobs = several.start(
      several.worker("agree"),
      count=1,
      **{ADDRESS: f"127.0.0.1:{taken.getsockname()[1]}", COUNT: "2"},
    )
    (end,) = several.ended(jobs)
  assert end.code == 1
  assert "expected a free port, got" in end.err.splitlines()[-1]
