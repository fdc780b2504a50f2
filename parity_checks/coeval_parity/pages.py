"""The pages of checks: where templates are rendered, and where pages of runs are kept. It knows jinja2 and files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coeval.files import write_whole
from coeval.spec.types import iso
from coeval_parity.text import age, shown
from coeval_pipelines.control.parity import KEPT_RUNS

if TYPE_CHECKING:
    import jinja2

NEWEST = "parity.html"
"""The page of the newest run, beside those of the runs before it."""
_OF_RUN = re.compile(r"parity-(\d+)\.html")


def render(template: str, **context: Any) -> str:
    """A page, or a part of one."""
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("coeval_parity", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "iso": iso,
        "age": age,
        "shown": shown,
        "number": "{:,}".format,
        "percent": "{:.2%}".format,
        "share": lambda part: f"{100 * part:.2g}%" if part else "0",
        "words": lambda name: str(name).replace("_", " "),
    }
    return environment


def page_of(folder: Path, run: int) -> Path:
    """Where the page of a parity run is kept."""
    return folder / f"parity-{run}.html"


def kept(folder: Path) -> dict[int, str]:
    """The pages of parity runs in a folder: their names by the number of the run, oldest first."""
    found = {
        int(match[1]): path.name for path in folder.glob("parity-*.html") if (match := _OF_RUN.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def publish(folder: Path, run: int, page: str) -> Path:
    """Keep a run's page as its own and as the newest, and let go of the oldest; returns where it is.

    The oldest by when they were written: where the control plane begins anew, so do the numbers of runs.
    """
    path = page_of(folder, run)
    write_whole(path, page)
    write_whole(folder / NEWEST, page)
    others = sorted((folder / name for name in kept(folder).values() if name != path.name), key=_written_at)
    for old in others[: -(KEPT_RUNS - 1)]:
        old.unlink(missing_ok=True)
    return path


def _written_at(path: Path) -> float:
    """Seconds since the epoch; 0 where another process has just deleted it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
