"""``recdistill``: one verb a stage. Nothing heavy is imported until a verb runs."""

from __future__ import annotations

import sys

import typer

from recdistill.cli import (
    compare,
    data,
    demo,
    distill,
    doctor,
    evaluate,
    export,
    knowledge,
    knowledge_examples,
    lm,
    mutual,
    rationales,
    recommend,
    refit,
    report,
    reproduce,
    select,
    serve,
    simulate,
    strategies,
    teach,
    teach_again,
    teach_bi_encoder,
    teach_bigrec,
    teach_blend,
    teach_cost,
    teach_item_head,
    teach_slim_items,
    teach_student,
)
from recdistill.errors import RecdistillError
from recdistill.extras import missing_extra

app = typer.Typer(
    name="recdistill",
    help="Distil language-model recommenders into fast sequential students, and measure what was gained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data.app.command("simulated")(simulate.simulated)
knowledge.app.command("select")(select.select)
knowledge.app.command("examples")(knowledge_examples.examples)
teach.app.command("bigrec")(teach_bigrec.bigrec)
teach.app.command("item-head")(teach_item_head.item_head)
teach.app.command("bi-encoder")(teach_bi_encoder.bi_encoder)
teach.app.command("blend")(teach_blend.blend)
teach.app.command("student")(teach_student.student)
teach.app.command("again")(teach_again.again)
teach.app.command("slim-items")(teach_slim_items.slim_items)
teach.app.command("cost")(teach_cost.cost)
app.add_typer(data.app, name="data")
app.add_typer(lm.app, name="lm")
app.add_typer(teach.app, name="teach")
app.add_typer(knowledge.app, name="knowledge")
app.command("rationales")(rationales.rationales)
app.command("distill")(distill.distill)
app.command("refit")(refit.refit)
app.command("mutual")(mutual.mutual)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("strategies")(strategies.strategies)
app.command("reproduce")(reproduce.reproduce)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("recommend")(recommend.recommend)
app.command("extend")(export.extend)
app.command("push")(export.push)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Show the version.")
) -> None:
    """Distil language-model recommenders into fast sequential students, and measure what was gained."""
    if version:
        from recdistill import __version__

        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def main() -> None:
    """Run the command line; a user's mistake ends in one clear message and exit code 1."""
    try:
        app()
    except RecdistillError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
