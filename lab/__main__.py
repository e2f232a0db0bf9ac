"""`python -m lab`: list experiments.

`python -m lab quiz TRACK` asks about a track's results; `python -m lab attention "any text"` writes
a page that shows where a model's heads look; `python -m lab fits MODEL` says on which devices a
training fits; `python -m lab compare OTHER` compares one's own results with another run's;
`python -m lab site` lays out the site of all results. The list reads the sources without importing
them, so torch is never loaded for it.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.config import ConfigError, read_document

ROOT = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Listing:
    """One experiment: its module, title, question and profiles."""

    module: str
    title: str
    question: str
    profiles: tuple[str, ...]


def list_experiments(root: Path = ROOT) -> Iterator[Listing]:
    """Yield the experiments below a package folder: the modules that assign `EXPERIMENT`."""
    for path in sorted(root.rglob("*.py")):
        texts = _experiment_texts(ast.parse(path.read_text("utf-8"), str(path)))
        if texts is None:
            continue
        module = ".".join((root.name, *path.relative_to(root).with_suffix("").parts))
        yield Listing(module, texts["title"], texts["question"], _profiles(path))


def _experiment_texts(tree: ast.Module) -> dict[str, str] | None:
    """Return title and question from `EXPERIMENT = Experiment(title=…, question=…, …)`."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="EXPERIMENT")], value=ast.Call(keywords=keywords)):
                values = {keyword.arg: keyword.value for keyword in keywords}
                return {name: ast.literal_eval(values[name]) for name in ("title", "question")}
    return None


def _profiles(module: Path) -> tuple[str, ...]:
    """Return the profiles in NAME.yaml beside NAME.py."""
    config = module.with_suffix(".yaml")
    if not config.exists():
        return ()
    return tuple(read_document(config)["profiles"])


def main(argv: list[str] | None = None) -> None:
    """List the experiments as text, or with --json as one list; subcommands have their own."""
    if argv is None:
        argv = sys.argv[1:]
    match argv[:1]:
        case ["quiz"]:
            from lab.quiz.command import main as ask

            sys.exit(ask(argv[1:]))
        case ["attention"]:
            from lab.attention_views.command import main as write_page

            sys.exit(write_page(argv[1:]))
        case ["fits"]:
            from lab.hardware.command import main as answer

            sys.exit(answer(argv[1:]))
        case ["compare"]:
            from lab.compare.command import main as compare

            sys.exit(compare(argv[1:]))
        case ["site"]:
            from lab.synthesis.site.command import main as lay_out_site

            sys.exit(lay_out_site(argv[1:]))

    # 1. The arguments.
    parser = argparse.ArgumentParser(
        prog="python -m lab",
        description="List the experiments of the lab.",
        epilog=(
            "`python -m lab quiz track-a` (or track-b, track-c) asks about the results of a track, "
            'and grades by them; `python -m lab attention "any text"` writes a page of a model\'s '
            "attention; `python -m lab fits MODEL` says where a training fits, in what time, at "
            "what price; `python -m lab compare OTHER` compares your results with another run's; "
            "`python -m lab site` lays out the site of all results."
        ),
    )
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    args = parser.parse_args(argv)

    # 2. The experiments.
    try:
        listings = list(list_experiments())
    except ConfigError as error:
        sys.exit(f"error: {error}")
    if args.json:
        document = [asdict(listing) for listing in listings]
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    for listing in listings:
        profiles = ", ".join(listing.profiles) or "none"
        sys.stdout.write(
            f"{listing.module}\n  {listing.title}\n  asks: {listing.question}\n"
            f"  profiles: {profiles}\n\n"
        )
    sys.stdout.write(
        f"{len(listings)} experiments. Run one: python -m MODULE --config FILE --profile "
        "NAME --out DIR\n"
    )


if __name__ == "__main__":
    main()
