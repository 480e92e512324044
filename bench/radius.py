"""How many of the optimizer's steps should an automatic radius be? Accuracy on a fifth of the training data, held back.

Where the default of `trainflat.flat.auto.Auto` comes from: SAM on digits and docstrings, trained as in quickstart, with as many
seeds from 7 on as ``--rounds`` says.
"""

from __future__ import annotations

import statistics

import torch

from bench.pairs import arguments
from trainflat import flat, tasks, train
from trainflat.flat.auto import Auto

STEPS = (0.1, 0.2, 0.3, 0.5, 1.0)
TASKS = {
    "digits": (lambda: tasks.digits(batch_size=64, holdout=0.2), 20),
    "docstrings": (lambda: tasks.docstrings(holdout=0.2), 4),
}


def score(name: str, steps: float, seed: int, small: bool) -> float:
    """Of one training, in %."""
    make, epochs = TASKS[name]
    task = make()
    model = task.model(seed=seed)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    count = 4 if small else round(epochs * task.steps_per_epoch)
    rule = flat.compose(Auto(steps))
    train.fit(model, task.objective, task.batches(seed=seed), adam, steps=count, gradient=rule)
    return 100 * task.evaluate(model)["accuracy"]


def main() -> None:
    options = arguments(__doc__ or "")
    torch.set_num_threads(options.threads)
    print(f"\n### Accuracy of SAM with a radius of so many steps of the optimizer\n\n| steps | {' | '.join(TASKS)} |")
    print(f"|---:|{'---:|' * len(TASKS)}")
    for steps in STEPS:
        cells = []
        for name in TASKS:
            found = [score(name, steps, seed, options.small) for seed in range(7, 7 + options.rounds)]
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.1f}{spread}")
        print(f"| {steps:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
