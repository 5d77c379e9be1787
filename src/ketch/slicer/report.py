"""What became of each cell, for a person to check in a minute: as text, or as a page.

Script, Proof --*as_text*, *as_page*--> report
"""

import html
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from ketch.slicer import Line, Script
from ketch.slicer.prove import Proof

LONGEST: Final = 60  # characters of a line of code that are shown as text
STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 90rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td { vertical-align: top; padding: .4rem .6rem; border-top: 1px solid #8884 }
td.cell { width: auto; white-space: nowrap; color: #888 }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, monospace }
th { text-align: left; padding: .4rem .6rem } td { width: 50% }
tr.gone pre { opacity: .6 }
tr.kept small { color: #1a7f37 } tr.gone small { color: #9a6700 }
h2 { margin-top: 2.5rem }
"""


def verdict(proof: Proof) -> str:
    """Say in one sentence whether notebook and script make the same model."""
    if not proof.ran:
        return "Not proved: neither the notebook nor the script was run."
    if proof.failure:
        return f"Not proved. {proof.failure}."
    if proof.differences:
        return f"Not the same model: {'; '.join(proof.differences[:5])}."
    return "Proved: notebook and script make the same model, bit for bit."


def by_cell(script: Script) -> Iterator[tuple[int, list[Line]]]:
    """Give what became of each cell, in the order of the notebook."""
    ordered = sorted(script.lines, key=lambda line: line.cell)
    for cell, lines in groupby(ordered, key=lambda line: line.cell):
        yield cell, [*lines]


def as_text(script: Script, proof: Proof) -> str:
    """Write the report as lines of text."""
    kept = sum(line.kept for line in script.lines)
    lines = [verdict(proof), f"{kept} of {len(script.lines)} statements make the model.", ""]
    for cell, parts in by_cell(script):
        for place, part in enumerate(parts):
            first = " ".join(part.text.strip().splitlines()[:1])
            code = first if len(first) <= LONGEST else first[: LONGEST - 1] + "…"
            lines.append(f"{cell if not place else '':>4} {'+' if part.kept else '-'} {code:<{LONGEST}}  {part.reason}")
    return "\n".join([*lines, *(f"\nNote: {note}" for note in script.notes)]) + "\n"


def as_page(script: Script, proof: Proof) -> str:
    """Write the report as a page that needs nothing beside it."""
    rows = []
    for cell, parts in by_cell(script):
        for place, part in enumerate(parts):
            code = f"<td><pre>{html.escape(part.text)}</pre><small>{html.escape(part.reason)}</small></td>"
            kept, gone = (code, "<td></td>") if part.kept else ("<td></td>", code)
            kind = "kept" if part.kept else "gone"
            rows.append(f'<tr class="{kind}"><td class="cell">{cell if not place else ""}</td>{kept}{gone}</tr>')
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in script.notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(script.name)}: notebook and script</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{html.escape(script.name)}</h1><p><strong>{html.escape(verdict(proof))}</strong></p><ul>{notes}</ul>
<h2>Cells</h2><table><thead><tr><th>Cell</th><th>Makes the model, or measures it</th><th>Left out</th></tr></thead>
<tbody>{"".join(rows)}</tbody></table>
<h2>Script</h2><pre>{html.escape(script.text)}</pre></body></html>
"""
