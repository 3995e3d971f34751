"""The command line: arguments in, data on stdout, talk on stderr, one exit code.

Heavy imports are inside the commands: `supervisor status` is to answer at once.
"""

from __future__ import annotations

import errno
import functools
import json
import sys
from pathlib import Path
from typing import Any

import click

from supervisor import __version__
from supervisor.errors import DiskError, ExitCode, SupervisorError

_JOB = click.argument("job", type=click.Path(path_type=Path))
_RUN_DIR = click.argument("run_dir", type=click.Path(path_type=Path))
_SET = click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the job file.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
_SWEEP = click.option(
    "--sweep", "sweeps", multiple=True, metavar="A.B=V1,V2", help="A run for each value; for each combination."
)

_FLAGS = (
    click.option("--fresh", is_flag=True, help="Start at step 0, setting aside what there is."),
    click.option("--forgive", is_flag=True, help="Start again after the run gave up, with fresh budgets."),
    click.option("--accept-changes", is_flag=True, help="Go on although the job file changes the mathematics."),
)


def _terms(command: Any) -> Any:
    """How an earlier run is to be gone on with."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


#: What a path that somebody gave us may be refused for, and what helps.
_REFUSED = {
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EACCES: "have it opened to you, or do it as its owner",
    errno.EPERM: "have it opened to you, or do it as its owner",
}


def _reads(command: Any) -> Any:
    """Of a command that only looks: a path that cannot be looked at is what it was given, and no bug of ours."""

    @functools.wraps(command)
    def read(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except OSError as error:
            remedy = _REFUSED.get(error.errno or 0)
            if remedy is None or error.filename is None:
                raise
            raise DiskError(f"{error.filename} cannot be used: {error.strerror}", remedy) from error

    return read


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="supervisor")
def commands() -> None:
    """Fine-tune language models with LoRA, and survive whatever befalls the job."""


def main() -> None:
    """The `supervisor` command."""
    try:
        commands.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(ExitCode.STOPPED)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except SupervisorError as error:
        click.echo(f"supervisor: {error}", err=True)
        sys.exit(error.exit_code)


def _print(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


@commands.command()
@_JOB
@_SET
@click.option("--detach", is_flag=True, help="Survive the loss of the terminal.")
@_terms
@click.option("--node-rank", type=int, help="Number of this node among several, from 0; `srun` tells it by itself.")
@click.option("--nodes", type=int, help="How many nodes take part.")
@click.option("--leader", metavar="HOST:PORT", help="Address of node 0, where it listens for the others.")
def run(
    job: Path,
    overrides: tuple[str, ...],
    *,
    detach: bool,
    node_rank: int | None,
    nodes: int | None,
    leader: str | None,
    **terms: bool,
) -> None:
    """Run JOB here to its end."""
    from supervisor.engine.running import listen_early

    inbox = listen_early()
    from supervisor.engine.members.place import Options
    from supervisor.engine.opening import Terms
    from supervisor.engine.running import run as run_job
    from supervisor.job import load_job
    from supervisor.report.display import display

    loaded = load_job(job, overrides)
    if detach:
        from supervisor.engine.opening import make_directory
        from supervisor.launch.detach import detach as leave_terminal

        make_directory(loaded.run_dir)

        arguments = [a for a in sys.argv[1:] if a != "--detach"]
        sys.exit(leave_terminal(arguments, loaded.run_dir))
    with display(loaded.run_dir) as tell:
        code = run_job(loaded, Terms(**terms), inbox, tell, Options(node_rank, nodes, leader))
    sys.exit(code)


@commands.command()
@_JOB
@_SET
@_SWEEP
@click.option("--dry-run", is_flag=True, help="Print the exact script, and submit nothing.")
@_terms
@_JSON
def submit(
    job: Path, overrides: tuple[str, ...], sweeps: tuple[str, ...], dry_run: bool, as_json: bool, **terms: bool
) -> None:
    """Submit JOB to SLURM, and print the job's id."""
    from time import sleep

    from supervisor.engine.commands.submitting import submit as submit_job
    from supervisor.engine.opening import Terms

    made = submit_job(job, overrides, sweeps, Terms(**terms), dry_run=dry_run, wait=sleep)
    for remark in made.remarks:
        click.echo(remark, err=True)
    if as_json:
        _print(made.as_json())
    else:
        click.echo(made.script if dry_run else made.job_id, nl=not dry_run)


@commands.command()
@_JOB
@_SET
@_SWEEP
def prefetch(job: Path, overrides: tuple[str, ...], sweeps: tuple[str, ...]) -> None:
    """Bring model and data here, for compute nodes without internet."""
    from supervisor.engine.commands.prefetching import prefetch as bring

    for marker in bring(job, overrides, sweeps):
        click.echo(f"all is here ({marker}); the job will not ask the hub", err=True)


@commands.command()
@_JOB
@_SET
@_JSON
def plan(job: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print what `run` would do, and do nothing."""
    from supervisor.engine.commands.planning import plan as make_plan
    from supervisor.job import load_job

    made = make_plan(load_job(job, overrides))
    if as_json:
        _print(made.as_json())
    else:
        click.echo(made.as_text())


@commands.command()
@click.argument("run_dir", type=click.Path(path_type=Path), required=False)
@_JSON
@_reads
def status(run_dir: Path | None, as_json: bool) -> None:
    """Where a run stands; without RUN_DIR, every run below the current directory."""
    from supervisor.report.status import print_status

    print_status(run_dir, as_json=as_json)


@commands.command()
@_RUN_DIR
@_reads
def watch(run_dir: Path) -> None:
    """The live view of `status`."""
    from supervisor.report.watch import watch as follow

    follow(run_dir)


@commands.command()
@_RUN_DIR
@_JSON
@_reads
def why(run_dir: Path, as_json: bool) -> None:
    """Each attempt's cause, its evidence, and what was decided."""
    from supervisor.report.why import print_why

    print_why(run_dir, as_json=as_json)


@commands.command()
@_RUN_DIR
@_JSON
@_reads
def verify(run_dir: Path, as_json: bool) -> None:
    """Each checkpoint: intact, torn (and why), foreign; exit code 0 whatever they are."""
    from supervisor.engine.commands.inspecting import inspect

    told = inspect(run_dir)
    if as_json:
        _print(told.as_json())
    else:
        click.echo(told.as_text())


@commands.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--adapter", type=click.Path(path_type=Path), metavar="DIR", help="As peft and LoRA servers read it.")
@click.option("--hf", type=click.Path(path_type=Path), metavar="DIR", help="As a stock Trainer resumes from it.")
@click.option("--merged", type=click.Path(path_type=Path), metavar="DIR", help="Merged into its base model.")
@_JSON
@_reads
def export(checkpoint: Path, adapter: Path | None, hf: Path | None, merged: Path | None, as_json: bool) -> None:
    """Write CHECKPOINT, or a run's newest one, in other forms."""
    from supervisor.engine.commands.exporting import export as write

    asked = {"adapter": adapter, "hf": hf, "merged": merged}
    made = write(checkpoint, {form: target for form, target in asked.items() if target is not None})
    for remark in made.remarks:
        click.echo(remark, err=True)
    if as_json:
        _print(made.as_json())
    else:
        for one in made.written:
            click.echo(one.path)


@commands.command()
@_RUN_DIR
@click.option("--checkpoint", "named", multiple=True, metavar="STEP", help="Only this one; may be repeated.")
@click.option("--data", type=click.Path(path_type=Path), help="Measure them on this file: JSON lines or Parquet.")
@click.option("--text-field", help="Its column of texts, if not the run's own.")
@click.option("--messages-field", help="Its column of chats, if not the run's own.")
@click.option("--model", help="The base model, where a checkpoint does not name it.")
@_JSON
@_reads
def compare(run_dir: Path, named: tuple[str, ...], data: Path | None, *, as_json: bool, **options: str | None) -> None:
    """The kept checkpoints with their metrics, and how they do on new inputs."""
    from supervisor.engine.commands.comparing import Inputs
    from supervisor.engine.commands.comparing import compare as set_beside

    if data is None and any(options.values()):
        raise click.UsageError("--text-field, --messages-field and --model say how --data FILE is to be read")
    told = set_beside(run_dir, named, Inputs(data, **options) if data is not None else None)
    if as_json:
        _print(told.as_json())
    else:
        click.echo(told.as_text())


@commands.command()
@_RUN_DIR
@click.option("--wait/--no-wait", default=True, help="Wait until the run has stopped (default).")
@_reads
def stop(run_dir: Path, wait: bool) -> None:
    """Ask the run to drain and stay stopped."""
    from supervisor.engine.commands.stopping import stop as ask

    click.echo(ask(run_dir, wait=wait), err=True)


@commands.command("install-service")
@_JOB
@_SET
@click.option("--user/--system", default=True, help="A unit of your own (default), or of the system, run as you.")
@click.option("--print", "only_print", is_flag=True, help="Print the unit, and write nothing.")
@click.option("--enable", is_flag=True, help="Have systemd start it at boot.")
def install_service(job: Path, overrides: tuple[str, ...], *, user: bool, only_print: bool, enable: bool) -> None:
    """Write a systemd unit that resumes JOB at boot."""
    import os

    from supervisor.job import load_job
    from supervisor.launch import service as services

    loaded = load_job(job, overrides)
    arguments = ["-m", "supervisor", "run", str(job.absolute()), *(w for one in overrides for w in ("--set", one))]
    service = services.Service(
        name=loaded.name,
        run_dir=loaded.run_dir,
        command=(sys.executable, *arguments),
        directory=Path.cwd(),
        grace_s=loaded.recovery.grace.s,
        user=None if user else services.account(os.environ),
    )
    if only_print:
        click.echo(services.unit_text(service), nl=False)
        return
    click.echo(services.install(service, services.unit_directory(service, os.environ)))
    if enable:
        services.enable(service)
    else:
        click.echo("it is started at boot after", err=True)
        for command in services.enabling(service):
            click.echo(f"  {' '.join(command)}", err=True)
    if user:
        click.echo("`loginctl enable-linger` has it start before you log in", err=True)


@commands.command()
def schema() -> None:
    """Print the job file's JSON schema."""
    from supervisor.job import schema as job_schema

    _print(job_schema())


@commands.command()
@_SET
@click.option("--faults", is_flag=True, help="Inject faults, and compare with an undisturbed run, bit for bit.")
@click.option("--run-dir", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True)
def demo(overrides: tuple[str, ...], faults: bool, run_dir: Path) -> None:
    """Train a small model made on the spot; needs no network and no GPU."""
    from supervisor.engine.running import listen_early

    inbox = listen_early()
    from supervisor.drill.demo import demo as run_demo

    sys.exit(run_demo(run_dir.absolute(), overrides, inbox, faults=faults))
