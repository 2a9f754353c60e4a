"""Members as jobs of a SLURM cluster, submitted through submitit as one job array.

submitit pickles the function of a job into the sweep's `_sweep/slurm` folder, and the job loads it.
That function becomes the training process, so no result is pickled and none is read back: a member
is judged by its own `status.json` once its job has left SLURM's queue.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from geomix.runs.directory import RunDirectory
from geomix.studies.member import Member, State, command
from geomix.util.errors import UserError
from geomix.util.files import write_json
from geomix.util.links import opened_to_append
from geomix.util.reading import read_json
from geomix.util.terminal import harmless

OWN_OPTIONS = {
    "array_parallelism": "say `jobs:` instead",
    "use_srun": "members are started by srun always",
    "signal": "say `signal_delay_s:`, seconds before the time limit in which a member saves",
}
"""Options of submitit that a study sets otherwise, with the replacement."""

SAVING_SECONDS = 90
"""Seconds before its time limit at which a job is told to save, unless `signal_delay_s` is set."""

_OFTEN, _SELDOM = 1.0, 30.0
"""Seconds between two checks of the queue: at first, and while nothing happens."""


def slurm_options() -> list[str]:
    """Return the names that `slurm:` may hold: SLURM's own and submitit's general ones."""
    from submitit import SlurmExecutor

    own, general = SlurmExecutor._valid_parameters(), SlurmExecutor._equivalence_dict()
    return sorted((own | set(general)) - set(OWN_OPTIONS))


class Slurm:
    """Members as jobs of a SLURM cluster.

    Args:
        folder: of submitit's files and each member's job, on a disk that all nodes share.
        name: of the jobs in the queue.
        options: `slurm:` of the study.
        jobs: number of jobs at once; None leaves it to SLURM.

    Raises:
        UserError: there is no SLURM here, or its queue cannot be read.
    """

    outlasts = True

    def __init__(
        self, folder: Path, name: str, options: Mapping[str, Any], jobs: int | None
    ) -> None:
        self.pause = _OFTEN
        self._folder, self._name, self._options, self._limit = folder, name, options, jobs
        known = jobs_of(folder)
        queue = _queue()
        self._jobs = {member: job for member, job in known.items() if job in queue}
        self._states = queue

    def running(self) -> Mapping[str, State]:
        """Return the members in SLURM's queue, also those of earlier processes."""
        return {name: _state(self._states.get(job, "PENDING")) for name, job in self._jobs.items()}

    def room(self) -> None:
        """Return None: SLURM itself queues jobs beyond its capacity."""

    def start(self, members: Sequence[Member]) -> None:
        """Submit the members as one job array.

        Raises:
            UserError: SLURM rejects them.
        """
        if not members:
            return
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor = SlurmExecutor(self._folder)
        options: dict[str, Any] = {"job_name": f"geomix-{self._name}", "time": None}
        options |= executor._convert_parameters(dict(self._options))
        # SIGTERM, at which training saves, in place of submitit's own signal and its requeueing
        ending = {"signal": f"TERM@{options.get('signal_delay_s', SAVING_SECONDS)}"}
        options["additional_parameters"] = ending | options.get("additional_parameters", {})
        options["array_parallelism"] = self._limit or len(members)
        try:
            executor.update_parameters(**options)
            with redirect_stderr(StringIO()), executor.batch():  # it repeats what is raised
                jobs = [
                    executor.submit(
                        become_training,
                        str(member.config_file),
                        str(member.run.path),
                        str(member.log),
                        member.begun,
                    )
                    for member in members
                ]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(_rejection(str(error))) from None
        submitted = {m.name: str(job.job_id) for m, job in zip(members, jobs, strict=True)}
        self._jobs |= submitted
        write_json(self._folder / "jobs.json", jobs_of(self._folder) | submitted)
        self.pause = _OFTEN

    def ended(self) -> dict[str, int | None]:
        """Return the members whose jobs left the queue; SLURM keeps no exit status for long."""
        try:
            self._states = _queue()
        except UserError:  # a controller that is restarted answers again later
            self.pause = _SELDOM
            return {}
        found = {name: None for name, job in self._jobs.items() if job not in self._states}
        for name in found:
            del self._jobs[name]
        self.pause = _OFTEN if found else min(self.pause * 1.5, _SELDOM)
        return dict(found)

    def ask_to_end(self) -> None:
        """Do nothing: the jobs continue without this process."""

    def close(self) -> None:
        """Do nothing: the jobs continue without this process."""


def jobs_of(folder: Path) -> dict[str, str]:
    """Return each member's most recently submitted job."""
    file = folder / "jobs.json"
    return read_json(file) if file.exists() else {}


def queued(folder: Path) -> dict[str, str]:
    """Return each member's job, for those in SLURM's queue now.

    Raises:
        UserError: jobs were submitted, and the queue cannot be read.
    """
    known = jobs_of(folder)
    queue = _queue() if known else {}
    return {member: job for member, job in known.items() if job in queue}


def _queue() -> dict[str, str]:
    """Return the user's jobs in the queue, arrays expanded: id → state. Needs no accounting."""
    line = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i %T"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    except FileNotFoundError:
        raise UserError(
            "squeue: not found; is this a SLURM cluster? or say --executor local"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError("squeue: no answer in 60 s") from None
    except subprocess.CalledProcessError as error:
        raise UserError(_rejection(error.stderr)) from None
    return dict(line.split() for line in done.stdout.splitlines() if line.strip())


def _state(found: str) -> State:
    return "queued" if found in ("PENDING", "CONFIGURING", "REQUEUED") else "running"


def _rejection(stderr: str) -> str:
    lines = [line.split("error: ", 1)[-1] for line in stderr.splitlines() if "error:" in line]
    return f"SLURM: {'; '.join(lines) or stderr.strip()}"


def become_training(config: str, folder: str, log: str, resume: bool) -> None:
    """Replace a job's process by the training process, which then receives SLURM's signals.

    Args:
        config: the member's YAML file.
        folder: its run directory.
        log: file for its output.
        resume: whether to resume; every task of a job must do the same.
    """
    from submitit.helpers import TorchDistributedEnvironment

    if os.environ.get("SLURM_RESTART_COUNT"):  # put back into the queue after it had started
        resume = RunDirectory(Path(folder)).resolved_file.exists()
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
        os.environ.setdefault("OMP_NUM_THREADS", cpus)
    line = command(config, folder, resume)
    with opened_to_append(Path(log)) as descriptor:
        if os.environ.get("SLURM_PROCID", "0") == "0":
            os.write(descriptor, harmless(f"$ {shlex.join(line)}\n").encode(errors="replace"))
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    os.execv(line[0], line)  # noqa: S606 (no shell is wanted)
