"""Outputs that hold the SHA-256 of other outputs, brought up to date with a mutant.

A check that compares digests notices every change and knows nothing about what changed. Where a
mutant is to be noticed by its content, the digests in its other files are therefore those of its
own: in result.json, in a list for `sha256sum -c`, in a report's last line. What knows the content
alone can kill it, whether or not such checks have the mark `integrity`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from phases.base import durable
from phases.judge.copies import Output

MAX_READ = 1 << 24  # bytes of a file that is searched for digests
_DIGEST = re.compile(rb"(?<![0-9a-fA-F])[0-9a-f]{64}(?![0-9a-fA-F])")


class DigestReferences:
    """Which text files of the outputs hold the digest of which others."""

    def __init__(self, outputs: Mapping[str, Output]):
        """Search the outputs; IntegrityError if one is not what was collected."""
        self._outputs = outputs
        self._holders: dict[str, list[str]] = {}
        """Digest -> paths of the files that hold it."""
        digests = {output.sha256.encode() for output in outputs.values()}
        for path, output in outputs.items():
            if output.source.stat().st_size > MAX_READ:
                continue
            data = output.read()
            # An image may hold a digest too, but its checksum would no longer fit.
            if b"\0" in data:
                continue
            for digest in digests.intersection(_DIGEST.findall(data)):
                self._holders.setdefault(digest.decode(), []).append(path)

    def follow(self, changed: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the changed files, and those that hold their digests with the new ones.

        Args:
            changed: path -> new bytes.
        """
        files = dict(changed)
        stated = {path: output.sha256 for path, output in self._outputs.items()}
        waiting = list(changed)
        # A chain of digests is no longer than the list of files; files that state each other's
        # digests cannot exist.
        for _ in range(len(self._outputs)):
            if not waiting:
                break
            path = waiting.pop(0)
            old, new = stated[path], durable.sha256(files[path])
            stated[path] = new
            for holder in self._holders.get(self._outputs[path].sha256, ()):
                data = files[holder] if holder in files else self._outputs[holder].read()
                updated = data.replace(old.encode(), new.encode())
                if updated != data:
                    files[holder] = updated
                    waiting.append(holder)
        return files
