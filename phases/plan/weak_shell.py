"""Why a shell command judges nothing: it cannot fail, or it looks only whether files exist."""

from __future__ import annotations

import re
from enum import IntEnum

ALWAYS_SUCCEEDS = "always succeeds"
HIDES_FAILURES = "succeeds even if a command in it fails"
ONLY_EXISTENCE = "looks only whether files exist"

# What is replaced by a word before a command is split. Nothing here is matched in two ways (`++`).
_SINGLE = r"'[^']*'"
_VARIABLE = r"\$(?:\w++|\{\w+\})"
_SUBSTITUTION = rf"\$\((?:[^()\"'`\\$#]|{_VARIABLE}|{_SINGLE})*+\)"
_DOUBLE = rf"\"(?:[^\"$`\\]|{_VARIABLE}|{_SUBSTITUTION})*+\""
_REPLACED = re.compile("|".join((_SINGLE, _DOUBLE, _SUBSTITUTION, _VARIABLE)))
_WORD = "Q"  # in its place; no command and no option has this name

_LISTING = re.compile(r'-n +"\$\(ls[\w ./*$-]*\)"')  # test -n "$(ls artifacts)"
_SILENCED = re.compile(r"(?<!\S)[12]?> *(?:&[12]|/dev/null)(?=[ \t;&|]|$)")
_NOT_READ = re.compile(r"[\"'`\\$#(){}\n\r]")
"""What is left of nested substitutions and quotes; escapes, comments, subshells, groups."""
_TOKEN = re.compile(r"[;&|<>]+|[^ \t;&|<>]+")
_SEPARATORS = (";", "&&", "||", "|")
_REDIRECTIONS = (">", ">>", "<")
_NOT_FOLLOWED = {
    "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac",
    "select", "function", "time", "!", "command", "builtin", "exec", "eval", ".", "source", "set",
    "shopt", "trap", "return", "break", "continue", "kill", "exit",
}  # fmt: skip
"""Compound commands, and commands that may end the shell or change how it goes on."""
_FILE_TESTS = re.compile(r"(! )?-[defhrswxL] \S+( -[ao] (! )?-[defhrswxL] \S+)*")


class _DependsOn(IntEnum):
    """What the exit status of a command depends on; of several commands the highest counts."""

    NOTHING = 0
    EXISTENCE = 1
    CONTENT = 2  # or on anything else that this module does not know


def shell_weakness(command: str) -> str | None:
    """Return why a shell command judges nothing; None if it may judge or is not understood."""
    try:
        words = _split_words(command)
        statements = _split_at(words, ";")
        commands = _split_at(words, *_SEPARATORS)
        # After `;` only the last statement counts, if no earlier one can end the shell.
        status = _chain_status(statements[-1])
    except ValueError:
        return None
    for simple_command in commands:
        if simple_command[0] in _NOT_FOLLOWED and simple_command != ["exit", "0"]:
            return None
    if status == _DependsOn.CONTENT:
        return None
    if status == _DependsOn.EXISTENCE:
        return ONLY_EXISTENCE
    if max(map(_command_status, commands)) == _DependsOn.NOTHING:
        return ALWAYS_SUCCEEDS
    return HIDES_FAILURES


def _split_words(command: str) -> list[str]:
    """Return the words and operators of a command; ValueError if it is not understood.

    Each quoted text, variable and `$(…)` is replaced first, so what looks like an operator is one.
    """
    text = _LISTING.sub(f"-e {_WORD}", command)
    text = _REPLACED.sub(_WORD, text)
    text = _SILENCED.sub("", text)
    if _NOT_READ.search(text):
        raise ValueError("a substitution, an escape, a comment, a subshell or a group")
    words: list[str] = _TOKEN.findall(text)
    for word in words:
        if word[0] in ";&|<>" and word not in (*_SEPARATORS, *_REDIRECTIONS):
            raise ValueError(f"the operator {word}")
    if words and words[-1] == ";":
        words.pop()
    return words


def _split_at(words: list[str], *operators: str) -> list[list[str]]:
    """Return the words between these operators; ValueError if there are none."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in operators:
            parts.append([])
        else:
            parts[-1].append(word)
    if [] in parts:
        raise ValueError("an operator without a command")
    return parts


def _chain_status(words: list[str]) -> _DependsOn:
    """Return what the status of pipelines between `&&` and `||` depends on.

    The operators bind equally, from left to right. `a || b` succeeds if one of them always does.
    """
    operators = [word for word in words if word in ("&&", "||")]
    pipelines = _split_at(words, "&&", "||")
    status = _pipeline_status(pipelines[0])
    for operator, pipeline in zip(operators, pipelines[1:], strict=True):
        right = _pipeline_status(pipeline)
        if operator == "||" and _DependsOn.NOTHING in (status, right):
            status = _DependsOn.NOTHING
        else:
            status = max(status, right)
    return status


def _pipeline_status(words: list[str]) -> _DependsOn:
    # The status of a pipeline is that of its last command.
    return _command_status(_split_at(words, "|")[-1])


def _command_status(words: list[str]) -> _DependsOn:
    """Return what the status of one command depends on."""
    if set(words) & set(_REDIRECTIONS):
        return _DependsOn.CONTENT
    match words:
        case ["true" | ":" | "echo", *_] | ["exit", "0"] | ["cat"]:
            return _DependsOn.NOTHING
        case ["ls" | "stat" | "cat" | "cd", *_]:
            return _DependsOn.EXISTENCE
        case ["test", *question] | ["[", *question, "]"] | ["[[", *question, "]]"]:
            if _FILE_TESTS.fullmatch(" ".join(question)):
                return _DependsOn.EXISTENCE
    return _DependsOn.CONTENT
