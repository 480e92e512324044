"""Tables in a terminal."""

from __future__ import annotations

import json
import math
import re

import pytest

from trainflat.cli.printing import print_json, print_table

WIDE = [["stale_cram", *["−15.0 [−50.3, 6.5]"] * columns] for columns in (2, 9)]


@pytest.mark.parametrize(("row", "lines"), [(WIDE[0], 1), (WIDE[1], 2)])
def test_an_interval_is_in_one_line_beside_its_value_or_below_it(row, lines, capsys):
    print_table("A table", ["rule", *["− Adam"] * (len(row) - 1)], [row], note="A note.")
    out = capsys.readouterr().out.splitlines()
    filled = [line for line in out if line.startswith("│")]
    assert len(filled) == lines
    assert len(re.findall(r"\[−50\.3, 6\.5\]", filled[-1])) == len(row) - 1
    assert max(map(len, out)) <= 160


def test_names_that_begin_alike_stay_apart_where_it_is_narrow(capsys):
    names = ["mylab.flat:noisy(sigma=0.05)", "mylab.flat:noisy(sigma=0.10)"]
    print_table(
        "A table", ["rule", *["−15.0 [−50.3, 6.5]"] * 9], [[name, *["−15.0 [−50.3, 6.5]"] * 9] for name in names]
    )
    cells = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert "".join(cells) == "".join(names)


def test_what_looks_like_markup_is_printed_as_it_is(capsys):
    print_table("[bold] title", ["[x]"], [["a [b, c]"]], note="[dim]")
    out = capsys.readouterr().out
    assert all(text in out for text in ("[bold] title", "[x]", "a [b, c]", "[dim]"))


def test_json_says_null_for_what_is_no_number(capsys):
    print_json({"rows": [{"value": math.nan}, {"value": 0.5}, math.inf, "NaN"]})
    out = capsys.readouterr().out
    no_json = lambda name: pytest.fail(f"{name} is not JSON")
    assert json.loads(out, parse_constant=no_json) == {"rows": [{"value": None}, {"value": 0.5}, None, "NaN"]}
