"""A job's verdict in words: what ``lockstep show`` says of where its threads sit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.text import Text

Json = dict[str, Any]
STYLES = {"as planned": "green", "degraded": "yellow", "deviates": "red"}
MOST_SENTENCES = 20


def line(job: Json) -> Text:
    """The verdict and how many ranks it is of; "-" before a rank has said something."""
    counts = job["verdicts"]
    heard = 0 if counts is None else counts["as_planned"] + counts["degraded"] + counts["deviates"]
    if not heard:
        return Text("-")
    ranks, verdict = counts["ranks"], job["verdict"]
    if verdict is None:
        worst = f", {counts['deviates']} of them deviate" if counts["deviates"] else ""
        return Text(
            f"{heard} of {ranks} ranks have said where their threads sit{worst}", style="yellow" if worst else ""
        )
    found = counts["as_planned" if verdict == "as planned" else verdict]
    return Text(f"{verdict}: {found} of {ranks} ranks", style=STYLES.get(verdict, ""))


def sentences(placement: Json) -> Iterator[str]:
    """What is not as planned, each with its node and ranks, the worst first; cut with a word where there are many."""
    found = [
        *_of_verdicts(placement, "deviations"),
        *(f"{node['node']}, what Slurm gave: {said}" for node in placement["nodes"] for said in _only_granted(node)),
        *_of_verdicts(placement, "degradations"),
    ]
    for sentence in found[:MOST_SENTENCES]:
        # A thread's name is whatever its program calls it.
        yield "".join(character for character in sentence if character.isprintable())
    if len(found) > MOST_SENTENCES:
        yield f"... and {len(found) - MOST_SENTENCES} more: --json has all of them"


def _only_granted(node: Json) -> list[str]:
    """What is wrong with what Slurm gave; ranks that deviate by it say so themselves."""
    said = {text for one in node["ranks"] if one["verdict"] for text in one["verdict"]["deviations"]}
    return [text for text in node["grant"] if text not in said]


def _of_verdicts(placement: Json, kind: str) -> Iterator[str]:
    """One sentence once per node, with all ranks that said it."""
    for node in placement["nodes"]:
        ranks: dict[str, list[int]] = {}
        for one in node["ranks"]:
            for sentence in one["verdict"][kind] if one["verdict"] else ():
                # In a log a sentence has to say whose it is; here that is said once for all that have the same to say.
                own = sentence.removeprefix(f"rank {one['rank']} on {node['node']}: ")
                ranks.setdefault(own, []).append(one["rank"])
        for sentence, of in ranks.items():
            named = f"rank {of[0]}" if len(of) == 1 else f"ranks {', '.join(map(str, of))}"
            yield f"{node['node']}, {named}: {sentence}"
