"""Down to a model that is really smaller: gates on heads, neurons and widths learn under a teacher, then are cut out."""

import torch

from trainflat import compress, flat, tasks, train


def main(steps: int = 400) -> dict[str, float]:
    task = tasks.digits()
    teacher = task.model(seed=0)
    adam = torch.optim.Adam(teacher.parameters(), lr=1e-3)
    train.fit(
        teacher, task.objective, task.batches(seed=0), adam, steps=steps,
        gradient=flat.sam(rho=0.05), lr=train.linear(),
    )  # fmt: skip

    student = task.model(seed=0)
    train.restore(student, train.snapshot(teacher))
    gates = compress.Gates(compress.structure(student))
    learning = compress.distill(task.objective, teacher, student, gates=gates)
    target = train.linear(0.6, 0.6, warmup=0.3)  # of the layers' parameters, in the end 60 % are to go
    held = compress.Lagrangian(learning, gates, target=target, lr=0.05)
    adam = torch.optim.Adam([{"params": [*student.parameters(), *learning.parameters()]}, *held.groups()], lr=1e-3)
    with gates.on(student):
        for step in train.loop(student, held, task.batches(seed=1), adam, steps=steps, lr=train.linear()):
            held.advance((step.index + 1) / steps)
    small = compress.shrink(student, gates.structure, gates.deterministic())

    for name, model in {"teacher": teacher, "small": small, "small, int8": compress.dynamic_int8(small)}.items():
        print(name, task.evaluate(model), compress.cost(model, task.inputs(1), runs=10))
    print(compress.shape_of(small))
    return {"teacher": task.evaluate(teacher)["accuracy"], "small": task.evaluate(small)["accuracy"]}


if __name__ == "__main__":
    main()
