"""A broker that lets nobody in without a certificate, a user and a password; everything it needs is made here."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from coeval.errors import BrokerError
from coeval.settings import KafkaSettings, Settings
from coeval_pipelines.local.artefacts import ensure_jars, java
from coeval_pipelines.local.components import Component, components
from coeval_pipelines.local.prepare import free_port
from coeval_pipelines.streaming.broker import Broker

PASSWORD = "pass'wo\"rd \\ 7"
"""Everything that has to be quoted somewhere on its way."""
_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Signed:
    """A private key and the certificate of it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """As PEM files: the certificate's and the key's."""
        encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.certificate.public_bytes(encoding))
        key.write_bytes(self.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
        return certificate, key


def sign(name: str, authority: Signed | None = None) -> Signed:
    """A certificate for 127.0.0.1 that an authority signs, or, without one, an authority of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    )
    return Signed(key, builder.sign(authority.key if authority else key, hashes.SHA256()))


def secured_settings(base: Settings, directory: Path) -> Settings:
    """Settings of a broker of that kind, with certificates in the directory. Nothing is started."""
    authority = sign("test authority")
    server = sign("broker", authority)
    ca, _ = authority.write(directory, "ca")
    client, client_key = sign("client", authority).write(directory, "client")
    certificate, key = server.write(directory, "server")
    (directory / "server.both.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    kafka = KafkaSettings(
        bootstrap=base.kafka.bootstrap,
        security_protocol="SASL_SSL",
        username="coeval",
        password=SecretStr(PASSWORD),
        ca_file=ca,
        cert_file=client,
        key_file=client_key,
    )
    return base.model_copy(update={"kafka": kafka})


@contextmanager
def secured_broker(settings: Settings) -> Iterator[None]:
    """That broker, while the context lasts."""
    jars = ensure_jars(settings)
    (part,) = components(settings, jars, ("broker",))
    part.cwd.mkdir(parents=True)
    part.log.parent.mkdir(parents=True, exist_ok=True)
    properties = part.cwd / "server.properties"
    properties.write_text(_properties(settings, part))
    scram = f"SCRAM-SHA-512=[name=coeval,password={PASSWORD}]"
    format_it = ["kafka.tools.StorageTool", "format", "--cluster-id=MkU3OEVBNTcwNTJENDM2Qk", "-c", str(properties)]
    classpath = ":".join(str(jar) for jar in jars.kafka)
    subprocess.run([java(), "-cp", classpath, *format_it, "--add-scram", scram], check=True, capture_output=True)
    with part.log.open("wb") as log, subprocess.Popen(part.command, cwd=part.cwd, stdout=log, stderr=log) as broker:
        try:
            _await(settings)
            yield
        finally:
            broker.kill()


def _await(settings: Settings) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while True:
        try:
            with Broker(settings.kafka) as admin:
                admin.topics()
            return
        except BrokerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def _properties(settings: Settings, part: Component) -> str:
    controller, inner = free_port(), free_port()
    directory = settings.kafka.ca_file.parent if settings.kafka.ca_file else part.cwd
    return f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{part.host}:{controller}
listeners=CLIENT://{part.address},INNER://{part.host}:{inner},CONTROLLER://{part.host}:{controller}
advertised.listeners=CLIENT://{part.address},INNER://{part.host}:{inner}
controller.listener.names=CONTROLLER
inter.broker.listener.name=INNER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,INNER:PLAINTEXT,CLIENT:SASL_SSL
listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.client.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.client.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={directory / "server.both.pem"}
ssl.truststore.type=PEM
ssl.truststore.location={directory / "ca.pem"}
log.dirs={part.cwd / "data"}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""
