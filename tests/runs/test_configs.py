"""Configurations stored with a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geomix.config.run import RunConfig
from geomix.experiments.arms import resolve
from geomix.runs.configs import FIRST_LAYER, stored_configs
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError


def written(folder: Path, trainable: Any) -> RunDirectory:
    train = {"trainable": trainable}
    stage = {"data": {"source": "kvr", "limit": 3}, "stop": {"epochs": 1}, "train": train}
    config = RunConfig.model_validate({"stages": [stage]})
    folder.mkdir()
    run = RunDirectory(folder)
    resolve(run, "run", {"": config}, {})
    return run


@pytest.mark.parametrize("trainable", ["all", ["layers:2", "embedding"], ["module:mlp"]])
def test_spans_of_layers_from_before_are_not_read_in_todays_numbers(
    tmp_path: Path, trainable: Any
) -> None:
    run = written(tmp_path / "run", trainable)
    (now,) = stored_configs(run).values()
    assert list(now.stages[0].train.trainable) == list(trainable)
    before = json.loads(run.resolved_file.read_text())
    del before[FIRST_LAYER]
    run.resolved_file.write_text(json.dumps(before))
    if "layers:2" in trainable:
        with pytest.raises(UserError, match="counted from 0 when this run was made"):
            stored_configs(run)
    else:
        assert stored_configs(run) == {"": now}
