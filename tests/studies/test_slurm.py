"""The same study file on a real SLURM cluster: submitted once, killed, and resumed.

The cluster has one node, this machine, and munged, slurmctld and slurmd of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")

CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=500 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; "" if there can."""
    absent = [name for name in PROGRAMS if _program(name) is None]
    if absent:
        return f"no {', '.join(absent)}; `make slurm` installs Debian's slurm-wlm and munge"
    return "" if os.geteuid() == 0 else "slurmd starts jobs as root only"


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the cluster; gives the environment in which its commands find it, and stops it."""
    host = socket.gethostname().split(".")[0]
    controller, daemon = _free_ports(2)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            host=host, controller=controller, daemon=daemon, folder=folder, cpus=os.cpu_count()
        )
    )
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    munge.append(f"--socket={folder}/munge.socket")
    lines = [["munged", "--foreground", "--force", *munge]]
    lines += [["slurmctld", "-D"], ["slurmd", "-D", "-N", host]]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for line in lines:
            program = _program(line[0])
            assert program
            with (folder / f"{line[0]}.out").open("wb") as out:
                daemons.append(
                    subprocess.Popen([program, *line[1:]], env=environment, stdout=out, stderr=out)
                )
            time.sleep(1)
        _wait_until_idle(folder, environment)
        yield environment
    finally:
        for process in reversed(daemons):
            process.terminate()
        for process in daemons:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_idle(folder: Path, environment: dict[str, str]) -> None:
    line = ["sinfo", "--noheader", "--format=%T"]
    for _ in range(60):
        found = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        if found.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = [f"{log.name}: {log.read_text()[-1500:]}" for log in folder.glob("*.out")]
    raise AssertionError("no idle node\n" + found.stdout + found.stderr + "\n".join(logs))


STUDY = """base: base.yaml
seeds: [0, 1, 2]
executor: slurm
slurm: {cpus_per_task: 1, timeout_min: 20}
"""
BASE = """stages:
  - data: {source: kvr, limit: 8}
    stop: {epochs: 200}
train: {batch_size: 4}
record: null
evaluate: {epochs: 100}
"""
SEEDS = ("seed=0", "seed=1", "seed=2")


@dataclass
class Site:
    """A folder in which geomix is started, beside a cluster."""

    folder: Path
    environment: dict[str, str]

    def run(self, *line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            line, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def sweep(self, *options: str) -> tuple[int, dict[str, str]]:
        """Exit status, and each member's state."""
        return ended(self.start("--json", *options))

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "geomix", "sweep", "study.yaml", *options],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def read(self, name: str) -> Any:
        return json.loads((self.folder / "runs" / "study" / name).read_text())

    def jobs(self) -> list[str]:
        return self.run("squeue", "--noheader", "--array", "--format=%i").stdout.split()

    def steps(self, member: str) -> list[int]:
        file = self.folder / "runs" / "study" / member / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line["step"] for line in found if line["event"] == "step"]


def ended(sweep: subprocess.Popen[str]) -> tuple[int, dict[str, str]]:
    out, err = sweep.communicate(timeout=300)
    print(err)
    states = {one["member"]: one["state"] for one in json.loads(out or "[]")}
    return sweep.returncode, states


def wait_for(held: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if why := missing():
        pytest.skip(why)
    with cluster(tmp_path / "cluster") as environment:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "study.yaml").write_text(STUDY)
        (folder / "base.yaml").write_text(BASE)
        yield Site(folder, {**environment, "OMP_NUM_THREADS": "1"})


@pytest.mark.slurm
def test_a_study_survives_what_befalls_its_jobs(site: Site) -> None:
    status, states = site.sweep("--no-wait")
    assert status == 0
    assert set(states) == set(SEEDS)
    assert set(states.values()) <= {"queued", "running"}
    jobs = site.read("_sweep/slurm/jobs.json")
    assert sorted(site.jobs()) == sorted(jobs.values())
    assert len({job.split("_")[0] for job in jobs.values()}) == 1  # one array

    (script,) = (site.folder / "runs/study/_sweep/slurm").glob("[0-9]*_submission.sh")
    assert "#SBATCH --signal=TERM@90\n" in script.read_text()  # saves before its time is over

    status, states = site.sweep("--no-wait")  # nothing is submitted twice
    assert (status, site.read("_sweep/slurm/jobs.json")) == (0, jobs)
    assert len(site.jobs()) == 3
    assert site.sweep("--executor", "local")[0] == 2

    wait_for(lambda: len(site.steps("seed=0")) > 20 and len(site.steps("seed=1")) > 20)
    watching = site.start("--json")
    assert watching.stderr
    assert "3 members" in watching.stderr.readline()  # it knows of the jobs by now
    assert site.run("scancel", jobs["seed=0"]).returncode == 0  # saves, as at a time limit
    os.kill(site.read("seed=1/status.json")["pid"], signal.SIGKILL)
    status, states = ended(watching)
    assert states == {"seed=0": "interrupted", "seed=1": "interrupted", "seed=2": "done"}
    assert status == 75
    saved = max(site.steps("seed=0"))
    assert 20 < saved < 400

    before = (site.folder / "runs/study/seed=2.log").read_bytes()
    status, states = site.sweep()
    assert (status, states) == (0, dict.fromkeys(SEEDS, "done"))
    for member in SEEDS:
        assert site.steps(member) == list(range(1, 401))
    log = (site.folder / "runs/study/seed=0.log").read_text()
    assert log.count("$ ") == 2
    assert f"after step {saved}\n" in log
    assert (site.folder / "runs/study/seed=2.log").read_bytes() == before
    assert list((site.folder / "runs/study/_sweep/slurm").glob("*result*")) == []
    assert site.sweep("--executor", "local") == (0, dict.fromkeys(SEEDS, "done"))


@pytest.mark.slurm
def test_what_slurm_refuses_is_a_line(site: Site) -> None:
    (site.folder / "study.yaml").write_text(STUDY.replace("{cpus", "{partition: none, cpus"))
    done = site.run(sys.executable, "-m", "geomix", "sweep", "study.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        "geomix: SLURM: invalid partition specified: none; "
        "Batch job submission failed: Invalid partition name specified\n"
    )
    left = [f"{seed}.yaml" for seed in SEEDS]
    assert site.run("ls", "runs/study").stdout.split() == ["_sweep", *left]


@pytest.mark.slurm
def test_the_tasks_of_a_job_train_one_member_together(site: Site) -> None:
    (site.folder / "base.yaml").write_text(BASE.replace("200", "3"))
    study = STUDY.replace("[0, 1, 2]", "[0]").replace("{cpus", "{tasks_per_node: 2, cpus")
    (site.folder / "study.yaml").write_text(study)
    assert site.sweep() == (0, {"seed=0": "done"})
    assert site.steps("seed=0") == list(range(1, 7))
    log = (site.folder / "runs/study/seed=0.log").read_text()
    assert (log.count("$ "), log.count("base →")) == (1, 1)  # two that are alone would collide
