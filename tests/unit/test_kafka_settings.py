"""The settings of the broker connection, and what clients are given of them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, SaslAuthenticationFailedError
from pydantic import SecretStr, ValidationError

from coeval.errors import BrokerError
from coeval.settings import KafkaSettings, Settings
from coeval_pipelines.kafka import SHADED, answering, client_options, java_properties

SECRET = 'sw0rd"fish\\'


def secured() -> KafkaSettings:
    return KafkaSettings(
        bootstrap="broker:9093",
        security_protocol="SASL_SSL",
        username="coeval",
        password=SecretStr(SECRET),
        ca_file=Path("ca.pem"),
        cert_file=Path("client.pem"),
        key_file=Path("client.key"),
    )


def test_without_security_a_client_is_told_the_address_only() -> None:
    kafka = KafkaSettings(bootstrap="broker:9092")
    assert client_options(kafka) == {"bootstrap_servers": "broker:9092", "security_protocol": "PLAINTEXT"}
    assert java_properties(kafka) == {"bootstrap.servers": "broker:9092"}


def test_java_clients_get_the_login_class_that_their_jar_has() -> None:
    name = "org.apache.kafka.common.security.scram.ScramLoginModule"
    assert java_properties(secured())["sasl.jaas.config"].startswith(f"{name} required ")
    assert java_properties(secured(), SHADED)["sasl.jaas.config"].startswith(f"{SHADED}{name} required ")


def test_a_password_is_quoted_for_java() -> None:
    assert java_properties(secured())["sasl.jaas.config"].endswith(r'password="sw0rd\"fish\\";')


def test_the_private_key_is_named_not_copied() -> None:
    properties = java_properties(secured())
    assert properties["ssl.keystore.key"] == f"${{directory:{Path.cwd()}:client.key}}"


def test_a_password_is_in_no_text_of_the_settings() -> None:
    settings = Settings(kafka=secured())
    assert SECRET not in repr(settings)
    assert SECRET not in "".join(settings.variables().values())
    assert SECRET not in settings.model_dump_json()


def test_a_child_process_gets_the_same_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(kafka=secured())
    for name, value in {**settings.variables(), **settings.secrets()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert Settings().kafka == settings.kafka


def test_a_login_without_a_password_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs a username and a password"):
        KafkaSettings(security_protocol="SASL_SSL", username="coeval")


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="belong together"):
        KafkaSettings(security_protocol="SSL", cert_file=Path("client.pem"))


@pytest.mark.parametrize(
    ("failure", "said", "variable"),
    [
        (SaslAuthenticationFailedError("no"), "does not let coeval in with SCRAM-SHA-512", "COEVAL_KAFKA__PASSWORD"),
        (
            KafkaConnectionError("Handshake failed: CERTIFICATE_VERIFY_FAILED"),
            "trust each other",
            "COEVAL_KAFKA__CA_FILE",
        ),
        (KafkaConnectionError("socket disconnected"), "does not answer", "COEVAL_KAFKA__SECURITY_PROTOCOL"),
    ],
)
def test_of_many_attempts_the_one_that_says_most_is_told(failure: Exception, said: str, variable: str) -> None:
    log = logging.getLogger("kafka.net.manager")
    with pytest.raises(BrokerError, match=said) as caught, answering(secured()):
        for seen in (KafkaConnectionError("hung up"), failure, KafkaConnectionError("hung up")):
            log.warning("Bootstrap connection to %s failed: %s", "bootstrap-0", seen)
        raise KafkaTimeoutError("Unable to bootstrap")
    assert variable in caught.value.instruction
    assert SECRET not in str(caught.value)


def test_without_attempts_the_error_itself_is_told() -> None:
    with pytest.raises(BrokerError, match="KafkaTimeoutError"), answering(KafkaSettings()):
        raise KafkaTimeoutError("request timed out")
