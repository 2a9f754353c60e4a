"""Rows of a dataset of the Hugging Face hub. Imports `datasets` only when a row is requested."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from geomix.data.files.row import Row
from geomix.data.sources.base import Hub
from geomix.util.errors import Unreachable, UserError

PATIENCE = 20.0
"""Seconds after which a hub that does not answer counts as unreachable."""


def hub_rows(source: str, hub: Hub, download: str = "") -> Iterator[Row]:
    """Yield the rows of one split, downloaded (or streamed) and cached by `datasets`.

    A dataset's own code is never run: `datasets` itself rejects script datasets.

    Args:
        source: name of the source, for messages.
        hub: the dataset to read.
        download: advice for the case that the hub cannot be read.

    Raises:
        Unreachable: the hub cannot be reached.
        UserError: the hub has no such dataset, or it cannot be read.
    """
    advice = download or f"download it from https://huggingface.co/datasets/{hub.name}"
    advice += (
        ", then give the copy as path:" if "/" not in source else ", then give a file as source:"
    )
    try:
        import datasets

        for library in ("huggingface_hub", "datasets"):  # they warn of every retry
            logging.getLogger(library).setLevel(logging.ERROR)
        datasets.disable_progress_bars()
        _ask_once(hub.name)
        # A Parquet conversion has one folder per configuration, and names none of them.
        converted = {hub.split: f"{hub.config}/{hub.split}/*.parquet"} if hub.revision else None
        found = datasets.load_dataset(
            hub.name,
            None if converted else hub.config,
            data_files=converted,
            split=hub.split,
            revision=hub.revision,
            streaming=hub.streaming,
        )
        for number, row in enumerate(found, start=1):
            yield f"{hub.name} row {number}", row
    except Exception as error:  # the network, the hub and the files each raise their own
        lines = (line.strip() for line in str(error).splitlines())
        first = next(filter(None, lines), type(error).__name__)
        kind = Unreachable if isinstance(error, ConnectionError) else UserError
        raise kind(f"data source '{source}': {hub}: {first:.200}; {advice}") from None


def _ask_once(name: str) -> None:
    """Fail at once without a network: `datasets` would try for half a minute.

    Datasets in its cache need no network.
    """
    from datasets import config
    from datasets.naming import camelcase_to_snakecase
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    owner, _, rest = name.rpartition("/")
    if (Path(config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(rest)}").exists():
        return
    try:
        HfApi().dataset_info(name, timeout=PATIENCE)
    except HfHubHTTPError:
        return  # an answer: `datasets` gives the better message
    except Exception as error:  # the network raises its own
        raise ConnectionError(f"the hub cannot be reached ({error})") from None
