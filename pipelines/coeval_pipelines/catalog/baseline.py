"""What a catalog is compared with: the registered manifest, and the released one. It knows both files, and only reads.

That there is none is one thing, that it cannot be read another: taken for none, it would let views vanish unnamed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from coeval.errors import CoevalError, ManifestError, StackError
from coeval.settings import Settings, load_settings
from coeval.spec.manifest import Manifest

_PATIENCE_SECONDS = 2.0
_RELEASED = "SELECT body FROM releases JOIN manifests ON hash = manifest_hash ORDER BY number DESC LIMIT 1"


def settings_of(repository: Path) -> Settings:
    """The settings of a feature repository: coeval.toml and a relative home count from the directory that holds it."""
    root = repository.resolve().parent
    with contextlib.chdir(root):
        settings = load_settings.__wrapped__()
    return settings.model_copy(update={"home": root / settings.home, "cache": root / settings.cache.expanduser()})


def registered(settings: Settings) -> Manifest | None:
    """The manifest that was applied last; None where none was.

    Raises:
        ManifestError: there is a file, and it is not a manifest that this release reads.
    """
    path = settings.manifest_path
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    except ManifestError as error:
        raise _unreadable(path, error.reason) from error


def _unreadable(path: Path, why: str) -> ManifestError:
    return ManifestError(
        f"The registered manifest {path} cannot be read: {why.rstrip('.')}.",
        "Restore it, or use the release that wrote it. Or move it away: everything then counts as new, "
        "and what has vanished from the files is not missed.",
    )


def released(settings: Settings) -> Manifest | None:
    """The manifest that the control plane says is to run; None where none was released, or nothing is deployed.

    It is asked without the control plane, which would create its tables in whatever file there is.

    Raises:
        StackError: the control plane's file cannot be read.
        ManifestError: the released manifest is not one that this release reads.
    """
    path = Path(settings.control_url.removeprefix("sqlite:///"))
    if not path.exists():
        return None
    try:
        body = _released_body(path)
        return None if body is None else Manifest.from_json(body)
    except sqlite3.Error as error:
        raise StackError(
            f"The control plane {path} cannot be read: {error}.",
            "Try again where another process holds it; restore it, or move it away, where it is damaged.",
        ) from error
    except (ManifestError, RecursionError) as error:
        why = error.reason if isinstance(error, CoevalError) else "it is nested too deeply."
        raise ManifestError(
            f"The manifest that runs, in {path}, cannot be read: {why}",
            "Use the release of Coeval that deployed it, or move that file away once nothing of it runs.",
        ) from error


def _released_body(path: Path) -> str | None:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE_SECONDS)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        # An empty file, or one that is just being made: nothing was released.
        row = connection.execute(_RELEASED).fetchone() if {"releases", "manifests"} <= tables else None
    return None if row is None else str(row[0])
