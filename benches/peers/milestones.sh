#!/usr/bin/env bash
# The milestones of the first release, measured: the release binary beside cp and rsync on this machine.
#
#   benches/peers/milestones.sh [upload] [hops] [files] [memory] [tree] [latency]      (all of them without arguments)
#
#   upload   client -> server of one large random file, against cp + fsync of the same file
#   hops     one large random file from a folder through the server to a second one, against rsync in two hops
#   files    many small files from a folder through the server to a second one, against rsync in two hops
#   memory   peak resident memory (VmHWM) of client and server while a huge file goes up and comes down
#   tree     many files that are in sync already: looking at all again, against rsync; memory of live programs at rest
#   latency  a change of 4 KiB until it is complete in the other folder, with live clients, in a small and a large folder
#
# Variants are run in turn within one round, RUNS rounds, and the medians are compared: times move between machines and
# between hours, ratios much less. Every result is compared byte by byte. Prints Markdown; progress goes to stderr.
#
# Needs bash, coreutils and python3; rsync for what is compared with it (left out when it is missing). Settings, with
# defaults:
#   RUNS=3  BIG_MIB=2048  HOPS_MIB=1024  HUGE_MIB=4096  SMALL_FILES=10000  MANY_FILES=100000  CHANGES=200
#   DROPBLOCK=target/release/dropblock (built when it is missing)
#   WORK=a new folder below ${TMPDIR:-/tmp} (removed at the end; takes about five times HUGE_MIB)
set -euo pipefail
cd "$(dirname "$0")/../.."

RUNS=${RUNS:-3} BIG_MIB=${BIG_MIB:-2048} HOPS_MIB=${HOPS_MIB:-1024} HUGE_MIB=${HUGE_MIB:-4096}
SMALL_FILES=${SMALL_FILES:-10000} MANY_FILES=${MANY_FILES:-100000} CHANGES=${CHANGES:-200}
DROPBLOCK=${DROPBLOCK:-target/release/dropblock}
[ -x "$DROPBLOCK" ] || cargo build --release >&2
DROPBLOCK=$(realpath "$DROPBLOCK")
WORK=${WORK:-$(mktemp -d "${TMPDIR:-/tmp}/milestones.XXXXXX")}
mkdir -p "$WORK"

children=()
leave() {
  local pid
  for pid in "${children[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$WORK"
}
trap leave EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*" >&2; }
now() { date +%s%N; }

# seconds VARIANT COMMAND...: runs it and notes the time, in seconds, under the variant's name.
seconds() {
  local variant=$1 start end
  shift
  start=$(now)
  "$@"
  end=$(now)
  note "$variant" "$(awk -v ns=$((end - start)) 'BEGIN { printf "%.3f", ns / 1e9 }')"
}
note() {
  printf '%s\n' "$2" >>"$WORK/noted.$1"
  say "  $1: $2"
}
median() { sort -g "$WORK/noted.$1" | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
all_of() { paste -sd ' ' "$WORK/noted.$1"; }
divide() { awk -v a="$1" -v b="$2" -v digits="${3:-2}" 'BEGIN { printf "%.*f", digits, a / b }'; }

# start_server STORE [keep]: sets SERVER and ADDRESS; the store is a new one unless it is kept.
start_server() {
  [ "${2:-}" = keep ] || rm -rf "$1"
  rm -f "$WORK/server.out"
  "$DROPBLOCK" -q serve --store "$1" --listen 127.0.0.1:0 >"$WORK/server.out" &
  SERVER=$!
  children+=("$SERVER")
  local tries
  for tries in $(seq 600); do
    if ADDRESS=$(sed -n 's/.*listening on \([^ ]*\).*/\1/p' "$WORK/server.out" 2>/dev/null) && [ -n "$ADDRESS" ]; then
      return
    fi
    sleep 0.05
  done
  say "the server did not start"
  exit 1
}
stop() {
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}
# In the background and waited for, so that an interrupt ends this script at once.
sync_once() {
  "$DROPBLOCK" -q sync "$1" --server "$ADDRESS" --once &
  children+=("$!")
  wait "$!"
}
settle() { sync -f "$WORK"; }
# put_away PATH...: out of the way, deleted at the end. ext4 does not use inodes again that were deleted in the last minutes
# and looks through all of them for each new file, so a variant that follows a large delete would pay for it.
put_away() {
  local path
  mkdir -p "$WORK/old"
  for path in "$@"; do
    [ ! -e "$path" ] || mv "$path" "$(mktemp -d "$WORK/old/XXXXXX")"
  done
}

random_file() { # MIB PATH
  python3 - "$1" "$2" <<'PY'
import os, sys
with open(sys.argv[2], "wb") as out:
    for _ in range(int(sys.argv[1])):
        out.write(os.urandom(1 << 20))
PY
}
# Files of 1 to 30 KiB, small ones more often (92 MB for 10,000); every second one is text.
small_files() { # COUNT FOLDER SIZE_MAX
  python3 - "$1" "$2" "$3" <<'PY'
import os, random, sys
count, top, most = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = random.Random(1)
words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(4000)]
for i in range(count):
    folder = f"{top}/{i // 100:04}"
    if i % 100 == 0:
        os.makedirs(folder, exist_ok=True)
    size = int(1024 + (most - 1024) * rng.random() ** 2.63) if most > 1024 else most
    if i % 2:
        body = rng.randbytes(size)
    else:
        body = b" ".join(rng.choices(words, k=size // 5 + 1))[:size]
    with open(f"{folder}/file-{i:06}", "wb") as out:
        out.write(body)
PY
}
same_trees() { diff -r --exclude=.dropblock "$1" "$2" >&2 || { say "the folders differ"; exit 1; }; }

upload() {
  say "upload: one random file of $BIG_MIB MiB"
  local folder=$WORK/a round
  mkdir -p "$folder"
  random_file "$BIG_MIB" "$folder/big"
  for round in $(seq "$RUNS"); do
    cat "$folder/big" >/dev/null
    settle
    seconds upload.cp cp_fsync "$folder/big" "$WORK/copy"
    rm "$WORK/copy"
    rm -rf "$folder/.dropblock"
    start_server "$WORK/store"
    settle
    seconds upload.sync sync_once "$folder"
    if [ "$round" = 1 ]; then
      sync_once "$WORK/b"
      cmp "$folder/big" "$WORK/b/big"
      rm -rf "$WORK/b"
    fi
    stop "$SERVER"
    rm -rf "$WORK/store"
  done
  rm -rf "$folder"
  local cp sync rate
  cp=$(median upload.cp) sync=$(median upload.sync)
  rate=$(divide "$BIG_MIB" "$sync" 0)
  row "client -> server, $BIG_MIB MiB random" "$sync s ($rate MiB/s)" "cp + fsync $cp s ($(divide "$BIG_MIB" "$cp" 0) MiB/s)" \
    "$(divide "$cp" "$sync") of its rate" ">= 0.5 of its rate"
}
cp_fsync() { cp "$1" "$2" && sync "$2"; }

hops() {
  say "hops: one random file of $HOPS_MIB MiB in two hops"
  local source=$WORK/source round ours
  mkdir -p "$source"
  random_file "$HOPS_MIB" "$source/big"
  for round in $(seq "$RUNS"); do
    cat "$source/big" >/dev/null
    if command -v rsync >/dev/null; then
      rsync_hops hops.plain "$source"
      rsync_hops hops.fsync "$source" --fsync
      rm -rf "$WORK/old"
    fi
    rm -rf "$source/.dropblock"
    start_server "$WORK/store"
    settle
    seconds hops.dropblock both_ways hops "$source" "$WORK/b"
    stop "$SERVER"
    same_trees "$source" "$WORK/b"
    rm -rf "$WORK/store" "$WORK/b"
  done
  rm -rf "$source"
  ours=$(median hops.dropblock)
  [ -e "$WORK/noted.hops.plain" ] || { row "$HOPS_MIB MiB random" "$ours s" "rsync is not installed" "-" "<= 1.0x"; return; }
  row "$HOPS_MIB MiB random A -> server -> B, durable" "$ours s" "rsync, two hops $(median hops.plain) s" \
    "$(divide "$ours" "$(median hops.plain)")x its time" "<= 1.0x its time"
  row "the same, rsync made durable" "$ours s" "rsync --fsync, two hops $(median hops.fsync) s" \
    "$(divide "$ours" "$(median hops.fsync)")x its time" "<= 1.0x its time"
}

files() {
  say "files: $SMALL_FILES small files in two hops"
  local source=$WORK/source round
  small_files "$SMALL_FILES" "$source" 30720
  for round in $(seq "$RUNS"); do
    if command -v rsync >/dev/null; then
      rsync_hops files.plain "$source"
      [ "$round" -gt 1 ] || rsync_hops files.fsync "$source" --fsync # once: it can take minutes
    fi
    put_away "$WORK/store" "$WORK/b" "$source/.dropblock"
    start_server "$WORK/store"
    settle
    seconds files.dropblock both_ways files "$source" "$WORK/b"
    stop "$SERVER"
    same_trees "$source" "$WORK/b"
    put_away "$WORK/store" "$WORK/b"
  done
  local bytes ours
  bytes=$(du -sb --exclude=.dropblock "$source" | cut -f1)
  ours=$(median files.dropblock)
  rm -rf "$source" "$WORK/old"
  [ -e "$WORK/noted.files.plain" ] || { row "$SMALL_FILES files" "$ours s" "rsync is not installed" "-" "<= 1.5x"; return; }
  row "$SMALL_FILES files ($((bytes / 1000000)) MB) A -> server -> B" "$ours s" "rsync, two hops $(median files.plain) s" \
    "$(divide "$ours" "$(median files.plain)")x its time" "<= 1.5x its time"
  row "the same, rsync made durable" "$ours s" "rsync --fsync, two hops $(median files.fsync) s" \
    "$(divide "$ours" "$(median files.fsync)")x its time" "-"
}
both_ways() { # PREFIX SOURCE TARGET
  seconds "$1.up" sync_once "$2"
  seconds "$1.down" sync_once "$3"
}
rsync_hops() { # VARIANT SOURCE OPTIONS...
  local variant=$1 source=$2 port tries
  shift 2
  put_away "$WORK/hub" "$WORK/rb" "$source/.dropblock"
  mkdir -p "$WORK/hub" "$WORK/rb"
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  cat >"$WORK/rsyncd.conf" <<CONF
use chroot = no
uid = $(id -u)
gid = $(id -g)
[hub]
path = $WORK/hub
read only = no
CONF
  rsync --daemon --no-detach --config="$WORK/rsyncd.conf" --port="$port" --address=127.0.0.1 \
    --log-file=/dev/null &
  local daemon=$!
  children+=("$daemon")
  for tries in $(seq 100); do
    rsync "rsync://127.0.0.1:$port/" >/dev/null 2>&1 && break
    sleep 0.05
  done
  settle
  seconds "$variant" two_hops "rsync://127.0.0.1:$port/hub/" "$source/" "$WORK/rb/" "$@"
  stop "$daemon"
  same_trees "$source" "$WORK/rb"
  put_away "$WORK/hub" "$WORK/rb"
}
two_hops() {
  local hub=$1 source=$2 target=$3
  shift 3
  rsync -a "$@" "$source" "$hub"
  rsync -a "$@" "$hub" "$target"
}

memory() {
  say "memory: one random file of $HUGE_MIB MiB, up and down"
  local folder=$WORK/a
  mkdir -p "$folder"
  random_file "$HUGE_MIB" "$folder/huge"
  start_server "$WORK/store"
  peak_of memory.up "$folder"
  note memory.server_up "$(peak_kib "$SERVER")"
  peak_of memory.down "$WORK/b"
  note memory.server "$(peak_kib "$SERVER")"
  stop "$SERVER"
  cmp "$folder/huge" "$WORK/b/huge"
  rm -rf "$folder" "$WORK/b" "$WORK/store"
  local what
  for what in up down server; do
    local name=client
    [ "$what" = server ] && name="server, up and down"
    [ "$what" = server ] || name="client, $what"
    row "peak memory, $HUGE_MIB MiB file: $name" "$(divide "$(median "memory.$what")" 1024 0) MiB" "-" "-" "< 128 MiB"
  done
}
peak_kib() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status" 2>/dev/null || true; }
# peak_of VARIANT FOLDER: VmHWM only grows, so the last look before the end is the peak.
peak_of() {
  "$DROPBLOCK" -q sync "$2" --server "$ADDRESS" --once &
  local client=$! peak=0 seen
  children+=("$client")
  while seen=$(peak_kib "$client") && [ -n "$seen" ]; do
    peak=$seen
    sleep 0.02
  done
  wait "$client"
  note "$1" "$peak"
}

tree() {
  say "tree: $MANY_FILES files that are in sync"
  local a=$WORK/a b=$WORK/b hub=$WORK/hub round client ours
  small_files "$MANY_FILES" "$a" 600
  start_server "$WORK/store"
  sync_once "$a"
  sync_once "$b"
  if command -v rsync >/dev/null; then
    rsync -a --exclude=.dropblock "$a/" "$hub/"
  fi
  settle
  for round in $(seq "$RUNS"); do
    seconds tree.again sync_once "$a"
    [ ! -e "$hub" ] || seconds tree.rsync rsync -a --delete --exclude=.dropblock "$a/" "$hub/"
  done
  # A server that was just started, and one that took all of it in: both are at rest at times.
  note tree.server_full "$(rss_kib "$SERVER")"
  stop "$SERVER"
  start_server "$WORK/store" keep
  "$DROPBLOCK" -q sync "$b" --server "$ADDRESS" &
  client=$!
  children+=("$client")
  sleep 10
  note tree.client "$(rss_kib "$client")"
  note tree.client_peak "$(peak_kib "$client")"
  note tree.server "$(rss_kib "$SERVER")"
  stop "$client"
  stop "$SERVER"
  put_away "$a" "$b" "$hub" "$WORK/store"
  rm -rf "$WORK/old"
  ours=$(median tree.again)
  row "$MANY_FILES files in sync: start and look at all" "$ours s" "-" "-" "<= 0.6 s with 100,000"
  [ ! -e "$WORK/noted.tree.rsync" ] ||
    row "the same, against rsync -a --delete on one machine" "$ours s" "$(median tree.rsync) s" \
      "$(divide "$ours" "$(median tree.rsync)")x its time" "<= 0.5x its time"
  row "memory at rest, $MANY_FILES files: live client" \
    "$(divide "$(median tree.client)" 1024 0) MiB, at most $(divide "$(median tree.client_peak)" 1024 0) MiB" "-" "-" "<= 64 MiB"
  row "memory at rest, $MANY_FILES files: server" \
    "$(divide "$(median tree.server)" 1024 0) MiB, $(divide "$(median tree.server_full)" 1024 0) MiB after the first sync" \
    "-" "-" "<= 128 MiB"
}
rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status" 2>/dev/null || true; }

latency() {
  one_latency "small folder" 20
  one_latency "folder of $MANY_FILES files" "$MANY_FILES"
}
one_latency() {
  say "latency: $CHANGES changes of 4 KiB, $1"
  local a=$WORK/a b=$WORK/b client_a client_b
  small_files "$2" "$a" 600
  start_server "$WORK/store"
  sync_once "$a"
  sync_once "$b"
  "$DROPBLOCK" -q sync "$a" --server "$ADDRESS" &
  client_a=$!
  "$DROPBLOCK" -q sync "$b" --server "$ADDRESS" &
  client_b=$!
  children+=("$client_a" "$client_b")
  python3 - "$a" "$b" "$CHANGES" >"$WORK/latency" <<'PY'
import os, sys, time
a, b, changes = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.makedirs(f"{a}/hot", exist_ok=True)

def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""

def change(i):
    name, body = f"hot/f{i % 20}", os.urandom(4096)
    with open(f"{a}/{name}", "wb") as file:
        file.write(body)
    start = time.perf_counter()
    while read(f"{b}/{name}") != body:
        time.sleep(0.0005)
        if time.perf_counter() - start > 30:
            sys.exit(f"change {i} did not arrive within 30 s")
    return time.perf_counter() - start

change(0)  # both clients are live from here on
time.sleep(2)
times = []
for i in range(changes):
    times.append(change(i))
    time.sleep(0.03)
times.sort()
at = lambda part: 1000 * times[min(len(times) - 1, int(len(times) * part))]
print(f"{at(0.5):.1f} {at(0.99):.1f} {1000 * times[-1]:.1f}")
PY
  local p50 p99 worst
  read -r p50 p99 worst <"$WORK/latency"
  say "  p50 $p50 ms, p99 $p99 ms, worst $worst ms"
  stop "$client_a"
  stop "$client_b"
  stop "$SERVER"
  same_trees "$a" "$b"
  rm -rf "$a" "$b" "$WORK/store"
  row "4 KiB change until complete on the other side, $1" "p50 $p50 ms, p99 $p99 ms, worst $worst ms" "-" "-" "p50 <= 15 ms, p99 <= 80 ms"
}

row() { printf '| %s | %s | %s | %s | %s |\n' "$@" | tee -a "$WORK/table" >&2; }

[ "$#" -gt 0 ] || set -- upload hops files memory tree latency
for part in "$@"; do
  case $part in
  upload | hops | files | memory | tree | latency) "$part" ;;
  *)
    say "unknown part: $part (upload, hops, files, memory, tree, latency)"
    exit 2
    ;;
  esac
done

printf '%s\n' "| case | dropblock | peer | ratio | aim |" "|---|---|---|---|---|"
cat "$WORK/table"
printf '\nMedians of %s rounds on %s processors. Every time measured, seconds:\n' "$RUNS" "$(nproc)"
for noted in "$WORK"/noted.*; do
  [ -e "$noted" ] || continue
  variant=${noted##*/noted.}
  printf '%s\n' "- $variant: $(all_of "$variant")"
done
