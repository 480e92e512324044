"""How flat the minima are, told task by task: the rise of the loss in the paper's boxes, and curvature beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trainflat.reports import barriers
from trainflat.reports.numbers import MISSING, counted, plus_minus
from trainflat.reports.rows import Results, Row, results, sparsity_of
from trainflat.reports.stats import Difference, compare, means
from trainflat.reports.tables import ALONE, Table, arm_under_arm, axis, pairing, pairs, without_repetition

__all__ = ["curvature", "differences", "how_flat", "sharpness"]

Point = tuple[str, str]  # task, model
NAMES = {"ascent": "ascent", "eigenvalue": "largest eigenvalue", "trace": "trace"}
BOX = (
    "Sharpness is the highest rise of the mean held-out loss that L-BFGS-B finds in a box of size eps in a random subspace, "
    "100 (max f − f) / (1 + f), as Na et al. 2022, tables 3 and 4, measure it; lower is flatter."
)
SECOND = (
    "Ascent: the rise of the loss at rho along its gradient, SAM’s own step. Eigenvalue and trace are the Hessian’s; the "
    "residual is the largest relative one over seeds, the error the largest standard error of a trace, in % of it."
)


def how_flat(rows: Iterable[Row] | Results) -> list[Table]:
    """All tables about flatness, as far as the rows know: those that carry a ``sharpness``, or a barrier to another model.

    Example:
        >>> rows = [
        ...     {"task": "rte", "variant": "dense", "seed": 0, "arm": {"optimizer": name}, "sharpness": {"eps 0.005": phi}}
        ...     for name, phi in (("Adam", 49.0), ("SAM", 28.4))
        ... ]
        >>> [table.rows for table in how_flat(rows)]
        [(('rte', 'dense', 'Adam', '49.0'), ('rte', 'dense', 'SAM', '28.4')),
         (('rte', 'dense', 'eps 0.005', '28.4', '49.0', '−20.6', '–', '1', 'cannot tell'),)]
    """
    data = results(rows)
    told = (differences(data, a, b) for a, b in pairs(data.arms))
    tables = [sharpness(data), curvature(data), *told, barriers.table(data)]
    return [table for table in tables if table is not None]


def sharpness(data: Results) -> Table | None:
    """The paper's measure, one row for each task, model and arm, one column for each box, the largest first."""
    found = _found(data)
    sizes = _sizes(found)
    title = "Sharpness of the held-out loss; mean ± s.d. over seeds, lower is flatter"
    cells = lambda of: [_spread(of.get(name)) for name in sizes]
    return _table(data, found, title, sizes, cells, BOX) if sizes else None


def curvature(data: Results) -> Table | None:
    """The other measures: SAM's ascent, the Hessian's largest eigenvalue with its residual, its trace with its error."""
    found = _found(data)
    if not any(name in of for of in found.values() for name in NAMES):
        return None

    def cells(of: dict[str, dict[Any, float]]) -> list[str]:
        errors = [
            abs(error / of["trace"][seed]) for seed, error in of.get("trace_error", {}).items() if of["trace"][seed]
        ]
        residual = f"{max(of['residual'].values()):.1g}" if of.get("residual") else MISSING
        error = f"{100 * max(errors):.0f} %" if errors else MISSING
        return [_spread(of.get("ascent")), _spread(of.get("eigenvalue")), residual, _spread(of.get("trace")), error]

    title = "Other measures of flatness; mean ± s.d. over seeds, lower is flatter"
    return _table(data, found, title, ["ascent", "largest eigenvalue", "residual", "trace", "its error"], cells, SECOND)


def differences(data: Results, first: str, second: str) -> Table | None:
    """Arm ``second`` minus arm ``first``, one row for each task, model and measure; "flatter" if the interval is below 0."""
    found = _found(data)
    lines: list[tuple[str, ...]] = []
    told: list[Difference] = []
    for task, model in dict.fromkeys((task, model) for task, model, _ in found):
        arms = [found.get((task, model, arm), {}) for arm in (first, second)]
        for name in (*_sizes(found), *NAMES):
            if not all(arm.get(name) for arm in arms):
                continue
            d = compare(arms[0][name], arms[1][name])
            shown = [_number(mean) for mean in reversed(means(arms[0][name], arms[1][name]))]
            interval = MISSING if d.low is None or d.high is None else f"[{_number(d.low)}, {_number(d.high)}]"
            measured = (_number(d.mean, "+"), interval, counted(d), _verdict(d))
            lines.append((task, model, NAMES.get(name, name), *shown, *measured))
            told.append(d)
    if not lines:
        return None
    title = f"Flatness, {second} − {first}; {pairing(told)}, below 0 is flatter"
    header = ("task", "model", "measure", second, first, "difference", "95 % CI", "n", f"{second} is")
    return Table(title, header, tuple(lines), names=3, note=ALONE)


def _found(data: Results) -> dict[tuple[str, str, str], dict[str, dict[Any, float]]]:
    """By task, model and arm, in the order of a table: every measure's values by seed."""
    found: dict[tuple[str, str, str], dict[str, dict[Any, float]]] = {}
    for row in data.rows:
        if "sharpness" in row:
            model = data.title(data.variant(row), sparsity_of(row))
            of = found.setdefault((data.task(row), model, data.arm(row)), {})
            for name, value in row["sharpness"].items():
                if value is not None:
                    of.setdefault(name, {}).setdefault(row["seed"], float(value))
    return arm_under_arm(data, found)


def _sizes(found: dict[tuple[str, str, str], dict[str, Any]]) -> list[str]:
    """The boxes, the largest first."""
    names = {name for of in found.values() for name in of if name.startswith("eps ")}
    return sorted(names, key=lambda name: -float(name.removeprefix("eps ")))


def _table(data: Results, found: Any, title: str, columns: Sequence[str], cells: Any, note: str) -> Table:
    """One row for each task, model and arm."""
    lines = tuple((*key, *cells(of), f"n = {max(map(len, of.values()))}") for key, of in found.items())
    header = ("task", "model", axis(data), *columns, "seeds")
    return without_repetition(Table(title, header, lines, names=3, note=note))


def _spread(values: dict[Any, float] | None) -> str:
    return plus_minus(values.values(), _number) if values else MISSING


def _number(value: float, sign: str = "") -> str:
    """One decimal as the paper prints it from 1 on, two figures below, powers of ten where there is no room.

    >>> _number(160.94), _number(0.0456), _number(-20.6, "+"), _number(0.0), _number(123456.0)
    ('160.9', '0.046', '−20.6', '0.0', '1.2e+05')
    """
    size = abs(value)
    before = "−" if value < 0 else sign if size else ""
    return before + (f"{size:.1f}" if size == 0 or 1 <= size < 1e5 else f"{size:.2g}")


def _verdict(d: Difference) -> str:
    return {"better": "sharper", "worse": "flatter"}.get(d.verdict, d.verdict)
