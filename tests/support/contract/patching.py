"""Breaking a module on purpose, in this process or in the child that submits the stream's jobs, and mending it again.

A module's source is changed and compiled anew, and the running functions take over the new code: whoever has imported
one runs it, and no class or constant changes its identity.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import _lru_cache_wrapper
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any


@contextmanager
def changed(module_name: str, old: str, new: str) -> Iterator[None]:
    """The module with each `old` in its source replaced by `new`, while the context lasts.

    Raises:
        LookupError: the source does not hold `old`: the rule is said in another way now.
    """
    module = importlib.import_module(module_name)
    source = inspect.getsource(module)
    if old not in source:
        raise LookupError(f"{module_name} does not say {old!r} any more: change the mutation with it.")
    broken = ModuleType(module_name)
    broken.__file__ = module.__file__
    exec(compile(source.replace(old, new), str(module.__file__), "exec", dont_inherit=True), broken.__dict__)
    originals, replacements = _functions(module), _functions(broken)
    codes = {name: function.__code__ for name, function in originals.items()}
    try:
        for name, function in originals.items():
            function.__code__ = replacements[name].__code__
        _forget(module)
        yield
    finally:
        for name, function in originals.items():
            function.__code__ = codes[name]
        _forget(module)


def _functions(module: ModuleType) -> dict[str, FunctionType]:
    """Every function and method that a module defines, by its qualified name."""
    found: dict[str, FunctionType] = {}
    for value in vars(module).values():
        if getattr(value, "__module__", "") == module.__name__:
            parts = vars(value).values() if isinstance(value, type) else (value,)
            for part in parts:
                function = _plain(part)
                if function is not None and function.__module__ == module.__name__:
                    found[function.__qualname__] = function
    return found


def _plain(value: Any) -> FunctionType | None:
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, _lru_cache_wrapper):
        value = value.__wrapped__
    value = getattr(value, "__func__", value)
    return value if isinstance(value, FunctionType) else None


def _forget(module: ModuleType) -> None:
    """Empty the module's caches: they hold what the other code said."""
    for value in vars(module).values():
        if isinstance(value, _lru_cache_wrapper):
            value.cache_clear()


_IN_THE_CHILD = '''
"""Changes the statements of stream jobs: put before everything else on a child's path, for tests of the tests."""

import json
import pathlib
from dataclasses import replace

from coeval_pipelines.streaming import sql

changes = json.loads((pathlib.Path(__file__).parent / "changes.json").read_text())
original = sql.source_job


def source_job(manifest, run, kafka):
    job = original(manifest, run, kafka)
    if run.source not in changes:
        return job
    old, new = changes[run.source]
    statements = tuple(statement.replace(old, new) for statement in job.statements)
    if statements == job.statements:
        raise LookupError(f"the job of {run.source} does not say {old!r} any more: change the mutation with it")
    return replace(job, statements=statements)


sql.source_job = source_job
'''


@contextmanager
def changed_jobs(changes: Mapping[str, tuple[str, str]]) -> Iterator[None]:
    """Child processes submit the stream jobs of these sources with a text in their SQL replaced."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "sitecustomize.py").write_text(_IN_THE_CHILD)
        (Path(directory) / "changes.json").write_text(json.dumps(changes))
        sys.path.insert(0, directory)
        try:
            yield
        finally:
            sys.path.remove(directory)
