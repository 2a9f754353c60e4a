"""Names of stages as users give them."""

from __future__ import annotations

import pytest

from geomix.config.stage_names import stage_index, stage_title, stage_titles
from geomix.util.errors import UserError

NAMES = {0: {"kvr"}, 1: {"facts", "triples"}, 2: {"7"}, 3: {"kvr"}}


def test_numbers_count_from_1_and_names_stand_for_themselves() -> None:
    found = [stage_index(asked, NAMES) for asked in ("1", "4", "facts", "triples", "3")]
    assert found == [0, 3, 1, 1, 2]
    assert stage_title(1, "triples") == "stage 2 (triples)"
    assert stage_title(1) == "stage 2"
    assert stage_titles(NAMES) == "1 (kvr), 2 (facts or triples), 3 (7), 4 (kvr)"
    assert stage_titles({0: [""]}) == "1"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("0", "--stage 0: no such stage; there are 1 (kvr), 2 (facts"),
        ("5", "--stage 5: no such stage; there are 1 (kvr), 2 (facts"),
        ("7", "--stage 7: no such stage"),
        ("-1", "--stage -1: no stage has this name"),
        ("²", "--stage ²: no stage has this name"),
        ("", "--stage : no stage has this name"),
        ("kvr", "--stage kvr: stages 1 and 4 have this name; give the number"),
    ],
)
def test_what_is_no_stage_is_one_line(asked: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        stage_index(asked, NAMES if asked else {0: {""}})
    (line,) = caught.value.lines
    assert line.startswith(says)
