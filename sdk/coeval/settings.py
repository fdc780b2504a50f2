"""The one typed settings tree: environment variables over `coeval.toml` over defaults. It knows addresses, no engine.

Every setting has an environment variable: `COEVAL_REDIS__URL`, `COEVAL_KAFKA__BOOTSTRAP`, `COEVAL_HOME`, ...
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from coeval.files import is_uri, place

_SECRETS = ("password", "webhooks")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""What this machine is called by itself."""


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
    """The batch engine: in this process, or a cluster that it is the driver of, or one that is called over the net."""

    master: str = "local[2]"
    """local[N], spark://HOST:PORT, k8s://https://HOST:PORT, yarn; sc://HOST:PORT (Spark Connect), or databricks."""
    driver_memory: str = "4g"
    shuffle_partitions: int = 4
    driver_host: str = ""
    """Where the executors of a cluster find this process; without, what this machine is called."""
    python: str = ""
    """The interpreter on the executors, which has coeval installed; without, where this one is."""
    ship_jars: bool = True
    """Whether a cluster gets our jars of Delta and Kafka, or has its own."""
    conf: dict[str, str] = {}
    """Spark properties of your own, over ours: spark.executor.memory, spark.kubernetes.container.image, ..."""


class ServerSettings(BaseModel):
    """The feature server: where it listens, and what it takes of whom."""

    host: str = "127.0.0.1"
    port: int = 8080
    tenants: Path | None = None
    """The file of tenants and credentials; without, `tenants.json` in the home directory."""
    max_rows: int = 5_000
    """Entities, or events, of one request."""
    max_bytes: int = 4 << 20
    """Of a request's body."""
    max_seconds: float = 10.0
    """A request that takes longer is given up."""
    concurrency: int = 256
    """Requests at once, of all tenants; a tenant has its own limit beside."""
    drain_seconds: float = 5.0
    """After being told to stop, how long it says that it is not ready and still serves, before it stops to listen."""
    serving_log: float = 0.0
    """The share of entity keys whose served values are logged for the parity checker; 0: none, 1: all."""
    serving_log_days: float = Field(default=0.0, ge=0.0)
    """How long rows stay in the table of the serving log: `coeval parity forget` lets go of the others. 0: for ever."""


class MetricsSettings(BaseModel):
    """Where Prometheus finds metrics, and how often canaries are sent. A port of 0 and an empty range are off."""

    writer_port: int = 0
    coordinator_port: int = 0
    server_port: int = 0
    scheduler_port: int = 0
    """What checks found, by `coeval schedule run`: for where no coordinator runs, which tells it too."""
    flink_ports: str = ""
    """A port for each process of Flink's, as "9250-9260": each takes the first that is free."""
    canary_seconds: float = 10.0
    """One canary per source that declares one, this often; 0: none at all."""


class ScheduledJob(BaseModel):
    """A command of `coeval` that is run again and again: at an interval, or at the times of a cron line, in UTC."""

    command: str
    """As one types it, without `coeval`: "parity run card_spend". Empty: the job of that name is off."""
    every: str = ""
    """15m, 1h, 1d"""
    cron: str = ""
    """Minute, hour, day, month, weekday: "30 2 * * *" """
    timeout: str = "6h"
    """A run that takes longer is ended."""
    runbook: str = ""
    """What an alert points to; without, the runbook of the command."""


class NotifySettings(BaseModel):
    """Who is told when a scheduled job fails, and when it is well again."""

    webhooks: list[SecretStr] = []
    """Addresses that take {"text": ...} as Slack, Mattermost and Teams do. They are secrets."""
    alertmanager: str = ""
    """Base address of an Alertmanager: http://127.0.0.1:9093"""
    repeat: str = "4h"
    """How often a webhook is told again of what is still wrong."""
    link: str = ""
    """What `reports/` under the home directory is called from elsewhere: https://coeval.internal/reports"""


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
    """State of the local stack, journals, reports: one directory, git-ignored."""
    tables: str = ""
    """Root of the Delta tables: a directory (a relative one is under `home`), or a URI that Spark reads: s3a://, abfss://,
    gs://. Default: `delta` under `home`."""
    cache: Path = Path("~/.cache/coeval")
    """Java artefacts, outside the tree."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    redis: RedisSettings = RedisSettings()
    kafka: KafkaSettings = KafkaSettings()
    flink: FlinkSettings = FlinkSettings()
    spark: SparkSettings = SparkSettings()
    metrics: MetricsSettings = MetricsSettings()
    server: ServerSettings = ServerSettings()
    schedule: dict[str, ScheduledJob] = {}
    """Jobs by name, over those that are there without (`coeval schedule list`)."""
    notify: NotifySettings = NotifySettings()

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

    def with_addresses(self, home: str | Path | None, redis_url: str | None) -> Settings:
        """With another home directory, or another online store; None: as it is."""
        changes: dict[str, Any] = {} if home is None else {"home": Path(home)}
        if redis_url is not None:
            changes["redis"] = self.redis.model_copy(update={"url": redis_url})
        return self.model_copy(update=changes)

    def variables(self) -> dict[str, str]:
        """These settings as environment variables, for a child process; paths absolute, secrets left to inherit."""
        paths = {"home": self.home.resolve(), "cache": self.cache.expanduser().resolve()}
        tree = self.model_copy(update=paths).model_dump(mode="json", exclude_none=True)
        found: dict[str, str] = {}
        for name, value in tree.items():
            items = value.items() if isinstance(value, dict) else [("", value)]
            for part, item in items:
                if part not in _SECRETS:
                    text = json.dumps(item) if isinstance(item, dict) else str(item)
                    found[f"COEVAL_{name}{'__' if part else ''}{part}".upper()] = text
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
    def tenants_path(self) -> Path:
        """Who may ask the feature server for what."""
        return self.server.tenants or self.home / "tenants.json"

    @property
    def control_url(self) -> str:
        """SQLAlchemy URL of the control plane."""
        return f"sqlite:///{self.control_path}"

    @property
    def control_path(self) -> Path:
        """The control plane's database."""
        return self.home.resolve() / "control.db"

    @property
    def delta(self) -> Path:
        """Root of what is kept beside the Delta tables, always on a disk: the journals of ingests, the erasures."""
        return self.home.resolve() / "delta"

    @property
    def table_root(self) -> Path:
        """Root of the Delta tables; see `coeval.files.place`."""
        return place(self.data_path(self.tables or "delta"))

    def data_path(self, path: str) -> str:
        """Where the files of a source are: absolute paths and URIs as they stand, all others under `home`."""
        return path if is_uri(path) or not path else str(self.home.resolve() / path)

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
