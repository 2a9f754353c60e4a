"""Chat formats: Tulu v2, plain ones, and the public Jinja templates of five model families."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from geomix.data import bounded, chat
from geomix.data.chat import Literals, Template, chat_format
from geomix.data.example import IGNORED, Example
from geomix.data.tokenise import tokenise, tokenise_all
from geomix.util.errors import UserError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_25 = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] "
    "+ '<|im_end|>\n' }}{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>"
    "\n' }}{%- endif %}\n" + CHATML
)
QWEN_3 = (  # the last answer has a think block, and contents lose their line breaks
    "{%- set ns = namespace(last=messages|length - 2) %}{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}"
    "{%- else %}{%- if loop.index0 > ns.last %}{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n'"
    " + message.content.lstrip('\n') }}{%- else %}{{- '<|im_start|>assistant\n' + message.content "
    "}}{%- endif %}{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
)
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token}}{% endif %}{% endfor %}"
)
LLAMA_2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
    "message['content'].strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + "
    "message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
PHI_3 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{'<|user|>\n' + "
    "message['content'] + '<|end|>\n<|assistant|>\n'}}{% else %}{{message['content'] + '<|end|>\n'"
    "}}{% endif %}{% endfor %}{{ eos_token }}"
)
NO_END = "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n\n{% endfor %}"
LAST_END = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{% if loop.last %}{{ '<|im_end|>' }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
)

ADDED = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<|end|>", "<|e"),
)
USER, BOT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
HEAD = "<|start_header_id|>{}<|end_header_id|>\n\n"
EXPECTED = {
    CHATML: f"{USER} a\n{BOT}⟦b <|im_end|>⟧\n{USER}c{BOT}⟦\nd<|im_end|>⟧",
    QWEN_25: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    f"{USER} a\n{BOT}⟦b <|im_end|>⟧\n{USER}c{BOT}⟦\nd<|im_end|>⟧",
    QWEN_3: f"{USER} a\n{BOT}⟦b <|im_end|>⟧\n{USER}c{BOT}<think>\n\n</think>\n\n⟦\nd<|im_end|>⟧",
    LLAMA_3: f"<s>{HEAD.format('user')} a\n<|eot_id|>{HEAD.format('assistant')}⟦b <|eot_id|>⟧"
    f"{HEAD.format('user')}c<|eot_id|>{HEAD.format('assistant')}⟦\nd<|eot_id|>⟧",
    MISTRAL: "<s>[INST]  a\n [/INST]⟦b </s>⟧[INST] c [/INST]⟦\nd</s>⟧",
    LLAMA_2: "<s>[INST]  a\n [/INST] ⟦b </s>⟧<s>[INST] c [/INST] ⟦\nd</s>⟧",
    ZEPHYR: "<|user|>\n a\n</s>\n<|assistant|>\n⟦b </s>⟧\n"
    "<|user|>\nc</s>\n<|assistant|>\n⟦\nd</s>⟧",
    PHI_3: "<|user|>\n a\n<|end|>\n<|assistant|>\n⟦b <|end|>⟧\n"
    "<|user|>\nc<|end|>\n<|assistant|>\n⟦\nd<|end|>⟧",
    NO_END: "### user:\n a\n\n\n### assistant:\n⟦b </s>⟧\n\n"
    "### user:\nc\n\n### assistant:\n⟦\nd</s>⟧",
    LAST_END: "user:  a\n\nassistant: ⟦b <|im_end|>⟧\nuser: c\nassistant: ⟦\nd<|im_end|>⟧",
}
"""Two exchanges as written, loss in ⟦ ⟧: contents unchanged, whatever the template strips."""

TRUE = "{{ messages[0].content }}{{ messages[1].content }}"

TALK = Example("c", "\nd", earlier=((" a\n", "b "),))


@pytest.fixture
def tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    made = make_tokenizer(["A: x", "|>\n\n", "b  c"] * 9, 300, split=True)
    made.add_special_tokens({"additional_special_tokens": list(ADDED)})
    return made


def marked(tokenizer: Any, name: str, text: Example = TALK) -> str:
    """The decoded tokens with ⟦ ⟧ around those that carry loss."""
    made = tokenise(tokenizer, text, chat_format(name, tokenizer))
    shown, inside = "", False
    for i, label in enumerate((*made.labels, IGNORED)):
        if (label != IGNORED) != inside:
            inside = not inside
            shown = shown or tokenizer.decode(made.ids[:i])
            start = i
            shown += "⟦" if inside else "⟧"
        if i < len(made.ids) and shown:
            shown += tokenizer.decode(made.ids[i])
    assert start == len(made.ids), "nothing stands after the last end token"
    return shown


@pytest.mark.parametrize("template", EXPECTED)
@pytest.mark.parametrize("own", [True, False])
def test_public_templates(tokenizer: Any, tmp_path: Path, template: str, own: bool) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(template, encoding="utf-8")
    tokenizer.chat_template = template if own else "never {{ rendered }}"
    name = "tokenizer" if own else str(file)
    assert marked(tokenizer, name) == EXPECTED[template]


def test_one_exchange_is_the_last_one(tokenizer: Any) -> None:
    """Qwen 3 writes its think block before the last answer, which here is the first."""
    tokenizer.chat_template = QWEN_3
    expected = f"{USER}q{BOT}<think>\n\n</think>\n\n⟦a<|im_end|>⟧"
    assert marked(tokenizer, "tokenizer", Example("q", "a")) == expected


def test_what_looks_like_a_sentinel_or_jinja_in_a_text_is_text(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    text = Example("{{ 1 }} geomixtarget00001xq", "{% raise %}{prompt}")
    expected = f"{USER}{text.prompt}{BOT}⟦{text.target}<|im_end|>⟧"
    assert marked(tokenizer, "tokenizer", text) == expected
    plain = "{prompt} {0} {target}"
    expected = f"{text.prompt} {{0}} ⟦{text.target}</s>⟧"
    assert marked(tokenizer, plain, text) == expected


def test_literals_of_plain_formats(tokenizer: Any) -> None:
    """The literals of exchanges differ only in what follows the previous one."""
    made = chat_format("Q{prompt}A{target}E", tokenizer).literals(3)
    assert made == Literals(("Q", "EQ", "EQ"), ("A", "A", "A"), "</s>")
    tulu = chat_format("tulu", tokenizer).literals(2)
    between = "\n<|assistant|>\n"
    assert tulu == Literals(("<|user|>\n", "\n<|user|>\n"), (between, between), "</s>")


def test_every_exchange_has_the_texts_around_it(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ loop.index }}>{{ m.content }}{% if m.role == 'assistant' %}"
        "<|im_end|>!{% endif %}{% endfor %}"
    )
    made = chat_format("tokenizer", tokenizer).literals(3)
    assert made == Literals(("<1>", "!<3>", "!<5>"), ("<2>", "<4>", "<6>"), "<|im_end|>")


def test_a_template_is_rendered_once_for_each_length(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a batch needs in one child, whichever format of the same template asks."""
    tokenizer.chat_template = CHATML + "{# once #}"
    asked = []

    def counted(work: str, request: Any, count: int) -> Any:
        asked.append([len(messages) for messages in request["conversations"]])
        return bounded.answers(work, request, count)

    monkeypatch.setattr(chat, "answers", counted)
    for _ in range(2):
        made = chat_format("tokenizer", tokenizer)
        for n in (1, 2, 1, 2):
            made.literals(n)
        tokenise_all(tokenizer, [Example("a", "b", earlier=(("c", "d"),) * n) for n in range(5)])
        made.prepare({1, 2, 5, 4})
    assert asked == [[2], [4], [8, 10]]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "this tokenizer has none; give 'tulu'"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves prompt 1 out"),
        ("{{ messages[0].content * 2 }}", "writes prompt 1 2 times"),
        ("{{ messages[0].content }}", "leaves target 1 out"),
        ("{{ messages[1].content + messages[0].content }}", "writes target 1 before"),
        ("{{ messages[0].content.upper() }}{{ messages[1].content }}", "leaves prompt 1 out"),
        ("{{ raise_exception('No\nchat') }}", "TemplateError: No chat"),
        ("{% for", "TemplateSyntaxError"),
        ("{{ messages.nothing.at.all }}", "UndefinedError"),
        ("{{ ().__class__.__base__.__subclasses__() }}", "SecurityError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ({"rag": "x", "tool_use": "y"}, "chat template"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(
    tokenizer: Any, template: Any, says: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=r"^chat template 'tokenizer'") as raised:
        chat_format("tokenizer", tokenizer)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_template_for_one_exchange_only_fails_with_the_conversation(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% if messages|length > 2 %}{{ raise_exception('too long') }}{% endif %}" + CHATML
    )
    chat = chat_format("tokenizer", tokenizer)
    assert tokenise(tokenizer, Example("a", "b"), chat)
    with pytest.raises(UserError, match=r"'tokenizer' with 2 exchanges: .*too long"):
        tokenise(tokenizer, TALK, chat)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("chatml", "give 'tulu', 'tokenizer', a path ending in .jinja"),
        ("{prompt}", "once"),
        ("{target}{prompt}", "then {target}"),
        ("{prompt}{prompt}{target}", "once"),
        ("", "give 'tulu'"),
        ("none.jinja", "no such file"),
        (".jinja", "no such file"),
    ],
)
def test_what_is_no_format_is_one_line(tokenizer: Any, name: str, says: str) -> None:
    with pytest.raises(UserError, match=f"^chat template '{name}'") as raised:
        chat_format(name, tokenizer)
    assert says in str(raised.value)


def test_a_file_that_is_no_text_is_one_line(tokenizer: Any, tmp_path: Path) -> None:
    folder, binary = tmp_path / "a.jinja", tmp_path / "b.jinja"
    folder.mkdir()
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (folder, binary):
        with pytest.raises(UserError, match="cannot be read as text"):
            chat_format(str(path), tokenizer)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        # The sandbox bounds each loop; two of them, one in the other, would run for hours.
        (
            "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2,
            "TimeoutError: not done after 0.2",
        ),
        ("{{ 7 ** (7 ** 9) }}", "TimeoutError: not done after 0.2 seconds"),
        ("{{ '%999999999d' % 1 }}", "MemoryError"),
        ("{{ [0] * 999999999 }}", "MemoryError"),
        ("{{ 'ab'.replace('', 'x' * 99999) * 9999 }}", "MemoryError"),
        ("{{ 'ab' | indent(999999999, true) }}", "MemoryError"),
        ("{{ 'ab' * 999999 }}", "at most 1,000,000 are taken"),
        ("{{ raise_exception }}", "which is another text in every process"),
        ("{{ '\\ud800' }}", "UnicodeEncodeError"),
        ("{% set ns = namespace(_x=1) %}", "cannot store underscore-prefixed"),
    ],
)
def test_a_template_cannot_take_more_than_its_share(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.2)
    file = tmp_path / "greedy.jinja"
    file.write_text(body + TRUE)
    with pytest.raises(UserError, match=r"^chat template '.*greedy.jinja' with 1 exchange: ") as it:
        chat_format(str(file), tokenizer)
    assert says in str(it.value)
    assert "\n" not in str(it.value)
    file.write_text(TRUE)
    assert chat_format(str(file), tokenizer).literals(1).end == "</s>"


def test_a_template_is_bounded_in_a_thread_too(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "true.jinja"
    file.write_text(TRUE + "{# in a thread #}")
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(chat_format, str(file), tokenizer).result()
    assert made.literals(1).end == "</s>"


FEATURES = """{{- bos_token }}{%- set ns = namespace(n=0, last=none) %}
{%- macro head(role, n=1) -%}<|{{ role }}|{{ n }}>{%- endmacro %}
{% generation %}inside{% endgeneration %}{{ dict(a=1, b="<é>") | tojson(indent=2) }}
{{ dict.fromkeys(["x"], 1) | tojson }}{{ tools is none }}{{ documents is none }}{{ no | d("u") }}
{%- for m in messages %}
    {%- if loop.index0 > 7 %}{% break %}{% endif %}
    {%- set ns.n = ns.n + 1 %}{% set ns.last = m %}
    {{ head(m.role, ns.n) }}
    {% if m.role == "user" %}{% continue %}{% endif %}{{ m['content'] | trim }}
{%- endfor %}
{{- strftime_now is defined }}{{ add_generation_prompt }}{{ (messages | last).content[::-1] }}
"""


@pytest.mark.parametrize("template", [*EXPECTED, FEATURES])
def test_a_template_is_rendered_as_transformers_does(tokenizer: Any, template: str) -> None:
    """Whose own rendering is the reference: filters, globals, extensions, white space."""
    messages = [
        {"role": role, "content": f" {role} {i}\n"}
        for i in range(3)
        for role in ("user", "assistant")
    ]
    wanted = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    request = {
        "template": template,
        "now": "2026-01-02T03:04:05",
        "special": tokenizer.special_tokens_map,
        "conversations": [messages],
    }
    assert bounded.answers("render", request, 1) == ([{"text": wanted}], "")


def test_a_template_sees_the_moment_that_it_is_given_and_draws_the_same(tokenizer: Any) -> None:
    text = "{{ strftime_now('%d %b %Y %H:%M') }} {{ range(99999) | random }} {{ lipsum(1) }}" + TRUE
    one, other, later = (
        chat_format("x.jinja", tokenizer, Template(now, text + extra)).literals(1).before[0]
        for now, extra in (
            ("1999-12-31T23:59:00", ""),
            ("1999-12-31T23:59:00", "{# rendered anew #}"),
            ("2000-01-01T00:00:00", ""),
        )
    )
    assert one.startswith("31 Dec 1999 23:59 ")
    assert one == other
    assert later == one.replace("31 Dec 1999 23:59", "01 Jan 2000 00:00")


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        chat_format("tulu", tokenizer)


def test_an_end_that_is_no_token_is_refused(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(["a b c"], 300, split=True)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    with pytest.raises(UserError, match=r"ends an answer in '<\|im_end\|>', which is no token"):
        chat_format("tokenizer", tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    assert chat_format("tokenizer", tokenizer).literals(1).end == "<|im_end|>"
