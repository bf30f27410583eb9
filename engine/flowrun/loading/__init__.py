"""From a file to a frozen ``Spec``: YAML with the place of every node, profiles, ``${VAR}``, the JSON Schema."""

from flowrun.loading.document import Document, issue_at, mask, place_of
from flowrun.loading.entrypoints import EntrypointError, load_entrypoint
from flowrun.loading.flows import FlowTree, load_flows, may_be_spec
from flowrun.loading.load import ON_DISK, Files, KeptFiles, Loaded, load_spec, parse_text
from flowrun.loading.project import find_project, lies_in
from flowrun.loading.signatures import check_signature, derive_parameters
from flowrun.loading.yaml_source import read_yaml

__all__ = [
    "ON_DISK",
    "Document",
    "EntrypointError",
    "Files",
    "FlowTree",
    "KeptFiles",
    "Loaded",
    "check_signature",
    "derive_parameters",
    "find_project",
    "issue_at",
    "lies_in",
    "load_entrypoint",
    "load_flows",
    "load_spec",
    "mask",
    "may_be_spec",
    "parse_text",
    "place_of",
    "read_yaml",
]
