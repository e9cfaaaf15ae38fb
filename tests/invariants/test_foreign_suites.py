"""Results of other test runners arrive whole: a failure there is a failure here, under its name."""

from pathlib import Path

import pytest

from support.foreign_suites import BIN, Case, ForeignClients, clients_environment, read_junit, tell

RESULTS = """<testsuites><testsuite>
<testcase classname="suites.langchain_suite.TestStandard" name="test_a" />
<testcase classname="test" name="says it" ><failure message="not equal">where</failure></testcase>
<testcase name="b"><error message="no server" /></testcase>
<testsuite><testcase name="c"><skipped type="pytest.skip" message="no images" /></testcase></testsuite>
</testsuite></testsuites>"""


def test_every_case_is_read_with_its_name_and_end(tmp_path: Path) -> None:
    (tmp_path / "results.xml").write_text(RESULTS)
    assert read_junit(tmp_path / "results.xml") == [
        Case("TestStandard::test_a", "passed", ""),
        Case("says it", "failed", "not equal\nwhere"),
        Case("b", "failed", "no server"),
        Case("c", "skipped", "no images"),
    ]


def test_a_failed_case_fails_under_its_name() -> None:
    class Recorded:
        """A stand-in for pytest's fixture, which keeps failures to itself."""

        test = staticmethod(lambda name: pytest.raises(pytest.fail.Exception, match=f"^{name}: why"))

    tell([Case("some test", "failed", "why")], Recorded())  # type: ignore[arg-type]


@pytest.mark.skipif(not BIN.exists(), reason="`make test` installs the clients")
def test_a_suite_that_does_not_run_fails(tmp_path: Path) -> None:
    clients = ForeignClients(clients_environment(tmp_path), tmp_path)
    for run in (clients.python_suite, clients.node_suite):
        with pytest.raises(pytest.fail.Exception, match="did not run"):
            run("no_such_suite")
