"""One place stages a run, lays out what it works on, and has its outputs judged.

Attempts, scratch runs, `verify` and exit gates all work in such a workspace. What a judgement reads
(gates, inputs, the inputs file) is laid out only when the experiment and all its descendants are
dead: they could write to it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from phases.base import durable
from phases.execution.inputs import (
    RECEIPT,
    InputKind,
    ResolvedInput,
    check_inputs,
    encode_inputs,
    resolve_inputs,
)
from phases.execution.sandbox import Sandbox
from phases.execution.worker import Staging, staging_folder
from phases.git.tree import CommitTree, Layout, Tree
from phases.judge.committed_gates import write_gate_files
from phases.judge.gate import Judgement, gate_spec, judge_feature, judge_phase
from phases.plan.schema import Feature, Gate, Plan, canonical_json
from phases.record.feature_code import record_paths, top_packages
from phases.record.project import Project
from phases.record.receipt import Receipt
from phases.record.state import State
from phases.run.imports import write_sitecustomize
from phases.run.programs import path_in_copy, path_without_commit
from phases.views.live import View

SCRATCH_MARK = "[scratch: work tree]"
"""On every line of a scratch run, so that none can be taken for a recorded run of a commit."""


@dataclass(frozen=True)
class Workspace:
    """A staging folder, and the tree that plan, gates and inputs come from."""

    project: Project
    plan: Plan
    state: State
    tree: Tree
    sandbox: Sandbox
    staging: Staging

    @property
    def mark(self) -> str:
        """What begins each message of a scratch run; empty where a commit runs."""
        return "" if self.tree.commit else f"{SCRATCH_MARK} "

    @property
    def env(self) -> dict[str, str]:
        """The plan's variables, and HOME and TMPDIR in the staging folder."""
        return {**self.plan.defaults.env, **self.staging.environment}

    @property
    def gate_env(self) -> dict[str, str]:
        """The same for gates: their PATH has no folder of the commit."""
        if not isinstance(self.tree, CommitTree):
            return self.env
        return {**self.env, "PATH": path_without_commit(self.tree)}

    def environment(self, layout: Layout) -> dict[str, str]:
        """Return the variables of what runs in a copy of the tree."""
        if not isinstance(self.tree, CommitTree):
            return self.env
        root, copy = self.project.root.resolve(), layout.folder.resolve()
        names = top_packages(self.tree, self.plan.results)
        customisation = self.staging.folder / "python"
        write_sitecustomize(customisation, root, copy, names)
        return {
            **self.env,
            "PATH": path_in_copy(self.tree, copy),
            "PYTHONPATH": str(customisation),
            "PHASES_COMMIT": self.tree.commit,
            # No repository that the folder for temporary files happens to be in.
            "GIT_CEILING_DIRECTORIES": str(self.staging.folder),
        }

    def resolve_inputs(
        self,
        tree: Tree,
        layout: Layout,
        names: Sequence[str],
        needs: Sequence[str],
        folder: Path,
        *,
        with_code: bool = False,
    ) -> tuple[ResolvedInput, ...]:
        """Resolve inputs, check their digests and write `inputs.json`.

        Args:
            tree: what has the tracked inputs.
            layout: where it has been laid out.
            names: names of the plan's inputs.
            needs: features whose outputs are inputs too.
            folder: where `inputs.json` and those outputs are written.
            with_code: lay out the code of these features too (`code_of_needs` in the plan).
        """
        inputs = resolve_inputs(
            self.plan,
            names=names,
            needs=needs,
            state=self.state,
            paths=self.project.paths,
            tree=tree,
            layout=layout,
            folder=folder / "inputs",
        )
        # Outputs of features were compared with their receipts where they are stored.
        check_inputs([item for item in inputs if item.kind == InputKind.INPUT])
        if with_code:
            inputs = self._with_code(inputs, folder / "code")
        (folder / "inputs.json").write_bytes(encode_inputs(inputs))
        return inputs

    def _with_code(
        self, inputs: Sequence[ResolvedInput], folder: Path
    ) -> tuple[ResolvedInput, ...]:
        """Return the inputs, each feature with the code of its receipt's commit below `folder`.

        Most features of a project ran on the same code, which is laid out once.
        """
        repo, record = self.project.repo(), record_paths(self.plan.results)
        folders: dict[str, Path] = {}  # digest of a tree without the record -> where it is
        with_code = []
        for item in inputs:
            if item.kind == InputKind.FEATURE:
                commit = Receipt.decode((item.path / RECEIPT).read_bytes()).commit
                tree = CommitTree(repo, commit, record)
                if tree.leads_to(record):
                    tree = CommitTree(repo, commit)
                files = {path: [entry.mode, entry.id] for path, entry in tree.entries.items()}
                digest = durable.sha256(canonical_json(files))
                if digest not in folders:
                    folders[digest] = folder / str(len(folders) + 1)
                    tree.lay_out(folders[digest])
                with_code.append(replace(item, commit=commit, code=folders[digest]))
            else:
                with_code.append(item)
        return tuple(with_code)

    def prepare_judge(
        self,
        gates: Sequence[Gate],
        inputs: Sequence[str],
        needs: Sequence[str] = (),
        *,
        with_code: bool = False,
        inputs_tree: Tree | None = None,
    ) -> Judge:
        """Return a judge, with gates and inputs in a folder that no experiment has seen.

        `inputs_tree` has the tracked inputs; by default it is the tree that the gates come from.
        `with_code`: see `resolve_inputs`.
        """
        # A name drawn now: the experiment cannot have put anything there.
        folder = Path(tempfile.mkdtemp(prefix="judge-", dir=self.staging.folder))
        tracked = [self.plan.input(name) for name in inputs]
        paths = [item.tracked_path for item in tracked if not item.is_cached]
        tree = inputs_tree or self.tree
        layout = tree.lay_out(folder / "tree", paths)
        resolved = self.resolve_inputs(tree, layout, inputs, needs, folder, with_code=with_code)
        judge = Judge(self, folder, tuple(gates), resolved)
        for gate in gates:
            write_gate_files(self.tree, judge.gates_dir(gate), self.plan, gate)
        return judge


@dataclass(frozen=True)
class Judge:
    """Gates and inputs, laid out and ready to judge outputs."""

    workspace: Workspace
    folder: Path
    gates: tuple[Gate, ...]
    """The gates that judge here; the files of each are in a folder of its own."""
    inputs: tuple[ResolvedInput, ...]

    def gates_dir(self, gate: Gate) -> Path:
        """Return the folder that holds `gates/` for one gate."""
        return self.folder / "gates" / str(self.gates.index(gate))

    def judge_feature(
        self,
        feature: Feature,
        out: Path,
        outputs: Mapping[str, str],
        view: View,
        *,
        started: str = "",
    ) -> Judgement:
        """Judge outputs (path -> SHA-256) by the feature's gate; test that the gate can fail.

        `started` is the hash of the attempt's STARTED entry; a scratch run has none.
        """
        workspace = self.workspace
        timeout_s = feature.gate_timeout_s or workspace.plan.defaults.gate_timeout_s
        judgement = judge_feature(
            gate_spec(feature.gate, timeout_s),
            gates_dir=self.gates_dir(feature.gate),
            out=out,
            outputs=outputs,
            inputs_file=self.folder / "inputs.json",
            workspace=self.folder / "judgement",
            env=workspace.gate_env | started_variable(started),
            sandbox=workspace.sandbox,
            root=workspace.project.root,
            blocked=workspace.plan.module_packages,
            patterns=feature.outputs,
            exempt=feature.exempt,
            on_progress=view.progress,
        )
        check_inputs(self.inputs)
        return judgement

    def judge_phase(
        self,
        gate: Gate,
        number: int,
        *,
        folders: Mapping[str, Path],
        outputs: Mapping[str, Mapping[str, str]],
        waived: Sequence[str],
    ) -> Judgement:
        """Judge a phase's outputs (feature -> path -> SHA-256) by one of its exit gates."""
        workspace = self.workspace
        return judge_phase(
            gate_spec(gate, workspace.plan.defaults.gate_timeout_s),
            gates_dir=self.gates_dir(gate),
            features=folders,
            outputs=outputs,
            inputs_file=self.folder / "inputs.json",
            workspace=self.folder / f"judgement-{number}",
            env={**workspace.gate_env, "PHASES_WAIVED": " ".join(waived)},
            sandbox=workspace.sandbox,
            root=workspace.project.root,
            blocked=workspace.plan.module_packages,
        )


def started_variable(started: str) -> dict[str, str]:
    """Return `PHASES_STARTED`: the hash of the STARTED entry, which nobody could choose."""
    return {"PHASES_STARTED": started} if started else {}


@contextmanager
def open_workspace(
    project: Project, plan: Plan, state: State, tree: Tree, sandbox: Sandbox, *, view: View
) -> Iterator[Workspace]:
    """Make a staging folder for the block; warn if not all of it could be removed at the end."""
    folder = None
    try:
        with staging_folder(project.root) as staging:
            folder = staging.folder
            yield Workspace(project, plan, state, tree, sandbox, staging)
    finally:
        if folder and os.path.lexists(folder):
            view.message(
                f"warning: {folder} cannot be removed whole: something in it belongs to another "
                "user, is immutable or is a mount point; later runs try again"
            )
