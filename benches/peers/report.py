"""From the figures of all runs to medians, a Markdown table and JSON. The JSON is described in docs/PERFORMANCE.md."""

import json
import statistics

FORMAT = 1
# A tool is compared with rsync in the same place: three hosts, or one loopback.
REFERENCE = {"veth": "rsync", "lo": "rsync-lo", "disk": "rsync"}
FIELDS = ("a_hub_bytes", "hub_b_bytes", "both_bytes", "push_seconds", "total_seconds", "p50_seconds", "p99_seconds",
          "worst_seconds", "traffic_to_data", "client_peak_bytes", "hub_peak_bytes", "hub_disk_bytes")


def medians(runs):
    """The median of each figure over the runs that have it; None where none has."""
    found = {}
    for field in FIELDS:
        values = [run[field] for run in runs if run.get(field) is not None]
        if values:
            found[field] = statistics.median(values)
    return found


def gather(results, bases, tools, missing, machine, started, given, ended):
    """All that is told, as one dictionary: what the JSON file holds."""
    rows = []
    for base in bases:
        for step in base.steps:
            lines = []
            for tool in tools:
                runs = results.get((step.row, tool.name))
                if runs is None:
                    continue
                good = [run for run in runs if "error" not in run]
                errors = [run["error"] for run in runs if "error" in run]
                lines.append({"tool": tool.name, "verified": not errors, "errors": errors, "median": medians(good),
                              "runs": good})
            if lines:
                add_ratios(lines, {tool.name: tool.place for tool in tools})
                rows.append({"row": step.row, "base": base.name, "what": step.what, "kind": step.kind, "results": lines})
    listed = [{"name": tool.name, "label": tool.label, "version": tool.version(), "place": tool.place, "live": tool.live,
               "durable": tool.durable} for tool in tools]
    return {
        "format": FORMAT, "started": started, "ended": ended, "machine": machine, "tools": listed, "rows": rows,
        "missing": [{"program": program, "install": install} for install, program in missing.items()],
        "options": {"part": given.part, "runs": given.runs, "disk": given.disk, "changes": given.changes, "appends": given.appends, "idle_seconds": given.idle_seconds,
                    "rows": given.rows, "tools": given.tools, "tree": given.tree},
    }


def add_ratios(lines, places):
    """Bytes and times against rsync in the same place, and times against rsync --fsync."""
    by_name = {line["tool"]: line["median"] for line in lines}
    for line in lines:
        place = places[line["tool"]]
        rsync, durable = by_name.get(REFERENCE[place], {}), by_name.get("rsync-fsync", {})
        own = line["median"]
        line["ratios"] = {
            "a_hub_bytes_to_rsync": divide(own.get("a_hub_bytes"), rsync.get("a_hub_bytes")),
            "total_seconds_to_rsync": divide(own.get("total_seconds"), rsync.get("total_seconds")),
            "total_seconds_to_rsync_fsync": divide(own.get("total_seconds"), durable.get("total_seconds")),
        }


def divide(one, other):
    return None if one is None or not other else one / other


def size(value):
    """Bytes for people, decimal units."""
    if value is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= scale * 0.9995:
            number = value / scale
            return f"{number:.2f} {unit}" if number < 10 else f"{number:.1f} {unit}" if number < 100 else f"{number:.0f} {unit}"
    return f"{value:.0f} B"


def seconds(value):
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def ratio(value):
    return "-" if value is None else f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def one_line(figures):
    """One run, for the progress on stderr."""
    if "both_bytes" in figures:
        moved = f"{size(figures['both_bytes'])} on both links"
    else:
        moved = f"A-hub {size(figures['a_hub_bytes'])}, hub-B {size(figures['hub_b_bytes'])}"
    if "p50_seconds" in figures:
        return f"{moved} each, p50 {seconds(figures['p50_seconds'])}, p99 {seconds(figures['p99_seconds'])}"
    return f"{moved}, total {seconds(figures['total_seconds'])}"


def markdown(told):
    """All tables, one for each row of the comparison."""
    machine = told["machine"]
    out = [
        f"Medians of {told['options']['runs']} rounds on {machine['processors']} x {machine['model']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine.get('file_system', '')}, Linux {machine['kernel']}; "
        f"load at the start {machine['load_average_at_start']}; sizes divided by {told['options']['part']}; {told['started']}.",
        "",
    ]
    if told["ended"] != "all":
        out += [f"**Incomplete: {told['ended']}.**", ""]
    out += ["| tool | version | durable when done |", "|---|---|---|"]
    out += [f"| {tool['label']} | {tool['version']} | {'yes' if tool['durable'] else 'no'} |" for tool in told["tools"]]
    if told["missing"]:
        out += ["", "Left out, not installed: " + ", ".join(f"{one['program']} ({one['install']})" for one in told["missing"])]
    labels = {tool["name"]: tool["label"] for tool in told["tools"]}
    for row in told["rows"]:
        out += ["", *table(row, labels)]
    return "\n".join(out)


def table(row, labels):
    out = [
        f"**{row['row']}**: {row['what']}", "",
        "| tool | A-hub | hub-B | push | total | A-hub : rsync | time : rsync | : rsync --fsync | client, hub memory "
        "| hub's disk | equal |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in row["results"]:
        own, ratios = line["median"], line["ratios"]
        moved = f"{size(own.get('a_hub_bytes'))} | {size(own.get('hub_b_bytes'))}"
        if "both_bytes" in own:
            moved = f"both: {size(own['both_bytes'])} | "
        total = seconds(own.get("total_seconds"))
        if "p50_seconds" in own:
            total = f"p50 {seconds(own['p50_seconds'])}, p99 {seconds(own['p99_seconds'])}"
        if "traffic_to_data" in own:
            total = f"{own['traffic_to_data']:.2f} B for each byte"
        if row["kind"] == "idle":
            total = "bytes of a minute"
        equal = "yes" if line["verified"] else "FAILED: " + "; ".join(sorted(set(line["errors"]))).replace("|", "/")
        out.append(
            f"| {labels[line['tool']]} | {moved} | {seconds(own.get('push_seconds'))} | {total} "
            f"| {ratio(ratios['a_hub_bytes_to_rsync'])} | {ratio(ratios['total_seconds_to_rsync'])} "
            f"| {ratio(ratios['total_seconds_to_rsync_fsync'])} "
            f"| {size(own.get('client_peak_bytes'))}, {size(own.get('hub_peak_bytes'))} "
            f"| {size(own.get('hub_disk_bytes'))} | {equal} |"
        )
    return out


def write_json(told, path):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(told, out, indent=1)
        out.write("\n")
