"""The chart: for each row of the comparison the bytes A <-> hub and the time until B is equal, one dot a tool, log scale.

Plain SVG text. Colours are chosen to be told apart on white and on black, by people who see red and green alike too.

`chart.py FIRST.json [LATER.json ...] > chart.svg` draws the results of several runs as one: of a row that a tool has in more than one
of them, the last counts.
"""

import json
import math
import sys
from html import escape

from report import seconds, size

# (tool, name in the legend, colour, shape)
DRAWN = [
    ("dropblock-live", "dropblock, live", "#e69f00", "disc"),
    ("dropblock", "dropblock --once", "#d55e00", "disc"),
    ("rsync", "rsync", "#0072b2", "square"),
    ("rsync-z", "rsync -z", "#56b4e9", "square"),
    ("rsync-fsync", "rsync --fsync", "#3d8bfd", "ring"),
    ("unison", "unison", "#009e73", "diamond"),
    ("syncthing", "Syncthing", "#cc79a7", "diamond"),
    ("copy", "plain copy", "#888888", "ring"),
]
WIDTH, LEFT, PANEL, GAP, LINE, TOP = 1120, 350, 340, 60, 24, 84
INK, FAINT = "#808080", "#80808040"


def draw(told):
    """The whole picture, as text."""
    known = {tool["name"] for tool in told["tools"]}
    drawn = [one for one in DRAWN if one[0] in known]
    rows = [row for row in told["rows"] if row["kind"] != "idle" and any(line["median"] for line in row["results"])]
    height = TOP + LINE * len(rows) + 50
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        "<title>dropblock beside other tools: bytes on the wire and time</title>",
        *legend(drawn),
    ]
    bottom = TOP + LINE * len(rows)
    for number, row in enumerate(rows):
        y = TOP + LINE * number + LINE / 2
        out.append(f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end">{escape(short(row["what"]))}</text>')
        out.append(f'<line x1="{LEFT}" x2="{LEFT + 2 * PANEL + GAP}" y1="{y}" y2="{y}" stroke="{FAINT}"/>')
    panels = (("a_hub_bytes", "bytes between A and the hub, both ways", size, LEFT),
              ("total_seconds", "time from the change in A until B is equal", seconds, LEFT + PANEL + GAP))
    for field, title, say, x in panels:
        out += panel(rows, drawn, field, title, say, x, bottom)
    options = told["options"]
    note = f"Medians of {options['runs']}; sizes divided by {options['part']}; {told['started'][:10]}. Further left is better."
    out.append(f'<text x="{LEFT}" y="{height - 8}" font-size="11">{escape(note)}</text>')
    return "\n".join([*out, "</svg>", ""])


def short(what, letters=50):
    return what if len(what) <= letters else what[:letters - 1] + "…"


def legend(drawn):
    out = []
    step = (WIDTH - 20) / max(1, len(drawn))
    for number, (_, name, colour, shape) in enumerate(drawn):
        x = 20 + step * number
        out += [mark(x, 20, colour, shape), f'<text x="{x + 10:.1f}" y="24">{escape(name)}</text>']
    return out


def panel(rows, drawn, field, title, say, x, bottom):
    """One half: its scale, and a mark for each tool of each row."""
    marks = []
    for number, row in enumerate(rows):
        by_tool = {line["tool"]: line["median"].get(field) for line in row["results"]}
        for tool, name, colour, shape in reversed(drawn):  # the first of the legend lies on top
            value = by_tool.get(tool)
            if value:
                marks.append((value, TOP + LINE * number + LINE / 2, colour, shape, f"{row['row']}: {name} {say(value)}"))
    if not marks:
        return []
    low = math.floor(math.log10(min(value for value, *_ in marks)))
    high = math.ceil(math.log10(max(value for value, *_ in marks))) or 1
    scale = PANEL / max(1, high - low)
    out = [f'<text x="{x}" y="{TOP - 34}" font-weight="600">{escape(title)}</text>']
    for power in range(low, max(high, low + 1) + 1):
        at = x + scale * (power - low)
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 4}" y2="{bottom}" stroke="{FAINT}"/>')
        out.append(f'<text x="{at:.1f}" y="{TOP - 12}" text-anchor="middle" font-size="10">{tick(10.0 ** power, say)}</text>')
    for value, y, colour, shape, told in marks:
        out.append(mark(x + scale * (math.log10(value) - low), y, colour, shape, told))
    return out


def tick(value, say):
    return say(value).replace(".00", "").replace(".0 ", " ")


def mark(x, y, colour, shape, told=None):
    inner = f"<title>{escape(told)}</title>" if told else ""
    if shape == "square":
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}">{inner}</rect>'
    if shape == "diamond":
        points = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 6:.1f},{y:.1f}"
        return f'<polygon points="{points}" fill="{colour}">{inner}</polygon>'
    if shape == "ring":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="none" stroke="{colour}" stroke-width="2">{inner}</circle>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}">{inner}</circle>'


def merged(runs):
    """The results of several runs, as one."""
    told = {**runs[-1], "tools": list({tool["name"]: tool for run in runs for tool in run["tools"]}.values())}
    rows = {}
    for row in (row for run in runs for row in run["rows"]):
        results = rows.setdefault(row["row"], {**row, "results": {}})["results"]
        results.update((line["tool"], line) for line in row["results"] if line["verified"])
    told["rows"] = [{**row, "results": list(row["results"].values())} for row in rows.values()]
    return told


if __name__ == "__main__":
    print(draw(merged([json.load(open(path, encoding="utf-8")) for path in sys.argv[1:]])), end="")
