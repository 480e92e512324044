"""One correct SAM step inside a loop of your own: any model, any optimizer, gradients accumulated over micro-batches."""

import torch
from torch import nn

from trainflat import flat


def main(steps: int = 50) -> tuple[float, float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    x = torch.randn(64, 8)
    y = x.sum(1, keepdim=True)
    rule = flat.sam(rho=0.05)
    losses = []
    for step in range(steps):

        def closure() -> torch.Tensor:
            total = torch.zeros(())
            for micro_x, micro_y in zip(x.split(16), y.split(16), strict=True):  # four micro-batches, one ball
                loss = nn.functional.mse_loss(model(micro_x), micro_y) / 4
                loss.backward()
                total += loss.detach()
            return total

        optimizer.zero_grad()
        losses.append(float(rule(closure, params, step / steps)))
        optimizer.step()
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses[0], losses[-1]


if __name__ == "__main__":
    main()
