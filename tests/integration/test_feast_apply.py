"""Claims about a real `feast apply` of the example catalog, in a copy of it: what it commits, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coeval.client import read_manifest

ROOT = Path(__file__).parents[2]
FEAST = [str(Path(sys.executable).with_name("feast"))]
FAST = [sys.executable, "-m", "coeval_pipelines.catalog.feast_cli"]
"""The same command line as a child of `coeval apply`: it starts in two thirds of the time."""
STATE = ("registry.db", "manifest.json")

pytestmark = pytest.mark.timeout(300)


def _environment(home: Path, **extra: str) -> dict[str, str]:
    # The copy's own functions are to be imported, not those of the checkout that the tests run from.
    paths = [path for path in sys.path if path and Path(path) != ROOT]
    return os.environ | {"COEVAL_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)} | extra


def _feast_apply(
    project: Path, home: Path, cwd: Path, feast: Sequence[str] = FAST, **extra: str
) -> subprocess.CompletedProcess[str]:
    return _feast(project, home, cwd, "apply", feast, **extra)


def _feast(
    project: Path, home: Path, cwd: Path, command: str, feast: Sequence[str] = FAST, **extra: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*feast, "-c", str(project / "feature_repo"), command],
        cwd=cwd,
        env=_environment(home, **extra),
        capture_output=True,
        text=True,
        check=False,
    )


def _coeval(project: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import typer; from coeval_pipelines.catalog.commands import register; "
        "app = typer.Typer(pretty_exceptions_enable=False); register(app); app()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=project,
        env=_environment(home),
        capture_output=True,
        text=True,
        check=False,
    )


def _state(home: Path) -> dict[str, bytes]:
    return {name: (home / name).read_bytes() for name in STATE if (home / name).exists()}


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the example catalog, applied by the feast command line."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "feature_repo", project / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    home = project / "state" / "deep"
    done = _feast_apply(project, home, project, FEAST, PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    assert "Manifest" in done.stdout
    assert done.stderr == ""
    return project, home


@pytest.fixture
def copy(applied: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The applied catalog with its state, to be edited."""
    shutil.copytree(applied[0], tmp_path / "project")
    return tmp_path / "project", tmp_path / "project" / "state" / "deep"


def test_the_example_catalog_has_what_a_model_reads(applied: tuple[Path, Path]) -> None:
    manifest = read_manifest(applied[1] / "manifest.json")
    (service,) = manifest.services
    assert manifest.tenant == "grocer"
    assert sum(len(item.features) for item in (*service.views, *service.derived)) == 34
    assert {item.view for item in (*service.views, *service.derived)} == {
        *manifest.views,
        *(view.name for view in manifest.derived_views),
    }
    assert {tuple(field.name for field in view.key) for view in manifest.views.values()} == {
        ("household_id",),
        ("store_id",),
        ("household_id", "store_id"),
    }
    for view in manifest.views.values():
        assert all((view.owner, view.description, view.sla.freshness))
        assert all(field.pii and field.description for field in view.features)
    assert [source.history for source in manifest.event_sources] == [
        "demo/history/coupon_redemptions",
        "demo/history/purchases",
    ]


def test_the_manifest_depends_on_no_hash_seed_checkout_or_directory(applied: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "another" / "checkout"
    shutil.copytree(applied[0] / "feature_repo", elsewhere / "feature_repo")
    done = _feast_apply(elsewhere, Path("relative"), tmp_path, PYTHONHASHSEED="2")
    assert done.returncode == 0, done.stderr
    # A relative COEVAL_HOME counts from the directory of the repository, wherever the command was typed.
    assert (elsewhere / "relative" / "manifest.json").read_bytes() == (applied[1] / "manifest.json").read_bytes()


def _replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(project: Path) -> None:
        file = project / "feature_repo" / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            _replace("households.py", 'timestamp_field="purchased_at"', 'timestamp_field="event_id"'),
            ["view household_spend: windows run over the event time", "in   feature_repo/households.py:"],
        ),
        (
            _replace("derived.py", "functions:spend_vs_usual", "functions:spend_vs_unusual"),
            ["derived view spend_vs_usual", "spend_vs_unusual cannot be imported", "derived.py:"],
        ),
        (
            _replace("households.py", '"basket_id", "store_id"', '"basket", "store_id"'),
            [
                "view latest_basket, field basket: source purchases has no column 'basket'.",
                "fix  Did you mean basket_id?",
                "in   feature_repo/households.py:",
            ],
        ),
    ],
    ids=["refused when compiled", "function that is not there", "refused by a helper in the file"],
)
def test_a_broken_catalog_changes_nothing_and_says_why(
    copy: tuple[Path, Path], edit: Callable[[Path], None], said: list[str]
) -> None:
    project, home = copy
    before = _state(home)
    edit(project)
    done = _feast_apply(project, home, project, FEAST)
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(text in done.stderr for text in said), done.stderr
    assert "Traceback" not in done.stderr
    assert _state(home) == before
    assert sorted(path.name for path in home.iterdir()) == sorted(STATE)


def test_a_first_apply_that_fails_leaves_nothing_behind(copy: tuple[Path, Path], tmp_path: Path) -> None:
    project, _ = copy
    _replace("stores.py", "entities=[store]", 'entities=[store], version="v2"')(project)
    done = _feast_apply(project, tmp_path / "fresh", project)
    assert done.returncode == 2
    assert "view store_sales: a pinned version (v2) is not supported" in done.stderr
    assert _state(tmp_path / "fresh") == {}


def test_an_edit_reaches_the_manifest_even_where_feast_sees_no_change(copy: tuple[Path, Path]) -> None:
    """Feast keeps a registered view whose source or order of entities alone has changed."""
    project, home = copy
    before = read_manifest(home / "manifest.json").views
    _replace("stores.py", "entities=[household, store]", "entities=[store, household]")(project)
    _replace("households.py", 'take(purchases, "basket_id", ', 'take(purchases, "quantity", ')(project)
    text = (project / "feature_repo" / "households.py").read_text()
    (project / "feature_repo" / "households.py").write_text(text.replace('"amount", "quantity")', '"amount")'))
    done = _coeval(project, home, "apply", "--json")
    assert done.returncode == 0, done.stderr
    after = read_manifest(home / "manifest.json").views
    assert [field.name for field in after["household_store"].key] == ["store_id", "household_id"]
    assert {change["name"]: change["kind"] for change in json.loads(done.stdout)["changes"]} == {
        "coupon_propensity": "changed",
        "household_store": "restated",
        "latest_basket": "restated",
    }
    assert {name for name in after if after[name].version != before[name].version} == {
        "household_store",
        "latest_basket",
    }


def test_teardown_is_refused(copy: tuple[Path, Path]) -> None:
    project, home = copy
    before = _state(home)
    done = _feast(project, home, project, "teardown")
    assert done.returncode == 1
    assert "Nothing was changed" in done.stderr
    assert _state(home) == before


def test_validate_says_what_would_change_and_changes_nothing(copy: tuple[Path, Path]) -> None:
    project, home = copy
    before = _state(home)
    _replace("coupons.py", 'per=("7d", "30d")', 'per=("7d", "30d", "24h")')(project)
    done = _coeval(project, home, "catalog", "validate")
    assert done.returncode == 0, done.stderr
    assert "household_coupons       restated" in done.stdout
    assert _state(home) == before


def test_list_and_show_read_the_manifest(applied: tuple[Path, Path]) -> None:
    project, home = applied
    lines = {line["name"]: line for line in json.loads(_coeval(project, home, "catalog", "list", "--json").stdout)}
    assert lines["household_store"]["key"] == ["household_id", "store_id"]
    assert lines["household_spend"]["windows"] == ["1h", "24h", "7d", "30d"]
    shown = _coeval(project, home, "catalog", "show", "household_spend").stdout
    assert "sum(amount) over 30d by 24h" in shown
    assert "personal" in _coeval(project, home, "catalog", "show", "coupon_propensity").stdout
