#!/usr/bin/env bash
# Runs a program as N processes of one job on this machine, as a TPU slice of N machines would.
#
#   launch/local.sh N COMMAND ARGS...
#   launch/local.sh 2 simclr-train --config=configs/digits.py --workdir=runs/two
#
# Process K is COMMAND ARGS... --coordinator=127.0.0.1:PORT --num_processes=N --process_id=K. The
# output of process 0 is shown; the others' output goes to LOGS/process-K.log. SIGINT, SIGTERM,
# SIGHUP, SIGUSR1 and SIGUSR2 are passed on to all processes, once each. When a process fails, the
# others have GRACE_SECONDS to notice by themselves, as they would on machines of their own.
#
# The exit status is the first of 2, 1, 3, 75 that any process ended with, since bad input (2) or a
# bug (1) in one process is why others lost a peer (3) or saved and ended (75). If there is none of
# these, it is the first status that is not 0, or else 0.

set -euo pipefail

PORT=${PORT:-}                      # port where process 0 coordinates the job; empty: a free one
LOGS=${LOGS:-}                      # folder for the others' output; empty: a new temporary one
GRACE_SECONDS=${GRACE_SECONDS:-90}  # time from the first failure until the others are ended

die() { # STATUS MESSAGE
  printf 'local.sh: %s\n' "$2" >&2
  exit "$1"
}

signal_all() { # SIGNAL
  kill -s "$1" -- "${pids[@]}" 2>/dev/null || true
}

forward() { # SIGNAL: passed on once, as the first one makes the programs save and end
  trap '' "$1"
  signal_all "$1"
}

start() { # COMMAND ARGS...
  local k
  for ((k = 0; k < processes; k++)); do
    set -- "${@:1:words}" "--coordinator=127.0.0.1:$PORT" "--num_processes=$processes" \
      "--process_id=$k"
    if ((k == 0)); then
      "$@" </dev/null &
    else
      "$@" </dev/null >"$LOGS/process-$k.log" 2>&1 &
    fi
    pids[k]=$!
  done
}

collect() { # waits for every process, and fills the array statuses
  local k left=$processes deadline='' last_resort=TERM
  while ((left)); do
    for ((k = 0; k < processes; k++)); do
      if [[ -n ${statuses[k]} ]] || kill -0 "${pids[k]}" 2>/dev/null; then continue; fi
      statuses[k]=0
      wait "${pids[k]}" || statuses[k]=$?
      left=$((left - 1))
      ((statuses[k])) || continue
      printf 'local.sh: process %s ended with status %s\n' "$k" "${statuses[k]}" >&2
      deadline=${deadline:-$((SECONDS + GRACE_SECONDS))}
    done
    if [[ -n $deadline ]] && ((left && SECONDS >= deadline)); then
      printf 'local.sh: %s still running long after a failure: %s\n' "$left" "$last_resort" >&2
      signal_all "$last_resort"
      last_resort=KILL deadline=$((SECONDS + 10))
    fi
    ((left == 0)) || sleep 0.1
  done
}

[[ ${1-} =~ ^[1-9][0-9]*$ ]] || die 2 "N: '${1-}' is not allowed: a positive whole number"
processes=$1
shift
(($#)) || die 2 "COMMAND: '' is not allowed: a program, such as simclr-train"
command -v "$1" >/dev/null || die 2 "COMMAND: '$1' is not allowed: a program on PATH"
[[ $PORT =~ ^[0-9]*$ ]] || die 2 "PORT: '$PORT' is not allowed: a number, or empty for a free one"
[[ $GRACE_SECONDS =~ ^[0-9]+$ ]] || die 2 "GRACE_SECONDS: '$GRACE_SECONDS' is not allowed: seconds"
free='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
PORT=${PORT:-$(python3 -c "$free")}
LOGS=${LOGS:-$(mktemp -d)}
mkdir -p "$LOGS" || die 3 "LOGS: '$LOGS' cannot be made"
((processes == 1)) || printf 'local.sh: the others write to %s\n' "$LOGS" >&2

words=$#
pids=() statuses=()
for ((k = 0; k < processes; k++)); do statuses[k]=; done
for signal in INT TERM HUP USR1 USR2; do
  # shellcheck disable=SC2064 # The name of the signal is that of now.
  trap "forward $signal" "$signal"
done
# With a process group for each process, Ctrl-C reaches this script only, which passes it on once.
set -m
start "$@"
collect
for status in 2 1 3 75 "${statuses[@]}"; do
  case " ${statuses[*]} " in *" $status "*) ((status == 0)) || exit "$status" ;; esac
done
