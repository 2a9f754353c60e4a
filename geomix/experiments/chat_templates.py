"""Chat templates stored in a run: the text of each, and the time that it sees.

They are read when the run starts and stored in `resolved.json`. Every later use of the run takes
them from there, so that neither an edited file nor another date changes the tokens.
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
from geomix.training.reuse import reused_folders
from geomix.util.errors import UserError
from geomix.util.reading import expect

KEY = "chat"
"""Key of `resolved.json` with one template per arm."""


def described(chats: Mapping[str, ChatFormat]) -> dict[str, Any]:
    """Return the chat formats as stored in `resolved.json`, by arm ("" without arms)."""
    return {name: asdict(chat.template) for name, chat in chats.items()}


def kept_templates(run: RunDirectory) -> dict[str, Template]:
    """Return the templates of a run's arms; none for a run of a version that stored none.

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
    """Return the chat format of a run.

    Args:
        config: its configuration.
        tokenizer: of its model.
        template: the stored one; None at the run's start.
        now: the time that a new run sees, unless it reuses a stage of another run: then it sees
            that run's, so that both write one date.

    Raises:
        UserError: there is no such format, or its template cannot be used.
    """
    if template is None:
        now = _reused_time(config) or now
        template = template_of(config.chat_template, tokenizer, now)
    newline_loss = "newline-loss" in config.paper_literal
    return chat_format(config.chat_template, tokenizer, template, newline_loss=newline_loss)


def _reused_time(config: RunConfig) -> str | None:
    """Return the time of the run whose stage is reused, if there is one and it is known."""
    for folder in reused_folders(config).values():
        run = RunDirectory(folder.parents[1])
        kept = kept_templates(run) if run.resolved_file.is_file() else {}
        if times := [template.now for template in kept.values() if template.now]:
            return times[0]
    return None


def edited(run: RunDirectory, arms: Mapping[str, RunConfig]) -> list[str]:
    """Return a line for each template file that has changed since the run started."""
    lines = []
    for name, template in kept_templates(run).items():
        file = arms[name].chat_template if name in arms else ""
        if file.endswith(JINJA_SUFFIX):
            try:
                now = template_of(file, None).text
            except UserError:  # it no longer exists, and is not needed
                continue
            if now != template.text:
                lines.append(f"{file}: edited since the run began, which keeps the text it had")
    return list(dict.fromkeys(lines))
