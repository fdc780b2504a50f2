"""Claims about mistakes: each is made in a copy of the example catalog; a real `feast apply` says how to mend it."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coeval.client import read_manifest
from coeval_pipelines.catalog.errors import NOTHING_CHANGED
from tests.support.feast_server import ROOT, Done, FeastServer, feast_server

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server() -> Iterator[FeastServer]:
    with feast_server() as running:
        yield running


@pytest.fixture(scope="module")
def applied(server: FeastServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example catalog, registered."""
    project = tmp_path_factory.mktemp("applied") / "project"
    shutil.copytree(ROOT / "feature_repo", project / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    done = server.run(project / "feature_repo", project / "state", "apply", project)
    assert done.returncode == 0, done.stderr
    return project


def _edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(project: Path) -> None:
        file = project / "feature_repo" / path
        text = file.read_text()
        assert text.count(old) >= 1, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new, 1))

    return edit


def _all(*edits: Callable[[Path], None]) -> Callable[[Path], None]:
    def edit(project: Path) -> None:
        for each in edits:
            each(project)

    return edit


@dataclass(frozen=True, slots=True)
class Mistake:
    """An edit, the error that it leads to, how to mend it, and the file and the text of the line that is named."""

    edit: Callable[[Path], None]
    what: str
    fix: str
    file: str
    line: str

    def error(self, project: Path) -> str:
        """The whole text that `feast apply` prints."""
        place = f"\n  in   {self._place(project)}" if self.file else ""
        return f"Error: {self.what}\n  fix  {self.fix}{place}\n\n{NOTHING_CHANGED}\n"

    def _place(self, project: Path) -> str:
        lines = (project / "feature_repo" / self.file).read_text().splitlines()
        return f"feature_repo/{self.file}:{next(number for number, text in enumerate(lines, 1) if self.line in text)}"


_PICKLED = """
from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64


@on_demand_feature_view(
    sources=[household_spend[["sum_amount_7d"]], checkout],
    schema=[Field(name="week_share", dtype=Float64, tags={"coeval.io/pii": "none"})],
    owner="checkout@grocer.example",
)
def week_share(inputs):
    return inputs[["sum_amount_7d"]].rename(columns={"sum_amount_7d": "week_share"})
"""


def _append(path: str, text: str) -> Callable[[Path], None]:
    def edit(project: Path) -> None:
        with (project / "feature_repo" / path).open("a") as file:
            file.write(text)

    return edit


_RAW_WINDOW = """aggregations=[
        *_redeemed.aggregations,
        Aggregation(
            function="count", name="count_24h", time_window=timedelta(hours=24), slide_interval=timedelta(hours=5)
        ),
    ]"""
_RAW_SCHEMA = """schema=[
        *(field for field in _sales.schema if field.name != "sum_amount_7d"),
        Field(name="sum_amount_7d", dtype=Float64, tags={"coeval.io/pii": "none"}),
    ]"""
_STRING_STORE = 'name="store",\n    join_keys=["store_id"],\n    value_type=ValueType.STRING'
_WITHOUT_PII = 'schema=[*take(purchases, "store_id", "amount", "quantity"), Field(name="basket_id", dtype=Int64)]'

MISTAKES = {
    "a misspelt feature in a service": Mistake(
        _edit("services.py", '"min_amount_30d"', '"min_amont_30d"'),
        "service coupon_propensity, feature household_spend:min_amont_30d: it is not defined.",
        "Did you mean min_amount_30d?",
        "services.py",
        '"min_amont_30d"',
    ),
    "a key of another type than its column": Mistake(
        _edit(
            "entities.py",
            '["store_id"],\n    value_type=ValueType.INT64',
            '["store_id"],\n    value_type=ValueType.STRING',
        ),
        "source purchases, key store_id: entity store says that it is string, and the source int64.",
        "Make them the same: value_type= of the entity, or column() of the source.",
        "sources.py",
        'column("store_id"',
    ),
    "a key that may be null": Mistake(
        _edit("sources.py", '"Where.", pii="none", required=True', '"Where.", pii="none"'),
        "source purchases, key store_id: it may be null, and a key (of entity store) cannot.",
        'Declare column("store_id", ..., required=True).',
        "sources.py",
        'column("store_id"',
    ),
    "an aggregation of a later release": Mistake(
        _edit("households.py", 'of("quantity", "sum"', 'of("quantity", "count_distinct"'),
        "view household_spend, field count_distinct_quantity: count_distinct is not supported yet: "
        "it needs a mergeable sketch, a state of variable width.",
        "Ask for another function or column; the functions are "
        "count, sum, mean, min, max, variance, stddev, first, last.",
        "households.py",
        "_spend = windowed(",
    ),
    "a window that its hop does not divide": Mistake(
        _all(
            _edit("coupons.py", "import StreamFeatureView", "import Aggregation, StreamFeatureView"),
            _edit("coupons.py", "from feast", "from datetime import timedelta\n\nfrom feast"),
            _edit("coupons.py", "aggregations=_redeemed.aggregations", _RAW_WINDOW),
        ),
        "view household_coupons, feature count_24h: a window of 24h is not a multiple of its hop 5h.",
        "Choose a slide_interval= that divides time_window=, and divides a day or is whole days.",
        "coupons.py",
        'name="count_24h"',
    ),
    "a field without a PII class": Mistake(
        _all(
            _edit("households.py", "import FeatureView, ", "import FeatureView, Field, "),
            _edit("households.py", "from coeval_pipelines", "from feast.types import Int64\nfrom coeval_pipelines"),
            _edit(
                "households.py", 'schema=take(purchases, "basket_id", "store_id", "amount", "quantity")', _WITHOUT_PII
            ),
        ),
        "view latest_basket, field basket_id: it has no PII class.",
        'Field(name="basket_id", ..., tags={"coeval.io/pii": "personal"}), one of none, pseudonymous, personal, '
        'sensitive; or for all of the project Project(..., tags={"coeval.io/default-pii": "pseudonymous"}).',
        "households.py",
        'name="basket_id"',
    ),
    "a misspelt tag": Mistake(
        _edit(
            "stores.py",
            'tags=sla(freshness="10s", p99_ms=20, availability=0.999),',
            'tags={"coeval.io/sla-freshnes": "10s"},',
        ),
        "view household_store, tag coeval.io/sla-freshnes: it is not known on a view.",
        "Did you mean coeval.io/sla-freshness?",
        "stores.py",
        'sla-freshnes"',
    ),
    "a field of another type than its aggregate": Mistake(
        _all(
            _edit("stores.py", "import StreamFeatureView", "import Field, StreamFeatureView"),
            _edit("stores.py", "from coeval_pipelines", "from feast.types import Float64\nfrom coeval_pipelines"),
            _edit("stores.py", "schema=_sales.schema", _RAW_SCHEMA),
        ),
        "view store_sales, feature sum_amount_7d: it is declared as float64, and the result is a decimal(38,2).",
        "Declare it as decimal(38,2), or use schema=windowed(...).schema.",
        "stores.py",
        'field.name != "sum_amount_7d"',
    ),
    "a condition on a column that is not there": Mistake(
        _all(
            _edit("coupons.py", 'pii="pseudonymous"))', 'pii="pseudonymous"), where="campain_id > 10")'),
            _edit("coupons.py", "availability=0.999),", "availability=0.999) | _redeemed.tags,"),
        ),
        "view household_coupons, where: there is no column campain_id.",
        "Did you mean campaign_id?",
        "coupons.py",
        "campain_id > 10",
    ),
    "a pickled function": Mistake(
        _append("derived.py", _PICKLED),
        "derived view week_share: its function is pickled by Feast and not named by an import path, "
        "so serving and training cannot share it.",
        "Move week_share to a module, over numpy columns instead of a DataFrame, and name it: "
        'derived_view(name="week_share", function="feature_repo.functions:week_share", '
        'inputs=[household_spend[["sum_amount_7d"]]], request=checkout, schema=[...]).',
        "derived.py",
        "def week_share",
    ),
    "a function that is not there": Mistake(
        _edit("derived.py", "functions:spend_vs_usual", "functions:spend_vs_unusual"),
        "derived view spend_vs_usual: The derived feature function feature_repo.functions:spend_vs_unusual "
        "cannot be imported: module 'feature_repo.functions' has no attribute 'spend_vs_unusual'.",
        "Did you mean spend_vs_usual?",
        "derived.py",
        "spend_vs_usual = derived_view(",
    ),
    "a column of another type than on the topic": Mistake(
        _edit("sources.py", '"campaign_id", "int64"', '"campaign_id", "string"'),
        "source coupon_redemptions: what is on its topic could not be read any more: "
        "column campaign_id: int64 -> string.",
        "Undo it, or declare what is new as a source of another name, with a topic of its own. To break with what is "
        "there: coeval apply --break coupon_redemptions (with feast: COEVAL_BREAK=coupon_redemptions feast apply).",
        "sources.py",
        "coupon_redemptions = KafkaSource(",
    ),
    "a view that vanished": Mistake(
        _all(
            lambda project: (project / "feature_repo" / "coupons.py").unlink(),
            _edit("services.py", "from coupons import household_coupons\n", ""),
            _edit("services.py", "        household_coupons,\n", ""),
        ),
        "view household_coupons: it is registered, and no file defines it any more.",
        "Put it back, or let it go: coeval apply --remove household_coupons "
        "(with feast: COEVAL_REMOVE=household_coupons feast apply).",
        "",
        "",
    ),
}
"""Each is one thing that people do, and the whole answer to it."""


def _made(applied: Path, tmp_path: Path, edit: Callable[[Path], None]) -> Path:
    project = tmp_path / "project"
    shutil.copytree(applied, project)
    edit(project)
    return project


def _apply(server: FeastServer, project: Path, **extra: str) -> Done:
    return server.run(project / "feature_repo", project / "state", "apply", project, **extra)


def _state(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((project / "state").iterdir())}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line_and_how_to_mend_it_and_changes_nothing(
    server: FeastServer, applied: Path, tmp_path: Path, mistake: Mistake
) -> None:
    project = _made(applied, tmp_path, mistake.edit)
    before = _state(project)
    done = _apply(server, project)
    assert done.returncode == 2, done.stdout
    assert done.stderr == mistake.error(project)
    assert _state(project) == before


def test_all_mistakes_are_reported_at_once_and_what_waits_for_them_is_not(
    server: FeastServer, applied: Path, tmp_path: Path
) -> None:
    """The key that may be null breaks four views, and these a derived view and the service: one mistake, said once."""
    made = [
        MISTAKES[name]
        for name in (
            "a key that may be null",
            "a window that its hop does not divide",
            "a field without a PII class",
            "a pickled function",
        )
    ]
    project = _made(applied, tmp_path, _all(*(mistake.edit for mistake in made)))
    before = _state(project)
    done = _apply(server, project)
    assert done.returncode == 2
    assert "4 mistakes in the catalog." in done.stderr
    assert done.stderr.count("  fix  ") == 4
    for mistake in made:
        assert mistake.error(project).removeprefix("Error: ").partition("\n\n")[0] in done.stderr
    assert _state(project) == before


def test_a_first_apply_that_fails_leaves_nothing_behind(server: FeastServer, applied: Path, tmp_path: Path) -> None:
    project = _made(applied, tmp_path, MISTAKES["a misspelt tag"].edit)
    done = server.run(project / "feature_repo", tmp_path / "fresh", "apply", project)
    assert done.returncode == 2
    assert not (tmp_path / "fresh").exists()


def test_teardown_is_refused(server: FeastServer, applied: Path, tmp_path: Path) -> None:
    project = _made(applied, tmp_path, lambda project: None)
    before = _state(project)
    done = server.run(project / "feature_repo", project / "state", "teardown", project)
    assert done.returncode == 1
    assert "Nothing was changed" in done.stderr
    assert _state(project) == before


def test_a_source_breaks_with_its_topic_when_it_is_named(server: FeastServer, applied: Path, tmp_path: Path) -> None:
    project = _made(applied, tmp_path, MISTAKES["a column of another type than on the topic"].edit)
    done = _apply(server, project, COEVAL_BREAK="coupon_redemptions")
    assert done.returncode == 0, done.stderr
    source = read_manifest(project / "state" / "manifest.json").sources["coupon_redemptions"]
    assert str(source.field("campaign_id").type) == "string"


def test_a_view_goes_when_it_is_named(server: FeastServer, applied: Path, tmp_path: Path) -> None:
    project = _made(applied, tmp_path, MISTAKES["a view that vanished"].edit)
    done = _apply(server, project, COEVAL_REMOVE="household_coupons")
    assert done.returncode == 0, done.stderr
    assert "household_coupons" not in read_manifest(project / "state" / "manifest.json").views


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("household_spend", "removal of household_spend: the files still define it."),
        ("household_spent", "removal of household_spent: nothing of that name is registered."),
    ],
)
def test_a_removal_must_remove_something(
    server: FeastServer, applied: Path, tmp_path: Path, name: str, said: str
) -> None:
    project = _made(applied, tmp_path, lambda project: None)
    before = _state(project)
    done = _apply(server, project, COEVAL_REMOVE=name)
    assert done.returncode == 2
    assert said in done.stderr
    assert _state(project) == before


_SET_A_TRAP = """
import os, pickle, sys, types
from importlib.util import find_spec
stub = types.ModuleType("feast")
stub.__path__ = list(find_spec("feast").submodule_search_locations)
sys.modules["feast"] = stub  # the protos alone: Feast itself takes seconds to import
from feast.protos.feast.core.Registry_pb2 import Registry

class Trap:
    def __reduce__(self):
        return os.mkdir, (sys.argv[2],)

registry = Registry.FromString(open(sys.argv[1], "rb").read())
spec = registry.on_demand_feature_views[0].spec
body, transformation = pickle.dumps(Trap()), spec.feature_transformation
match sys.argv[3]:
    case "function":
        transformation.user_defined_function.body, transformation.user_defined_function.body_text = body, ""
    case "ibis":
        transformation.substrait_transformation.ibis_function = body
        transformation.substrait_transformation.substrait_plan = b"x"
        spec.mode = "substrait"
    case "source":
        transformation.user_defined_function.body_text = f"import os; os.mkdir({sys.argv[2]!r})"
open(sys.argv[1], "wb").write(registry.SerializeToString())
sys.stdout.buffer.write(body)
"""


@pytest.mark.parametrize("kind", ["function", "ibis", "source"])
def test_a_registry_that_holds_code_is_opened_without_running_any(
    server: FeastServer, applied: Path, tmp_path: Path, kind: str
) -> None:
    """Feast runs every function that its registry holds; Coeval leaves them out before Feast sees them."""
    project = _made(applied, tmp_path, lambda project: None)
    trap, registry = tmp_path / "unpickled", project / "state" / "registry.db"
    command = [sys.executable, "-W", "ignore", "-c", _SET_A_TRAP, str(registry), str(trap), kind]
    body = subprocess.run(command, check=True, capture_output=True).stdout
    done = _apply(server, project)
    assert done.returncode == 0, done.stderr
    assert "Left out of the registry: definitions that hold code (1)." in done.stderr
    assert not trap.exists()
    pickle.loads(body)
    assert trap.exists(), "the trap works"
