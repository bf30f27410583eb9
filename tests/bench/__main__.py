"""``python -m tests.bench``: every benchmark that needs no model."""

from tests.bench import durable, isolation, journal, mcp, memory, startup, telemetry, transitions, validation, width

startup.main()
validation.main()
transitions.main()
telemetry.main()
width.main()
memory.main()
journal.main()
durable.main()
isolation.main()
mcp.main()
