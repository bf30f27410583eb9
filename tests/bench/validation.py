"""Checking many specs in one call: specs per second after start-up, compared with only reading their YAML."""

import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory

import yaml

from flowrun.runtime.project import Project

_ROOT = Path(__file__).parents[2]
_SPECS = 1000
_PASSES = 3
_AIM = 300


def main() -> None:
    """Print the table."""
    print(f"\nChecking {_SPECS} specs, specs a second on one core (most and median of {_PASSES} interleaved passes)\n")
    print(f"{'':38} {'most':>6} {'median':>7}    aim")
    with TemporaryDirectory() as folder:
        files = write_specs(Path(folder), _SPECS)
        validators: dict[str, Callable[[list[Path]], object]] = {
            "flowrun validate, tools imported": lambda files: _check(files, imports=True),
            "flowrun validate --no-import": lambda files: _check(files, imports=False),
            "yaml.load with libyaml, nothing checked": lambda files: [
                yaml.load(file.read_bytes(), yaml.CSafeLoader) for file in files
            ],
        }
        rates: dict[str, list[float]] = {label: [] for label in validators}
        for validate in validators.values():
            validate(files[:1])  # what is imported and compiled once is start-up
        for _ in range(_PASSES):
            for label, validate in validators.items():
                rates[label].append(_rate(validate, files))
    for label, found in rates.items():
        found.sort()
        aim = f"{_AIM:6}" if label.startswith("flowrun") else ""
        print(f"{label:38} {found[-1]:6.0f} {found[len(found) // 2]:7.0f} {aim}")


def write_specs(folder: Path, count: int) -> list[Path]:
    """Write copies of the weather spec under other names, without its few-shot examples, beside its tools."""
    copytree(_ROOT / "tools", folder / "tools", ignore=ignore_patterns("__pycache__"))
    copytree(_ROOT / "specs" / "templates", folder / "templates")
    before, messages, behind = _parts((_ROOT / "specs" / "weather.yaml").read_text(encoding="utf-8"))
    question = messages.rstrip().splitlines()[-1]
    files = []
    for number in range(count):
        text = f"{before}messages:\n{question}\n\n{behind}".replace("name: weather", f"name: weather_{number}", 1)
        files.append(folder / f"weather_{number}.yaml")
        files[-1].write_text(text, encoding="utf-8")
    return files


def _parts(text: str) -> tuple[str, str, str]:
    """Split a spec around its messages."""
    before, _, rest = text.partition("\nmessages:\n")
    messages, _, behind = rest.partition("\nstates:\n")
    return f"{before}\n", messages, f"states:\n{behind}"


def _check(files: list[Path], *, imports: bool) -> None:
    issues = Project(require_environment=False).check_all(files, imports=imports)
    assert not issues, issues


def _rate(validate: Callable[[list[Path]], object], files: list[Path]) -> float:
    begun = time.perf_counter()
    validate(files)
    return len(files) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
