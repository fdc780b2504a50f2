"""Claims about a real `feast apply` of the example catalog, in a copy of it: what it commits, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from coeval.client import read_manifest
from coeval.settings import Settings
from coeval_pipelines.control import ControlPlane
from tests.support.feast_server import ROOT, environment

FEAST = [str(Path(sys.executable).with_name("feast"))]
FAST = [sys.executable, "-m", "coeval_pipelines.catalog.feast_cli"]
"""The same command line as a child of `coeval apply`: it starts in two thirds of the time."""
STATE = ("registry.db", "manifest.json")

pytestmark = pytest.mark.timeout(300)


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
        env=environment(home, **extra),
        capture_output=True,
        text=True,
        check=False,
    )


def _coeval(project: Path, home: Path | None, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    code = "from coeval.cli import main; main()"
    environ = environment(home or project, **extra)
    if home is None:
        del environ["COEVAL_HOME"]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=project,
        env=environ,
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
    assert sum(len(item.features) for item in (*service.views, *service.derived)) == 40
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


def test_the_feast_command_itself_refuses_a_broken_catalog_and_changes_nothing(copy: tuple[Path, Path]) -> None:
    """What each mistake says is in test_broken_catalogs; here it is typed as anybody types it."""
    project, home = copy
    before = _state(home)
    _replace("households.py", '"basket_id", "store_id"', '"basket", "store_id"')(project)
    _replace("derived.py", "functions:spend_vs_usual", "functions:spend_vs_unusual")(project)
    done = _feast_apply(project, home, project, FEAST)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "2 mistakes in the catalog." in done.stderr
    assert "view latest_basket, field basket: source purchases has no column 'basket'." in done.stderr
    assert "derived view spend_vs_usual: The derived feature function" in done.stderr
    assert "Traceback" not in done.stderr
    assert _state(home) == before
    assert sorted(path.name for path in home.iterdir()) == sorted(STATE)


def test_both_commands_register_the_same(applied: tuple[Path, Path], tmp_path: Path) -> None:
    """What `feast apply` registered in the fixture, `coeval apply` registers too, to the byte."""
    project, home = applied
    done = _coeval(project, tmp_path / "other", "apply")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other" / "manifest.json").read_bytes() == (home / "manifest.json").read_bytes()


def test_a_file_that_does_not_run_is_named_with_its_line(copy: tuple[Path, Path]) -> None:
    project, home = copy
    before = _state(home)
    _replace("coupons.py", "count(per=", "cuont(per=")(project)
    done = _coeval(project, home, "plan")
    assert done.returncode == 2
    assert "feast apply failed: NameError: name 'cuont' is not defined" in done.stderr
    assert "Correct feature_repo/coupons.py:9, and try again." in done.stderr
    assert _state(home) == before


def test_a_plan_plans_what_is_sound_and_refuses_the_rest(copy: tuple[Path, Path]) -> None:
    project, home = copy
    before = _state(home)
    _replace("coupons.py", 'per=("7d", "30d")', 'per=("7d", "30d", "24h")')(project)
    _replace("stores.py", "tags=sla(", 'tags={"coeval.io/sla": "x"} | sla(')(project)
    _replace("households.py", "30 days old.", "a month old.")(project)
    done = _coeval(project, home, "plan", "--json")
    assert done.returncode == 2, done.stderr
    found = json.loads(done.stdout)
    assert {step["name"]: step["kind"] for step in found["steps"]} == {
        "coupon_propensity": "refused",
        "household_coupons": "new version",
        "household_profile": "unchanged",
        "household_savings": "unchanged",
        "household_spend": "unchanged",
        "household_store": "unchanged",
        "latest_basket": "changed in place",
        "spend_vs_usual": "unchanged",
        "store_sales": "refused",
    }
    (coupons,) = [step for step in found["steps"] if step["name"] == "household_coupons"]
    assert coupons["why"] == ["new count(*) over 24h by 1h (int64) as count_24h"]
    (sales,) = [step for step in found["steps"] if step["name"] == "store_sales"]
    assert [problem["where"] for problem in sales["problems"]] == ["view store_sales, tag coeval.io/sla"]
    assert found["refused"] is True
    assert _state(home) == before


def test_a_started_catalog_plans_applies_and_is_not_overwritten(tmp_path: Path) -> None:
    home = tmp_path / "state"
    done = _coeval(tmp_path, home, "init", "taxi")
    assert done.returncode == 0, done.stderr
    project = tmp_path / "taxi"
    planned = _coeval(project, home, "plan", "--json")
    assert planned.returncode == 0, planned.stderr
    assert {step["kind"] for step in json.loads(planned.stdout)["steps"]} == {"new"}
    applied = _coeval(project, home, "apply")
    assert applied.returncode == 0, applied.stderr
    manifest = read_manifest(home / "manifest.json")
    assert (manifest.project, manifest.tenant) == ("taxi", "taxi")
    assert [service.name for service in manifest.services] == ["checkout"]
    again = _coeval(tmp_path, home, "init", "taxi")
    assert again.returncode == 2
    assert "taxi/README.md is there already, and nothing is overwritten." in again.stderr


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
        "coupon_propensity": "changed in place",
        "household_store": "new version",
        "latest_basket": "new version",
    }
    assert {name for name in after if after[name].version != before[name].version} == {
        "household_store",
        "latest_basket",
    }


def test_validate_says_what_would_change_and_changes_nothing(copy: tuple[Path, Path]) -> None:
    project, home = copy
    before = _state(home)
    _replace("coupons.py", 'per=("7d", "30d")', 'per=("7d", "30d", "24h")')(project)
    done = _coeval(project, home, "catalog", "validate")
    assert done.returncode == 0, done.stderr
    assert "household_coupons          new version" in done.stdout
    assert _state(home) == before


def test_list_and_show_read_the_manifest(applied: tuple[Path, Path]) -> None:
    project, home = applied
    lines = {line["name"]: line for line in json.loads(_coeval(project, home, "catalog", "list", "--json").stdout)}
    assert lines["household_store"]["key"] == ["household_id", "store_id"]
    assert lines["household_spend"]["windows"] == ["1h", "24h", "7d", "30d"]
    shown = _coeval(project, home, "catalog", "show", "household_spend").stdout
    assert "sum(amount) over 30d by 24h" in shown
    assert "personal" in _coeval(project, home, "catalog", "show", "coupon_propensity").stdout


def test_apply_commits_whatever_the_environment_says_of_dry_runs(copy: tuple[Path, Path]) -> None:
    project, home = copy
    _replace("households.py", "30 days old.", "a month old.")(project)
    done = _coeval(project, home, "apply", COEVAL_CATALOG_DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    assert "a month old." in (home / "manifest.json").read_text()


def test_a_repository_keeps_its_state_beside_it_wherever_the_command_is_typed(
    copy: tuple[Path, Path], tmp_path: Path
) -> None:
    """By its own coeval.toml, for `coeval apply --repo` and `feast -c` alike; what stands where it is typed is not."""
    project, home = copy
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "coeval.toml").write_text('home = "wrong"')
    (project / "coeval.toml").write_text('home = "mine"')
    done = _coeval(elsewhere, None, "apply", "--repo", str(project / "feature_repo"))
    assert done.returncode == 0, done.stderr
    assert (project / "mine" / "manifest.json").read_bytes() == (home / "manifest.json").read_bytes()
    (project / "mine" / "manifest.json").unlink()
    environ = environment(home)
    del environ["COEVAL_HOME"]
    command = [*FAST, "-c", str(project / "feature_repo"), "apply"]
    done = subprocess.run(command, cwd=elsewhere, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (project / "mine" / "manifest.json").exists()
    assert [path.name for path in elsewhere.iterdir()] == ["coeval.toml"]


def test_what_cannot_be_read_stops_every_command_and_is_never_nothing(copy: tuple[Path, Path]) -> None:
    project, home = copy
    good = (home / "manifest.json").read_bytes()
    (home / "manifest.json").write_bytes(good[:-9])
    before = _state(home)
    for arguments in (("plan",), ("apply",), ("catalog", "validate"), ("catalog", "list")):
        done = _coeval(project, home, *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "cannot be read" in done.stderr
        assert "move it away" in done.stderr
        assert "Traceback" not in done.stderr
    done = _feast_apply(project, home, project)
    assert done.returncode == 2, done.stdout
    assert "Error: registry: The registered manifest" in done.stderr
    assert "Traceback" not in done.stderr
    assert _state(home) == before
    (home / "manifest.json").write_bytes(good)
    (home / "registry.db").write_bytes(b"\xff" * 50)
    done = _coeval(project, home, "plan")
    assert done.returncode == 2, done.stdout
    assert "registry.db cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_runs_is_missed_although_it_is_registered_no_more(copy: tuple[Path, Path]) -> None:
    project, home = copy
    manifest = read_manifest(home / "manifest.json")
    with closing(ControlPlane.open(Settings(home=home))) as control:
        control.save_manifest(manifest, 1)
        control.release(manifest.hash, 2)
    (home / "manifest.json").unlink()
    (home / "registry.db").unlink()
    (project / "feature_repo" / "services.py").unlink()
    done = _feast_apply(project, home, project)
    assert done.returncode == 2, done.stdout
    assert "service coupon_propensity: it is registered, and no file defines it any more." in done.stderr
    done = _coeval(project, home, "catalog", "validate", "--remove", "coupon_propensity")
    assert done.returncode == 0, done.stderr
    assert _state(home) == {}


def test_a_path_that_cannot_be_written_is_said_and_so_are_two_forms_at_once(
    applied: tuple[Path, Path], tmp_path: Path
) -> None:
    project, home = applied
    file = tmp_path / "file"
    file.write_text("in the way")
    for arguments in (
        ("init", "taxi", "--path", str(file)),
        ("catalog", "docs", "--out", str(file)),
        ("catalog", "lineage", "--svg", str(tmp_path / "none" / "a.svg")),
    ):
        done = _coeval(project, home, *arguments)
        assert done.returncode == 2, done.stderr
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
    done = _coeval(project, home, "catalog", "lineage", "--json", "--svg", str(tmp_path / "a.svg"))
    assert done.returncode == 2
    assert "Give one of --json, --mermaid and --svg." in done.stderr
    assert not (tmp_path / "a.svg").exists()
    done = _coeval(project, home, "init", "taxi", "--path", str(tmp_path / "my taxi"))
    assert f"cd '{tmp_path / 'my taxi'}' && coeval plan" in done.stderr
