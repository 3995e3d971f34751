"""What stands under `notify` is checked before anything starts, and no message shows an address."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.errors import JobError
from supervisor.job import Job, load_job, resolved_yaml
from supervisor.job.notify import masked, settings

SECRET = "T0psecret"
MINIMAL = "program: json.tool\n"


def load(here: Path, entries: str, *overrides: str) -> Job:
    path = here / "demo.yaml"
    path.write_text(f"{MINIMAL}notify:\n{entries}")
    return load_job(path, overrides, cwd=here, environ={})


def refusal(here: Path, entries: str) -> JobError:
    with pytest.raises(JobError) as caught:
        load(here, entries)
    return caught.value


def python(program: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=cwd, timeout=180, check=False
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (f"nonsense://{SECRET}", "Apprise does not understand 'nonsense://…'"),
        (f"tgram://{SECRET}", "Apprise does not understand 'tgram://…'"),
        (SECRET, "'…' cannot be used; an Apprise URL begins with its service"),
        ("7", "int cannot be used; allowed: a list of Apprise URLs, {dead_man"),
        (f"json://me:{SECRET}@host: 7", "{…} cannot be used; allowed: a list of Apprise URLs"),
        (f"{{dead_man: {SECRET}}}", "notify.0.dead_man: '…' cannot be used; an address that begins with http://"),
        (f"{{dead_man: 'ftp://{SECRET}'}}", "'ftp://…' cannot be used"),
        (f"{{dead_man: 'http://h:x{SECRET}/'}}", "'http://…' cannot be used"),
        (f"{{dead_man: 'http://{SECRET} x'}}", "'http://…' cannot be used"),
        (f"{{dead_man: 'http://{SECRET}', every: 5 s}}", "notify.0.every: '…' cannot be used; a duration of at least"),
        (f"{{deadman: 'http://{SECRET}'}}", "unknown key notify.0.deadman; did you mean notify.0.dead_man?"),
        ("{every: 5 min}", "notify.0.dead_man is missing"),
        (f"{{metrics: {SECRET}}}", "notify.0.metrics: '…' cannot be used; file, an absolute path that ends in .prom"),
        ("{metrics: ':0'}", "notify.0.metrics"),
        ("{metrics: ':70000'}", "notify.0.metrics"),
        ("{metrics: 9400}", "notify.0.metrics: int cannot be used; file, an absolute"),
        ("{metrics: x.prom}", "notify.0.metrics"),
        ("{metrics: file, port: 9400}", "notify.0: {…} cannot be used; allowed: a list of Apprise URLs"),
    ],
)
def test_what_cannot_work_is_refused_with_its_line_and_without_its_secret(
    tmp_path: Path, entry: str, said: str
) -> None:
    error = refusal(tmp_path, f"  - {entry}\n")
    assert said in str(error)
    assert error.where == f"{tmp_path / 'demo.yaml'}:3"
    assert SECRET not in str(error)


def test_the_entry_that_is_wrong_is_the_one_that_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path, "  - json://localhost\n  - nonsense://x\n")
    assert error.where == f"{tmp_path / 'demo.yaml'}:4"


def test_every_kind_is_taken_and_read_back_as_the_same(tmp_path: Path) -> None:
    written = [
        "json://localhost",
        "{dead_man: 'https://hc-ping.com/x'}",
        "{dead_man: 'http://[::1]:8/x', every: 1 min}",
        "{metrics: file}",
        "{metrics: ':9400'}",
        "{metrics: /var/lib/node/demo.prom}",
    ]
    job = load(tmp_path, "".join(f"  - {entry}\n" for entry in written))
    (tmp_path / "again.yaml").write_text(resolved_yaml(job))
    assert load_job(tmp_path / "again.yaml", cwd=tmp_path, environ={}).notify == job.notify
    told = json.loads(json.dumps(settings("demo", Path("/r"), "here", job.notify)))
    assert told["urls"] == [["notify.0 (json://…)", "json://localhost"]]
    assert told["alarms"] == [
        ["notify.1 (dead_man)", "https://hc-ping.com/x", 300.0],
        ["notify.2 (dead_man)", "http://[::1]:8/x", 60.0],
    ]
    assert told["metrics"] == ["/r/metrics.prom", ["", 9400], "/var/lib/node/demo.prom"]


def test_an_override_is_checked_like_the_file(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="Apprise does not understand 'nonsense://…'"):
        load(tmp_path, "  []\n", f"notify=['nonsense://{SECRET}']")


def test_without_apprise_an_address_is_refused_with_what_to_install(tmp_path: Path) -> None:
    """A Python that finds everything but Apprise, as where the extra was not installed."""
    (tmp_path / "demo.yaml").write_text(f"{MINIMAL}notify: ['json://me:{SECRET}@host']\n")
    (tmp_path / "metrics.yaml").write_text(f"{MINIMAL}notify: [{{metrics: file}}]\n")
    program = (
        "import sys; from importlib.machinery import PathFinder\n"
        "class Without(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, *more):\n"
        "        return None if name == 'apprise' else PathFinder.find_spec(name, *more)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Without\n"
        "from pathlib import Path; from supervisor.job import load_job\n"
        "load_job(Path('metrics.yaml'))\n"
        "try: load_job(Path('demo.yaml'))\n"
        "except Exception as error: print(error)"
    )
    done = python(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "demo.yaml:2: notify: 'json://…' is told by Apprise, which is not installed; " in done.stdout
    assert "pip install 'lora-supervisor[notify]'" in done.stdout
    assert SECRET not in done.stdout


def test_apprise_is_never_imported_by_the_one_who_reads_a_job(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(f"{MINIMAL}notify: ['json://host']\n")
    program = (
        "import sys; from pathlib import Path; from supervisor.job import load_job; load_job(Path('demo.yaml'));"
        "print(*(m for m in ('apprise', 'requests', 'urllib.request', 'supervisor.report') if m in sys.modules))"
    )
    done = python(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_what_a_supervisor_started_does_not_check_again(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(f"{MINIMAL}notify: ['nonsense://host']\n")
    assert load_job(path, cwd=tmp_path, environ={"SUPERVISOR_RUN_DIR": "/r"}).notify == ["nonsense://host"]


@pytest.mark.parametrize("value", ["slack://a/b", "SLACK://a", "slack:a", "", 7, None, ["x"], {"slack://a": 1}])
def test_a_mask_hides_everything_but_the_service(value: object) -> None:
    assert masked(value) in ("'slack://…'", "'…'", "int", "NoneType", "list", "{…}")
