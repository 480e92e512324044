"""Every shipped recipe runs to its report in its small size, offline."""

from __future__ import annotations

from trainflat.experiments import plan as planning
from trainflat.experiments import runner
from trainflat.experiments.recipe import read, shipped
from trainflat.experiments.store import Store
from trainflat.reports import page


def test_every_shipped_recipe_runs_to_its_report(tmp_path):
    store, seen = Store(tmp_path), 0
    for name in shipped():
        planned = planning.plan(read(name), smoke=True)
        document = runner.run(planned, store, smoke=True)
        rows = store.rows(document)
        assert {row["stage"] for row in rows} == set(planned.recipe.document["stage"])
        header = {key: value for key, value in document.items() if key != "points"}
        written = page.write_all(rows, header, tmp_path / "reports" / name)
        assert (tmp_path / "reports" / name / "report.html") in written
        seen += 1
    assert seen == 4
