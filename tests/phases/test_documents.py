"""The record's JSON documents: each gives its own bytes back, and nothing else is accepted."""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import phases
from phases.plan.lock import PlanLock, PlanLockError
from phases.record.decision_record import DecisionRecord
from phases.record.receipt import Receipt
from phases.record.review_request import ReviewRequest
from phases.record.statement import Document, DocumentError
from phases.record.transaction import PendingRecord
from phases.record.verdict import AttemptRecord, PhaseVerdict, Verdict

NESTED = {
    AttemptRecord: ("receipt", "predicate", "runDetails"),
    DecisionRecord: ("predicate", "by"),
    PendingRecord: (),
    PhaseVerdict: (),
    PlanLock: (),
    Receipt: ("predicate", "buildDefinition", "externalParameters"),
    ReviewRequest: ("predicate", "phase"),
    Verdict: ("predicate", "phases/gate/v1", "seconds"),
}
"""Every document that is a file, and a part of it that is always there; () for the file itself."""
FIXED = ("type_", "predicate_type", "build_type")
"""Fields that have one possible value, which is their default."""
REFUSED = (DocumentError, PlanLockError)


def document_models() -> dict[str, type[BaseModel]]:
    """Return every model of a document and of its parts, by its name."""
    models: dict[str, type[BaseModel]] = {"PlanLock": PlanLock}
    waiting: list[type[BaseModel]] = [Document]
    while waiting:
        for model in waiting.pop().__subclasses__():
            model.model_rebuild()
            models[model.__name__] = model
            waiting.append(model)
    return models


MODELS = document_models()
any_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


#### any document of a model

text = st.text('aé\u4e2d"\\\n ', max_size=4)
integer = st.integers(-(2**63), 2**63 - 1)
number = st.floats(allow_nan=False, allow_infinity=False)
scalar = st.none() | st.booleans() | integer | number | text
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    Any: scalar | st.lists(scalar, max_size=2) | st.dictionaries(text, scalar, max_size=2),
    bool: st.booleans(),
    float: number,
    int: integer,
    str: text,
    type(None): st.none(),
}


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field's type."""
    if annotation in VALUES:
        return VALUES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if origin is dict:
        return st.dictionaries(text, values_of(arguments[1]), max_size=2)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of(*map(values_of, arguments))
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    return documents_of(annotation)


def documents_of(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Return a strategy for the documents of a model."""
    fields = {}
    for name, field in model.model_fields.items():
        if name == "schema_":
            fields["schema"] = st.just(1)
        elif name not in FIXED:
            fields[field.alias or name] = values_of(field.annotation)
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


def decode(model: type[Any], document: dict[str, Any]) -> BaseModel:
    return model.decode(json.dumps(document).encode())


#### what a document gives back


@any_model
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_document_gives_itself_back(model: type[Any], data: st.DataObject) -> None:
    document = data.draw(documents_of(model))
    encoded = document.encode()
    assert model.decode(encoded) == document
    assert model.decode(encoded).encode() == encoded


@any_model
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_an_unknown_field_is_refused_by_its_name(model: type[Any], data: st.DataObject) -> None:
    document = json.loads(data.draw(documents_of(model)).encode())
    decode(model, document)  # the control
    with pytest.raises(REFUSED, match=r"^(not a plan lock: )?surprise: Extra inputs are not"):
        decode(model, document | {"surprise": 1})


@any_model
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_a_missing_field_is_refused_by_its_name(model: type[Any], data: st.DataObject) -> None:
    document = json.loads(data.draw(documents_of(model)).encode())
    for name, field in model.model_fields.items():
        if not field.is_required():
            continue
        alias = field.alias or name
        rest = {key: value for key, value in document.items() if key != alias}
        with pytest.raises(REFUSED, match="Field required") as refused:
            decode(model, rest)
        assert str(refused.value).removeprefix("not a plan lock: ").startswith(f"{alias}: ")


@any_model
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_a_duplicate_key_is_refused_by_its_name(model: type[Any], data: st.DataObject) -> None:
    document = json.loads(data.draw(documents_of(model)).encode())
    document = document or {"name": "x"}  # a descriptor may be empty
    key = next(iter(document))
    duplicate = f"{{{json.dumps(key)}: null, {json.dumps(document)[1:]}"
    with pytest.raises(REFUSED, match=f"{key}: duplicate key"):
        model.decode(duplicate.encode())


@pytest.mark.parametrize("model", NESTED, ids=lambda model: model.__name__)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_a_refusal_names_the_place_inside(model: type[Any], data: st.DataObject) -> None:
    document = json.loads(data.draw(documents_of(model)).encode())
    part = document
    for key in NESTED[model]:
        part = part[key]
    # What it quotes moves no cursor.
    for name, shown in (("surprise", "surprise"), ("\x1b[2J\u202e", "\\x1b[2J\\u202e")):
        part[name] = 1
        with pytest.raises(REFUSED) as refused:
            decode(model, document)
        assert ".".join((*NESTED[model], f"{shown}: ")) in str(refused.value)
        del part[name]


def test_every_document_that_is_read_is_tested() -> None:
    readers = set()
    for path in Path(phases.__file__).parent.rglob("*.py"):
        readers.update(re.findall(r"\b([A-Z]\w+)\.decode\(", path.read_text()))
    assert readers
    assert readers <= {model.__name__ for model in NESTED}


@pytest.mark.parametrize(("name", "value"), [("killed", 1), ("kind", None), ("reason", ["x"])])
def test_values_are_never_converted(name: str, value: Any) -> None:
    """Pydantic would otherwise take 1 for true, and a reader would see another document."""
    mutant = {
        "kind": "tamper",
        "target": "a.json",
        "killed": True,
        "outcome": "failed",
        "killedBy": [],
        "reason": "",
    }
    decode(MODELS["MutantReport"], mutant)  # the control
    with pytest.raises(DocumentError, match=f"^{name}: "):
        decode(MODELS["MutantReport"], mutant | {name: value})


@given(documents_of(Receipt))
@settings(max_examples=5, deadline=None)
def test_a_statement_of_another_type_is_refused(receipt: Receipt) -> None:
    document = json.loads(receipt.encode())
    types = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
    }
    for name, value in types.items():
        with pytest.raises(DocumentError, match=f"^{name}: String should match pattern"):
            decode(Receipt, document | {name: value})
