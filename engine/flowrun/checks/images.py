"""FR611: images are shown to models that can be shown images."""

from collections.abc import Iterator

from flowrun.checks.subject import Subject
from flowrun.core.written import messages_written
from flowrun.errors import Issue
from flowrun.spec.model import Holds, ImagePart, Model
from flowrun.spec.parts import parts_of


def check_images(subject: Subject) -> Iterator[Issue]:
    """Find images on threads that a model in this process reads."""
    spec = subject.spec
    readers: dict[str, tuple[str, Model]] = {}
    for name, state in spec.states.items():
        models = (spec.models.get(part.value) for part in parts_of(state, Holds.MODEL))
        model = next((model for model in models if model is not None and model.capabilities.in_process), None)
        if model is not None:
            readers.setdefault(state.own_thread, (name, model))
    for written in messages_written(spec):
        if written.thread not in readers:
            continue
        name, model = readers[written.thread]
        for path, message in written.messages:
            parts = message.content if message is not None and isinstance(message.content, tuple) else ()
            for index, part in enumerate(parts):
                if isinstance(part, ImagePart):
                    text = (
                        f"state {name!r} shows it to a model of the backend {model.backend}, which takes no images yet"
                    )
                    remedy = "ask a model behind a server: backend: openai"
                    yield subject.issue("FR611", (*path, "content", index, "image"), text, remedy)
