"""Which manifest a reader follows: the released one, as it changes, and older ones that models are pinned to."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coeval.errors import ManifestError
from coeval.followed import Followed
from coeval.spec.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from coeval.settings import Settings

PIN = "@"
"""Between the name of a service and the hash, or its beginning, of the manifest that a model was trained with."""
LEAST = 8
"""Letters of a hash that name it."""


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file.

    Raises:
        ManifestError: there is none, or it cannot be read.
    """
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ManifestError(f"No manifest at {path}.", "Register the catalog: coeval apply") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"The manifest {path} cannot be read: {error}.", "Restore it, or move it away.") from error


class Manifests:
    """The manifests of a home directory. Safe to share between threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._released = Followed(self._path, read_manifest, clock)

    def current(self) -> Manifest:
        """What readers follow now. A file that cannot be read is logged, and the manifest before it kept."""
        return self._released.now()

    def pinned(self, text: str) -> Manifest:
        """The manifest whose hash begins so; of at least eight letters.

        Raises:
            ManifestError: it was never released here, or several begin so.
        """
        found = sorted(self._settings.manifests.glob(f"{text}*.json")) if len(text) >= LEAST and text.isalnum() else []
        if len(found) != 1:
            known = sorted(path.stem[:12] for path in self._settings.manifests.glob("*.json"))
            what = "Several manifests begin" if found else "No manifest that was released begins"
            raise ManifestError(
                f"{what} with {text!r}.", f"Give at least {LEAST} letters of one of: {', '.join(known) or 'none'}."
            )
        return read_manifest(found[0])

    def offline(self, service: str) -> tuple[Manifest, str]:
        """The manifest that a training set of `service`, or of `service@hash`, is of, and the service's name.

        It is the one that was applied last, released or not: what is trained comes before what is served.

        Raises:
            ManifestError: none was applied, or none of that hash was released.
        """
        name, _, text = service.partition(PIN)
        if text:
            with contextlib.suppress(ManifestError):
                applied = read_manifest(self._settings.manifest_path)
                if len(text) >= LEAST and applied.hash.startswith(text):
                    return applied, name
            return self.pinned(text), name
        return read_manifest(self._settings.manifest_path), name

    def _path(self) -> Path:
        # Readers follow what was released; what is merely applied may still be filling.
        released = self._settings.released_path
        return released if released.exists() else self._settings.manifest_path
