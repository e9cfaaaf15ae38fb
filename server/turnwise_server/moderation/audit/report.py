"""What a check of the audit says on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from turnwise_server.moderation.audit.verify import Report


def describe(report: Report) -> str:
    """Return a report in words, a line for each thing to know."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    first, last, fault = report.first, report.last, report.fault
    files = "1 file" if report.files == 1 else f"{report.files} files"
    if fault:
        yield f"BROKEN at {fault.file}:{fault.line}: {fault.kind}: {fault.reason}"
    if first is None or last is None:
        yield f"{report.path}: {files}, no records" + (" before it" if fault else "")
        return
    state = "before it" if fault else "the chain is whole"
    yield f"{report.path}: {files}, records {first.seq} to {last.seq}, {first.ts} to {last.ts}: {state}"
    if report.deleted:
        yield f"deleted after their time, as the audit says: {report.deleted} records"
    if report.repairs:
        yield f"repaired: {report.repairs} times (records of the kind repair say what was found)"
    if report.lost:
        yield f"never written, as the audit says: {report.lost} decisions"
    if not fault:
        yield f"last hash: {last.hash}"
        yield "A chain does not show that its end was cut off. Note this hash elsewhere; later, --expect-last finds it."
