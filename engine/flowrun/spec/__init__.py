"""Loading of a file into a frozen ``Spec``: YAML with source positions, profiles, ``${VAR}``, the JSON Schema."""

from flowrun.spec.document import Document, issue_at, place_of
from flowrun.spec.entrypoints import EntrypointError, load_entrypoint
from flowrun.spec.flows import FlowTree, load_flows, may_be_spec
from flowrun.spec.load import ON_DISK, Loaded, StoredFiles, load_spec, parse_text
from flowrun.spec.masking import mask, mask_excerpt
from flowrun.spec.project import find_project, lies_in
from flowrun.spec.signatures import Signature, check_arguments, check_signature, check_value, signature_of
from flowrun.spec.yaml.reader import read_yaml

__all__ = [
    "ON_DISK",
    "Document",
    "EntrypointError",
    "FlowTree",
    "Loaded",
    "Signature",
    "StoredFiles",
    "check_arguments",
    "check_signature",
    "check_value",
    "find_project",
    "issue_at",
    "lies_in",
    "load_entrypoint",
    "load_flows",
    "load_spec",
    "mask",
    "mask_excerpt",
    "may_be_spec",
    "parse_text",
    "place_of",
    "read_yaml",
    "signature_of",
]
