#!/usr/bin/env python3
"""Compares dropblock with other programs that sync folders, side by side, on this machine.

    sudo benches/peers/compare.py --quick                        # small sizes, some minutes
    sudo benches/peers/compare.py --json all.json --svg all.svg  # the real ones, an hour or more
    sudo benches/peers/compare.py --rows 'insert,over*' --tools 'dropblock*,rsync'

Three hosts A, hub, B are made as network namespaces; each tool carries the same changes from A through the hub to B; bytes
are counted at the hub's interfaces, every result is compared byte by byte. Markdown goes to stdout, progress to stderr.
docs/PERFORMANCE.md says what each row is and what the JSON holds. Needs root, Python 3.9 and `ip`; nothing is installed.
"""

import argparse
import fnmatch
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import chart
import disk
import report
import trees
import versions
import workloads
from disk import DiskError, OwnDisk
from network import Network, NetworkError
from processes import Processes
from session import Session
from tools import all_tools


# What a session takes on disk: sizes of its base for A, hub, B and what is prepared and kept, and a rest for those of little size.
SESSION_SIZES, SESSION_REST = 8, 4 << 30


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="sizes of a sixteenth, one round, fewer single changes")
    parser.add_argument("--rows", default="*", help="rows, comma between, * and ? allowed (see --list)")
    parser.add_argument("--tools", default="*", help="tools, comma between, * and ? allowed (see --list)")
    parser.add_argument("--runs", type=int, help="rounds; the medians are shown [3; quick: 1]")
    parser.add_argument("--part", type=int, help="divides all sizes [1; quick: 16]")
    parser.add_argument("--changes", type=int, help="single changes of the row latency [200; quick: 20]")
    parser.add_argument("--idle-seconds", type=float, help="how long the row idle looks [60; quick: 4]")
    parser.add_argument("--timeout", type=float, default=1800, help="longest step, seconds [1800]")
    parser.add_argument("--tree", default="/usr/share", help="folder of real files for the row tree [/usr/share]")
    parser.add_argument("--work", help="where the folders are made; removed at the end [a new one below TMPDIR, or /var/tmp]")
    parser.add_argument("--disk", choices=("own", "here"), default="own",
                        help="own: each session on a new ext4 in a file of the work folder; here: in the work folder itself [own]")
    parser.add_argument("--json", help="write all figures of all runs there")
    parser.add_argument("--svg", help="write a chart there")
    parser.add_argument("--list", action="store_true", help="list rows and tools, and run nothing")
    given = parser.parse_args()
    given.part = given.part or (16 if given.quick else 1)
    given.runs = given.runs or (1 if given.quick else 3)
    given.changes = given.changes or (20 if given.quick else 200)
    given.appends = 4 if given.quick else 30
    given.idle_seconds = given.idle_seconds or (4 if given.quick else 60)
    return given


def all_bases(given):
    sizes = workloads.Sizes(given.part)
    return [
        workloads.large(sizes), workloads.image(sizes), workloads.small(sizes), workloads.real_tree(sizes, given.tree),
        versions.database(sizes), versions.source(sizes),
    ]


def chosen(patterns, names):
    """The names that one of the patterns fits, in their own order; a pattern that fits none is an error."""
    wanted = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    for pattern in wanted:
        if not fnmatch.filter(names, pattern):
            sys.exit(f"compare.py: no such row or tool: {pattern}; --list names them")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)]


def machine():
    """What the runs were made on."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="utf-8") as info:
        memory = int(info.readline().split()[1]) * 1024
    return {"processors": os.cpu_count(), "model": model, "memory_bytes": memory, "kernel": platform.release(),
            "free_page_reporting": reports_free_pages(), "python": platform.python_version(), "load_average_at_start": round(os.getloadavg()[0], 2)}


def reports_free_pages():
    """Whether this machine is a virtual one that gives freed memory back: who touches it next then pays for it, now one tool and now another."""
    try:
        with open("/sys/module/page_reporting/parameters/page_reporting_order", encoding="utf-8") as order:
            return int(order.read()) <= 10  # the largest order there is; more turns it off
    except (OSError, ValueError):
        return False


def file_system(path):
    done = subprocess.run(["df", "--output=fstype", path], capture_output=True, text=True)
    return (done.stdout.split() or ["unknown"])[-1]


def say(line):
    print(line, file=sys.stderr, flush=True)


def sessions(given, bases, tools, rows, work, network, results):
    """Runs all of it; adds to `results`: {(row, tool name): [figures or {"error": text}]}."""
    processes = Processes(network)
    try:
        for base in bases:
            if not any(step.row in rows for step in base.steps):
                continue
            template = f"{work}/{base.name}"
            os.makedirs(template)
            base.make(template)
            workloads.age(template)
            files, size = trees.size(template)
            say(f"{base.name}: {files:,} files, {size / 1e6:,.1f} MB")
            for number in range(given.runs):
                turn = number % max(1, len(tools))
                for tool in tools[turn:] + tools[:turn]:
                    if not any(step.row in rows and tool.takes(base, step) for step in base.steps):
                        continue
                    place = f"{work}/{base.name}-{number}-{tool.name}"
                    own = OwnDisk(place, size * SESSION_SIZES + SESSION_REST) if given.disk == "own" else None
                    try:
                        if own:
                            own.open()
                        one_session(Session(tool, base, template, place, network, processes, given), rows, number, results)
                    finally:
                        processes.end_all()
                        if own:
                            own.close()
                    if not own:
                        trees.remove(place)
            for name in os.listdir(work):
                trees.remove(f"{work}/{name}")
    finally:
        processes.end_all()


def one_session(session, rows, number, results):
    tool = session.tool
    for step, figures, error in session.steps(rows):
        known = results.setdefault((step.row, tool.name), [])
        known.append(figures or {"error": error})
        if error:
            say(f"  {number + 1} {tool.name} {step.row}: {error}")
        else:
            say(f"  {number + 1} {tool.name} {step.row}: {report.one_line(figures)}")


def main():
    given = arguments()
    bases, tools = all_bases(given), all_tools()
    if given.list:
        for base in bases:
            for step in base.steps:
                print(f"row   {step.row:15} {step.what}")
        for tool in tools:
            print(f"tool  {tool.name:21} {tool.label}{'' if tool.path() else ' (missing: ' + tool.install + ')'}")
        return 0
    rows = set(chosen(given.rows, [step.row for base in bases for step in base.steps]))
    picked = chosen(given.tools, [tool.name for tool in tools])
    tools = [tool for tool in tools if tool.name in picked]
    missing = {tool.install: tool.program or tool.name for tool in tools if not tool.path()}
    for install, program in missing.items():
        say(f"left out, not installed: {program} ({install})")
    tools = [tool for tool in tools if tool.path()]
    if not tools:
        sys.exit("compare.py: none of these tools is installed")
    if not os.path.isdir(given.tree) and any(row.endswith("tree") for row in rows):
        sys.exit(f"compare.py: --tree {given.tree}: no such folder")

    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupted(*_):
        for number in ends:
            signal.signal(number, signal.SIG_IGN)  # cleaning up is not interrupted
        raise KeyboardInterrupt
    for number in ends:  # a job of a script comes with SIGINT ignored
        signal.signal(number, interrupted)

    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    results, ended, network, work = {}, "all", Network(), None
    os.umask(0o022)
    try:
        about = machine()
        if about["free_page_reporting"]:
            say("this machine gives free memory back to its host, which costs each tool another amount of time: docs/PERFORMANCE.md says how to stop that")
        network.open()
        work = given.work or tempfile.mkdtemp(prefix="dropblock-peers-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        work = f"{os.path.realpath(work)}/run"
        os.makedirs(work)
        why_not = disk.can_be_made(work) if given.disk == "own" else None
        if why_not:
            say(f"no disk for each session, so all of them share the one of {work}: {why_not}")
            given.disk = "here"
        about["file_system"] = OwnDisk.kind if given.disk == "own" else file_system(work)
        sessions(given, bases, tools, rows, work, network, results)
    except (NetworkError, DiskError) as error:
        say(f"compare.py: {error}")
        return 1
    except KeyboardInterrupt:
        ended = "interrupted"
    finally:
        network.close()
        if work:
            shutil.rmtree(work if given.work else os.path.dirname(work), ignore_errors=True)
    told = report.gather(results, bases, tools, missing, about, started, given, ended)
    print(report.markdown(told))
    if given.json:
        report.write_json(told, given.json)
    if given.svg:
        with open(given.svg, "w", encoding="utf-8") as out:
            out.write(chart.draw(told))
    if ended != "all":
        return 130
    return 1 if any("error" in run for runs in results.values() for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
