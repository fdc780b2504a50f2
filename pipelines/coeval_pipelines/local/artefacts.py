"""Java artefacts by pinned coordinates and SHA-256, resolved once into a cache outside the tree. It knows Ivy.

`artefacts.lock` has one line per jar: group (kafka, flink, spark, build), organisation, name, revision, SHA-256.
Nothing is resolved transitively. The Ivy that pyspark ships does the transport: its own default repository, or a
company's mirror through COEVAL_IVY_SETTINGS (the path of an ivysettings.xml). The stream's own classes are compiled
into the same cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from coeval.errors import InfrastructureError, MissingExtraError
from coeval.settings import Settings, load_settings
from coeval_pipelines.local.build import CompileError, compile_jar, flink_jars
from coeval_pipelines.streamjar import stream_jar

_JAVA = 17
_DEFAULT_SETTINGS = (
    '<ivysettings><settings defaultResolver="public"/><resolvers>'
    '<ibiblio name="public" m2compatible="true" usepoms="false" checksums=""/>'
    "</resolvers></ivysettings>"
)


class ArtefactError(InfrastructureError):
    """A Java artefact cannot be resolved, or is not what was pinned."""

    code = "ARTEFACT"


@dataclass(frozen=True, slots=True)
class Artefact:
    """One pinned jar."""

    group: str
    organisation: str
    name: str
    revision: str
    sha256: str

    @property
    def file(self) -> str:
        """Its path below the cache."""
        return f"{self.group}/{self.name}-{self.revision}.jar"


@dataclass(frozen=True, slots=True)
class Jars:
    """The verified jars by the process that needs them."""

    kafka: tuple[Path, ...]
    flink: tuple[Path, ...]
    spark: tuple[Path, ...]
    build: tuple[Path, ...]
    """The compiler of the stream's own classes."""


def pinned() -> tuple[Artefact, ...]:
    """What artefacts.lock pins."""
    text = files("coeval_pipelines.local").joinpath("artefacts.lock").read_text()
    return tuple(Artefact(*line.split()) for line in text.splitlines() if line and not line.startswith("#"))


def ensure_jars(settings: Settings) -> Jars:
    """The jars, resolved and verified first where they are not there; safe to call from several processes.

    Raises:
        ArtefactError: a jar cannot be had, its checksum is not the pinned one, or the stream's classes do not compile.
    """
    artefacts = pinned()
    with _locked(settings.jars):
        if not _stamped(settings.jars, artefacts):
            missing = [item for item in artefacts if not _matches(settings.jars / item.file, item)]
            _discard(settings.jars, missing)
            if missing:
                _resolve(settings.jars, missing)
            _stamp_path(settings.jars).write_text(_stamp(settings.jars, artefacts))
        if flink_jars():
            _compiled(settings, artefacts)
    return _jars(settings.jars, artefacts)


def _compiled(settings: Settings, artefacts: Sequence[Artefact]) -> None:
    target = stream_jar(settings)
    if target.exists():
        return
    try:
        compile_jar(java(), _jars(settings.jars, artefacts).build[0], target)
    except CompileError as error:
        raise ArtefactError(
            f"The stream's Java classes do not compile:\n{error}",
            "Mend streaming/java, or install the Flink that this version is made for: pip install 'coeval[streaming]'",
        ) from error


def verify(settings: Settings) -> list[str]:
    """The files in the cache whose bytes are not what was pinned."""
    return [item.file for item in pinned() if not _matches(settings.jars / item.file, item)]


def _jars(root: Path, artefacts: Sequence[Artefact]) -> Jars:
    groups = {group: tuple(root / item.file for item in artefacts if item.group == group) for group in Jars.__slots__}
    return Jars(**groups)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _discard(root: Path, artefacts: Sequence[Artefact]) -> None:
    for item in artefacts:
        if (root / item.file).exists():
            print(f"{item.file} is not what was pinned; deleted, and fetched again", file=sys.stderr, flush=True)
            (root / item.file).unlink()


def _matches(path: Path, artefact: Artefact) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == artefact.sha256


def _stamp_path(root: Path) -> Path:
    return root / ".verified"


def _stamp(root: Path, artefacts: Sequence[Artefact]) -> str:
    lines = []
    for item in artefacts:
        stat = (root / item.file).stat()
        lines.append(f"{item.file} {item.sha256} {stat.st_size} {stat.st_mtime_ns}")
    return "\n".join(lines)


def _stamped(root: Path, artefacts: Sequence[Artefact]) -> bool:
    try:
        return _stamp_path(root).read_text() == _stamp(root, artefacts)
    except FileNotFoundError:
        return False


def _resolve(root: Path, artefacts: Sequence[Artefact]) -> None:
    print(f"resolving {len(artefacts)} Java artefacts", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".resolve-") as name:
        work = Path(name)
        _run_ivy(work, artefacts)
        for item in artefacts:
            found = work / "out" / f"{item.name}-{item.revision}.jar"
            if not _matches(found, item):
                raise ArtefactError(
                    f"{item.organisation}:{item.name}:{item.revision} is not the jar that artefacts.lock pins.",
                    "Do not use it. Check the repository that it comes from, then run make setup again.",
                )
            target = root / item.file
            target.parent.mkdir(exist_ok=True)
            shutil.move(found, target)


def _run_ivy(work: Path, artefacts: Sequence[Artefact]) -> None:
    lines = [
        f"<dependency org={quoteattr(item.organisation)} name={quoteattr(item.name)} rev={quoteattr(item.revision)}"
        f' transitive="false" conf="default->default"/>'
        for item in {(item.organisation, item.name, item.revision): item for item in artefacts}.values()
    ]
    head = '<ivy-module version="2.0"><info organisation="coeval" module="artefacts"/><dependencies>'
    (work / "ivy.xml").write_text(head + "".join(lines) + '<conflict manager="all"/></dependencies></ivy-module>')
    (work / "ivysettings.xml").write_text(_DEFAULT_SETTINGS)
    chosen = os.environ.get("COEVAL_IVY_SETTINGS") or str(work / "ivysettings.xml")
    # Ivy must not look into, nor leave anything in, the user's own ~/.ivy2.
    command = [java(), f"-Divy.default.ivy.user.dir={work / 'user'}", *proxy_options(os.environ), "-jar"]
    command += [str(_ivy_jar()), "-settings", chosen, "-ivy", str(work / "ivy.xml")]
    command += ["-cache", str(work / "cache"), "-retrieve", str(work / "out" / "[artifact]-[revision].[ext]")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        tail = "\n".join(line for line in done.stdout.splitlines() if "not found" in line or "FAILED" in line)[-2000:]
        raise ArtefactError(
            f"The Java artefacts could not be resolved:\n{tail or done.stderr[-2000:]}",
            "Check the network, or name your mirror: COEVAL_IVY_SETTINGS=/path/to/ivysettings.xml",
        )


def proxy_options(environment: Mapping[str, str]) -> list[str]:
    """Java's options for the proxies that the usual variables name: a JVM does not read them itself."""
    known = {name.lower(): value for name, value in environment.items()}
    options = []
    for scheme in ("http", "https"):
        proxy = urlsplit(known.get(f"{scheme}_proxy", ""))
        if proxy.hostname:
            options += [f"-D{scheme}.proxyHost={proxy.hostname}", f"-D{scheme}.proxyPort={proxy.port or 80}"]
    return options


def _ivy_jar() -> Path:
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise MissingExtraError("pyspark is not installed.", "pip install 'coeval[offline,local]'")
    return next((Path(spec.origin).parent / "jars").glob("ivy-*.jar"))


def java() -> str:
    """The path of the java command.

    Raises:
        ArtefactError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if found is None or not Path(found).exists():
        raise ArtefactError("There is no java command.", "Install Java 17: apt-get install openjdk-17-jre-headless")
    return found


def require_java() -> None:
    """Check that the java command is new enough.

    Raises:
        ArtefactError: there is none, or it is older than 17.
    """
    command = java()
    said = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version.group(1)) < _JAVA:
        found = f"is Java {version.group(1)}" if version else "does not say its version"
        raise ArtefactError(
            f"{command} {found}; Kafka, Flink and Spark need {_JAVA}.",
            "Install it, and let JAVA_HOME name it: apt-get install openjdk-17-jre-headless",
        )


def main() -> None:
    """`python -m coeval_pipelines.local.artefacts`: make the cache complete."""
    settings = load_settings()
    jars = ensure_jars(settings)
    count = sum(len(getattr(jars, group)) for group in Jars.__slots__)
    print(f"{count} jars, checksums verified, in {settings.jars}")


if __name__ == "__main__":
    main()
