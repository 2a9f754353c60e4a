"""Configurations that ask for what cannot be, through the command line: a clear line for each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from geomix.models.familiarity import model_hash
from geomix.models.load import load_model

ALONE = "stages: [{data: {source: kvr, limit: 5}}]\n"
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


def data(keys: str) -> str:
    return f"stages: [{{data: {{source: {keys}}}}}]\n"


def mix(keys: str) -> str:
    return f"stages: [{{data: {{source: kvr, limit: 5}}, mix: {{source: {keys}}}}}]\n"


def replay(given: str) -> str:
    first = "{data: {source: kvr, limit: 5}}"
    return f"stages: [{first}, {{data: {{source: arithmetic, limit: 5}}, replay: {given}}}]\n"


def chat(template: str) -> str:
    return f"{ALONE}chat_template: {template}\n"


CONFIGS: dict[str, tuple[str | bytes, str]] = {
    # what is wrong: (the whole file, what the line says)
    "no such file": (data("none.jsonl"), "none.jsonl: no such file"),
    "NUL in a path": (data('"a\\0.jsonl"'), "'a\\x00.jsonl': not the name of a file"),
    "unknown dataset": (data("popqaa"), ".source: unknown source; did you mean 'popqa'? (given:"),
    "other capitals": (data("PopQA"), "did you mean 'popqa'?"),
    "unlike any dataset": (data("zzz"), "unknown source; known: kvr, triples, popqa"),
    "unknown format": (data("x.txt"), "no such file; did you mean 'x.jsonl'?"),
    "unknown subset": (data("lama, subset: trexx"), "no subset 'trexx'; known: trex, google_re"),
    "subset of none": (data("kvr, subset: x"), "'kvr': it has no subsets"),
    "path of a generated source": (data("kvr, path: x.jsonl"), "it is generated and reads no 'pat"),
    "columns of a named source": (data("kvr, columns: {prompt: x}"), "are for files and hub ids"),
    "unknown split": (data("kvr, split: test"), ".split: must be 'train', 'id' or 'held-out' (giv"),
    "split of a file": (data("x.jsonl, limit: 1, split: id"), "x.jsonl: a file has no split 'id'"),
    "template: column": (
        data("x.jsonl, limit: 2, template: '{z}?'"),
        ".template: x.jsonl has no column 'z'; it has p",
    ),
    "template: place": (data("x.jsonl, template: '{} x'"), "'{}' is not a column's plain name"),
    "template: attribute": (data("x.jsonl, template: '{a.__class__}'"), "'{a.__class__}' is not a"),
    "template: none": (data("x.jsonl, template: 'same'"), "x.jsonl: template: it names no column"),
    "unknown column key": (
        data("x.jsonl, columns: {promt: x}"),
        ".promt: unknown key; did you mean",
    ),
    "columns as a text": (data("x.jsonl, columns: q"), ".columns: must be a mapping, `key: value`"),
    "limit 0": (data("kvr, limit: 0"), ".limit: must be greater than or equal to 1 (given: 0)"),
    "limit below 0": (data("kvr, limit: -1"), ".limit: must be greater than or equal to 1"),
    "limit beyond": (data("kvr, limit: 100000000000"), ".limit: must be less than or equal to 100"),
    "limit of yes": (data("kvr, limit: yes"), ".limit: give a number; yes, no, on, off"),
    "limit in words": (data("kvr, limit: many"), ".limit: must be a whole number (given: 'many')"),
    "repeat maybe": (data("kvr, allow_repeat: maybe"), ".allow_repeat: must be true or false"),
    "too few rows": (data("x.jsonl, limit: 9"), "2 examples found, 9 asked for; set limit: 2, or"),
    "ratio below 0": (mix("kvr, ratio: -1"), "mix.ratio: must be greater than or equal to 0"),
    "ratio NaN": (mix("kvr, ratio: .nan"), "mix.ratio: must be a finite number (given: nan)"),
    "ratio in words": (mix("kvr, ratio: double"), "mix.ratio: must be a number (given: 'double')"),
    "ratio of nothing": (mix("random-words, ratio: 0.01"), "mix.ratio 0.01 of 5 examples is none"),
    "short mix": (mix("x.jsonl, ratio: 1"), "2 examples found, 5 asked for; set a smaller ratio"),
    "familiar mix": (mix("kvr, familiar: drop"), "mix.familiar: unknown key; did you mean"),
    "replay first": (f"{ALONE[:-3]}, replay: 0.1}}]\n", "the first stage has none before it"),
    "replay later": (
        replay("{ratio: 1, stages: [1]}"),
        "only the stages before it can be replayed: 0 (",
    ),
    "replay words": (replay("some"), "replay.ratio: must be a number (given: 'some')"),
    "replay yes": (replay("yes"), "replay.ratio: give a number; yes, no, on, off"),
    "replay nothing": (replay("0.01"), "ratio 0.01 of 5 examples of D_A is none; give a larger"),
    "familiar maybe": (data("kvr, familiar: maybe"), "must be 'drop' or 'only' (given: 'maybe')"),
    "familiar yes": (data("kvr, familiar: yes"), "must be 'drop' or 'only' (given: True)"),
    "familiar shots": (
        data("x.jsonl, limit: 1, familiar: {facts: drop, shots: 90}"),
        "familiar: 90 solved examples are to be shown, there are 2; set familiar.shots",
    ),
    "familiar length": (
        data("kvr, limit: 1, familiar: {facts: drop, shots: 90}"),
        "the model takes at most 256; ask for fewer shots, or prompt: plain",
    ),
    "familiar none": (data("kvr, limit: 1, familiar: only"), "0 examples found, 1000 not familiar"),
    "set named D_A": (f"{ALONE}evaluate: {{sets: {{D_A: kvr}}}}\n", ".sets.D_A: 'D_A' is the name"),
    "set of a path": (
        f"{ALONE}evaluate: {{sets: {{../x: kvr}}}}\n",
        "begin with a letter or digit",
    ),
    "set trained on": (
        f"{ALONE}evaluate: {{sets: {{x: kvr}}}}\n",
        "of its 100 examples are trained",
    ),
    "chat half a character": (chat('"\\ud800{prompt}{target}"'), "it holds half a character"),
    "chat half written": (chat("half.jinja"), "'utf-8' codec can't encode"),
    "chat nonsense": (chat("nonsense"), "run.yaml:2 chat_template: give 'tulu', 'tokenizer', a pa"),
    "chat file missing": (chat("none.jinja"), "chat template 'none.jinja': no such file"),
    "chat NUL": (chat('"a\\0.jinja"'), "cannot be read as text (embedded null byte)"),
    "chat directory": (chat("d.jinja"), "cannot be read as text (it is no regular file)"),
    "chat pipe": (chat("pipe.jinja"), "cannot be read as text (it is no regular file)"),
    "chat syntax": (chat("syntax.jinja"), "TemplateSyntaxError: unexpected '}' (line 2)"),
    "chat empty": (chat("empty.jinja"), "leaves prompt 1 out; it must write every prompt and"),
    "chat attribute": (chat("attribute.jinja"), "SecurityError: access to attribute '__class__'"),
    "chat range": (chat("range.jinja"), "OverflowError: Range too big. The sandbox blocks"),
    "chat for ever": (chat("loop.jinja"), "TimeoutError: not done after 0.2 seconds"),
    "chat of the tokenizer": (chat("tokenizer"), "'tokenizer': this tokenizer has none; give"),
    "unknown quirk": (f"{ALONE}paper_literal: [unknown]\n", "paper_literal[0]: must be 'padding-l"),
    "nothing fits": (
        f"{ALONE}max_tokens: 1\n",
        "longer than 1 tokens (given up after the first 1000",
    ),
    "rows of 0": (f"{ALONE}train: {{pack: 0}}\n", "run.yaml:2 train.pack: must be greater than or"),
    "rows of yes": (f"{ALONE}train: {{pack: yes}}\n", "train.pack: give a number; yes, no, on"),
    "arm twice": (f"{ALONE}arms:\n  a: {{seed: 1}}\n  a: {{seed: 2}}\n", ":4 arms.a: given twice"),
    "arm of a path": (f"{ALONE}arms: {{a/b: {{seed: 1}}}}\n", "an arm's name is 1 to 100 letters"),
    "billion laughs": (LAUGHS + ALONE, "more than 100000 values, its aliases (*name) expanded"),
    "tag": ("stages: !!python/object/apply:os.mkdir [x]\n", "only plain values may stand here"),
    "tabs": ("stages:\n\t- data: kvr\n", "run.yaml:2: not YAML: found character '\\t' that cannot"),
    "two documents": (f"{ALONE}---\n{ALONE}", ":2: not YAML: a second document (`---`); a run has"),
    "NUL": (f"{ALONE}name: a\0b\n", "not YAML: unacceptable character #x0000"),
    "UTF-16": (ALONE.encode("utf-16"), "run.yaml: cannot be read as text ('utf-8' codec"),
    "terminal codes": ('"\\e[31mk\\a": 1\n' + ALONE, "␛[31mk␛: unknown key; known: name, model"),
    "empty": ("", "a configuration is a mapping that holds at least `stages:`"),
}


@pytest.fixture
def furnished(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A desk with the files that the configurations name."""
    desk.write("x.jsonl", '{"prompt": "p", "target": "t"}\n{"prompt": "q", "target": "s"}\n')
    desk.write("syntax.jinja", "{% for m in messages %}\n{{ m.content }")
    desk.write("empty.jinja", "")
    desk.write("half.jinja", r"{{ '\ud800' }}{{ messages[0].content }}{{ messages[1].content }}")
    desk.write("attribute.jinja", "{{ ''.__class__.__mro__ }}")
    desk.write("range.jinja", "{% for i in range(10**9) %}x{% endfor %}")
    desk.write("loop.jinja", "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2)
    (desk.folder / "d.jinja").mkdir()
    os.mkfifo(desk.folder / "pipe.jinja")
    monkeypatch.setattr("geomix.data.bounded.SECONDS", 0.2)
    return desk


@pytest.mark.parametrize("case", CONFIGS)
def test_a_mistake_in_a_configuration_is_one_line(furnished: Any, case: str) -> None:
    config, says = CONFIGS[case]
    furnished.refuses(furnished.train(config), says)


@pytest.mark.parametrize("case", ["limit 0", "template: none", "too few rows", "replay nothing"])
def test_a_dry_run_and_the_overlap_refuse_it_too(furnished: Any, case: str) -> None:
    config, says = CONFIGS[case]
    furnished.write("run.yaml", config)
    furnished.refuses(["train", "run.yaml", "--dry-run"], says)
    furnished.refuses(["data", "overlap", "run.yaml"], says)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed", "--set seed: give key=value, such as stages.0.mix.ratio=2"),
        ("=3", "give key=value"),
        ("a.b.c=1", "--set a.b.c=1 a: unknown key; known: name, model"),
        ("stages.9.data=kvr", "stages has 1 items; '9' is not the number of one"),
        ("seed=[1", "--set seed=[1: the value is not YAML"),
        ("seed=\x1b[31m", "--set seed=␛[31m: the value is not YAML"),
        ("seed=" + "[" * 5000, "the value is not YAML"),
        ("seed=" + "9" * 5000, "the value is not YAML"),
        ("stages.0.mix.ratoi=3", "--set stages.0.mix.ratoi=3: unknown key; did you mean 'ratio'?"),
        ("stages.0.mix.ratio=3", "--set stages.0.mix.ratio=3 stages[0].mix.source: missing; it"),
        ("stages=null", "--set stages=null: must be a list"),
    ],
)
def test_a_mistaken_override_is_one_line(desk: Any, override: str, says: str) -> None:
    desk.refuses(desk.train(ALONE, "--set", override), says)


def test_every_mistake_has_a_line_of_its_own(desk: Any) -> None:
    config = (
        "modle: x\nseed: -1\nstages:\n  - data: {source: kvrr, limit: 0}\n"
        "    mix: {source: random-words, ratoi: 2}\ntrain: {lr: fast, pack: no}\n"
    )
    desk.refuses(
        desk.train(config),
        "run.yaml:1 modle: unknown key; did you mean 'model'?",
        "run.yaml:2 seed: must be greater than or equal to 0",
        "run.yaml:4 stages[0].data.source: unknown source; did you mean 'kvr'?",
        "run.yaml:4 stages[0].data.limit: must be greater",
        "run.yaml:5 stages[0].mix.ratoi: unknown key; did you mean 'ratio'?",
        "run.yaml:6 train.lr: must be a number (given: 'fast')",
        "run.yaml:6 train.pack: give a number",
    )


FAMILIAR = "stages: [{data: {source: kvr, limit: 3, familiar: {facts: drop, prompt: plain}}}]\n"


def of_text(content: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(content)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (of_text('{"a": tr'), ".jsonl:1: not as geomix writes it; delete the file"),
        (of_text("[1]\n"), ".jsonl:1: not as geomix writes it"),
        (of_text('{"a": "false"}\n'), ".jsonl:1: not as geomix writes it"),
        (of_text('{"a":' + "[" * 100_000), ".jsonl:1: not as geomix writes it"),
        (lambda file: file.write_bytes(b"\xff\xfe"), "cannot be read ('utf-8' codec"),
        (os.mkfifo, "cannot be read (it is no regular file); delete it"),
        (Path.mkdir, "cannot be read (it is no regular file); delete it"),
        (lambda file: file.symlink_to(file.name), "a link; nothing is written through it"),
        (lambda file: file.symlink_to("no/where"), "a link; nothing is written through it"),
    ],
)
def test_a_broken_cache_of_verdicts_is_one_line(
    desk: Any, tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    """Verdicts are looked up before any run folder is made: no run stops half-way for them."""
    name = model_hash(load_model(str(desk.model), torch.device("cpu")).model)
    folder = tmp_path / "cache" / "familiar"
    folder.mkdir(parents=True)
    make(folder / f"{name}.jsonl")
    desk.refuses(desk.train(FAMILIAR), says)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("run.yaml", "set GEOMIX_CACHE to a folder of yours"),
        ("/proc/none", "set GEOMIX_CACHE to a folder of yours"),
        ("~nobody-of-this-name/c", "no such home; set GEOMIX_CACHE to a folder of yours"),
    ],
)
def test_a_cache_that_cannot_be_written_is_one_line(
    desk: Any, monkeypatch: pytest.MonkeyPatch, place: str, says: str
) -> None:
    monkeypatch.setenv("GEOMIX_CACHE", place)
    desk.refuses(desk.train(FAMILIAR), says)


def test_a_column_or_file_that_is_not_there_is_told_with_its_line(desk: Any) -> None:
    desk.write("facts.csv", "question,answer\n" + "a,b\n" * 60)
    stages = """stages:
  - data:
      source: facts.csv
      columns:
        prompt: questions
        target: answer
"""
    says = (
        "run.yaml:5 stages[0].data.columns.prompt: facts.csv has no column 'questions'; it has "
        "question, answer"
    )
    desk.refuses(desk.train(stages), says)
    line = desk.run(desk.train(stages)).stderr.strip()
    assert line == f"geomix: {says}", "no count of rows, and no flag of another command"
    desk.refuses(
        desk.train(stages.replace("facts.csv", "facs.csv")),
        "run.yaml:3 stages[0].data.source: facs.csv: no such file; did you mean 'facts.csv'?",
    )
    desk.refuses(
        desk.train(f"{ALONE}evaluate: {{sets: {{x: facts.csv}}}}\n"),
        "run.yaml:2 evaluate.sets.x.columns.prompt: facts.csv has no column 'prompt'; it has qu",
    )
    desk.refuses(
        ["data", "show", "facts.csv"],
        "facts.csv has no column 'prompt'; it has question, answer; name yours with --prompt",
    )


def test_a_model_that_is_no_folder_is_told_with_its_line(desk: Any) -> None:
    (desk.folder / "model").mkdir()
    desk.write("run.yaml", f"model: ./modell\n{ALONE}")
    says = "run.yaml:1 model: no such folder modell; did you mean 'model'?"
    desk.refuses(["train", "run.yaml", "--out", "made"], says)
    desk.refuses(["train", "run.yaml", "--dry-run"], says)
    desk.refuses(
        ["train", "run.yaml", "--set", "model=/none/x"],
        "--set model=/none/x: no such folder /none/x; give one that is there, or a hub id",
    )
