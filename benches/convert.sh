#!/bin/sh
# Converts and quantizes a checkpoint of a real shape: peak memory, a memory cap, and runs killed at random moments.
#
#   benches/convert.sh DWINDLE DIRECTORY [PRESET [SCHEME [KILLS]]]
#
# DWINDLE is the program, DIRECTORY a place with room for the checkpoint and two results; defaults are gemma-2-2b, q4f16_1 and
# 20. Needs Linux. The cap is 1 GiB of data segments (RLIMIT_DATA), and 1 GiB with the page cache where this user may make a
# memory control group (version 1 or 2).
set -eu
dwindle=$(realpath "$1") place=$2 preset=${3:-gemma-2-2b} scheme=${4:-q4f16_1} kills=${5:-20}
mkdir -p "$place"
cd "$place"
[ -d checkpoint ] || "$dwindle" synth "$preset" -o checkpoint

hash_of() { (cd "$1" && cat model.json model.safetensors | sha256sum | cut -c1-16); }

# Runs the conversion; prints its seconds and its peaks of anonymous and of all resident memory, in MiB.
measured() {
    begin=$(date +%s.%N)
    "$@" 2>stderr.log >stdout.log &
    pid=$! anonymous=0
    while [ -r "/proc/$pid/status" ]; do
        now=$(awk '/RssAnon/ { print $2 }' "/proc/$pid/status" 2>/dev/null || true)
        [ "${now:-0}" -gt "$anonymous" ] && anonymous=$now
        all=$(awk '/VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null || true)
        [ -n "$all" ] && peak=$all
        [ "$(awk '/State/ { print $2 }' "/proc/$pid/status" 2>/dev/null || echo Z)" = Z ] && break
        sleep 0.02
    done
    wait "$pid" || { echo "failed: $(cat stderr.log)"; exit 1; }
    echo "$(date +%s.%N) $begin $anonymous ${peak:-0}" |
        awk '{ printf "%.1f s, anonymous %.0f MiB, resident %.0f MiB\n", $1 - $2, $3 / 1024, $4 / 1024 }'
}

convert() { measured "$dwindle" convert checkpoint --scheme "$scheme" -o "$1"; }

echo "plan: $("$dwindle" convert checkpoint --scheme "$scheme" -o once --dry-run 2>&1)"
echo "free: $(convert once)"
expected=$(hash_of once)
rm -rf once

(ulimit -d 1048576 && echo "data segments of 1 GiB at most: $(convert capped)")
[ "$(hash_of capped)" = "$expected" ] || { echo "other bytes under the cap"; exit 1; }
rm -rf capped

group=
for root in /sys/fs/cgroup/memory /sys/fs/cgroup; do
    for limit in memory.limit_in_bytes memory.max; do
        if [ -z "$group" ] && mkdir "$root/dwindle-$$" 2>/dev/null; then
            if echo 1073741824 2>/dev/null >"$root/dwindle-$$/$limit"; then group=$root/dwindle-$$; else rmdir "$root/dwindle-$$"; fi
        fi
    done
done
if [ -n "$group" ]; then
    # Writing 0 moves the writer, here the subshell.
    echo "1 GiB with the page cache: $(echo 0 >"$group/cgroup.procs"; convert grouped)"
    [ "$(hash_of grouped)" = "$expected" ] || { echo "other bytes in the group"; exit 1; }
    rm -rf grouped
    rmdir "$group" || true
fi

# What has the final name is whole at every moment, and the next run gives the same bytes.
whole=0 taken=0
begin=$(date +%s%N)
"$dwindle" convert checkpoint --scheme "$scheme" -o out 2>/dev/null >/dev/null
milliseconds=$((($(date +%s%N) - begin) / 1000000))
for run in $(seq "$kills"); do
    rm -rf out
    "$dwindle" convert checkpoint --scheme "$scheme" -o out 2>/dev/null >/dev/null &
    pid=$!
    moment=$(awk -v seed="$run$$" -v most="$milliseconds" 'BEGIN { srand(seed); printf "%.3f", rand() * most / 1000 }')
    sleep "$moment"
    kill -9 "$pid" 2>/dev/null && taken=$((taken + 1))
    wait "$pid" 2>/dev/null || true
    if [ -e out ]; then
        whole=$((whole + 1))
        [ "$(hash_of out)" = "$expected" ] || { echo "killed after $moment s: a partial file under its final name"; exit 1; }
    fi
    left=$(ls | grep -v -e '^checkpoint$' -e '^out$' -e '^out.partial$' -e '\.log$' || true)
    [ -z "$left" ] || { echo "killed after $moment s: left $left"; exit 1; }
done
"$dwindle" convert checkpoint --scheme "$scheme" -o out 2>/dev/null >/dev/null
[ "$(hash_of out)" = "$expected" ] || { echo "other bytes after $kills kills"; exit 1; }
[ -e out.partial ] && { echo "out.partial is left"; exit 1; }
echo "$kills runs, $taken killed, $whole had finished; the next run completes, the same bytes, nothing left behind"
rm -rf out stderr.log stdout.log
