"""Reads the chat template that a spec gives. Nothing of vLLM is needed for it."""

from pathlib import Path

from flowrun.errors import BackendError


def load_template(template: str | None, base_dir: Path) -> str | None:
    """Return a chat template's text.

    Args:
        template: the text itself if it has a line break or Jinja2's brackets, otherwise a path.

    Raises:
        BackendError: the file cannot be read.
    """
    if template is None or any(mark in template for mark in ("\n", "{{", "{%")):
        return template
    path = base_dir / Path(template).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BackendError(f"model.chat_template: cannot read {path}: {exc}") from exc
