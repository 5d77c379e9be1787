"""What stands at the front door: few names, the ones that are promised, and nothing heavy behind them."""

import subprocess
import sys

import pytest

import ketch

HEAVY = ("numpy", "pandas", "sklearn", "flask", "onnxruntime", "uvicorn", "scipy", "pyarrow", "rich")


def test_the_front_door_holds_its_names_and_no_more() -> None:
    assert sorted(ketch.__all__) == ketch.__all__
    assert len(ketch.__all__) <= 16
    for name in ketch.__all__:
        assert callable(getattr(ketch, name)), name


def test_functions_at_the_front_door_are_not_hidden_by_modules_of_their_name() -> None:
    import ketch.pack
    import ketch.serve.routes

    assert ketch.pack.__name__ == "pack"
    assert ketch.serve.__name__ == "serve"
    assert not isinstance(ketch.pack, type(sys))


def test_importing_ketch_imports_nothing_heavy() -> None:
    for what in ("ketch", "ketch.cli", "ketch.client", "ketch.predict"):
        code = f"import sys, {what}; print(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "", what


def test_an_unknown_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = ketch.nothing
    assert dir(ketch) == ketch.__all__
