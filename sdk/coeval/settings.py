"""The one typed settings tree: environment variables over `coeval.toml` over defaults. It knows addresses, no engine.

Every setting has an environment variable: `COEVAL_REDIS__URL`, `COEVAL_KAFKA__BOOTSTRAP`, `COEVAL_HOME`, ...
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class RedisSettings(BaseModel):
    """The online store: `redis://`, `rediss://` (TLS) or `unix://`."""

    url: str = "redis://127.0.0.1:6379/0"
    cluster: bool = False
    """Whether the address is that of a node of a Redis Cluster, any of them."""
    sentinel: str = ""
    """The name of the primary, where the address is that of Sentinels: redis://one:26379,two:26379/0"""
    username: str = ""
    """An ACL user; without, the default one."""
    password: SecretStr | None = None
    timeout_seconds: float = 2.0

    @property
    def shown(self) -> str:
        """The address without a password, to be printed."""
        return re.sub(r"//[^@/]*@", "//***@", self.url)


Readable = Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]
"""A file that processes in other directories, and engines on other machines, look for at the same absolute path."""


class KafkaSettings(BaseModel):
    """The log, and how to reach it. Certificates and keys are PEM files."""

    bootstrap: str = "127.0.0.1:9092"
    partitions: int = 2
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str = ""
    password: SecretStr | None = None
    ca_file: Readable | None = None
    """Authorities that may sign the broker's certificate; without it those of the system, which Java and Python know
    each their own."""
    cert_file: Readable | None = None
    """The client's certificate chain, for a broker that asks for one."""
    key_file: Readable | None = None
    """Its private key, not encrypted."""

    @property
    def sasl(self) -> bool:
        """Whether the broker asks for a user and a password."""
        return self.security_protocol.startswith("SASL_")

    @model_validator(mode="after")
    def _whole(self) -> KafkaSettings:
        if self.sasl and not (self.username and self.password):
            raise ValueError(f"{self.security_protocol} needs a username and a password")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        return self


class FlinkSettings(BaseModel):
    """The stream engine."""

    rest_url: str = "http://127.0.0.1:8081"
    task_slots: int = 8
    """Of each worker of the local stack. A job takes as many as its parallelism; a new run starts beside the old."""
    workers: int = 1
    """Workers of the local stack; one more than is needed is a standby, which shortens recovery."""
    worker_memory: str = "2g"
    """Of each worker. With `hashmap`, all state of its jobs has to fit, twice while a run is replaced."""
    parallelism: int = 1
    """Of a job that is not rescaled by hand."""
    checkpoint_seconds: float = 3.0
    mini_batch_milliseconds: int = 100
    """How long updates of a tile are gathered before the changelog gets them: freshness against throughput."""
    state_backend: Literal["hashmap", "rocksdb"] = "hashmap"
    """hashmap keeps state in memory; rocksdb on disk: slower, for more keys than memory holds."""


class SparkSettings(BaseModel):
    """The batch engine (local mode; a cluster takes its own spark-defaults)."""

    master: str = "local[2]"
    driver_memory: str = "4g"
    shuffle_partitions: int = 4


class MetricsSettings(BaseModel):
    """Where Prometheus finds metrics, and how often canaries are sent. A port of 0 and an empty range are off."""

    writer_port: int = 0
    coordinator_port: int = 0
    flink_ports: str = ""
    """A port for each process of Flink's, as "9250-9260": each takes the first that is free."""
    canary_seconds: float = 10.0
    """One canary per source that declares one, this often; 0: none at all."""


class Settings(BaseSettings):
    """Where everything is. Paths that are relative are relative to the current directory."""

    model_config = SettingsConfigDict(
        env_prefix="COEVAL_",
        env_nested_delimiter="__",
        toml_file="coeval.toml",
        extra="forbid",
    )

    environment: Literal["dev", "staging", "prod"] = "dev"
    home: Path = Path("var")
    """State of the local stack, the Delta tables, reports: one directory, git-ignored."""
    cache: Path = Path("~/.cache/coeval")
    """Java artefacts, outside the tree."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    redis: RedisSettings = RedisSettings()
    kafka: KafkaSettings = KafkaSettings()
    flink: FlinkSettings = FlinkSettings()
    spark: SparkSettings = SparkSettings()
    metrics: MetricsSettings = MetricsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def variables(self) -> dict[str, str]:
        """These settings as environment variables, for a child process; paths absolute, secrets left to inherit."""
        paths = {"home": self.home.resolve(), "cache": self.cache.expanduser().resolve()}
        tree = self.model_copy(update=paths).model_dump(mode="json", exclude_none=True)
        found: dict[str, str] = {}
        for name, value in tree.items():
            items = value.items() if isinstance(value, dict) else [("", value)]
            for part, item in items:
                if part != "password":
                    found[f"COEVAL_{name}{'__' if part else ''}{part}".upper()] = str(item)
        return found

    def secrets(self) -> dict[str, str]:
        """The passwords as environment variables, for a child process. Not to be printed, logged or stored."""
        passwords = {"REDIS": self.redis.password, "KAFKA": self.kafka.password}
        return {f"COEVAL_{part}__PASSWORD": item.get_secret_value() for part, item in passwords.items() if item}

    @property
    def manifest_path(self) -> Path:
        """The manifest that `feast apply` compiled last."""
        return self.home / "manifest.json"

    @property
    def released_path(self) -> Path:
        """The manifest that readers follow: the one that was released last."""
        return self.home / "released.json"

    @property
    def manifests(self) -> Path:
        """The manifests that were ever released, each under its hash: what models may be pinned to."""
        return self.home / "manifests"

    @property
    def control_url(self) -> str:
        """SQLAlchemy URL of the control plane."""
        return f"sqlite:///{(self.home / 'control.db').resolve()}"

    @property
    def delta(self) -> Path:
        """Root of the Delta tables."""
        return self.home.resolve() / "delta"

    def data_path(self, path: str) -> str:
        """Where the files of a source are: absolute paths and URIs as they stand, all others under `home`."""
        return path if "://" in path or not path else str(self.home.resolve() / path)

    @property
    def jars(self) -> Path:
        """Where the Java artefacts are kept."""
        return self.cache.expanduser().resolve() / "jars"


@cache
def load_settings() -> Settings:
    """Read the settings once per process.

    Raises:
        UsageError: a variable or the file holds a value that does not fit.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from coeval.errors import UsageError

    try:
        return Settings()
    except (SettingsError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"The settings cannot be read: {error}.", "Correct coeval.toml, or the COEVAL_* variable that is named."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        name = "__".join(str(part) for part in first["loc"]).upper()
        raise UsageError(
            f"The setting {name} is not valid: {first['msg']}.",
            f"Correct COEVAL_{name} in the environment, or the same entry in coeval.toml.",
        ) from error
