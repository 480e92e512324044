"""The fifteen lines of the README: rewind, train flat, prune, again; then int8. A minute on one core."""

import torch

from trainflat import compress, flat, tasks, train


def main(steps: int = 200, n: int = 3) -> list[tuple[float, float]]:
    task = tasks.digits()
    model = task.model(seed=0)
    start = train.snapshot(model)
    mask = compress.Mask.dense(model, where=task.prunable)
    curve = []
    for sparsity in [*compress.rounds(0.9, n=n), None]:  # then the ticket itself
        train.restore(model, start)  # rewind
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        with mask.on(model):
            train.fit(
                model, task.objective, task.batches(seed=0), adam, steps=steps,
                gradient=flat.sam(rho=0.05), lr=train.linear(1.0, 0.0),
            )  # fmt: skip
        curve.append((mask.sparsity, task.evaluate(model)["accuracy"]))
        print(mask, task.evaluate(model))
        if sparsity is not None:
            mask = compress.prune(compress.magnitude(model), sparsity, within=mask)
    small = compress.dynamic_int8(model)
    print("int8", task.evaluate(small), compress.cost(small, task.inputs(1)))
    return curve


if __name__ == "__main__":
    main()
