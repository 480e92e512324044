"""A model that will be pruned, trained at the price of Adam: `flat.default()`. Two minutes on one core."""

import torch

from trainflat import compress, flat, tasks, train


def main(steps: int = 440, sparsity: float = 0.7) -> dict[str, float]:
    task, kept = tasks.digits(batch_size=64), {}
    for name, rule in {"Adam": flat.plain(), "SAM": flat.sam(rho=0.1), "default": flat.default()}.items():
        model = task.model(seed=0)
        adam = torch.optim.Adam(model.parameters(), lr=2e-3)
        train.fit(model, task.objective, task.batches(seed=0), adam, steps=steps, gradient=rule, lr=train.linear())
        whole = compress.Mask.dense(model, where=task.prunable)
        with compress.prune(compress.magnitude(model), sparsity, within=whole).on(model):
            kept[name] = task.evaluate(model)["accuracy"]
        print(f"{name}: {100 * kept[name]:.1f} % with {100 * sparsity:.0f} % of the weights pruned")
    return kept


if __name__ == "__main__":
    main()
