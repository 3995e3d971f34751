"""The batch script: what stands in it, that nothing of a job file is a command there, and that typos are answered."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import JobError, MachineError
from supervisor.launch.submission import Batch, Receipt, body, checked, names, script, send

ROOT = Path(__file__).parents[2]


def batch(**more: Any) -> Batch:
    facts: dict[str, Any] = {
        "name": "demo",
        "nodes": 1,
        "command": ("-m", "supervisor", "run", "/jobs/job.yaml"),
        "run_dir": Path("/runs/demo"),
        "cwd": Path("/jobs"),
        "log": "/runs/demo/logs/slurm-%j.log",
    }
    return Batch(**{**facts, **more})


def check(given: dict[str, Any], nodes: int = 1) -> dict[str, Any]:
    return checked(given, nodes, lambda key: f"job.yaml: slurm.{key}")


def options(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def test_without_a_word_of_the_user_the_job_can_be_requeued_and_keeps_its_log() -> None:
    assert options(script(batch(), {})) == [
        "--comment='supervisor run in /runs/demo'",
        "--job-name=demo",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--open-mode=append",
        "--output=/runs/demo/logs/slurm-%j.log",
        "--requeue",
    ]


def test_the_head_of_a_script_stays_as_it_is() -> None:
    asked = check(
        {"partition": "gpu", "time": "1-00:00:00", "gpus_per_node": 4, "python": "python3", "setup": ["ml x"]}
    )
    made = batch(command=("-m", "supervisor", "run", "/jobs/my job.yaml", "--set", "args.r=8"), offline=True)
    assert script(made, asked).removesuffix(body()) == (ROOT / "tests" / "golden" / "submit.sbatch").read_text()


def test_submitits_parameters_are_passed_through_and_the_users_word_wins() -> None:
    asked = {
        "partition": "gpu",
        "time": "1-12:00:00",
        "gpus_per_node": 4,
        "mem_gb": 1.5,
        "exclude": ["n1", "n2"],
        "exclusive": True,
        "comment": "mine",
        "array_parallelism": 3,
        "additional_parameters": {"reservation": "r 1", "open_mode": "truncate", "no-kill": True, "licenses": None},
    }
    found = options(script(batch(nodes=2), check(asked, nodes=2)))
    expected = ["--partition=gpu", "--time=1-12:00:00", "--gpus-per-node=4", "--mem=1536M", "--exclude=n1,n2"]
    expected += ["--exclusive", "--comment=mine", "--reservation='r 1'", "--open-mode=truncate", "--no-kill"]
    assert set(expected) <= set(found)
    assert len(found) == len({option.partition("=")[0] for option in found})
    assert not any(option.startswith(("--signal", "--wckey", "--error", "--licenses")) for option in found)
    assert "export SLURM_NO_KILL=set" in script(batch(), check({"additional_parameters": {"no_kill": True}}))


def test_a_user_may_have_a_signal_and_no_requeue() -> None:
    found = options(script(batch(), check({"signal_delay_s": 300, "additional_parameters": {"requeue": False}})))
    assert "--signal=USR2@300" in found
    assert "--no-requeue" in found
    assert "--requeue" not in found


def test_errors_go_to_a_log_of_their_own_only_where_the_user_wants_that() -> None:
    assert "--error=/runs/demo/logs/slurm-%j.err" in options(script(batch(), check({"stderr_to_stdout": False})))


@pytest.mark.filterwarnings("ignore:.*gpu")  # submitit's advice on two of them
def test_every_name_of_submitit_can_be_given_and_also_with_its_prefix() -> None:
    values = {"additional_parameters": {}, "setup": [], "teardown": [], "srun_args": [], "python": "python3"}
    for name in names():
        if name not in ("nodes", "tasks_per_node", "ntasks_per_node", "stderr_to_stdout"):
            assert options(script(batch(), check({name: values.get(name, 1)})))
            assert check({f"slurm_{name}": values.get(name, 1)}) == check({name: values.get(name, 1)})


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"partion": "gpu"}, ("slurm.partion", "did you mean slurm.partition?", "job.yaml: slurm.partion")),
        ({"gpu_per_node": 1}, ("did you mean slurm.gpus_per_node?",)),
        ({"reservation": "x"}, ("additional_parameters", "allowed here: account")),
        ({"use_srun": False}, ("tasks of srun",)),
        ({"array": "0-3"}, ("--sweep",)),
        ({"nodes": 2}, ("set launch.nodes",)),
        ({"ntasks_per_node": 8}, ("launch.processes_per_node",)),
        ({"time": "12 h"}, ("D-HH:MM:SS",)),
        ({"time": 90, "timeout_min": 90}, ("given twice",)),
        ({"setup": {"a": 1}}, ("a list of lines",)),
        ({"partition": ["a"]}, ("a plain value",)),
        ({"python": "'"}, ("python",)),
        ({"additional_parameters": {"array": "0-3"}}, ("would change what is run",)),
        ({"additional_parameters": {"a b": 1}}, ("no option",)),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_submitted(given_: dict[str, Any], words: tuple[str]) -> None:
    with pytest.raises(JobError) as refused:
        check(given_)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("value", ["a\nb", "a\\b", "tab\there", "\x00"])
def test_what_an_sbatch_line_cannot_carry_is_refused(value: str) -> None:
    with pytest.raises(JobError, match="cannot be carried"):
        check({"account": value})
    with pytest.raises(JobError, match="cannot be carried"):
        check({"additional_parameters": {"account": value}})
    with pytest.raises(JobError, match="cannot be carried"):
        script(batch(log=f"/runs/{value}/slurm-%j.log"), {})


NASTY = st.text(st.sampled_from(list("ab $(){}`'\"\\;&|<>*?~#!%=\n-é")), min_size=1, max_size=12)


@given(words=st.lists(NASTY, max_size=4), directory=NASTY)
def test_the_shell_sees_the_command_word_for_word(words: list[str], directory: str) -> None:
    """The head of the script is run; srun is a function that prints its words."""
    made = batch(command=("run", *words), run_dir=Path("/runs") / directory, cwd=Path("/"))
    head = script(made, {"srun_args": list(words)}).removesuffix(body())
    tell = 'printf "%s\\0" "$run_dir" "${#srun_args[@]}" "${srun_args[@]}" "${command[@]}"'
    done = subprocess.run(["bash", "-c", head + tell], capture_output=True, check=True, env={})
    told = done.stdout.decode().split("\0")[:-1]
    assert told[0] == str(made.run_dir)
    assert told[1:] == [str(len(words)), *words, told[2 + len(words)], "run", *words]


def test_the_users_own_shell_stands_before_the_run_and_after_it() -> None:
    text = script(batch(), {"setup": ["module load cuda", "if true; then\n  x=1\nfi"], "teardown": ["echo bye"]})
    assert text.index("module load cuda") < text.index("x=1") < text.index("cd -- /jobs") < text.index("command=(")
    assert "teardown() {\necho bye\n}" in text
    assert subprocess.run(["bash", "-n"], input=text.encode(), check=False).returncode == 0


def test_another_python_is_a_command_of_several_words() -> None:
    text = script(batch(), check({"python": "apptainer exec --nv '/images/a b.sif' python3"}))
    assert "command=(apptainer exec --nv '/images/a b.sif' python3 -m supervisor run /jobs/job.yaml)" in text


def test_a_task_of_a_sweep_takes_its_line_and_no_other(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks $(x).tsv"
    tasks.write_text("/runs/s/s-0\t--set\tlr=1e-4\n/runs/s/s 1\t--set\tnote=$(touch pwned) 'a' \\n\n")
    text = script(batch(tasks=tasks, count=2, cwd=tmp_path), {"array_parallelism": 1})
    assert "--array=0-1%1" in options(text)
    head = text.removesuffix(body()) + 'printf "%s\\0" "$run_dir" "${command[@]: -2}"'
    done = subprocess.run(["bash", "-c", head], capture_output=True, check=True, env={"SLURM_ARRAY_TASK_ID": "1"})
    assert done.stdout.decode().split("\0") == ["/runs/s/s 1", "--set", "note=$(touch pwned) 'a' \\n", ""]
    assert subprocess.run(["bash", "-c", head], check=False, env={"SLURM_ARRAY_TASK_ID": "2"}).returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == [tasks.name]


def test_the_script_for_people_who_write_their_own_ends_as_the_generated_one_does() -> None:
    own = (ROOT / "slurm" / "run.sbatch").read_text()
    assert own.endswith(body())
    assert script(batch(), {}).endswith(body())
    head = own.removesuffix(body())
    for word in ("command=(", "run_dir=", "offline=", "srun_args=(", "teardown()"):
        assert f"\n{word}" in head
        assert f"\n{word}" in script(batch(), {})
    asked = {option.partition("=")[0] for option in options(own)}
    assert {"--requeue", "--open-mode", "--nodes", "--ntasks-per-node", "--output", "--job-name"} <= asked


def stub(directory: Path, text: str) -> None:
    program = directory / "sbatch"
    program.write_text(f"#!/bin/bash\n{text}\n")
    program.chmod(0o755)


def test_sbatch_is_not_told_of_the_job_around_it_and_nothing_overrules_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "script"
    path.write_text(script(batch(), check({"time": 5})))
    stub(tmp_path, f'env >{shlex.quote(str(tmp_path / "env"))}; echo "17;alps"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CONF": "/c", "SLURM_RESTART_COUNT": "3", "HOME": "/h"}
    environment |= {"SBATCH_NO_REQUEUE": "1", "SBATCH_TIMELIMIT": "1", "SBATCH_ACCOUNT": "a"}
    assert send(path, environment) == Receipt("17", "alps")
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert {key: value for key, value in seen.items() if key.startswith(("SLURM", "SBATCH", "HOME"))} == {
        "SLURM_CONF": "/c",
        "HOME": "/h",
        "SBATCH_ACCOUNT": "a",
    }


def test_a_refusal_of_sbatch_is_said_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "script"
    path.write_text(script(batch(), {}))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="no sbatch here"):
        send(path, {"PATH": str(tmp_path)})
    stub(tmp_path, "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(MachineError, match="invalid partition specified: gpu"):
        send(path, {"PATH": str(tmp_path)})
