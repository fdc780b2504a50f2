"""`coeval parity forget`: what was served is kept for as long as the settings say, and no longer."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def forget(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """Let go of logged responses that are too old, or of erased subjects; from the table and its files.

    How old they may be is COEVAL_SERVER__SERVING_LOG_DAYS. The topic is not read; it forgets by itself.

    Example: coeval parity forget
    """
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_parity import served

    settings = load_settings()
    report = served.forget(settings, read_manifest(settings.manifest_path))
    if as_json:
        print(json.dumps({"erased": report.erased, "let_go": report.let_go}))
    else:
        print(f"{report.let_go:,} responses let go, {report.erased:,} of erased subjects removed")
