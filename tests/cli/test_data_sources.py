"""`geomix data list` and `geomix data show`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from geomix.cli import main
from geomix.cli.data_sources import source_table, stretches
from geomix.data.example import Example
from geomix.data.sources import SOURCES, kvr
from geomix.data.tokenise import tokenise
from geomix.models.load import load_tokenizer
from geomix.util.terminal import ESCAPED


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(main, ["data", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def test_the_list_names_every_source_and_fits_80_columns() -> None:
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        console.print(source_table())
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines]
    for source in SOURCES.values():
        line = lines[names.index(source.name)]
        assert source.licence in line
        assert source.origin in line
    assert names.index("replay") > names.index("mixing")
    assert lines[names.index("replay")].endswith("a key of a stage")


def test_every_source_says_what_it_is() -> None:
    for entry in json.loads(run("list", "--json")):
        source = SOURCES[entry["name"]]
        assert entry["kind"] == source.kind
        assert entry["licence"]
        assert entry["prompt"]
        assert entry["prompt_from"]
        if source.origin != "generated":
            assert entry["upstream"]


def test_the_list_needs_no_heavy_library() -> None:
    code = (
        "import sys; from geomix.cli.data_sources import list_sources; list_sources(True); "
        "heavy = {'torch', 'transformers', 'datasets', 'nltk', 'pyarrow'}; "
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_generated_examples_as_the_model_sees_them() -> None:
    (made,) = kvr.examples(1, 0, "train")
    text = run("show", "kvr", "--limit", "1")
    assert f"<|user|>\n{made.prompt}\n<|assistant|>\n⟦{made.target}</s>⟧\n" in text
    assert "licence      none needed" in text
    other = run("show", "kvr", "--limit", "1", "--split", "id", "--seed", "3")
    assert kvr.examples(1, 3, "id")[0].prompt in other


def test_the_chat_template_that_is_asked_for(tmp_path: Path) -> None:
    (made,) = kvr.examples(1, 0, "train")
    text = run("show", "kvr", "--limit", "1", "--chat-template", "Q: {prompt}\nA:\n{target}")
    assert f"\nQ: {made.prompt}\nA:\n⟦{made.target}</s>⟧\n" in text
    file = tmp_path / "mine.jinja"
    file.write_text(
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]\n{{ m.content }}\n{% endfor %}",
        encoding="utf-8",
    )
    text = run("show", "kvr", "--limit", "1", "--chat-template", str(file))
    assert f"<s>[user]\n{made.prompt}\n[assistant]\n⟦{made.target}</s>⟧\n" in text


def test_a_file_with_columns_and_accepted_answers(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("q,a\nParis,\x1b[31mred\n", encoding="utf-8")
    text = run("show", str(file), "--limit", "1", "--target", "a", "--template", "Where is {q}?")
    assert f"\nWhere is Paris?\n<|assistant|>\n⟦{ESCAPED}[31mred</s>⟧" in text
    assert "\x1b" not in text
    answers = tmp_path / "popqa.jsonl"
    rows = [{"question": f"{n}?", "obj": "b", "possible_answers": '["b", "c"]'} for n in range(20)]
    answers.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert "also right: c" in run("show", "popqa", "--path", str(answers), "--limit", "1")


def test_long_texts_are_shortened_unless_they_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    long = " ".join(str(n) for n in range(1000))
    file.write_text(json.dumps({"prompt": long, "target": "t"}), encoding="utf-8")
    assert "characters)…" in run("show", str(file), "--limit", "1")
    assert long in run("show", str(file), "--limit", "1", "--full")


def test_json_holds_the_stretches_with_and_without_loss() -> None:
    shown: Any = json.loads(run("show", "arithmetic", "--limit", "2", "--json"))
    assert shown["examples"] == len(shown["shown"]) == 2
    assert shown["loss_tokens"] < shown["tokens"]
    for example in shown["shown"]:
        assert [part["loss"] for part in example["seen"]] == [False, True]
        assert example["seen"][1]["text"] == f"{example['target']}</s>"


def test_a_conversation_is_cut_at_every_answer() -> None:
    tokenizer = load_tokenizer("builtin")
    made = tokenise(tokenizer, Example("c", "d", earlier=(("a", "b"),)))
    parts = [(part.text, part.loss) for part in stretches(tokenizer, made)]
    assert [text for text, loss in parts if loss] == ["b</s>", "d</s>"]
    assert "".join(text for text, _ in parts).endswith(
        "<|user|>\na\n<|assistant|>\nb</s>\n<|user|>\nc\n<|assistant|>\nd</s>"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope",), "nope: unknown source; known: kvr, "),
        (("math",), "taken down"),
        (("kvr", "--path", "x"), "reads no 'path'"),
        (("kvr", "--template", "{x}"), "for files and hub ids only"),
        (("kvr", "--subset", "x"), "has no subsets"),
        (("popqa", "--path", "none.tsv"), "none.tsv: no such file"),
        (("none.csv",), "none.csv: no such file"),
        (("none.csv", "--subset", "x"), "a file has no subsets"),
        (("kvr", "--model", "none/there/is"), "model 'none/there/is'"),
        (("kvr", "--chat-template", "tokenizer"), "this tokenizer has none"),
        (("kvr", "--chat-template", "chatml"), "chat template 'chatml': give 'tulu'"),
        (("kvr", "--chat-template", "none.jinja"), "'none.jinja': no such file"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], says: str) -> None:
    text = run("show", *arguments, status=2)
    assert says in text
    assert text.count("\n") == 1
