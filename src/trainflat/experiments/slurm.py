"""A plan as a Slurm array: N equal tasks that share the stages by the store's locks, each taking what is ready and free.

Considered: an array for every depth of the plan, chained by ``--dependency``. It needs a task for each stage, waits at every
depth for the slowest, and is wrong after the first failure or time-out. Equal tasks need none of that: any of them can be
killed, requeued, added or taken away at any time, since a stage runs under its lock and goes on from its last checkpoint, whoever
takes it up. The price: every task reserves what the most demanding stage asks for; and one that finds nothing ready waits as
long as stages are left that build on others, and leaves once all that is left is at work (``--no-wait``).

The time limit: two minutes before its end Slurm sends SIGUSR1, on which a run saves its stage and stops with exit code 130, as
on Ctrl-C; the script then puts its own task into the queue again. Preemption and ``scancel`` send SIGTERM, with the same effect;
Slurm itself requeues what it preempted (``--requeue``).
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from trainflat.experiments.plan import Job
from trainflat.experiments.resources import Resources
from trainflat.experiments.store import Store

__all__ = ["script"]

MOST = 64  # tasks: more than most sites give one person at once
HOURS = 12  # of a task; a stage that is cut off goes on in the next
GRACE = 120  # seconds before the end of its time at which a task is told

SCRIPT = """\
#!/bin/bash
# {name}: {stages} stages to run, by at most {tasks} tasks at once. Send it off with: sbatch FILE
# Each task takes whatever stage is ready and free, so any number of tasks will do, at any time. What sbatch is told
# comes before what stands here: sbatch --array=1-4 --time=2:00:00 --partition=NAME FILE
#SBATCH --job-name={name}
#SBATCH --array=1-{tasks}
#SBATCH --cpus-per-task={cpus}{optional}
#SBATCH --time={hours}:00:00
#SBATCH --signal=B:USR1@{grace}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%A_%a.log
export OMP_NUM_THREADS={cpus}
cd {folder} || exit

work() {{
  "$@" &
  child=$!
  wait "$child"; code=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done  # a signal ends a wait, not the child
  if [ -n "$again" ] && [ "$code" -ge 128 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
  if [ "$code" -ge 128 ]; then exit "$code"; fi
  if [ "$code" -ne 0 ]; then failed=$code; fi
}}
trap 'again=1; kill -USR1 "$child"' USR1  # the time is nearly up
trap 'kill -TERM "$child"' TERM

{commands}
exit "${{failed:-0}}"
"""


def script(name: str, commands: Sequence[Sequence[str]], jobs: Sequence[Job], store: Store) -> str:
    """The script, for ``sbatch``: the commands are whole ``trainflat run`` lines, one for each recipe, run one after the other.

    Args:
        name: What the job is called.
        commands: Words; every one is to have ``--no-wait`` and a store that all nodes see.
        jobs: What the commands run; for the number of tasks and what they ask for.
        store: Where finished ones are found.
    """
    left = {job.key: job for job in jobs if store.done(job.key) is None}
    asks = _most(list(left.values()))
    optional = f"\n#SBATCH --gres=gpu:{-int(-asks.gpus // 1)}" if asks.gpus else ""
    optional += f"\n#SBATCH --mem={asks.memory * 1000:.0f}M" if asks.memory else ""
    return SCRIPT.format(
        name=name.replace("/", "-"),
        stages=len(left),
        tasks=min(MOST, max(1, _width(list(left.values())))),
        cpus=asks.cpus,
        optional=optional,
        hours=HOURS,
        grace=GRACE,
        folder=shlex.quote(str(Path.cwd())),
        commands="\n".join(f"work {shlex.join(command)}" for command in commands),
    )


def _most(jobs: Sequence[Job]) -> Resources:
    """The most that any of the stages asks for, of each kind."""
    asked = [job.resources for job in jobs] or [Resources()]
    memory = max((one.memory or 0.0 for one in asked), default=0.0)
    return Resources(cpus=max(one.cpus for one in asked), gpus=max(one.gpus for one in asked), memory=memory or None)


def _width(jobs: Sequence[Job]) -> int:
    """How many of the stages can run side by side: the most that are equally many steps away from what is done."""
    depths: dict[str, int] = {}
    for job in jobs:  # parents come first
        depths[job.key] = 1 + max((depths.get(parent.key, 0) for parent in job.parents.values()), default=0)
    return max(Counter(depths.values()).values(), default=0)
