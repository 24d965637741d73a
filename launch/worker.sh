#!/usr/bin/env bash
# Runs on every worker of a TPU: installs the program, and starts, shows and ends its job.
#
# launch/tpu.sh sends this text over SSH, after the line 'set -- COMMAND ARGS...', because a worker
# has no checkout before it is set up. Each COMMAND answers in lines of 'simclr: KEY VALUE':
#
#   setup REPOSITORY REVISION BUCKET MOUNT   revision: the commit that is installed now, or busy
#   start ID REVISION DATA PROGRAM ARGS...   start: now, already, busy or unprepared
#   report                                   job: none, running, lost or ended STATUS; stopped: yes
#                                            if by a user; last: the log's last 'step' line, after
#                                            the 'point' line that precedes it in a sweep
#   stop SECONDS user|retry                  the same as report, once the job has ended
#   log                                      not an answer but the log
#   follow SEEN                              not an answer but the log's later lines while the job
#                                            runs, each as NUMBER:LINE
#
# An empty BUCKET is not mounted, and an empty REVISION is not checked before a start. DATA becomes
# the program's TFDS_DATA_DIR, unless it is empty.
#
# The folder ~/simclr_run describes the last job, of which there is one at a time because a worker's
# chips can be used by one process only:
#
#   id, command  the ID that it was started with, and its program and arguments
#   log, start   the output of all jobs, and the number of its lines before this job's output
#   pid, child   the processes of the shell that waits for the program, and of the program itself
#   exit         the program's exit status; there is no such file before it has ended
#   stopped      an empty file, if 'launch/tpu.sh stop' ended the job
#
# Only setup ends at the first failure (set -e). To the others, a missing file is no failure.

code=$HOME/simclr_jax run=$HOME/simclr_run

job_runs() { # The program's name is checked, as its process ID may be another's by now.
  [ ! -e exit ] && [ -e pid ] && grep -qa simclr- "/proc/$(cat pid)/cmdline" 2>/dev/null
}

report_job() {
  [ ! -e stopped ] || echo 'simclr: stopped yes'
  if job_runs; then
    echo 'simclr: job running'
  elif [ -e exit ]; then
    echo "simclr: job ended $(cat exit)"
  elif [ -e pid ]; then
    echo 'simclr: job lost'
  else
    echo 'simclr: job none'
  fi
  [ ! -e log ] || awk '
    /^== / { point = "" }
    /^point [0-9]+ of / { last = $0; point = $0 "  " }
    /^step / { last = point $0 }
    END { if (last) print "simclr: last " last }' log
}

set_up() { # REPOSITORY REVISION BUCKET MOUNT
  if job_runs; then
    echo 'simclr: revision busy'
    return
  fi
  (
    set -e # bash ignores it inside whatever a condition calls, so no call below is part of one.
    [ -d "$code/.git" ] || git clone --quiet "$1" "$code"
    cd "$code"
    git fetch --quiet --tags "$1" '+refs/heads/*:refs/remotes/origin/*'
    git checkout --quiet --detach "$2"
    make_environment
    venv/bin/pip install --quiet --disable-pip-version-check -e '.[tpu]'
    if [ -n "$3" ]; then mount_bucket "$3" "$4"; fi
    git rev-parse HEAD | sed 's/^/simclr: revision /'
  )
  # A failure shows in the missing answer. As a status, it would hide the other workers' answers.
  true
}

make_environment() { # makes ./venv with a Python that the program supports
  # Many images have Python 3.10 only. uv then installs another one from PyPI, which pip needs
  # anyway. The alternatives are worse: apt is often locked after the first boot, and the deadsnakes
  # packages come from a third party that drops old versions.
  local check python
  [ ! -x venv/bin/pip ] || return 0
  check='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
  for python in python3.12 python3.11 python3.13 python3 ''; do
    if [ -z "$python" ] || "$python" -c "$check" 2>/dev/null; then break; fi
  done
  if [ -n "$python" ]; then
    "$python" -m venv venv
  elif ! { PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv &&
    python3 -m uv venv --quiet --clear --seed --python 3.12 venv; }; then
    echo 'Python 3.11 is missing, and uv could not bring it: choose a RUNTIME that has it, or run'
    echo 'sudo apt-get install python3.11 python3.11-venv on every worker'
    exit 1
  fi
}

mount_bucket() { # BUCKET MOUNT
  if mountpoint -q "$2"; then return; fi
  if ! command -v gcsfuse >/dev/null; then
    local apt=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
    curl -fsS "$apt/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -o DPkg::Lock::Timeout=300 -qq update
    sudo apt-get -o DPkg::Lock::Timeout=300 -qq install gcsfuse
  fi
  mkdir -p "$2" 2>/dev/null || { sudo mkdir -p "$2" && sudo chown "$(id -u)" "$2"; }
  gcsfuse --implicit-dirs -o ro "$1" "$2"
}

start_job() { # ID REVISION DATA PROGRAM ARGS...
  local id=$1 revision=$2 data=$3 command program
  shift 3
  command=$(printf '%q ' "$@")
  program=$code/venv/bin/$1
  shift
  if job_runs && [ "$command" = "$(cat command)" ]; then
    echo 'simclr: start already'
  elif job_runs; then
    echo 'simclr: start busy'
  elif [ "$id" = "$(cat id 2>/dev/null)" ]; then
    # gcloud sends a command again when its connection drops.
    echo 'simclr: start already'
  elif [ ! -x "$program" ] ||
    { [ -n "$revision" ] && [ "$revision" != "$(git -C "$code" rev-parse HEAD)" ]; }; then
    echo 'simclr: start unprepared'
  else
    printf '%s\n' "$command" >./command
    printf '== %s %s\n' "$(date -u +%FT%TZ)" "$command" >>log
    wc -l <log >start
    rm -f exit pid child stopped
    [ -z "$data" ] || export TFDS_DATA_DIR="$data"
    run_detached "$program" "$@"
    echo "$id" >"$run/id"
    # Before the job has a session of its own, it could end with this connection.
    for _ in $(seq 200); do [ ! -e "$run/child" ] || break; sleep 0.05; done
    echo 'simclr: start now'
  fi
}

run_detached() { # PROGRAM ARGS...: in a session of its own, which outlives this connection
  export PYTHONUNBUFFERED=1 # Python would hold back lines that are written to a file.
  cd "$code" || exit
  # shellcheck disable=SC2016 # The inner shell expands the variables.
  setsid bash -c '
    run=$1; shift
    "$@" & echo $! >"$run/child"
    wait $!
    echo $? >"$run/exit.new" && mv "$run/exit.new" "$run/exit"
  ' simclr-job "$run" "$@" </dev/null >>"$run/log" 2>&1 &
  echo $! >"$run/pid"
}

follow_log() { # SEEN: NUMBER of lines to leave out; job: those before this job; last: all but 100
  local seen=$1 flags=() line
  [ -e log ] || return 0
  if [ "$seen" = job ]; then
    seen=$(cat start)
  elif [ "$seen" = last ]; then
    seen=$(($(wc -l <log) - 100)) seen=$((seen > 0 ? seen : 0))
  fi
  if job_runs; then
    while job_runs && kill -0 $$; do sleep 0.5; done >/dev/null 2>&1 &
    flags=(-f "--pid=$!")
  fi
  tail -n "+$((seen + 1))" "${flags[@]}" log | while IFS= read -r line || [ -n "$line" ]; do
    seen=$((seen + 1))
    printf '%s:%s\n' "$seen" "$line"
  done
}

stop_job() { # SECONDS user|retry: only a user's stop is noted, since no other try may follow it
  [ "$2" != user ] || touch stopped
  if job_runs; then
    kill -TERM "$(cat child)"
    local until=$(($(date +%s) + $1))
    while job_runs && [ "$(date +%s)" -lt "$until" ]; do sleep 0.2; done
  fi
  report_job
}

main() { # COMMAND ARGS...
  local command=${1-}
  shift
  mkdir -p "$run" && cd "$run" || exit
  case $command in
    setup) set_up "$@" ;;
    start) start_job "$@" ;;
    report) report_job ;;
    stop) stop_job "$@" ;;
    log) cat log 2>/dev/null || true ;;
    follow) follow_log "$@" ;;
    *) echo "worker.sh: '$command' is not a command" >&2 && exit 2 ;;
  esac
}

main "$@"
