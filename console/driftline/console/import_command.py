"""`driftline import recorded`: decisions that others recorded become history on the log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: driftline import recorded answers.jsonl.gz --app recordings --model acme/m1 --verifier SPEC.toml"


def import_recorded_file(
    file: Annotated[Path, typer.Argument(help="Recorded decisions, .jsonl or .jsonl.gz.")],
    app: Annotated[str, typer.Option(help="App that the history belongs to.")],
    model: Annotated[str, typer.Option(help="Whose answers are imported, provider/name.")],
    verifier: Annotated[Path, typer.Option(help="Verifier spec: how answers are found and judged.")],
    replicate: Annotated[int | None, typer.Option(help="Which run of the model; else the lowest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Import the recorded answers of one model, judged by the spec, as events and decisions."""
    from dataclasses import asdict

    from driftline.console.common import out, progress_bar, say
    from driftline.console.recorded_judge import recorded_judge
    from driftline.consumers.prompt import RecordedMessages
    from driftline.consumers.verifier_spec import SpecJudge
    from driftline.log import load_settings
    from driftline.producers import import_recorded
    from driftline.schemas import UsageError

    settings = load_settings()
    if app in settings.apps:
        raise UsageError(
            f"{app!r} is an app with code of its own ({settings.apps[app]} in driftline.toml)",
            "choose another name with --app: a replay would ask the code, not the verifier spec",
        )
    spec = SpecJudge.from_file(verifier)
    with progress_bar(f"importing {file.name}", None) as show:
        summary = import_recorded(
            file,
            app=app,
            model=model,
            replicate=replicate,
            judge=recorded_judge(spec),
            judge_version=spec.version,
            spec_text=spec.text,
            prompt_hash=RecordedMessages.hash,
            settings=settings,
            on_progress=lambda done, total: show(done, f"of {total}"),
        )
    if as_json:
        out.print_json(data=asdict(summary))
    else:
        say(str(summary))
