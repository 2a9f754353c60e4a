"""A YAML file into a validated configuration, or one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from geomix.config import run as config_module
from geomix.config.data import ReplayConfig
from geomix.config.load import Experiment, load
from geomix.config.run import RunConfig
from geomix.data.sources import SOURCES
from geomix.planning.plan import plan_table
from geomix.util.errors import UserError

STAGES = "stages:\n  - data: kvr\n"


def loads(folder: Path, text: str | bytes, *overrides: str) -> Experiment:
    file = folder / "run.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file, overrides, tuple(SOURCES))


def mistakes(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    """The lines of the error, the folder left out."""
    with pytest.raises(UserError) as raised:
        loads(folder, text, *overrides)
    for line in raised.value.lines:
        assert "\n" not in line
        assert len(line) < 400
    return [line.replace(f"{folder}/", "") for line in raised.value.lines]


def test_a_short_file_gets_every_default(tmp_path: Path) -> None:
    run = loads(tmp_path, STAGES).arms[""]
    expected = {"stages": [{"data": {"source": "kvr"}}]}
    assert run == RunConfig.model_validate(expected)
    assert run.stages[0].data.limit == 100
    assert run.stage_name(0) == "kvr"


def test_mix_and_record_mix_take_the_short_form_too(tmp_path: Path) -> None:
    text = STAGES + "    mix: random-words\nrecord: {mix: random-words}\n"
    run = loads(tmp_path, text).arms[""]
    assert run.stages[0].mix is not None
    assert run.record is not None
    assert run.stages[0].mix == run.record.mix


def test_a_file_source_needs_no_registration(tmp_path: Path) -> None:
    run = loads(tmp_path, "stages: [{data: some/my-facts.jsonl}]").arms[""]
    assert run.stage_name(0) == "my-facts"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a/my facts.csv", "my facts"),
        ("t.parquet", "t"),
        ("x.json", "x"),
        ("owner/set.v1", "set.v1"),
    ],
)
def test_files_and_hub_ids_need_no_registration(tmp_path: Path, source: str, name: str) -> None:
    text = f'stages: [{{data: {{source: "{source}", columns: {{prompt: q}}, template: "{{q}}"}}}}]'
    assert loads(tmp_path, text).arms[""].stage_name(0) == name


def test_every_mistake_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    text = """name: a b
modle: builtin
stages:
  - data: {source: kvrr, limit: 0}
    mix: {source: random-words, ratoi: 2}
    stop: {epochs: two}
  - dta: kvr
train: {lr: .nan, batchsize: 3}
record: {at: [boundaries, "log:x"], mix: {wrods: 3}}
evaluate:
  epochs: weekly
"""
    lines = mistakes(tmp_path, text)
    starts = [line.split(": ")[0] for line in lines]
    assert sorted(starts) == sorted(
        [
            "run.yaml:1 name",
            "run.yaml:2 modle",
            "run.yaml:4 stages[0].data.source",
            "run.yaml:4 stages[0].data.limit",
            "run.yaml:5 stages[0].mix.ratoi",
            "run.yaml:6 stages[0].stop.epochs",
            "run.yaml:7 stages[1].dta",
            "run.yaml:7 stages[1].data",
            "run.yaml:8 train.lr",
            "run.yaml:8 train.batchsize",
            "run.yaml:9 record.at",
            "run.yaml:9 record.mix.source",
            "run.yaml:9 record.mix.wrods",
            "run.yaml:11 evaluate.epochs",
        ]
    )
    text = "\n".join(lines)
    for words in (
        "run.yaml:2 modle: unknown key; did you mean 'model'?",
        "run.yaml:5 stages[0].mix.ratoi: unknown key; did you mean 'ratio'?",
        "run.yaml:7 stages[1].dta: unknown key; did you mean 'data'?",
        "run.yaml:7 stages[1].data: missing",
        "run.yaml:8 train.batchsize: unknown key; did you mean 'batch_size'?",
        "run.yaml:9 record.mix.wrods: unknown key; did you mean 'words'?",
        "unknown source; did you mean 'kvr'?",
        "given: 'weekly'",
        "record.at: 'log:x' is not 'boundaries'",
    ):
        assert words in text


@pytest.mark.parametrize(
    "mistake",
    [
        "train: {lr: yes}",
        "train: {pack: on}",
        "train: {betas: [true, 0.9]}",
        "seed: false",
        "evaluate: {epochs: no}",
        "record: {at: [yes]}",
    ],
)
def test_yes_is_no_number(tmp_path: Path, mistake: str) -> None:
    """pydantic would take it for 1: packed rows of one token, a learning rate of 1."""
    with pytest.raises(UserError) as raised:
        loads(tmp_path, f"stages: [{{data: kvr}}]\n{mistake}\n")
    (line,) = raised.value.lines
    assert "run.yaml:2 " in line
    assert "give a number; yes, no, on, off" in line
    kept = loads(tmp_path, "stages: [{data: {source: kvr, allow_repeat: yes}}]\n").arms[""]
    assert kept.stages[0].data.allow_repeat


REPLAYS = """stages:
  - data: kvr
    {first}
  - data: kvr
    replay: {second}
  - data: kvr
    replay: {third}
"""


def test_a_number_is_the_ratio_of_a_replay(tmp_path: Path) -> None:
    text = REPLAYS.format(first="", second="0.1", third="{ratio: 1, stages: [1], seed: 3}")
    run = loads(tmp_path, text).arms[""]
    assert run.stages[0].replay is None
    assert run.stages[1].replay == ReplayConfig(ratio=0.1)
    assert run.stages[2].replay == ReplayConfig(ratio=1, stages=[1], seed=3)
    again = loads(tmp_path, text, "stages.1.replay.ratio=0.2", "stages.2.replay=null").arms[""]
    assert again.stages[1].replay == ReplayConfig(ratio=0.2)
    assert again.stages[2].replay is None


def test_a_replay_that_looks_forward_is_placed_at_its_line(tmp_path: Path) -> None:
    text = REPLAYS.format(
        first="replay: 0.25",
        second="{ratio: 0.1, stages: [0, 1]}",
        third="{ratio: 0.1, stages: [1, 0, 1]}",
    )
    assert mistakes(tmp_path, text) == [
        "run.yaml:3 stages[0].replay: the first stage has none before it to replay (given: 0.25)",
        "run.yaml:5 stages[1].replay.stages: only the stages before it can be replayed: 0 (kvr) "
        "(given: [0, 1])",
        "run.yaml:7 stages[2].replay.stages: a stage is named twice (given: [1, 0, 1])",
    ]


def test_a_replay_names_stages_or_gives_their_index(tmp_path: Path) -> None:
    text = """stages:
  - {data: kvr, name: facts}
  - {data: triples}
  - {data: kvr, replay: {ratio: 0.5, stages: STAGES}}
"""
    by_index = loads(tmp_path, text.replace("STAGES", "[1, 0]")).arms[""]
    for stages in ("[triples, facts]", "[1, facts]", "['1', '0']"):
        config = loads(tmp_path, text.replace("STAGES", stages)).arms[""]
        assert config == by_index
        assert config.content_hash() == by_index.content_hash()
    said = "run.yaml:4 stages[2].replay.stages"
    listed = "0 (facts), 1 (triples)"
    for stages, why in (
        ("[kvr]", f"{said}: only the stages before it can be replayed: {listed} (given: ['kvr'])"),
        ("[facts, 0]", f"{said}: a stage is named twice (given: ['facts', 0])"),
        ("[-1]", f"{said}[0]: must be a stage's name, or its index in the list `stages`, from 0"),
        ("[1.5]", f"{said}[0]: must be a stage's name, or its index in the list `stages`, from 0"),
    ):
        (line,) = mistakes(tmp_path, text.replace("STAGES", stages))
        assert line.startswith(why)
    twins = text.replace("triples", "{source: triples}, name: facts").replace("STAGES", "[facts]")
    (line,) = mistakes(tmp_path, twins)
    assert "several stages have this name; give the index: 0 (facts), 1 (facts)" in line


@pytest.mark.parametrize(
    "replay",
    ["0", "-0.1", "1.01", ".nan", "true", "x", "{}", "{ratio: 0.1, stages: []}", "{stages: [0]}"],
)
def test_a_replay_of_nothing_is_refused(tmp_path: Path, replay: str) -> None:
    (line,) = mistakes(tmp_path, REPLAYS.format(first="", second=replay, third="0.1"))
    assert line.startswith("run.yaml:5 stages[1].replay")


def test_an_unknown_key_of_a_replay_names_the_known_ones(tmp_path: Path) -> None:
    text = REPLAYS.format(first="", second="0.1", third="{ratio: 0.1, zzz: 1, stage: 0}")
    other, close = sorted(mistakes(tmp_path, text), reverse=True)
    assert other == "run.yaml:7 stages[2].replay.zzz: unknown key; known: ratio, stages, seed"
    assert close.endswith("stages[2].replay.stage: unknown key; did you mean 'stages'?")


SOURCE_KEYS = "source, seed, path, subset, vocabulary, columns, template, allow_repeat"


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("zzz", "known: name, model"),
        ("stages.0.zzz", "known: name, from, data"),
        (
            "stages.0.data.zzz",
            f"known: {SOURCE_KEYS}, limit, split",
        ),
        (
            "stages.0.mix.zzz",
            f"known: {SOURCE_KEYS}, ratio",
        ),
        ("stages.0.stop.zzz", "known: epochs"),
        ("stages.0.train.zzz", "known: lr, batch_size"),
        ("train.zzz", "known: lr, batch_size"),
        ("record.zzz", "known: preset, at, probes"),
        (
            "record.mix.zzz",
            f"known: {SOURCE_KEYS}, ratio",
        ),
        ("evaluate.zzz", "known: epochs, steps, sample, scores, kl, batch_size"),
    ],
)
def test_an_unknown_key_is_refused_at_every_level(tmp_path: Path, key: str, known: str) -> None:
    text = STAGES + "    mix: {source: random-words}\nrecord: {mix: {source: random-words}}\n"
    (line,) = mistakes(tmp_path, text, f"{key}=1")
    assert "unknown key" in line
    assert known in line


def test_a_stage_train_lies_over_the_shared_one(tmp_path: Path) -> None:
    text = """stages:
  - {data: kvr, train: {lr: 1e-3}}
  - {data: kvr, train: }
  - {data: kvr, train: {clip: null, betas: [0.8, 0.9]}}
train: {lr: 0.5, batch_size: 7}
"""
    run = loads(tmp_path, text).arms[""]
    found = [(s.train.lr, s.train.batch_size, s.train.clip) for s in run.stages]
    assert found == [(1e-3, 7, 1.0), (0.5, 7, 1.0), (0.5, 7, None)]
    assert run.stages[2].train.betas == (0.8, 0.9)
    assert run.stages[0].train.betas == (0.9, 0.95)


def test_a_mistake_in_a_stages_own_train_is_placed_there(tmp_path: Path) -> None:
    text = "stages:\n  - data: kvr\n    train:\n      lr: -1\ntrain: {lr: 1}\n"
    (line,) = mistakes(tmp_path, text)
    assert line.startswith("run.yaml:4 stages[0].train.lr: ")


def test_arms_are_whole_configurations(tmp_path: Path) -> None:
    text = (
        STAGES
        + """arms:
  plain:
  mixed: {stages.0.mix: random-words, seed: 3}
  more: {"stages[0].mix.source": random-words, stages.0.mix.ratio: 4, stages.0.data.limit: 5}
"""
    )
    arms = loads(tmp_path, text).arms
    assert list(arms) == ["plain", "mixed", "more"]
    assert arms["plain"].stages[0].mix is None
    assert arms["mixed"].seed == 3
    assert arms["mixed"].stages[0].mix is not None
    assert arms["more"].stages[0].mixes["D_M"].ratio == 4
    assert arms["more"].stages[0].data.source == "kvr"
    assert arms["more"].stages[0].data.limit == 5
    assert arms["plain"].stages[0].data.limit == 100, "an arm's override leaked into another"


def test_mistakes_of_arms_have_their_lines_and_shared_ones_are_named_once(tmp_path: Path) -> None:
    text = """stages:
  - data: {source: kvr, limti: 3}
arms:
  one: {stages.0.mix: {source: random-words, ratoi: 1}}
  two:
    stages.0.stop.epochs: 0
    stages.5.stop.epochs: 1
  "bad name": {}
  three: 7
"""
    lines = mistakes(tmp_path, text)
    assert sum("limti" in line for line in lines) == 1
    text = "\n".join(lines)
    for start in ("run.yaml:4 ", "run.yaml:6 ", "run.yaml:7 ", "run.yaml:8 ", "run.yaml:9 "):
        assert sum(line.startswith(start) for line in lines) == 1, (start, text)


@pytest.mark.parametrize("arms", ["{}", "7", "[a, b]", "''"])
def test_arms_that_are_none_are_refused(tmp_path: Path, arms: str) -> None:
    (line,) = mistakes(tmp_path, f"{STAGES}arms: {arms}\n")
    assert line.startswith("run.yaml:3 arms: ")


def test_an_exact_match_that_is_never_measured_is_refused(tmp_path: Path) -> None:
    """At the boundaries alone it comes too late to end a stage."""
    text = STAGES + "    stop: {exact_match: 99}\n  - data: kvr\nevaluate: {epochs: 0}\n"
    (line,) = mistakes(tmp_path, text)
    assert line.startswith("run.yaml:3 stages[0].stop.exact_match: never looked at with evaluate.")
    assert loads(tmp_path, text, "evaluate.epochs=5").arms[""].stages[0].stop.exact_match == 99
    stepwise = loads(tmp_path, text, "evaluate.epochs=0", "evaluate.steps=9")
    assert stepwise.arms[""].stages[0].stop.exact_match == 99
    assert loads(tmp_path, STAGES, "evaluate.epochs=0").arms[""].evaluate.epochs == 0


def test_a_dry_run_says_what_ends_a_stage(tmp_path: Path) -> None:
    text = "stages: [{data: {source: kvr, limit: 64}, stop: {epochs: 100, loss_below: 1e-4}}]\n"
    columns = {str(c.header): list(c.cells) for c in plan_table(loads(tmp_path, text)).columns}
    assert columns["epochs"] == ["≤ 100, loss < 0.0001 ×10"]
    assert columns["steps"] == ["≤ 200"]
    fixed = plan_table(loads(tmp_path, text, "stages.0.stop.loss_below=null"))
    columns = {str(column.header): list(column.cells) for column in fixed.columns}
    assert (columns["epochs"], columns["steps"]) == (["100"], ["200"])


def test_set_overrides_and_is_kept_in_the_text(tmp_path: Path) -> None:
    sets = ("stages.0.data.limit=7", "train.lr=0.5", "record=null", "stages.0.mix.source=kvr")
    experiment = loads(tmp_path, STAGES, *sets)
    run = experiment.arms[""]
    assert (run.stages[0].data.source, run.stages[0].data.limit) == ("kvr", 7)
    assert run.stages[0].train.lr == 0.5
    assert run.record is None
    assert run.stages[0].mix is not None
    assert experiment.text == "".join(f"# --set {s}\n" for s in sets) + STAGES


@pytest.mark.parametrize(
    "override",
    [
        "train.lr",
        "=3",
        "train.lr=[",
        "train.lr=fast",
        "stages.9.stop.epochs=1",
        "stages.first=1",
        "stages.².stop.epochs=1",
        "seed.x=1",
        "seed=2026-99-99",
        f"seed={'[' * 3000}",
        "seed=!!float ''",
        f"seed={'9' * 5000}",
        "seed=!!python/object:os.system {}",
    ],
)
def test_a_wrong_set_names_itself(tmp_path: Path, override: str) -> None:
    (line,) = mistakes(tmp_path, STAGES, override)
    assert f"--set {override}"[:40] in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is a mapping"),
        ("# nothing\n", "is a mapping"),
        ("- data: kvr\n", "is a mapping"),
        ("kvr", "is a mapping"),
        ("stages:\n  - data: [\n", "run.yaml:3: not YAML"),
        ("stages: [\tdata: kvr\n  x", "not YAML"),
        ("stages: 2026-99-99", "not YAML"),
        ("stages: " + "[" * 3000, "not YAML"),
        ("stages: &x [*x]", "holds itself"),
        ("stages: &x {data: *x}", "holds itself"),
        ("seed: " + "9" * 5000, "not YAML"),
        ("seed: !!int ''", "not YAML"),
        ("seed: !!bool x", "not YAML"),
        ("seed: !!timestamp x", "not YAML"),
        ("stages: !!python/object/apply:os.system [id]", "run.yaml:1: not YAML"),
        ("stages: !!python/name:os.system", "run.yaml:1: not YAML"),
        ("? [a, b]\n: 1\n", "not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        (b"name: \xff\xfe\n", "cannot be read as text"),
        (b"\x00\x01", "not YAML"),
        ("stages: []\n", "run.yaml:1 stages: "),
        ("stages: kvr\n", "run.yaml:1 stages: "),
        ("name: x\n", "stages: missing"),
        (STAGES + "1: 2\n", "run.yaml:3 1: a key is a text; put it in quotes"),
        (STAGES + "train: fast\n", "run.yaml:3 train: "),
        (STAGES + "name: ../../etc\n", "run.yaml:3 name: "),
        (STAGES + 'name: "a\\n"\n', "run.yaml:3 name: "),
        (STAGES + "model: ''\n", "run.yaml:3 model: "),
        (STAGES + "chat_template: chatml\n", "run.yaml:3 chat_template: give 'tulu', 'tokenizer'"),
        (STAGES + "chat_template: '{target}{prompt}'\n", "run.yaml:3 chat_template: "),
    ],
)
def test_what_is_no_configuration_is_one_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    (line,) = mistakes(tmp_path, text)
    assert says in line
    assert line.startswith("run.yaml")


def test_a_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    """Nine levels of ten: a gigabyte once expanded, 300 bytes as written."""
    levels = ["l0: &l0 [a]"] + [
        f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10)
    ]
    assert "alias" in mistakes(tmp_path, "\n".join(levels))[0]


def test_aliases_as_people_use_them_work(tmp_path: Path) -> None:
    text = (
        "stages:\n  - {data: kvr, train: &t {lr: 0.5}}\n  - {data: kvr, train: {<<: *t, clip: 2}}\n"
    )
    run = loads(tmp_path, text).arms[""]
    assert [(s.train.lr, s.train.clip) for s in run.stages] == [(0.5, 1.0), (0.5, 2.0)]


def test_duplicate_keys_are_refused_with_both_lines(tmp_path: Path) -> None:
    text = (
        "seed: 1\nstages:\n  - data: kvr\n    stop: {epochs: 1}\n    stop: {epochs: 2}\nseed: 2\n"
    )
    assert mistakes(tmp_path, text) == [
        "run.yaml:5 stages[0].stop: given twice (first in line 4)",
        "run.yaml:6 seed: given twice (first in line 1)",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.lr", ".inf"),
        ("train.lr", "1e400"),
        ("train.lr", "0"),
        ("train.clip", ".nan"),
        ("train.weight_decay", "-.inf"),
        ("train.warmup", "1"),
        ("train.warmup", ".nan"),
        ("train.betas", "[0.9]"),
        ("train.betas", "[0.9, 1]"),
        ("stages.0.mix", "{source: random-words, ratio: .nan}"),
        ("stages.0.mix", "{source: random-words, ratio: -0.1}"),
        ("stages.0.data.limit", "1.5"),
        ("stages.0.data.limit", "-1"),
        ("stages.0.data.split", "held_out"),
        ("seed", "-1"),
        ("seed", "18446744073709551616"),
        ("stages.0.data.seed", "18446744073709551616"),
        ("seed", "null"),
        ("record.at", "[everything]"),
        ("record.at", "['every:0']"),
        ("record.at", f"['log:{'9' * 5000}']"),
        ("record.at", "[-1]"),
        ("record.at", "['5']"),
        ("record.activations", "1" + "0" * 30),
        ("record.sketches.entries", "8"),
        ("seed", "0x" + "f" * 6000),
        ("stages.0.name", "n" * 101),
    ],
)
def test_numbers_and_choices_out_of_range_are_refused(tmp_path: Path, key: str, value: str) -> None:
    assert mistakes(tmp_path, STAGES, f"{key}={value}")


def test_a_run_is_named_after_its_file_unless_it_has_a_name(tmp_path: Path) -> None:
    for file, text, name in (
        ("mine.yaml", STAGES, "mine"),
        ("mine.yaml", STAGES + "name: other\n", "other"),
        ("my own.yaml", STAGES, "run"),  # no name for a folder
    ):
        (tmp_path / file).write_text(text, encoding="utf-8")
        assert load(tmp_path / file).name == name


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert loads(tmp_path, b"\xef\xbb\xbfseed: 3\n" + STAGES.encode()).arms[""].seed == 3


def test_a_path_that_is_no_file_is_one_line(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(UserError, match=says) as raised:
            load(path)
        assert len(raised.value.lines) == 1


def recorded(folder: Path, keys: str, *overrides: str) -> Any:
    return loads(folder, f"{STAGES}record: {keys}\n", *overrides).arms[""].record


def test_a_preset_fills_the_recorders_keys_that_are_not_given(tmp_path: Path) -> None:
    light: Any = loads(tmp_path, STAGES).arms[""].record
    assert light == recorded(tmp_path, "{preset: light}") == recorded(tmp_path, "{}")
    assert (light.probes, light.at, light.midpoints) == (64, ["boundaries", "log:4"], False)
    path = recorded(tmp_path, "{preset: path}")
    assert (path.at, path.midpoints, path.activations, path.lens) == (["every:1"], True, 0, False)
    assert (path.probes, path.pairs, light.pairs) == (light.probes, True, False)
    assert (path.scratch, light.scratch) == ("disk", "memory")
    assert recorded(tmp_path, "{preset: path, midpoints: false}").pairs is False
    (line,) = mistakes(tmp_path, f"{STAGES}record: {{pairs: true}}\n")
    assert "give record.midpoints: true" in line
    given = recorded(tmp_path, "{preset: path, at: [3], activations: 2}", "record.lens=true")
    assert (given.at, given.activations, given.lens, given.midpoints) == ([3], 2, True, True)
    assert recorded(tmp_path, "{at: [3]}", "record.preset=path").at == [3]
    kept = RunConfig.model_validate({"stages": [{"data": "kvr"}], "record": given.model_dump()})
    assert kept.record == given


def test_without_activations_there_is_no_lens(tmp_path: Path) -> None:
    assert recorded(tmp_path, "{activations: 0}").lens is False
    for keys, name in (("lens: true", "lens"), ('modules: ["*.mlp"]', "modules")):
        (line,) = mistakes(tmp_path, f"{STAGES}record: {{activations: 0, {keys}}}\n")
        assert line.startswith("run.yaml:3 record: " + name)
        assert "give record.activations" in line


@pytest.mark.parametrize("keys", ["preset: all", "modules: mlp", 'modules: [""]', "scratch: tape"])
def test_mistakes_in_the_recorders_keys(tmp_path: Path, keys: str) -> None:
    (line,) = mistakes(tmp_path, f"{STAGES}record: {{{keys}}}\n")
    assert line.startswith(f"run.yaml:3 record.{keys.split(':', maxsplit=1)[0]}"), line


MODELS = [
    value
    for value in vars(config_module).values()
    if isinstance(value, type) and issubclass(value, BaseModel) and value.model_fields
]


@pytest.mark.parametrize("model", MODELS)
def test_every_class_and_field_is_documented(model: type[BaseModel]) -> None:
    assert model.__doc__
    assert [n for n, field in model.model_fields.items() if not field.description] == []


WHOLE: dict[str, Any] = {
    "stages": [
        {"data": "kvr", "mix": {"source": "random-words"}},
        {"data": "kvr", "replay": {"ratio": 0.5, "stages": [0]}},
    ],
    "record": {"mix": {"source": "random-words"}, "midpoints": True},
}
CHANGES: dict[str, Any] = {
    "model": "other",
    "seed": 1,
    "chat_template": "{prompt}{target}",
    "stages.0.name": "first",
    "stages.0.from": "runs/other",
    "stages.0.data.limit": 101,
    "stages.0.data.split": "id",
    "stages.0.data.familiar": {"facts": "drop"},
    "max_tokens": 2047,
    "paper_literal": ["drop-last"],
    "evaluate.sets": {"others": {"source": "kvr"}},
    "stages.0.stop.epochs": 21,
    "stages.0.stop.steps": 7,
    "stages.0.stop.steps_of": "runs/other",
    "stages.0.stop.loss_below": 1e-4,
    "stages.0.stop.times": 11,
    "stages.0.stop.consecutive": True,
    "stages.0.stop.exact_match": 100.0,
    "stages.0.stop.patience": 3,
    "stages.1.replay.ratio": 0.25,
    "stages.1.replay.stages": None,
    "stages.1.replay.seed": 1,
    "record.at": ["boundaries"],
    "record.probes": 127,
    "record.batch_size": 31,
    "record.activations": 3,
    "record.preset": "path",
    "record.lens": False,
    "record.modules": ["*.mlp"],
    "record.adam": False,
    "record.sketches": {"entries": 16},
    "record.gradients": True,
    "record.weights": True,
    "record.midpoints": False,
    "record.pairs": True,
    "record.scratch": "disk",
    "evaluate.epochs": 2,
    "evaluate.steps": 3,
    "evaluate.sample": None,
    "evaluate.kl": {"examples": 8},
    "evaluate.batch_size": 1,
}
for _mix in ("stages.0.mix", "record.mix"):
    CHANGES |= {
        f"{_mix}.ratio": 1.0,
        f"{_mix}.words": 49,
        f"{_mix}.passage_free": True,
    }
for _source in ("stages.0.data", "stages.0.mix", "record.mix"):
    CHANGES |= {
        f"{_source}.source": "triples",
        f"{_source}.seed": 1,
        f"{_source}.path": "copy.jsonl",
        f"{_source}.subset": "one",
        f"{_source}.vocabulary": "nltk",
        f"{_source}.columns": {"prompt": "question"},
        f"{_source}.template": "{question}",
        f"{_source}.allow_repeat": True,
    }
for _train in ("train", "stages.0.train"):
    CHANGES |= {
        f"{_train}.lr": 1e-5,
        f"{_train}.batch_size": 31,
        f"{_train}.micro_batch_size": 127,
        f"{_train}.pack": 64,
        f"{_train}.loss": "example",
        f"{_train}.schedule": "linear",
        f"{_train}.warmup": 0.0,
        f"{_train}.betas": [0.9, 0.99],
        f"{_train}.weight_decay": 0.1,
        f"{_train}.clip": None,
        f"{_train}.precision": "bf16",
        f"{_train}.decay": 0.1,
        f"{_train}.schedule_over": "run",
        f"{_train}.gradient_checkpointing": True,
        f"{_train}.trainable": ["layers:1"],
        f"{_train}.lora": {"rank": 8},
        f"{_train}.update_shares": True,
    }


def leaves(value: Any, key: str = "") -> set[str]:
    """Dotted names of what is no mapping and no list of mappings."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return {key}
    return set().union(*(leaves(v, f"{key}.{k}".strip(".")) for k, v in value.items()))


def changed(key: str, value: Any) -> RunConfig:
    content: Any = RunConfig.model_validate(WHOLE).model_dump(mode="json")
    node = content
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    for part in path:
        node = node[part]
    node[last] = value
    return RunConfig.model_validate(content)


def test_the_hash_changes_with_every_field_but_the_name() -> None:
    """A field that a later version adds must be put into `CHANGES`, or this fails."""
    run = RunConfig.model_validate(WHOLE)
    found = leaves(run.model_dump(mode="json")) - {"stages.0.replay"}  # it has none before it
    found = {leaf for leaf in found if "stages.1." not in leaf or ".replay." in leaf}
    without_effect = ("checkpoint.", "parallel")
    found = {leaf for leaf in found if not leaf.startswith(without_effect)}
    assert found == {*CHANGES, "name", "trackers"}
    hashes = {key: changed(key, value).content_hash() for key, value in CHANGES.items()}
    assert len({run.content_hash(), *hashes.values()}) == len(CHANGES) + 1
    assert changed("name", "other").content_hash() == run.content_hash()
    assert changed("checkpoint.steps", 7).content_hash() == run.content_hash()
    assert changed("parallel", "fsdp").content_hash() == run.content_hash()
    assert changed("trackers", ["wandb"]).content_hash() == run.content_hash()


def test_a_resolved_configuration_is_one_again() -> None:
    run = RunConfig.model_validate(WHOLE)
    assert RunConfig.model_validate(run.model_dump(mode="json")) == run


def test_single_arms_can_be_chosen_and_none_is_taken_away_by_null(tmp_path: Path) -> None:
    text = STAGES + "arms: {a: {}, b: {seed: 2}, c: {seed: 3}}\n"
    chosen = loads(tmp_path, text).with_arms(["c", "a"])
    assert list(chosen.arms) == ["a", "c"]
    with pytest.raises(UserError, match="it has no arm 'd'; its arms: a, b, c"):
        loads(tmp_path, text).with_arms(["d"])
    with pytest.raises(UserError, match="has no arm 'x'; its arms: none"):
        loads(tmp_path, STAGES).with_arms(["x"])
    file = tmp_path / "arms.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="--arm trains some arms only"):
        load(file, ["arms.b=null"])
