"""From a file to a frozen ``Spec``: YAML with the place of every node, profiles, ``${VAR}``, the JSON Schema."""
