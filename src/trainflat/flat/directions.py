"""A random projection too large to hold: for BERT-base 109.5 million rows and 100 columns, 43.8 GB in float32.

It is drawn again from its seed at every use, a block of coordinates (all columns of some rows) at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from trainflat.flat.losses import Vector
from trainflat.train.seeds import derive

__all__ = ["Directions"]

MIDDLE = 32768.5  # an entry is (k + this) / 2^16 with k uniform on the 16-bit integers: the midpoints of 2^16 cells of [0, 1)
ROWS = {"cpu": 4096, "cuda": 1 << 18}  # of a block: it stays in a core's cache; a GPU wants fewer and larger ones


class Directions:
    """A, an n x p matrix of independent uniform [0, 1) entries, its columns of length 1; frozen coordinates are rows of zeros.

    As Mehta et al. 2023 draw it (arXiv:2112.09153, their code): uniform, not Gaussian, entries, so that all columns share
    a component along (1, ..., 1) and the cosine of any two is about 3/4.

    A product needs p * n random numbers again, so their price is what counts. Per entry and core: 1.5 ns for a float32 by
    NumPy, 2 ns by torch, 0.3 ns for 16 bits of SFC64's raw output. Hence entries on a grid of 2^-16, read as signed integers
    k; A z = K y + 32768.5 sum(y) with y = z / (column lengths) spares shifting each of them, and sums of K, which is centred,
    lose nothing to cancellation. The stream is read in the order of the rows, so the size of a block changes nothing,
    nor does a mask, nor the device: random numbers come from the CPU everywhere.

    Args:
        size: n.
        count: p, at most the number of live coordinates.
        seed: Decides the entries.
        alive: n bools, False = frozen. Default: all live. The columns have length 1 over the live coordinates.
        dtype: Of products; their sums over blocks are in float64.
        rows: Of a block; default: 4,096 on a CPU (0.8 MB of 100 columns), 262,144 on a GPU.

    Raises:
        ValueError: If p is below 1 or there are fewer live coordinates.

    Example:
        >>> directions = Directions(1000, 3, seed=0)
        >>> column = directions.up(torch.tensor([1.0, 0.0, 0.0]))
        >>> f"{torch.linalg.vector_norm(column):.4f}"
        '1.0000'
        >>> bool(0.7 < directions.gram[0, 1] < 0.8)
        True
    """

    def __init__(
        self,
        size: int,
        count: int,
        *,
        seed: int,
        alive: Bool[Tensor, " weights"] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        rows: int | None = None,
    ):
        live = size if alive is None else int(alive.sum())
        if not 1 <= count <= live:
            raise ValueError(f"{count} directions among {live} weights that may move: give between 1 and {live}")
        self.size, self.count, self.seed, self.alive = size, count, seed, alive
        self.dtype, self.device = dtype, torch.device(device)
        self.rows = rows or ROWS.get(self.device.type, ROWS["cpu"])
        raw = self._raw_gram(live)
        self._lengths = np.sqrt(np.diag(raw))
        self.gram = raw / np.outer(self._lengths, self._lengths)

    def up(self, z: Float[Tensor, " directions"], out: Vector | None = None) -> Vector:
        """A z, from the subspace to all n coordinates."""
        y = z.detach().cpu().double() / torch.from_numpy(self._lengths)
        common, y = MIDDLE * float(y.sum()), y.to(self.device, self.dtype)
        out = torch.empty(self.size, dtype=self.dtype, device=self.device) if out is None else out
        for rows, k in self._blocks():
            torch.mv(k, y, out=out[rows]).add_(common)
            if self.alive is not None:
                out[rows].mul_(self.alive[rows])
        return out

    def down(self, vector: Vector) -> Float64[np.ndarray, " directions"]:
        """A'v, p numbers in float64; the gradient in the subspace if v is the gradient."""
        found = torch.zeros(self.count, dtype=torch.float64, device=self.device)
        common = torch.zeros((), dtype=torch.float64, device=self.device)
        for rows, k in self._blocks():
            v = vector[rows] if self.alive is None else vector[rows] * self.alive[rows]
            found += torch.mv(k.T, v).double()
            common += v.sum(dtype=torch.float64)
        return (found + MIDDLE * common).cpu().numpy() / self._lengths

    def coordinates(self, vector: Vector) -> Float64[np.ndarray, " directions"]:
        """A^+ v, the coordinates of v's projection on the subspace: the solution x of (A'A) x = A'v, a p x p system."""
        return np.linalg.solve(self.gram, self.down(vector))

    def _raw_gram(self, live: int) -> Float64[np.ndarray, "directions directions"]:
        """(K + m)'(K + m) over the live rows, m = 32768.5: K'K + m (s 1' + 1 s') + m^2 n, s the sums of K's columns."""
        gram = torch.zeros(self.count, self.count, dtype=torch.float64, device=self.device)
        sums = torch.zeros(self.count, dtype=torch.float64, device=self.device)
        for rows, k in self._blocks():
            if self.alive is not None:
                k.mul_(self.alive[rows][:, None])
            gram += (k.T @ k).double()
            sums += k.sum(dim=0, dtype=torch.float64)
        s = MIDDLE * sums.cpu().numpy()
        return gram.cpu().numpy() + s[:, None] + s[None, :] + MIDDLE**2 * live

    def _blocks(self) -> Iterator[tuple[slice, Float[Tensor, "rows directions"]]]:
        """The rows of K, block by block; a block is overwritten by the next one."""
        stream = np.random.SFC64(derive("directions", self.seed))
        words = -(-self.count // 4)  # of 64 bits a row, four entries each
        room = torch.empty(min(self.rows, self.size), self.count, dtype=self.dtype, device=self.device)
        for first in range(0, self.size, self.rows):
            rows = min(self.rows, self.size - first)
            drawn = stream.random_raw(rows * words).view(np.int16).reshape(rows, 4 * words)[:, : self.count]
            yield slice(first, first + rows), room[:rows].copy_(torch.from_numpy(drawn))
