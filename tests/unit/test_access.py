"""Credentials: whoever does not show exactly the right one is nobody."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coeval.access import acl
from coeval.access.credentials import ApiKeys, Caller, credential, new_key
from coeval.access.tenants import Grant, Tenant, Tenants, Tokens, edited, read_tenants
from coeval.access.tokens import KeySet, TokenReader, check_source
from coeval.errors import UsageError
from coeval.followed import Followed
from coeval.server.audit import Audit, entries_about

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ISSUER = "https://id.example"


def test_a_key_is_recognised_until_its_time_is_over() -> None:
    made = new_key("checkout", Grant(services=("risk",)), NOW + timedelta(days=1))
    keys = ApiKeys(Tenants(tenants={"bank": Tenant(home=Path(), keys=(made.key,))}))
    assert keys.recognise(made.text, NOW) == Caller("bank", "checkout", made.key.grant)
    assert keys.recognise(made.text, NOW + timedelta(days=1)) is None
    assert made.text.rpartition("_")[2] not in made.key.model_dump_json()


@pytest.mark.parametrize(
    "forge",
    [
        lambda text: text[:-1] + ("a" if text[-1] != "a" else "b"),
        lambda text: text + "x",
        lambda text: text.replace("cvl_", "cvl_0"),
        lambda text: text.rpartition("_")[0] + "_",
        lambda _: "cvl_",
        lambda _: "",
        lambda _: "cvl_\udcff_\udcff",
    ],
)
def test_a_key_that_was_tampered_with_is_nobodys(forge: Callable[[str], str]) -> None:
    made = new_key("checkout", Grant())
    keys = ApiKeys(Tenants(tenants={"bank": Tenant(home=Path(), keys=(made.key,))}))
    assert keys.recognise(forge(made.text), NOW) is None


def test_two_credentials_are_none() -> None:
    assert credential([(b"authorization", b"Bearer one")]) == "one"
    assert credential([(b"x-api-key", b"one")]) == "one"
    assert credential([(b"authorization", b"Bearer one"), (b"x-api-key", b"two")]) is None
    assert credential([(b"authorization", b"Basic one")]) is None
    assert credential([]) is None


def test_grants_are_patterns_and_deny_by_default() -> None:
    grant = Grant(services=("coupon_*",), sources=("purchases",))
    assert grant.reads("coupon_propensity")
    assert not grant.reads("churn")
    assert not Grant().reads("churn")
    assert grant.writes("purchases")
    assert not grant.writes("purchases2")
    with pytest.raises(ValueError, match="no PII class"):
        Grant(pii=frozenset({"secret"}))


@dataclass
class Issuer:
    """Signs tokens with its own keys, and publishes those."""

    path: Path

    def __post_init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.path.write_text(json.dumps({"keys": [self._public("RS256", self.rsa), self._public("ES256", self.ec)]}))

    @staticmethod
    def _public(algorithm: str, key: Any) -> dict[str, Any]:
        kind = jwt.algorithms.RSAAlgorithm if algorithm == "RS256" else jwt.algorithms.ECAlgorithm
        return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": algorithm, "alg": algorithm, "use": "sig"}

    def token(self, algorithm: str = "RS256", kid: str | None = None, key: Any = None, **claims: Any) -> str:
        """A token; claims of None are left out."""
        now = int(time.time())
        all_claims = {"iss": ISSUER, "aud": "bank", "sub": "checkout", "exp": now + 60, "iat": now} | claims
        signer = key or (self.rsa if algorithm == "RS256" else self.ec)
        kept = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode(kept, signer, algorithm=algorithm, headers={"kid": kid or algorithm})


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer") / "jwks.json")


@pytest.fixture(scope="module")
def reader(issuer: Issuer) -> TokenReader:
    def tenant(audience: str) -> Tenant:
        return Tenant(home=Path(), tokens=Tokens(issuer=ISSUER, audience=audience, jwks=str(issuer.path)))

    return TokenReader(Tenants(tenants={"bank": tenant("bank"), "shop": tenant("shop")}))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_says_who_and_what(issuer: Issuer, reader: TokenReader, algorithm: str) -> None:
    found = reader.recognise(issuer.token(algorithm, coeval={"services": ["risk"]}))
    assert found is not None
    caller, seconds = found
    assert caller == Caller("bank", "checkout", Grant(services=("risk",)))
    assert 50 < seconds <= 60
    # Whose it is says the audience, which is signed; a claim about the tenant says nothing.
    other = reader.recognise(issuer.token(aud="shop", tenant="bank"))
    assert other is not None
    assert other[0] == Caller("shop", "checkout", Grant())


def _unsigned(issuer: Issuer) -> str:
    none = jwt.utils.base64url_encode(b'{"alg":"none","kid":"RS256"}').decode()
    return f"{none}.{issuer.token().split('.')[1]}."


def _hmac_by_the_public_key(issuer: Issuer) -> str:
    pem = issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"RS256"}')
    payload = issuer.token().split(".")[1].encode()
    mac = hmac.new(pem, header + b"." + payload, hashlib.sha256).digest()
    return (header + b"." + payload + b"." + jwt.utils.base64url_encode(mac)).decode()


FORGERIES: dict[str, Callable[[Issuer], str]] = {
    "expired": lambda issuer: issuer.token(exp=int(time.time()) - 60),
    "never expires": lambda issuer: issuer.token(exp=None),
    "not yet valid": lambda issuer: issuer.token(nbf=int(time.time()) + 60),
    "another audience": lambda issuer: issuer.token(aud="mill"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "two audiences": lambda issuer: issuer.token(aud=["bank", "shop"]),
    "another issuer": lambda issuer: issuer.token(iss="https://other.example"),
    "nobody": lambda issuer: issuer.token(sub=None),
    "another's signature": lambda issuer: issuer.token(
        key=rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ),
    "an unknown key": lambda issuer: issuer.token(kid="other"),
    "the key of the other algorithm": lambda issuer: issuer.token("RS256", kid="ES256"),
    "alg none": _unsigned,
    "HMAC by the public key": _hmac_by_the_public_key,
    "an unknown grant": lambda issuer: issuer.token(coeval={"everything": True}),
    "a grant that is none": lambda issuer: issuer.token(coeval="*"),
    "cut off": lambda issuer: issuer.token()[:-10],
    "garbage": lambda _: "ey.ey.ey",
    "empty": lambda _: "",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_is_nobodys(issuer: Issuer, reader: TokenReader, forgery: str) -> None:
    assert reader.recognise(FORGERIES[forgery](issuer)) is None


def test_keys_are_fetched_again_but_not_for_every_stranger(issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    now = 0.0
    keys = KeySet(str(path), clock=lambda: now)
    assert keys.find("RS256") is None  # There is no file yet.
    path.write_text(issuer.path.read_text())
    assert keys.find("RS256") is None
    now = 31.0
    assert keys.find("RS256") is not None
    path.write_text("{}")
    assert keys.find("RS256") is not None
    now = 1000.0
    assert keys.find("RS256") is not None  # What cannot be read leaves what is known.


@pytest.mark.parametrize("source", ["http://id.example/jwks", "ftp://id.example/jwks", "file:///etc/passwd"])
def test_keys_are_not_fetched_over_what_can_be_tampered_with(source: str) -> None:
    with pytest.raises(UsageError):
        check_source(source)


def test_tenants_share_no_audience(issuer: Issuer) -> None:
    tenant = Tenant(home=Path(), tokens=Tokens(issuer=ISSUER, audience="bank", jwks=str(issuer.path)))
    with pytest.raises(UsageError, match="same issuer and audience"):
        TokenReader(Tenants(tenants={"bank": tenant, "shop": tenant}))


def test_tenants_are_kept_for_the_owner_alone_and_followed(tmp_path: Path) -> None:
    path = tmp_path / "tenants.json"
    now = 0.0
    watched = Followed(lambda: path, read_tenants, clock=lambda: now)
    with edited(path) as box:
        box[0] = box[0].with_tenant("bank", Tenant(home=tmp_path))
    assert path.stat().st_mode & 0o077 == 0
    assert watched.now().tenants == {}
    now = 2.0
    assert watched.now() == read_tenants(path)
    path.write_text("{")
    now = 4.0
    assert list(watched.now().tenants) == ["bank"]
    with pytest.raises(UsageError, match="cannot be read"), edited(path):
        pass


def test_a_tenants_name_cannot_be_a_pattern() -> None:
    for name in ("*", "a:b", "a*", "", "A"):
        with pytest.raises(ValueError):
            Tenants(tenants={name: Tenant(home=Path())})


def test_a_writers_commands_administer_nothing() -> None:
    assert not any(rule.startswith("+@") for rule in acl.writer("bank", "secret").rules)


def test_a_redis_user_holds_a_hash_and_one_tenants_keys() -> None:
    user = acl.reader("bank", "secret")
    assert "secret" not in user.line
    assert [rule for rule in user.rules if rule.startswith("~")] == ["~bank:*"]
    assert "allkeys" not in user.line


def test_a_key_of_digests_is_whole_or_refused(tmp_path: Path) -> None:
    first, second = Audit(tmp_path), Audit(tmp_path)
    first.read("bank", "me", "risk", {"f": "personal"}, {"card_id": [7]}, "r1")
    second.read("bank", "me", "risk", {"f": "personal"}, {"card_id": [7]}, "r2")
    found = [json.loads(line)["request"] for line in entries_about(tmp_path, "bank", {"card_id": 7})]
    assert found == ["r1", "r2"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("audit.key")] == ["audit.key"]
    (tmp_path / "audit.key").write_bytes(b"")
    with pytest.raises(UsageError, match="damaged"):
        Audit(tmp_path)
    with pytest.raises(UsageError, match="no audit trail"):
        list(entries_about(tmp_path / "elsewhere", "bank", {"card_id": 7}))
    first.close()
    second.close()
