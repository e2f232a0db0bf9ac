"""What runs is the commit that STARTED names: cases I-01 to I-11 and I-15 to I-18 of their kind.

Each test does to the work tree, to git or to the copy what people do, and then looks at the number
that was recorded, at the receipt's commit, and at what audit says.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import py_compile
import secrets
import shutil
import subprocess
import sys
import sysconfig
import venv
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invariants import reproduction_violations, violations
from modular import COMMAND, FILES, GATE, MAIN, MODULE, Modular, modular_feature, modular_plan

from tests.soak import mark_soak

COMMITTED = 14
"""What the committed code and data give."""
WHAT = {"module": MODULE, "command": COMMAND}
BOTH = pytest.mark.parametrize("what", [MODULE, COMMAND], ids=["module", "command"])


@pytest.fixture
def make_modular(tmp_path: Path) -> Callable[..., Modular]:
    """Return a function that makes a project with one feature."""

    def make(what: dict[str, Any], files: dict[str, str] | None = None, **changes: Any) -> Modular:
        document = modular_plan(modular_feature(**what), **changes)
        return Modular(tmp_path / "modular", document, files)

    return make


def assert_committed(project: Modular, total: int = COMMITTED) -> None:
    """Check the number, and that the receipt's commit gives the same outputs again."""
    assert project.total() == total
    assert violations(project.root) == []
    assert reproduction_violations(project.root) == []
    project.assert_audit_is_clean()


def run_with_edits(project: Modular) -> subprocess.CompletedProcess[str]:
    """Run where the work tree has edits: refused before any entry, or the commit runs."""
    process = project.run("run", "--next", code=None)
    if process.returncode == 7:
        assert not (project.root / "progress.txt").exists()
    else:
        assert process.returncode == 0, process.stderr
        assert_committed(project)
    return process


#### edits that are not committed


EDITS = {
    "code I-01": ("exp/helper.py", "def add(numbers):\n    return 500\n"),
    "data I-04": ("exp/numbers.json", "[500]"),
    "another package I-05": ("tools/h.py", "EXTRA = 500\n"),
    "config": ("exp/config.yaml", "rate: 500\n"),
    "deleted": ("exp/helper.py", None),
}


@pytest.mark.parametrize(
    ("what", "edit"),
    mark_soak(
        itertools.product(WHAT, EDITS),
        short=[
            *itertools.product(["module"], EDITS),
            ("command", "code I-01"),
            ("command", "data I-04"),
        ],
    ),
)
def test_an_edit_never_runs(make_modular: Callable[..., Modular], what: str, edit: str) -> None:
    path, text = EDITS[edit]
    project = make_modular(WHAT[what])
    if text is None:
        (project.root / path).unlink()
    else:
        project.write(path, text)
    process = run_with_edits(project)
    if what == "module":
        assert process.returncode == 7
        assert f"{path} (changed)" in process.stderr
        assert "commit these files" in process.stderr
    else:
        assert "1 changed file is not part of this run" in process.stderr


def test_the_program_that_a_command_names_is_refused_i_01(
    make_modular: Callable[..., Modular],
) -> None:
    project = make_modular(COMMAND)
    project.write("run.sh", "exit 1\n")
    assert "run.sh (changed)" in project.run("run", "--next", code=7).stderr
    project.git("checkout", "run.sh")
    project.change_plan(command="sh new.sh")
    project.write("new.sh", FILES["run.sh"])
    assert "new.sh (not in the commit)" in project.run("run", "--next", code=7).stderr
    project.commit("the new program")
    project.run("run", "--next")
    assert_committed(project)


@pytest.mark.parametrize("path", ["exp/forgotten.py", "tools/forgotten.py", "exp/forgotten.json"])
def test_a_forgotten_git_add_is_named_i_02(make_modular: Callable[..., Modular], path: str) -> None:
    project = make_modular(MODULE)
    project.write(path, "")
    assert f"{path} (not in the commit)" in project.run("run", "--next", code=7).stderr
    project.write("unrelated.py", "")
    project.commit("it")
    project.write("notes.txt", "")
    process = project.run("run", "--next")
    assert "1 untracked file is not part of this run" in process.stderr
    assert_committed(project)


def test_an_ignored_module_cannot_be_imported_i_02(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(MODULE, {"exp/main.py": "import exp.local\n" + MAIN})
    (project.root / ".git/info").mkdir(exist_ok=True)
    (project.root / ".git/info/exclude").write_text("exp/local.py\n")
    project.write("exp/local.py", "")
    project.run("run", "--next", code=1)
    assert project.states() == {"M-001": "errored"}


FLAGS = ("--assume-unchanged", "--skip-worktree")
FLAGGED = ("exp/helper.py", "exp/config.yaml", "prd/plan.json")


@pytest.mark.parametrize(
    ("what", "flag", "path"),
    mark_soak(
        itertools.product(WHAT, FLAGS, FLAGGED),
        short=[
            ("module", "--assume-unchanged", "exp/helper.py"),
            ("module", "--skip-worktree", "exp/config.yaml"),
            ("command", "--assume-unchanged", "prd/plan.json"),
            ("command", "--skip-worktree", "exp/helper.py"),
        ],
    ),
)
def test_no_flag_of_the_index_hides_an_edit_i_06(
    make_modular: Callable[..., Modular], what: str, flag: str, path: str
) -> None:
    project = make_modular(WHAT[what])
    project.git("update-index", flag, path)
    text = (project.root / path).read_text()
    project.write(path, text + "\n")
    assert project.git("status", "--porcelain") == ""  # the control: git is blind
    process = run_with_edits(project)
    assert (process.returncode == 7) == (what == "module" or path.startswith("prd/"))


@pytest.mark.parametrize("place", [".gitattributes", ".git/info/attributes"])
def test_bytes_of_the_blob_run_and_not_a_filters_i_07(
    make_modular: Callable[..., Modular], place: str
) -> None:
    project = make_modular(COMMAND)
    project.git("config", "filter.swap.clean", "sed s/500/1/g")
    project.git("config", "filter.swap.smudge", "sed s/1/500/g")
    project.write(place, "exp/numbers.json filter=swap\n")
    project.write("exp/numbers.json", "[3, 500, 4, 500, 5]")
    if place == ".gitattributes":
        project.git("add", ".gitattributes")
        project.git("commit", "-qm", "attributes", ".gitattributes")
    project.git("add", "exp/numbers.json")  # cleaned, it is what is committed
    assert project.git("status", "--porcelain") == ""  # the control
    project.run("run", "--next")
    assert_committed(project)


@pytest.mark.parametrize("kind", ["absolute", "relative", "chain", "loop out"])
@BOTH
def test_a_link_out_of_the_commit_is_refused_i_08(
    make_modular: Callable[..., Modular], what: dict[str, str], kind: str
) -> None:
    project = make_modular(what)
    outside = project.root.parent / "outside.py"
    outside.write_text("def add(numbers):\n    return 500\n")
    link = project.root / "exp/helper.py"
    link.unlink()
    targets = {
        "absolute": str(outside),
        "relative": "../../outside.py",
        "chain": "../up/../outside.py",
        "loop out": "../up/modular/exp/../../outside.py",
    }
    if kind in ("chain", "loop out"):
        (project.root / "up").symlink_to("..")
    link.symlink_to(targets[kind])
    project.commit("a link")
    stderr = project.run("run", "--next", code=7).stderr
    assert "is a symbolic link to" in stderr
    assert not (project.root / "progress.txt").exists()


def test_a_link_inside_the_commit_works(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(MODULE)
    (project.root / "exp/helper.py").rename(project.root / "exp/real.py")
    (project.root / "exp/helper.py").symlink_to("real.py")
    (project.root / "exp/deep").symlink_to("../tools")
    project.commit("links")
    project.run("run", "--next")
    assert_committed(project)


@pytest.mark.parametrize("is_committed", [False, True], ids=["ignored", "committed"])
def test_planted_bytecode_does_not_run_i_09(
    make_modular: Callable[..., Modular], *, is_committed: bool
) -> None:
    project = make_modular(MODULE)
    source = project.root / "exp/helper.py"
    true_text = source.read_text()
    source.write_text("def add(numbers):\n    return 500\n")
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.write_text(true_text)
    planted = subprocess.run(
        [sys.executable, "-c", "from exp import helper; print(helper.add([1]))"],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert planted.stdout == "500\n"  # the control
    if is_committed:
        project.git("add", "-f", "exp/__pycache__")
    else:
        project.write(".gitignore", ".phases/\n__pycache__/\n")
    project.commit("bytecode")
    project.run("run", "--next")
    assert_committed(project)


@pytest.mark.parametrize("attribute", ["text eol=crlf", "filter=swap"])
def test_a_checkout_by_a_filter_is_no_edit(
    make_modular: Callable[..., Modular], attribute: str
) -> None:
    project = make_modular(MODULE)
    project.git("config", "filter.swap.clean", "sed s/500/1/g")
    project.git("config", "filter.swap.smudge", "sed s/1/500/g")
    project.write(".gitattributes", f"exp/* {attribute}\n")
    project.git("add", ".gitattributes")
    project.git("commit", "-qm", "attributes")
    for path in ("exp/numbers.json", "exp/helper.py", "exp/config.yaml"):
        (project.root / path).unlink()
    project.git("checkout", "--", ".")
    assert project.git("status", "--porcelain") == ""
    assert (project.root / "exp/config.yaml").read_bytes() != b"rate: 1\n"  # the control
    project.run("run", "--next")
    assert_committed(project)
    project.write("exp/config.yaml", "rate: 9\n")
    refused = project.run("run", "--feature", "M-001", "--force", code=7)
    assert "exp/config.yaml (changed)" in refused.stderr


def test_a_forgotten_module_beside_a_script_is_named_i_02(
    make_modular: Callable[..., Modular],
) -> None:
    train = "import helper2\nfrom exp.main import run\nrun()\n"
    project = make_modular(MODULE | {"module": "train"}, {"train.py": train})
    project.write("helper2.py", "")
    project.write("unused.py", "")
    assert "helper2.py (not in the commit)" in project.run("run", "--next", code=7).stderr
    project.git("add", "helper2.py")
    project.git("commit", "-qm", "helper")
    project.run("run", "--next")
    assert_committed(project)


#### HEAD and the work tree change while it runs


@BOTH
def test_code_that_is_committed_during_the_run_does_not_run_i_03(
    make_modular: Callable[..., Modular], what: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "modular"
    meanwhile = (
        "import pathlib, subprocess\n"
        f"helper = pathlib.Path('{root}/exp/helper.py')\n"
        "helper.write_text('def add(numbers):\\n    return 500\\n')\n"
        f"subprocess.run(['git', '-C', '{root}', 'commit', '-qam', 'meanwhile'], check=True)\n"
    )
    project = make_modular(what, {"exp/main.py": meanwhile + MAIN})
    started = project.git("rev-parse", "HEAD")
    project.run("run", "--next")
    assert project.receipt()["git"]["gitCommit"] == started
    assert project.git("log", "--format=%s", "-3").splitlines()[-1] == "meanwhile"
    assert project.total() == COMMITTED
    project.assert_audit_is_clean()


@BOTH
def test_edits_of_the_copy_are_discarded_and_said_i_10(
    make_modular: Callable[..., Modular], what: dict[str, str]
) -> None:
    edits = (
        "import pathlib\n"
        "pathlib.Path('exp/helper.py').write_text('def add(numbers):\\n    return 7\\n')\n"
        "pathlib.Path('README.md').unlink()\n"
        "pathlib.Path('new.txt').write_text('x')\n"
    )
    project = make_modular(what, {"exp/main.py": edits + MAIN})
    project.run("run", "--next")
    assert project.total() == 7  # the same on every clone: the edit is part of the committed code
    for line in ("exp/helper.py (changed)", "README.md (deleted)", "new.txt (added)"):
        assert f"- discarded from its copy: {line}\n" in project.progress
    assert project.git("status", "--porcelain") == ""
    assert reproduction_violations(project.root) == []
    project.assert_audit_is_clean()


@pytest.mark.parametrize(
    "command", ["commit -qam x", "commit -q --amend -m x", "reset --hard HEAD~1"]
)
def test_an_experiment_has_no_repository_i_11(
    make_modular: Callable[..., Modular], command: str
) -> None:
    project = make_modular({"command": f"git {command} || sh run.sh"})
    before = project.git("rev-parse", "HEAD")
    project.run("run", "--next")
    assert project.git("rev-parse", "HEAD~2") == before
    assert "not a git repository" in (project.root / ".phases/logs/M-001/1.log").read_text()
    assert_committed(project)


def test_the_experiment_knows_its_commit(make_modular: Callable[..., Modular]) -> None:
    project = make_modular({"command": "echo $PHASES_COMMIT; sh run.sh"})
    project.run("run", "--next")
    log = (project.root / ".phases/logs/M-001/1.log").read_text()
    assert log.split() == [project.git("rev-parse", "HEAD~2")]
    assert project.receipt()["git"] == {
        "gitCommit": log.strip(),
        "gitTree": project.git("rev-parse", "HEAD~2^{tree}"),
    }


#### what judges is laid out when the experiment is dead


def test_nothing_of_the_judgement_exists_while_the_experiment_runs_i_15_i_16(
    make_modular: Callable[..., Modular],
) -> None:
    # It writes wherever gates and inputs of a judgement have ever been, and where it can guess.
    attack = (
        "import os, pathlib\n"
        "staging = pathlib.Path(os.environ['PHASES_OUT']).parent\n"
        "for name in ('judge', 'judge-tree', 'judge-inputs', 'gates'):\n"
        "    for gates in (staging / name / 'gates', staging / name / '0/gates'):\n"
        "        gates.mkdir(parents=True)\n"
        "        (gates / 'test_total.py').write_text('def test_ok(): pass')\n"
        "other = staging / 'tmp/words.txt'\n"
        "other.write_text('many more words than the input has\\n' * 250)\n"
        "inputs = pathlib.Path(os.environ['PHASES_INPUTS'])\n"
        "text = inputs.read_text().replace(str(staging / 'tree/data'), str(other.parent))\n"
        "inputs.write_text(text)\n"
        "pathlib.Path('data/words.txt').write_text(other.read_text())\n"
    )
    gate = (
        "import json, os, pathlib\n"
        "def test_total():\n"
        "    inputs = json.loads(pathlib.Path(os.environ['PHASES_INPUTS']).read_text())\n"
        "    words = pathlib.Path(inputs['words']['path'], 'words.txt').read_text().split()\n"
        "    out = pathlib.Path(os.environ['PHASES_OUT'])\n"
        "    result = json.loads((out / 'result.json').read_text())\n"
        "    total = result['measurements']['total']['value']\n"
        "    assert json.loads((out / 'artifacts/numbers.json').read_text()) == [total]\n"
        "    assert len(words) == 3 and total == 14\n"
    )
    feature = MODULE | {"inputs": ["words"], "gate": {"pytest": "gates/test_total.py"}}
    project = make_modular(
        feature,
        {"exp/main.py": attack + MAIN, "gates/test_total.py": gate},
        inputs=[{"name": "words", "path": "data"}],
    )
    project.run("run", "--next")
    assert "- discarded from its copy: data/words.txt (changed)\n" in project.progress
    assert "1 passed" in project.progress
    project.assert_audit_is_clean()


def test_what_a_gate_imports_is_in_its_digest_and_in_the_lock_i_17(
    make_modular: Callable[..., Modular],
) -> None:
    shared = "def check(total):\n    assert total == 1\n"
    gate = (
        "import json, os, pathlib\n"
        "from gates.test_shared import check\n"
        "def test_total():\n"
        "    out = pathlib.Path(os.environ['PHASES_OUT'])\n"
        "    result = json.loads((out / 'result.json').read_text())\n"
        "    check(result['measurements']['total']['value'])\n"
    )
    feature = MODULE | {"gate": {"pytest": "gates/test_total.py"}}
    files = {"gates/test_total.py": gate, "gates/test_shared.py": shared}
    project = make_modular(feature, files)
    project.run("run", "--next", code=1)
    project.write("gates/test_shared.py", "def check(total):\n    assert total == 14\n")
    project.commit("softer")
    stderr = project.run("run", "--next", code=3).stderr
    assert "differs from what was locked" in stderr
    assert "gates/test_shared.py" in stderr


#### what a copy cannot have


def test_a_submodule_is_refused_where_it_is_needed(
    make_modular: Callable[..., Modular], tmp_path: Path
) -> None:
    project = make_modular(MODULE)
    library = Modular(tmp_path / "library", modular_plan(modular_feature(**MODULE)))
    allow = ("-c", "protocol.file.allow=always")
    project.git(*allow, "submodule", "add", "-q", str(library.root), "vendor/library")
    project.commit("a library beside it")
    project.run("run", "--next")  # it is not on the path of what runs
    assert_committed(project)
    project.git(*allow, "submodule", "add", "-q", str(library.root), "exp/vendored")
    project.commit("a library inside the package")
    stderr = project.run("run", "--feature", "M-001", "--force", code=7).stderr
    assert "exp/vendored is a submodule" in stderr


@pytest.mark.parametrize("named", ["package", "input", "command"])
def test_a_git_lfs_file_is_refused_where_it_is_needed(
    make_modular: Callable[..., Modular], named: str
) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1' * 64}\nsize 12345\n"
    path = "exp/weights.bin" if named == "package" else "data/weights.bin"
    feature = dict(MODULE)
    if named == "command":
        feature = {"command": "sh run.sh data/weights.bin"}
    changes: dict[str, Any] = {}
    if named == "input":
        feature |= {"inputs": ["weights"]}
        changes["inputs"] = [{"name": "weights", "path": "data"}]
    project = make_modular(feature, {path: pointer}, **changes)
    stderr = project.run("run", "--next", code=7).stderr
    assert f"{path} is stored by Git LFS" in stderr
    assert "$PHASES_CACHE" in stderr


@pytest.mark.parametrize("how", ["cut", "other bytes", "other content", "missing"])
def test_a_damaged_object_is_named(make_modular: Callable[..., Modular], how: str) -> None:
    # Random digits: the damage is far behind the size, which git prints before it reads the rest.
    project = make_modular(COMMAND, {"data.txt": secrets.token_hex(50_000)})
    name = project.git("rev-parse", "HEAD:data.txt").strip()
    file = project.root / ".git/objects" / name[:2] / name[2:]
    file.chmod(0o644)
    data = file.read_bytes()
    if how == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif how == "other bytes":
        file.write_bytes(data[:30_000] + bytes(20) + data[30_020:])
    elif how == "other content":  # git reads it without a complaint
        file.write_bytes(zlib.compress(zlib.decompress(data)[:-1] + b"?"))
    else:
        file.unlink()
    printed = project.run("run", "--next", code=3).stderr
    assert f"data.txt (blob {name[:12]})" in printed
    assert "git fsck" in printed
    assert "STARTED" not in project.progress_or_nothing


def test_programs_of_an_ignored_environment_are_those_of_the_repository(
    make_modular: Callable[..., Modular],
) -> None:
    project = make_modular({"command": ".venv/bin/tool run.sh"})
    project.write(".gitignore", ".phases/\n.venv/\n")
    project.commit("an environment")
    project.write(".venv/bin/tool", '#!/bin/sh\nexec sh "$@"\n')
    (project.root / ".venv/bin/tool").chmod(0o755)
    project.run("run", "--next")
    assert project.total() == COMMITTED
    digest = subprocess.run(
        ["sha256sum", ".venv/bin/tool"], cwd=project.root, capture_output=True, check=True
    ).stdout.split()[0]
    assert project.receipt()["program:.venv/bin/tool"] == {"sha256": digest.decode()}
    project.assert_audit_is_clean()


GO = """
import pathlib
helper = pathlib.Path({root!r}, "exp/helper.py")
helper.write_text("def add(numbers):\\n    return 500\\n")  # the user edits meanwhile
import exp.main
exp.main.run()
helper.write_text({committed!r})
"""
FINDER = """
import importlib.util, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("exp", "tools"):
            folder = {root!r} + "/" + name
            return importlib.util.spec_from_file_location(
                name, folder + "/__init__.py", submodule_search_locations=[folder]
            )
sys.meta_path.insert(0, Finder())
"""
"""What some editable installs do at the start of every Python."""


def environment_of_project(project: Modular, how: str) -> None:
    """Make `.venv` with an editable install: a path, or a finder before or after all others."""
    venv.create(project.root / ".venv", symlinks=True)
    site = next((project.root / ".venv/lib").glob("python*/site-packages"))
    if how == "path":
        (site / "project.pth").write_text(f"{project.root}\n")
        return
    finder = FINDER.format(root=str(project.root))
    if how == "finder at the end":
        finder = finder.replace("insert(0, Finder())", "append(Finder())")
    (site / "own_finder.py").write_text(finder)
    (site / "project.pth").write_text("import own_finder\n")


@pytest.fixture
def own_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the site-packages of an environment of its own, whose Python is the runner's."""
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    monkeypatch.setattr(sys, "executable", str(environment / "bin/python"))
    return site


@pytest.fixture
def make_with_environment(
    make_modular: Callable[..., Modular], tmp_path: Path
) -> Callable[..., Modular]:
    """Return a function that makes a project whose command has an editable install."""

    def make(command: str, how: str = "path") -> Modular:
        go = GO.format(root=f"{tmp_path}/modular", committed=FILES["exp/helper.py"])
        files = {"scripts/go.py": go, ".gitignore": ".phases/\n.venv/\n"}
        project = make_modular({"command": command}, files)
        environment_of_project(project, how)
        return project

    return make


@pytest.mark.parametrize("how", ["path", "finder", "finder at the end"])
def test_an_editable_install_imports_from_the_copy(
    make_with_environment: Callable[..., Modular], how: str
) -> None:
    project = make_with_environment(".venv/bin/python scripts/go.py", how)
    project.run("run", "--next")
    assert project.total() == COMMITTED
    assert "program:.venv/bin/python" in project.receipt()
    project.assert_audit_is_clean()


OPTIONAL = "try:\n    from exp.local import MORE\nexcept ModuleNotFoundError:\n    MORE = 0\n"
WITH_OPTIONAL = OPTIONAL + MAIN.replace("tools.h.EXTRA", "tools.h.EXTRA + MORE")
SUBMODULES = FINDER.replace(
    "sys.meta_path",
    """        path = {root!r} + "/" + name.replace(".", "/") + ".py"
        if name.startswith("exp.") and __import__("os").path.exists(path):
            return importlib.util.spec_from_file_location(name, path)
sys.meta_path""",
)
"""What the installs of setuptools (submodules that are missing) and scikit-build-core do."""


INSTALLS = list(itertools.product(WHAT, ["before", "meanwhile"], ["first", "last"]))
SHORT_INSTALLS = [("module", "before", "last"), ("command", "meanwhile", "first")]


@pytest.mark.parametrize(("what", "when", "place"), mark_soak(INSTALLS, short=SHORT_INSTALLS))
def test_a_submodule_that_is_not_committed_is_not_imported(
    tmp_path: Path, own_site: Path, what: str, when: str, place: str
) -> None:
    # 1. An editable install, seen by the runner's Python through another sitecustomize.
    finder = SUBMODULES.format(root=f"{tmp_path}/modular")
    if place == "last":
        finder = finder.replace("insert(0, Finder())", "append(Finder())")
    (own_site / "sitecustomize.py").write_text(finder)
    local = f"{tmp_path}/modular/exp/local.py"
    write = f"import pathlib; pathlib.Path({local!r}).write_text('MORE = 500')\n"
    files = {"exp/main.py": WITH_OPTIONAL, ".gitignore": ".phases/\nlocal.py\n"}
    if when == "meanwhile":
        files["exp/main.py"] = write + WITH_OPTIONAL
    document = modular_plan(modular_feature(**WHAT[what]))
    project = Modular(tmp_path / "modular", document, files)

    # 2. A file that git ignores, which a fresh clone would not have.
    if when == "before":
        project.write("exp/local.py", "MORE = 500\n")
    project.run("run", "--next")
    assert Path(local).exists()

    # 3. Elsewhere, where nothing is installed, the commit gives the same.
    (own_site / "sitecustomize.py").unlink()
    assert_committed(project)


def test_a_package_that_a_pth_file_has_imported_is_imported_anew(
    make_with_environment: Callable[..., Modular],
) -> None:
    project = make_with_environment(".venv/bin/python scripts/go.py")
    site = next((project.root / ".venv/lib").glob("python*/site-packages"))
    (site / "project.pth").write_text(f"{project.root}\nimport exp.helper\n")
    project.run("run", "--next")
    assert project.total() == COMMITTED


def test_an_old_install_of_the_project_is_not_imported(
    make_with_environment: Callable[..., Modular],
) -> None:
    # pip install . without -e, as pip writes it.
    project = make_with_environment(".venv/bin/python scripts/go.py")
    site = next((project.root / ".venv/lib").glob("python*/site-packages"))
    (site / "project.pth").unlink()
    for name in ("exp", "tools"):
        shutil.copytree(project.root / name, site / name)
    (site / "exp/main.py").write_text("def run(): raise SystemExit('an old version')\n")
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: other-name\nVersion: 1\n",
        "RECORD": "exp/__init__.py,,\nexp/main.py,,\ntools/__init__.py,,\ntools/h.py,,\n",
        "direct_url.json": json.dumps({"dir_info": {}, "url": project.root.as_uri()}),
    }
    (site / "other_name-1.dist-info").mkdir()
    for name, text in metadata.items():
        (site / "other_name-1.dist-info" / name).write_text(text)
    project.run("run", "--next")
    assert project.total() == COMMITTED


@pytest.mark.parametrize("is_used", [False, True], ids=["its own module", "a helper"])
def test_a_library_in_the_place_of_a_folder_is_not_in_the_receipt(
    tmp_path: Path, own_site: Path, *, is_used: bool
) -> None:
    # `tools` has no __init__.py; a library of that name is what Python imports.
    library = own_site / "tools"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (library / "h.py").write_text("EXTRA = 500\n")
    module = MODULE if is_used else MODULE | {"module": "tools.h"}
    document = modular_plan(modular_feature(**module))
    project = Modular(tmp_path / "modular", document)
    project.git("rm", "-q", "tools/__init__.py")
    project.commit("a folder")
    process = project.run("run", "--next", code=None)
    if is_used:
        assert project.total() == COMMITTED + 500
        assert "code:tools" not in project.receipt()
        assert "code:exp" in project.receipt()
        project.assert_audit_is_clean()
    else:
        assert process.returncode == 7
        assert "Python would import tools from" in process.stderr


@pytest.mark.parametrize(
    "command",
    [
        ".venv/bin/python scripts/go.py",
        "PYTHONPATH=scripts .venv/bin/python scripts/go.py",
        ".venv/bin/python -I scripts/go.py",
        ". .venv/bin/activate && python scripts/go.py",
    ],
)
@pytest.mark.parametrize("how", ["path", "finder"])
def test_what_an_editable_install_offers_must_be_committed(
    make_with_environment: Callable[..., Modular], command: str, how: str
) -> None:
    project = make_with_environment(command, how)
    project.write("exp/helper.py", "def add(numbers):\n    return 500\n")
    assert "exp/helper.py (changed)" in project.run("run", "--next", code=7).stderr
    assert not (project.root / "progress.txt").exists()


def test_another_checkout_of_the_project_is_not_imported(
    make_with_environment: Callable[..., Modular], tmp_path: Path
) -> None:
    project = make_with_environment(".venv/bin/python scripts/go.py")
    project.git("worktree", "add", "-q", "--detach", str(tmp_path / "other"))
    (tmp_path / "other/exp/helper.py").write_text("def add(numbers):\n    return 500\n")
    site = next((project.root / ".venv/lib").glob("python*/site-packages"))
    (site / "project.pth").write_text(f"{tmp_path}/other\n")
    project.run("run", "--next")
    assert project.total() == COMMITTED


def test_a_file_named_like_a_module_of_the_library_shadows_nothing(
    make_with_environment: Callable[..., Modular],
) -> None:
    project = make_with_environment(".venv/bin/python scripts/go.py")
    project.write("random.py", "raise SystemExit('not the library')\n")
    project.write("statistics/plots.py", "")
    go = (project.root / "scripts/go.py").read_text()
    project.write("scripts/go.py", "import random, statistics\nrandom.random()\n" + go)
    project.commit("names of the library")
    project.run("run", "--next")
    assert project.total() == COMMITTED


def test_a_folder_named_like_a_module_of_the_library_is_no_package(
    make_modular: Callable[..., Modular],
) -> None:
    project = make_modular(
        MODULE,
        {
            "statistics/plots.py": "",
            "exp/helper.py": "import statistics\n" + FILES["exp/helper.py"],
        },
    )
    project.run("run", "--next")
    assert_committed(project)


def test_folders_of_path_in_the_repository_are_those_of_the_copy(
    make_modular: Callable[..., Modular],
) -> None:
    gate = {"shell": f"{GATE} && ! command -v mytool"}  # a gate finds no program of the commit
    project = make_modular({"command": "mytool", "gate": gate})
    project.write("bin/mytool", "#!/bin/sh\nsh run.sh\n")
    (project.root / "bin/mytool").chmod(0o755)
    project.commit("a tool")
    project.write("bin/mytool", "#!/bin/sh\nexit 1\n")
    project.run("run", "--next", env={"PATH": f"{project.root}/bin:{os.environ['PATH']}"})
    assert project.total() == COMMITTED


def test_a_script_of_a_subfolder_is_the_commits(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(
        {"command": "cd sub && ./local.sh"},
        {"sub/local.sh": "#!/bin/sh\ncd .. && sh run.sh\n", ".gitignore": ".phases/\n/local.sh\n"},
    )
    (project.root / "sub/local.sh").chmod(0o755)
    project.commit("a script")
    project.write("local.sh", "#!/bin/sh\nexit 1\n")
    (project.root / "local.sh").chmod(0o755)
    project.run("run", "--next")
    assert_committed(project)


def test_a_program_that_git_does_not_ignore_is_not_taken_from_the_repository(
    make_modular: Callable[..., Modular],
) -> None:
    project = make_modular({"command": "bin/tool"})
    project.write("bin/tool", "#!/bin/sh\nsh run.sh\n")
    (project.root / "bin/tool").chmod(0o755)
    assert "bin/tool (not in the commit)" in project.run("run", "--next", code=7).stderr
    project.commit("the tool")
    project.run("run", "--next")
    assert_committed(project)


def test_names_that_are_no_utf8_are_laid_out(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(COMMAND)
    Path(os.fsdecode(os.fsencode(project.root) + b"/odd-\xff.txt")).write_text("odd")
    project.commit("an odd name")
    project.run("run", "--next")
    assert_committed(project)


def test_a_config_that_is_a_link_is_refused(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(MODULE)
    (project.root / "exp/config.yaml").rename(project.root / "exp/real.yaml")
    (project.root / "exp/config.yaml").symlink_to("real.yaml")
    project.commit("a link")
    assert "exp/config.yaml (a link; expected" in project.run("run", "--next", code=7).stderr


def test_a_link_of_an_input_leads_the_gate_to_the_same_files(
    make_modular: Callable[..., Modular],
) -> None:
    project = make_modular(
        MODULE
        | {
            "inputs": ["words"],
            "gate": {"shell": f"{GATE} && grep -q three $(dirname $PHASES_INPUTS)/tree/data/now/*"},
        },
        {"versions/v1/words.txt": "three words more\n"},
        inputs=[{"name": "words", "path": "data"}],
    )
    (project.root / "data/now").symlink_to("../versions/v1")
    project.commit("a link to the newest version")
    project.run("run", "--next")
    assert_committed(project)


def test_code_digests_cover_what_runs(make_modular: Callable[..., Modular], tmp_path: Path) -> None:
    project = make_modular(MODULE)
    project.run("run", "--next")
    assert {uri for uri in project.receipt() if uri.startswith("code")} == {
        "code:exp",
        "code:tools",
    }
    command = Modular(tmp_path / "command", modular_plan(modular_feature(**COMMAND)))
    command.run("run", "--next")
    assert {uri for uri in command.receipt() if uri.startswith("code")} == {"code"}


def test_setup_and_entry_gates_run_in_a_copy(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(MODULE)
    document = json.loads((project.root / "prd/plan.json").read_text())
    document["phases"][0]["setup"] = ["echo x > made-by-setup; echo x > README.md"]
    document["phases"][0]["entry"] = [
        {"shell": "test ! -e made-by-setup && grep -q project README.md && echo y > made-by-entry"}
    ]
    project.write("prd/plan.json", json.dumps(document))
    project.commit("setup")
    project.write("README.md", "an edit\n")
    project.run("run", "--next")
    assert (project.root / "README.md").read_text() == "an edit\n"
    assert not list(project.root.glob("made-by-*"))
    assert_committed(project)


#### what runs and judges is named, or refused


def test_a_forgotten_folder_of_programs_is_named(make_modular: Callable[..., Modular]) -> None:
    project = make_modular({"command": "mytool"})
    project.write("bin/mytool", "#!/bin/sh\nexit 1\n")
    (project.root / "bin/mytool").chmod(0o755)
    path = {"PATH": f"{project.root}/bin:{os.environ['PATH']}"}
    assert "bin/mytool (not in the commit)" in project.run("run", "--next", code=7, env=path).stderr


def test_path_of_the_user_is_used(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mytool").write_text("#!/bin/sh\nsh run.sh\n")
    (tmp_path / "bin/mytool").chmod(0o755)
    project = Modular(tmp_path / "modular", modular_plan(modular_feature(command="mytool")))
    project.run("run", "--next", env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
    assert project.total() == COMMITTED
    project.assert_audit_is_clean()


def test_a_program_that_changes_while_it_runs_is_named(
    make_modular: Callable[..., Modular],
) -> None:
    project = make_modular(
        {"command": "build/tool"}, {".gitignore": ".phases/\nbuild/\n", "README.md": ""}
    )
    tool = project.root / "build/tool"
    project.write("build/tool", f"#!/bin/sh\nsh run.sh\necho '# more' >> {tool}\n")
    tool.chmod(0o755)
    project.run("run", "--next", code=1)
    assert "- reason build/tool was changed while it ran" in project.progress


@pytest.mark.parametrize("quotes", ["'", '"'])
def test_a_program_in_quotes_whose_path_has_a_blank_is_refused(tmp_path: Path, quotes: str) -> None:
    command = f"sh -c {quotes}exec .venv/bin/tool run.sh{quotes}"
    document = modular_plan(modular_feature(command=command))
    project = Modular(tmp_path / "a blank", document, {".gitignore": ".phases/\n.venv/\n"})
    project.write(".venv/bin/tool", '#!/bin/sh\nexec sh "$@"\n')
    (project.root / ".venv/bin/tool").chmod(0o755)
    stopped = project.run("run", "--next", code=7)
    assert "write the program without quotes" in stopped.stderr


def test_the_receipt_names_every_file_of_an_input_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache/words").mkdir(parents=True)
    digests = {}
    for name in ("a.txt", "b.txt"):
        (tmp_path / "cache/words" / name).write_text(name)
        digests[name] = hashlib.sha256(name.encode()).hexdigest()
    item = {
        "name": "words",
        "path": "$PHASES_CACHE/words",
        "sha256": {"a.txt": digests["a.txt"]},
    }
    document = modular_plan(modular_feature(**COMMAND, inputs=["words"]), inputs=[item])
    project = Modular(tmp_path / "modular", document)
    project.run("run", "--next", env={"PHASES_CACHE": f"{tmp_path}/cache"})
    assert project.receipt()["input:words"] == {
        f"sha256:{name}": digest for name, digest in digests.items()
    }
    assert "stale" not in project.run("status").stdout
    project.assert_audit_is_clean()


def test_digests_cover_what_links_lead_to(make_modular: Callable[..., Modular]) -> None:
    feature = MODULE | {"inputs": ["words"]}
    files = {"lib/real.py": FILES["exp/helper.py"], "versions/v1/words.txt": "three words\n"}
    project = make_modular(feature, files, inputs=[{"name": "words", "path": "data"}])
    (project.root / "exp/helper.py").unlink()
    (project.root / "exp/helper.py").symlink_to("../lib/real.py")
    (project.root / "data/now").symlink_to("../versions/v1")
    project.commit("links")
    project.run("run", "--next")
    before = project.receipt()

    later = project.copy(project.root.parent / "later")
    later.git("reset", "-q", "--hard", "HEAD~2")  # as it was before the run
    later.write("lib/real.py", "def add(numbers):\n    return 500\n")
    later.write("versions/v1/words.txt", "three other words\n")
    later.commit("what the links lead to")
    shutil.rmtree(later.root / ".git/phases")
    later.git("update-ref", "-d", "refs/phases/log")
    later.run("run", "--next")
    after = Modular.receipt(later)
    assert before["code:exp"] != after["code:exp"]
    assert before["input:words"] != after["input:words"]
    assert before["code:tools"] == after["code:tools"]


def test_all_discarded_files_are_counted(make_modular: Callable[..., Modular]) -> None:
    many = "for number in $(seq 1500); do echo x > more-$number; done; sh run.sh"
    project = make_modular({"command": many})
    project.run("run", "--next")
    assert "- discarded from its copy: … and 1495 more" in project.progress


@pytest.mark.parametrize("what_is_gone", ['"$PHASES_OUT"', '"$PHASES_OUT/.."'])
def test_an_experiment_that_removes_its_folders_is_errored(
    make_modular: Callable[..., Modular], what_is_gone: str
) -> None:
    project = make_modular({"command": f"rm -rf {what_is_gone}; exit 1"})
    project.run("run", "--next", code=1)
    assert "· ERRORED · Phase 1 · M-001" in project.progress


def test_an_edit_during_the_last_feature_does_not_keep_the_phase_from_its_end(
    make_modular: Callable[..., Modular], tmp_path: Path
) -> None:
    edit = f"echo 'def add(numbers): return 500' > {tmp_path}/modular/exp/helper.py; sh run.sh"
    project = make_modular({"command": edit})
    project.run("run", "--next")
    assert project.status()["phases"][0]["state"] == "awaiting_approval"
    assert project.total() == COMMITTED


def test_an_edited_name_with_a_line_end_is_named(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(MODULE, {"exp/a\nb.json": "1"})
    project.write("exp/a\nb.json", "2")
    assert "b.json (changed)" in project.run("run", "--next", code=7).stderr


def test_committed_bytecode_may_change(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(MODULE, {"exp/__pycache__/helper.cpython-311.pyc": "first"})
    project.write("exp/__pycache__/helper.cpython-311.pyc", "second")
    project.run("run", "--next")
    assert_committed(project)


#### gates

TOPIC_GATE = """
import json, os, pathlib
from gates.shared.sums import EXPECTED

def test_total():
    out = pathlib.Path(os.environ["PHASES_OUT"])
    result = json.loads((out / "result.json").read_text())
    numbers = json.loads((out / "artifacts/numbers.json").read_text())
    assert result["measurements"]["total"]["value"] == numbers[0] == EXPECTED
"""
WITH_TOPIC_GATE = COMMAND | {"gate": {"pytest": "gates/sums/test_sums.py"}}


def test_bytecode_of_a_gate_does_not_judge(
    make_modular: Callable[..., Modular], tmp_path: Path
) -> None:
    project = make_modular(WITH_TOPIC_GATE, {"gates/sums/test_sums.py": TOPIC_GATE})
    (tmp_path / "sums.py").write_text("EXPECTED = 14\n")
    bytecode = project.root / f"gates/shared/__pycache__/sums.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(
        str(tmp_path / "sums.py"),
        cfile=str(bytecode),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    project.write("gates/shared/sums.py", "EXPECTED = 99\n")
    project.git("add", "-f", "gates")
    project.commit("bytecode")
    project.run("run", "--next", code=1)
    assert "· FAILED · Phase 1 · M-001" in project.progress
    project.assert_audit_is_clean()


def test_a_gate_does_not_judge_by_another_work_tree(tmp_path: Path, own_site: Path) -> None:
    # The environment, shared by both work trees, has an editable install of the first.
    path = f"import sys\nsys.path.insert(0, {str(tmp_path / 'modular')!r})\n"
    (own_site / "sitecustomize.py").write_text(path)
    gate = {"shell": f"{GATE} && python -c 'import exp.helper'"}
    document = modular_plan(modular_feature(**COMMAND, gate=gate))
    project = Modular(tmp_path / "modular", document)
    project.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "other"))
    project.root = tmp_path / "other"
    project.run("run", "--next", code=1)
    assert "· FAILED · Phase 1 · M-001" in project.progress


def test_a_file_of_a_gate_has_a_name_in_utf8(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(WITH_TOPIC_GATE, {"gates/sums/test_sums.py": TOPIC_GATE})
    project.write("gates/shared/sums.py", "EXPECTED = 14\n")
    Path(os.fsdecode(os.fsencode(project.root) + b"/gates/shared/odd-\xff.txt")).write_text("odd")
    project.commit("an odd name")
    assert "(its name is not UTF-8)" in project.run("run", "--next", code=7).stderr


@pytest.mark.parametrize("how", ["forgotten", "link"])
def test_a_helper_of_a_gate_is_a_committed_file(
    make_modular: Callable[..., Modular], how: str
) -> None:
    files = {"gates/sums/test_sums.py": TOPIC_GATE, "sums.py": "EXPECTED = 14\n"}
    project = make_modular(WITH_TOPIC_GATE, files)
    (project.root / "gates/shared").mkdir()
    (project.root / "gates/shared/sums.py").symlink_to("../../sums.py")
    expected = "gates/shared/sums.py (not in the commit)"
    if how == "link":
        project.commit("a link")
        expected = "gates/shared/sums.py (a link; expected a file)"
    assert expected in project.run("run", "--next", code=7).stderr


#### size


def test_ten_thousand_files_are_laid_out(make_modular: Callable[..., Modular]) -> None:
    project = make_modular(MODULE)
    for number in range(100):
        folder = project.root / f"many/{number:03d}"
        folder.mkdir(parents=True)
        for name in range(100):
            (folder / f"file-{name}.txt").write_text(f"{number} {name}\n")
    project.commit("ten thousand files")
    project.run("run", "--next")
    assert project.total() == COMMITTED
    project.assert_audit_is_clean()
