"""What is committed as a result is what its own rows say: every folder makes its report again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainflat import reports

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "results").rglob("rows.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_of_results_makes_its_tables_again(folder):
    texts = reports.texts_of(*reports.read_back(folder))
    for name in ("table.md", "rows.csv"):
        assert texts[name] == (folder / name).read_text(encoding="utf-8")
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert re.findall(r"^Report: /.*", log, re.MULTILINE) == []  # where it was written on one machine


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_of_results_makes_its_page_and_its_pictures_again(folder, tmp_path):
    made = {path.relative_to(tmp_path) for path in reports.write_all(*reports.read_back(folder), tmp_path)}
    kept = {path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".html", ".svg", ".png")}
    assert kept <= made


def test_every_folder_of_results_is_linked_from_the_list_of_results():
    listed = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert len(FOLDERS) >= 4
    assert {folder.name for folder in FOLDERS} <= set(re.findall(r"\]\(([\w-]+)\)", listed))


def test_every_number_of_the_readme_has_a_folder():
    linked = set(re.findall(r"\]\(results/([\w-]+)(?!\.md|[\w-])", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert linked
    assert linked <= {folder.name for folder in FOLDERS}
