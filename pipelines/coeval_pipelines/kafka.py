"""How a client reaches the broker: the settings in the words of kafka-python and of Kafka's Java clients; its errors.

Certificates and keys are named by their paths, so that no private key stands in a job, a plan or a log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coeval.errors import BrokerError
from coeval.settings import KafkaSettings

SHADED = "org.apache.flink.kafka.shaded."
"""Where Flink's SQL connector keeps its own copy of Kafka's classes."""
_LOGIN = {"PLAIN": "plain.PlainLoginModule"}
_SCRAM_LOGIN = "scram.ScramLoginModule"


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """The options by which any kafka-python client reaches the broker, the bootstrap among them. Holds the password."""
    options: dict[str, Any] = {"bootstrap_servers": kafka.bootstrap, "security_protocol": kafka.security_protocol}
    files = {"ssl_cafile": kafka.ca_file, "ssl_certfile": kafka.cert_file, "ssl_keyfile": kafka.key_file}
    options |= {name: str(path) for name, path in files.items() if path}
    if kafka.sasl:
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.username,
            "sasl_plain_password": _password(kafka),
        }
    return options


def producer_options(kafka: KafkaSettings) -> dict[str, Any]:
    """The same for producers of what must neither be lost nor doubled, by the client's own retries either."""
    return {**client_options(kafka), "acks": "all", "enable_idempotence": True}


def java_properties(kafka: KafkaSettings, prefix: str = "") -> dict[str, str]:
    """The same for Kafka's Java clients, in Flink and Spark. Holds the password.

    `prefix` is where the classes that are named are found: `SHADED` in Flink's SQL connector, nothing in Spark.
    """
    properties = {"bootstrap.servers": kafka.bootstrap}
    if kafka.security_protocol == "PLAINTEXT":
        return properties
    properties["security.protocol"] = kafka.security_protocol
    if kafka.security_protocol.endswith("SSL"):
        properties |= _tls(kafka, prefix)
    if kafka.sasl:
        module = f"{prefix}org.apache.kafka.common.security.{_LOGIN.get(kafka.sasl_mechanism, _SCRAM_LOGIN)}"
        user, password = _quoted(kafka.username), _quoted(_password(kafka))
        properties["sasl.mechanism"] = kafka.sasl_mechanism
        properties["sasl.jaas.config"] = f"{module} required username={user} password={password};"
    return properties


@contextmanager
def answering(kafka: KafkaSettings) -> Iterator[None]:
    """Say of errors of kafka-python what a user can do about them.

    Raises:
        BrokerError: the broker does not answer, does not let the client in, or refuses what it asks for.
    """
    from kafka.errors import KafkaError, KafkaTimeoutError

    with _attempts() as failed:
        try:
            yield
        except KafkaError as error:
            causes = [item for item in failed if not isinstance(item, KafkaTimeoutError)]
            timed_out = isinstance(error, KafkaTimeoutError)
            # Of many attempts, some only see that the broker has hung up: the one that says most counts.
            cause = max(causes, key=_says) if timed_out and causes else error
            raise _broker_error(kafka, cause) from error


def _says(error: Exception) -> int:
    return 2 * _is_login(error) + _is_certificate(error)


def _is_login(error: Exception) -> bool:
    from kafka.errors import SaslAuthenticationFailedError, UnsupportedSaslMechanismError

    return isinstance(error, SaslAuthenticationFailedError | UnsupportedSaslMechanismError)


def _is_certificate(error: Exception) -> bool:
    return "certificate" in str(error).lower()


@contextmanager
def _attempts() -> Iterator[list[Exception]]:
    """Why connections failed: kafka-python tries again until its time is up, and tells nobody but its log.

    Its clients connect in threads of their own, so nothing says whose attempt it was. All clients of a process reach
    the same broker by the same settings: why one of them does not get in is why the others do not.
    """
    failed: list[Exception] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            failed.extend(item for item in record.args or () if isinstance(item, Exception))

    log, listener = logging.getLogger("kafka.net.manager"), Listener(logging.WARNING)
    log.addHandler(listener)
    try:
        yield failed
    finally:
        log.removeHandler(listener)


def _broker_error(kafka: KafkaSettings, error: Exception) -> BrokerError:
    where = f"Kafka at {kafka.bootstrap} ({kafka.security_protocol})"
    if _is_login(error):
        return BrokerError(
            f"{where} does not let {kafka.username} in with {kafka.sasl_mechanism}: {error}.",
            "Correct COEVAL_KAFKA__USERNAME, COEVAL_KAFKA__PASSWORD or COEVAL_KAFKA__SASL_MECHANISM.",
        )
    if _is_certificate(error):
        return BrokerError(
            f"{where} and this client do not trust each other: {error}.",
            "Correct COEVAL_KAFKA__CA_FILE; where it asks for a certificate, CERT_FILE and KEY_FILE too.",
        )
    plain = kafka.security_protocol == "PLAINTEXT"
    return BrokerError(
        f"{where} refuses or does not answer: {error!r}.",
        f"{'Start it: coeval up. Or, where' if plain else 'See that it runs. Where'} it runs, see which protocol it "
        "expects of its clients: COEVAL_KAFKA__SECURITY_PROTOCOL.",
    )


def _tls(kafka: KafkaSettings, prefix: str) -> dict[str, str]:
    properties: dict[str, str] = {}
    if kafka.ca_file:
        properties |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(kafka.ca_file)}
    if kafka.cert_file and kafka.key_file:
        # A PEM keystore by its location is one file of key and chain; given apart, the client itself reads them.
        provider = f"{prefix}org.apache.kafka.common.config.provider.DirectoryConfigProvider"
        properties |= {
            "config.providers": "directory",
            "config.providers.directory.class": provider,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": _content(kafka.cert_file),
            "ssl.keystore.key": _content(kafka.key_file),
        }
    return properties


def _content(path: Path) -> str:
    return f"${{directory:{path.parent}:{path.name}}}"


def _password(kafka: KafkaSettings) -> str:
    return kafka.password.get_secret_value() if kafka.password else ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
