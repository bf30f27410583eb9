"""``python -m tests.bench``: every benchmark that needs no model."""

from tests.bench import durable, journal, memory, startup, transitions, validation

startup.main()
validation.main()
transitions.main()
memory.main()
journal.main()
durable.main()
