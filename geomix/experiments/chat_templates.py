"""The chat templates that a run keeps: the text of each, and the moment that it sees.

They are read when the run begins and stand in `resolved.json`. Whatever is done with the run later
takes them from there, so that neither an edited file nor another day gives other tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from geomix.config.data import JINJA_SUFFIX
from geomix.config.run import RunConfig
from geomix.data.chat import ChatFormat, Template, chat_format, template_of
from geomix.runs.directory import RunDirectory
from geomix.training.reuse import taken_folders
from geomix.util.errors import UserError
from geomix.util.reading import expect

KEY = "chat"
"""Of `resolved.json`: a template an arm."""


def described(chats: Mapping[str, ChatFormat]) -> dict[str, Any]:
    """What `resolved.json` keeps of the chat formats, by arm ("" without arms)."""
    return {name: asdict(chat.template) for name, chat in chats.items()}


def kept_templates(run: RunDirectory) -> dict[str, Template]:
    """The templates of a run's arms; none in a run of a version of geomix that kept none.

    Raises:
        UserError: they are not as geomix writes them.
    """
    kept = run.resolved().get(KEY, {})
    try:
        found = {name: Template(**template) for name, template in kept.items()}
        for template in found.values():
            datetime.fromisoformat(template.now or "2000-01-01")
            if not isinstance(template.text, str | None):
                raise TypeError
    except (TypeError, ValueError, AttributeError):
        expect(run.resolved_file, f"{KEY}, a template an arm", held=False)
    return found


def format_of(
    config: RunConfig, tokenizer: Any, template: Template | None, now: str | None = None
) -> ChatFormat:
    """The chat format of a run.

    Args:
        config: its configuration.
        tokenizer: of its model.
        template: what the run kept; None where it begins.
        now: the moment that a run which begins sees, unless it takes a stage from another run: then
            it sees that run's, so that both write one date.

    Raises:
        UserError: there is no such format, or its template cannot be used.
    """
    if template is None:
        now = _taken_moment(config) or now
        template = template_of(config.chat_template, tokenizer, now)
    newline_loss = "newline-loss" in config.paper_literal
    return chat_format(config.chat_template, tokenizer, template, newline_loss=newline_loss)


def _taken_moment(config: RunConfig) -> str | None:
    """The moment of the run whose stage is taken, where one is and that is known."""
    for folder in taken_folders(config).values():
        run = RunDirectory(folder.parents[1])
        kept = kept_templates(run) if run.resolved_file.is_file() else {}
        if moments := [template.now for template in kept.values() if template.now]:
            return moments[0]
    return None


def edited(run: RunDirectory, arms: Mapping[str, RunConfig]) -> list[str]:
    """A line for each template file that is not what it was when the run began."""
    lines = []
    for name, template in kept_templates(run).items():
        file = arms[name].chat_template if name in arms else ""
        if file.endswith(JINJA_SUFFIX):
            try:
                now = template_of(file, None).text
            except UserError:  # it is not there any more, and not needed
                continue
            if now != template.text:
                lines.append(f"{file}: edited since the run began, which keeps the text it had")
    return list(dict.fromkeys(lines))
