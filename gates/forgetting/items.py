"""Are the items of the four suites what they claim to be?

Each answer is recomputed from the words of its prompt. Arithmetic and reasoning are read by
patterns, Python by an evaluator that knows the few forms that occur and nothing else, so that no
text of the outputs is ever run. Facts cannot be computed: a human has read them, and a digest
checks that the suite has those and no others.
"""

from __future__ import annotations

import ast
import itertools
import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from gates.shared import outputs

SUITES = ("lab_math", "lab_reasoning", "lab_code", "lab_knowledge")
FILES = tuple(f"artifacts/suites/{suite}.jsonl" for suite in SUITES)
KNOWLEDGE = "f4da8ecaa0f6a75c3f809131621298c858343444f99607e89135038476170565"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COUNTS = ("two", "three", "four", "five", "six")
ENDS = {  # comparative -> the word for the first of an order, and for the last
    "older": ("oldest", "youngest"),
    "taller": ("tallest", "shortest"),
    "faster": ("fastest", "slowest"),
    "richer": ("richest", "poorest"),
    "stronger": ("strongest", "weakest"),
}
Item = dict[str, Any]


def items() -> list[Item]:
    """Return all items, the suites in their order."""
    every_item = []
    for suite, file in zip(SUITES, FILES, strict=True):
        lines = (outputs.out() / file).read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert rows, f"{file} has no items"
        assert all(row["suite"] == suite for row in rows), f"{file} has items of another suite"
        every_item += rows
    return every_item


def faults(every_item: list[Item]) -> Iterable[str]:
    """Yield what is wrong with the items."""
    # 1. No prompt twice.
    counts = Counter(item["prompt"] for item in every_item)
    for prompt in sorted(counts):
        if counts[prompt] > 1:
            yield f"the prompt {prompt!r} occurs twice"

    # 2. The right choice is at each index equally often.
    for suite in SUITES:
        golds = [item["gold"] for item in every_item if item["suite"] == suite]
        by_index = [golds.count(index) for index in range(4)]
        if max(by_index) - min(by_index) > 1 or sum(by_index) != len(golds):
            yield f"{suite}: the right choice is {by_index} times at each index"

    # 3. Four choices, of which the gold one alone is right.
    for item in every_item:
        if len(set(item["choices"])) != 4 or not "".join(item["choices"]).isascii():
            yield (
                f"{item['prompt']!r} has the choices {item['choices']}; expected four "
                "different ones in ASCII"
            )
        elif item["suite"] != "lab_knowledge":
            yield from _of_answer(item)

    # 4. The facts are those that were read.
    digest = knowledge(every_item)
    if digest != KNOWLEDGE:
        yield f"lab_knowledge has other facts than those that were read (digest {digest})"


def _of_answer(item: Item) -> Iterable[str]:
    solvers = {"lab_math": _arithmetic, "lab_reasoning": _reasoning, "lab_code": _code}
    solve = solvers[item["suite"]]
    answer = solve(item["prompt"])
    right = [i for i, choice in enumerate(item["choices"]) if _value(choice) == answer]
    if right != [item["gold"]]:
        yield (
            f"{item['prompt']!r} is {answer!r}; right among {item['choices']} are {right}, "
            f"stated {item['gold']}"
        )


def knowledge(every_item: list[Item]) -> str:
    """Return the digest of the facts: prompt, right end and all ends of each."""
    facts = []
    for item in every_item:
        if item["suite"] == "lab_knowledge":
            choices = item["choices"]
            facts.append([item["prompt"], choices[item["gold"]], sorted(choices)])
    return outputs.sha256(json.dumps(sorted(facts)).encode())


def _value(choice: str) -> Any:
    """Return the number, text or list that a choice writes; a bare word is itself."""
    try:
        return ast.literal_eval(choice)
    except (ValueError, SyntaxError):
        return choice


ARITHMETIC: dict[str, Callable[..., float]] = {
    r"(\d+) \+ (\d+) =": lambda a, b: a + b,
    r"(\d+) - (\d+) =": lambda a, b: a - b,
    r"(\d+) \* (\d+) =": lambda a, b: a * b,
    r"(\d+) / (\d+) =": lambda a, b: a / b,
    r"Half of (\d+) is": lambda a: a / 2,
    r"Twice (\d+) is": lambda a: a + a,
    r"The square of (\d+) is": lambda a: a * a,
    r"(\d+)% of (\d+) is": lambda a, b: a * b / 100,
}


def _arithmetic(prompt: str) -> float | None:
    for pattern, rule in ARITHMETIC.items():
        if match := re.fullmatch(pattern, prompt):
            return rule(*map(int, match.groups()))
    return None


def _reasoning(prompt: str) -> str | int | None:
    """Return the answer to a prompt about an order, a sequence, a weekday or two rules."""
    order = r"(\w+) is (\w+) than (\w+)\. \3 is \2 than (\w+)\. The (\w+) is"
    if match := re.fullmatch(order, prompt):
        first, more, _, last, end = match.groups()
        return dict(zip(ENDS[more], (first, last), strict=True)).get(end)

    if re.fullmatch(r"(\d+, ){3}\d+,", prompt):
        return _next([int(number) for number in re.findall(r"\d+", prompt)])

    if match := re.fullmatch(r"Today is (\w+)\. In (\w+) days it will be", prompt):
        return DAYS[(DAYS.index(match[1]) + COUNTS.index(match[2]) + 2) % 7]

    rules = r"Every (\w+) is (\w+)\. Every (\w+) is (\w+)\. (\w+) is a (\w+)\. \5 is"
    if match := re.fullmatch(rules, prompt):
        one, colour, two, other_colour, _, kind = match.groups()
        return {one: colour, two: other_colour}.get(kind)
    return None


def _next(numbers: list[int]) -> int | None:
    """Return what follows if each number is the one before plus the same, or times the same.

    None if neither or both.
    """
    pairs = list(itertools.pairwise(numbers))
    steps = {b - a for a, b in pairs}
    factors = {b / a for a, b in pairs}
    if len(steps) == 1:
        return numbers[-1] + steps.pop()
    if len(factors) == 1:
        return int(numbers[-1] * factors.pop())
    return None


def _code(prompt: str) -> Any:
    match = re.fullmatch(r"assert (.+) ==", prompt)
    if not match:
        return None
    return _evaluate(ast.parse(match[1], mode="eval").body)


OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
    ast.Mult: operator.mul,
}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {"len": len, "sum": sum, "max": max, "min": min}


def _evaluate(node: ast.expr) -> Any:
    """Evaluate literals, lists, indices, three operators, four functions and four methods.

    Anything else is an error.
    """
    match node:
        case ast.Constant(value=int() | str()):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand)
        case ast.List(elts=elements):
            return [_evaluate(element) for element in elements]
        case ast.Subscript(value=value, slice=index):
            return _evaluate(value)[_evaluate(index)]
        case ast.BinOp(left=left, op=sign, right=right):
            a, b = _evaluate(left), _evaluate(right)
            return OPERATORS[type(sign)](a, b)
        case ast.Call(func=ast.Name(id=name), args=[only], keywords=[]):
            return FUNCTIONS[name](_evaluate(only))
        case ast.Call(func=ast.Attribute(value=value, attr=name), args=arguments, keywords=[]):
            assert name in {"upper", "title", "replace", "count"}, (
                f"{name} is no method that an item may call"
            )
            return getattr(_evaluate(value), name)(*map(_evaluate, arguments))
        case _:
            msg = f"{ast.dump(node)} is no form that an item may have"
            raise AssertionError(msg)
