"""JSON documents of the record: strict models, read and written here and nowhere else.

Names follow the in-toto Statement v1 (https://in-toto.io/Statement/v1), SLSA provenance v1
(https://slsa.dev/provenance/v1) and the in-toto test result v0.1
(https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md). No SLSA level is
claimed. The bytes of a file are what its digest is taken over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic.alias_generators import to_camel

from phases.base import strict_json
from phases.base.text import printable

STATEMENT = "https://in-toto.io/Statement/v1"


class DocumentError(ValueError):
    """A file is not the document that it should be; the message names the first problem."""


class Document(BaseModel):
    """A JSON document: unknown and missing fields are refused, values are never converted."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        defer_build=True,
    )

    def encode(self) -> bytes:
        """Return the file's bytes: indented, keys in the model's order, one end of line."""
        document = self.model_dump(mode="json", by_alias=True)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the document in these bytes.

        Raises:
            DocumentError: it is not strict JSON, or not a document of this type.
        """
        try:
            strict_json.loads(data)
            return cls.model_validate_json(data)
        except strict_json.StrictJsonError as error:
            raise DocumentError(error.problems[0]) from None
        except ValidationError as error:
            first = error.errors()[0]
            location = ".".join(map(str, first["loc"])) or "(document)"
            raise DocumentError(printable(f"{location}: {first['msg']}")) from None


class ResourceDescriptor(Document):
    """An in-toto resource descriptor: something by name and digest; absent fields are left out."""

    name: str | None = None
    uri: str | None = None
    digest: dict[str, str] | None = None
    content: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None

    @model_serializer(mode="wrap")
    def _without_absent_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class Statement(Document):
    """The envelope that receipt, verdict, review request and decision record share."""

    type_: str = Field(STATEMENT, alias="_type", pattern=f"^{STATEMENT}$")
    subject: tuple[ResourceDescriptor, ...]

    @property
    def digests(self) -> dict[str, str]:
        """Name -> SHA-256 of the subjects that have one."""
        digests = {}
        for item in self.subject:
            if item.name is not None and item.digest and "sha256" in item.digest:
                digests[item.name] = item.digest["sha256"]
        return digests


def is_commit_id(text: str) -> bool:
    """Return whether a text is the full id of a commit, no other name that git might resolve."""
    return re.fullmatch("[0-9a-f]{40,64}", text) is not None


def file_subjects(digests: Mapping[str, str]) -> tuple[ResourceDescriptor, ...]:
    """Return the subjects of files (path -> SHA-256), sorted by path."""
    return tuple(sha256_descriptor(path, digest) for path, digest in sorted(digests.items()))


def sha256_descriptor(name: str, sha256: str) -> ResourceDescriptor:
    """Return the descriptor of one thing by its SHA-256."""
    return ResourceDescriptor(name=name, digest={"sha256": sha256})


def find_descriptor(
    descriptors: Iterable[ResourceDescriptor], name: str
) -> ResourceDescriptor | None:
    """Return the first descriptor with this name or URI, or None."""
    for item in descriptors:
        if name in (item.name, item.uri):
            return item
    return None
