"""The four YAML files that the user edits: devices, prices, models, needs. Read and validated."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.config import ConfigError
from lab.instruments.memory_model import Method
from lab.instruments.model_shape import ModelShape, ShapeError

FOLDER = Path(__file__).resolve().parent
FILES = ("devices.yaml", "prices.yaml", "models.yaml", "needs.yaml")
METHODS: tuple[Method, ...] = ("full", "lora", "qlora")

Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(gt=0)]


class _Row(BaseModel):
    """A row whose every field is known and has its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Device(_Row):
    """A GPU of devices.yaml. Its header states the units."""

    name: Text
    # beyond these bounds it is the unit that is wrong
    memory_gib: Annotated[float, Field(gt=0, le=2048)]
    bandwidth_gb_s: Annotated[float, Field(gt=0, le=1e5)]
    peak_tflops: Annotated[float, Field(gt=0, le=1e5)]
    watts: Annotated[float, Field(gt=0, le=1e4)]
    year: Annotated[int, Field(ge=2000, le=2100)]
    source: Text
    date: datetime.date


class Price(_Row):
    """What a device costs: to buy, to rent for an hour; None where it is not on offer."""

    device: Text
    purchase: Positive | None = None
    rent_hour: Positive | None = None
    source: Text
    date: datetime.date


class Electricity(_Row):
    """The price of one kWh."""

    price_kwh: NotNegative
    source: Text
    date: datetime.date


class KnownModel(_Row):
    """A model of models.yaml: its published parameter count and fields of its config.json."""

    name: Text
    repository: Text
    parameters: Count
    date: datetime.date
    config: Mapping[str, int | bool | str]

    @property
    def shape(self) -> ModelShape:
        """Return the sizes that the config gives."""
        return ModelShape.from_config(self.config, self.name)


class Need(_Row):
    """One kind of training run that the user wants. needs.yaml states the units."""

    name: Text
    model: Text
    method: Literal["full", "lora", "qlora"]
    sequence: Count
    batch: Count
    tokens_per_run: Positive
    runs_per_month: Positive
    hours_per_run: Positive
    why: Text


class Thresholds(_Row):
    """What decides between staying, upgrading and renting. needs.yaml states the units."""

    months: Positive
    purchase_budget: NotNegative
    rent_budget: NotNegative
    hours_per_month: Annotated[float, Field(gt=0, le=744)]
    upgrade_saving: Share
    host_price: NotNegative
    rented_hours_extra: NotNegative


class Assumptions(_Row):
    """What the estimates assume. needs.yaml says what each means."""

    reserve_share: Share
    utilisation: Annotated[float, Field(gt=0, le=1)]
    rank: Count
    source: Text
    date: datetime.date


class _Devices(_Row):
    devices: Annotated[tuple[Device, ...], Field(min_length=1)]


class _Prices(_Row):
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    electricity: Electricity
    prices: Annotated[tuple[Price, ...], Field(min_length=1)]


class _Models(_Row):
    models: Annotated[tuple[KnownModel, ...], Field(min_length=1)]


class _Needs(_Row):
    needs: Annotated[tuple[Need, ...], Field(min_length=1)]
    thresholds: Thresholds
    assumptions: Assumptions


@dataclass(frozen=True)
class Catalogue:
    """All that the user states; prices by the device's name."""

    devices: tuple[Device, ...]
    prices: Mapping[str, Price]
    electricity: Electricity
    currency: str
    models: tuple[KnownModel, ...]
    needs: tuple[Need, ...]
    thresholds: Thresholds
    assumptions: Assumptions

    def model(self, name: str) -> KnownModel | None:
        """Return the model of that name, None if the file has none."""
        return next((model for model in self.models if model.name == name), None)

    def oldest_price(self) -> datetime.date:
        """Return the date of the oldest price for an hour's rent, or of any, if none is rented."""
        rents = [price.date for price in self.prices.values() if price.rent_hour is not None]
        return min(rents or [price.date for price in self.prices.values()])


def read_catalogue(folder: Path = FOLDER) -> Catalogue:
    """Return the content of the four files of a folder.

    Raises:
        ConfigError: a file cannot be read, or a row is invalid; the message names file, row, field,
            the value got and the value expected.
    """
    devices = _read(folder / "devices.yaml", _Devices).devices
    prices = _read(folder / "prices.yaml", _Prices)
    models = _read(folder / "models.yaml", _Models).models
    needs = _read(folder / "needs.yaml", _Needs)
    catalogue = Catalogue(
        devices=devices,
        prices={price.device: price for price in prices.prices},
        electricity=prices.electricity,
        currency=prices.currency,
        models=models,
        needs=needs.needs,
        thresholds=needs.thresholds,
        assumptions=needs.assumptions,
    )
    device_names = [device.name for device in devices]
    _check_names(folder / "devices.yaml", "device", device_names)
    _check_names(folder / "prices.yaml", "device", [price.device for price in prices.prices])
    _check_names(folder / "models.yaml", "model", [model.name for model in models])
    _check_names(folder / "needs.yaml", "need", [need.name for need in needs.needs])
    for price in prices.prices:
        _check_member(folder / "prices.yaml", "device", price.device, device_names)
    _check_models(folder / "models.yaml", models)
    _check_needs(folder / "needs.yaml", catalogue)
    return catalogue


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Return how many positions a config's model was trained for, None where it does not say."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = text
    limit = config.get("max_position_embeddings", config.get("n_positions"))
    return limit if isinstance(limit, int) else None


_Document = TypeVar("_Document", bound=BaseModel)


def _read(path: Path, kind: type[_Document]) -> _Document:
    try:
        raw = yaml.load(path.read_text("utf-8"), _UniqueKeys)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path} cannot be read as YAML: {error}"
        raise ConfigError(msg) from error
    try:
        return kind.model_validate(_with_tuples(raw))
    except ValidationError as error:
        problem = error.errors()[0]
        place = _place(raw, problem["loc"])
        got = ""
        if problem["type"] not in ("missing", "extra_forbidden"):
            got = f"got {problem['input']!r}; "
        more = ""
        if error.error_count() > 1:
            more = f" (and {error.error_count() - 1} more)"
        expected = problem["msg"].removeprefix("Input should be ")
        msg = f"{path}: {place}: {got}expected {_expected(problem['type'], expected)}{more}"
        raise ConfigError(msg) from error


def _expected(kind: str, text: str) -> str:
    if kind == "missing":
        return "a value, the field is missing"
    if kind == "extra_forbidden":
        return "no such field"
    if kind == "too_short":
        return "at least one row"
    return text


def _place(raw: Any, location: tuple[int | str, ...]) -> str:
    """Return the words for a place in a document: a row by its name, then the field."""
    parts = []
    for key in location:
        if isinstance(raw, list) and isinstance(key, int) and key < len(raw):
            raw = raw[key]
            name = f"row {key + 1}"
            if isinstance(raw, Mapping):
                name = str(raw.get("name", raw.get("device", name)))
            parts.append(f"row {name!r}")
        else:
            raw = raw.get(key) if isinstance(raw, Mapping) else None
            parts.append(str(key))
    return ", ".join(parts) or "the file"


def _with_tuples(value: Any) -> Any:
    """Return the value with tuples for lists: strict types refuse a list where a tuple is due."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_with_tuples(item) for item in value)
    return value


def _check_names(path: Path, what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            msg = f"{path}: got two rows of the {what} {name!r}; expected one"
            raise ConfigError(msg)


def _check_member(path: Path, what: str, name: str, known: list[str]) -> None:
    if name not in known:
        msg = f"{path}: got {what} {name!r}; expected one of {', '.join(known)}"
        raise ConfigError(msg)


def _check_models(path: Path, models: tuple[KnownModel, ...]) -> None:
    for model in models:
        try:
            total = model.shape.total
        except ShapeError as error:
            msg = f"{path}: row {model.name!r}: {error}"
            raise ConfigError(msg) from error
        if total != model.parameters:
            msg = (
                f"{path}: row {model.name!r}, parameters: got {model.parameters:,}; expected the "
                f"{total:,} that its config gives"
            )
            raise ConfigError(msg)


def _check_needs(path: Path, catalogue: Catalogue) -> None:
    known = [model.name for model in catalogue.models]
    for need in catalogue.needs:
        _check_member(path, f"row {need.name!r}, model", need.model, known)
        model = catalogue.model(need.model)
        assert model is not None
        limit = position_limit(model.config)
        if limit is not None and need.sequence > limit:
            msg = (
                f"{path}: row {need.name!r}, sequence: got {need.sequence:,}; expected at most the "
                f"{limit:,} positions of {need.model}"
            )
            raise ConfigError(msg)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                msg = f"line {node.start_mark.line + 1}: key {str(key)!r} is there twice"
                raise yaml.YAMLError(msg)
        return super().construct_mapping(node, deep)
