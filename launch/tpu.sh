#!/usr/bin/env bash
# Trains and evaluates on a Cloud TPU: one machine or a slice of many, on demand, spot or queued.
#
#   launch/tpu.sh create            make the TPU, or request it and wait; nothing where it is there
#   launch/tpu.sh setup             install REVISION on every worker, and check that it is the same
#   launch/tpu.sh train ARGS...     simclr-train ARGS on every worker; follow it; return its status
#   launch/tpu.sh train --retry ARGS...   the same, made and set up anew until the run is done
#   launch/tpu.sh eval ARGS...      simclr-eval ARGS on every worker
#   launch/tpu.sh status            of the TPU, of each worker's job, and its last step
#   launch/tpu.sh logs [--all]      follow worker 0; or fetch all into ./logs/NAME/worker-K.log
#   launch/tpu.sh ssh [K]           a shell on worker K (0)
#   launch/tpu.sh stop [--vm]       end the job on every worker, saved; --vm: stop the machine too
#   launch/tpu.sh delete [--yes]    the TPU and its request; never a bucket
#   launch/tpu.sh help
#
# --dry-run, after any COMMAND, prints what would be run. Options come before ARGS, which reach the
# program unchanged; WORKDIR becomes --workdir (train) or --run (eval) where ARGS have none.
# Status: the program's (0 done, 1 a bug, 2 input, 3 environment, 75 preempted but saved; where
# workers differ, the first of 2, 1, 3, 75 that any has), 2 for input that is not allowed, 3 where
# gcloud fails, 130 after Ctrl-C, which ends the following but not the job.
# Settings are the variables below, each also taken from the environment.

set -euo pipefail

NAME=${NAME:-simclr}                      # the TPU VM's name, and its queued resource's
PROJECT=${PROJECT:-}                      # Google Cloud project; empty: the one gcloud is set to
ZONE=${ZONE:-}                            # required, such as us-west4-a
ACCELERATOR=${ACCELERATOR:-v5litepod-16}  # kind and size; v2 to v4, v5p: cores, v5e, v6e: chips
RUNTIME=${RUNTIME:-}                      # machine image; empty: the one for ACCELERATOR
SPOT=${SPOT:-0}                           # 1: cheaper, and may be taken away at any time
QUEUED=${QUEUED:-0}                       # 1: a queued resource, which waits for capacity
REPOSITORY=${REPOSITORY:-}                # git URL the workers can read; empty: this one's origin
REVISION=${REVISION:-}                    # commit to install; empty: this checkout's HEAD
BUCKET=${BUCKET:-}                        # gs://BUCKET of data, mounted read-only; empty: none
MOUNT=${MOUNT:-/mnt/data}                 # folder on the workers where BUCKET is mounted
TFDS_DATA_DIR=${TFDS_DATA_DIR:-}          # as the workers see it; empty: TFDS's default there
WORKDIR=${WORKDIR:-}                      # the run's folder, gs://BUCKET/FOLDER
RETRY_SECONDS=${RETRY_SECONDS:-60}        # before another try; doubled each time, up to 900
MAX_RETRIES=${MAX_RETRIES:-10}            # tries in a row that reach no new step, then it ends
POLL_SECONDS=${POLL_SECONDS:-15}          # between two looks at a state
STOP_SECONDS=${STOP_SECONDS:-180}         # for workers to save and end

COMMANDS='create, setup, train, eval, status, logs, ssh, stop, delete, help'
DRY=0                                     # 1: print commands
PRETENDED=READY                           # the state that --dry-run supposes
STATE=                                    # what look saw
STOPPED=0                                 # 1: the job was ended by launch/tpu.sh stop
RETRY=0 ALL=0 VM=0 YES=0                  # 1: the option of this name
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() { printf 'tpu.sh: %s\n' "$*" >&2; }

die() { # STATUS MESSAGE
  say "$2"
  exit "$1"
}

# --- Input ---

allow() { # VARIABLE REGEX WHAT-IS-ALLOWED
  [[ ${!1} =~ $2 ]] || die 2 "$1: '${!1}' is not allowed: $3"
}

check_settings() {
  allow NAME '^[a-z]([-a-z0-9]*[a-z0-9])?$' 'lower-case letters, digits and -'
  allow PROJECT '^([a-z][-a-z0-9.:]*)?$' 'a project id, or empty for the one gcloud is set to'
  allow ZONE '^[a-z]+-[a-z]+[0-9]+-[a-z]$' 'a zone such as us-west4-a'
  allow SPOT '^[01]$' '0 or 1'
  allow QUEUED '^[01]$' '0 or 1'
  allow BUCKET '^((gs://)?[a-z0-9][-_.a-z0-9]+/?)?$' 'gs://BUCKET without a folder, or empty'
  allow MOUNT '^/.+' 'an absolute path'
  allow TFDS_DATA_DIR '^((gs:/)?/.+)?$' 'gs://BUCKET/FOLDER, an absolute path there, or empty'
  allow WORKDIR '^(gs://[^/]+/.+)?$' 'gs://BUCKET/FOLDER, which every worker can write'
  local variable
  for variable in RETRY_SECONDS MAX_RETRIES POLL_SECONDS STOP_SECONDS; do
    allow "$variable" '^(0|[1-9][0-9]*)$' 'a whole number'
  done
  BUCKET=${BUCKET#gs://} BUCKET=${BUCKET%/}
  [[ -n $RUNTIME ]] || case $ACCELERATOR in
    v5litepod-*) RUNTIME=v2-alpha-tpuv5-lite ;;
    v5p-*) RUNTIME=v2-alpha-tpuv5 ;;
    v6e-*) RUNTIME=v2-alpha-tpuv6e ;;
    *) RUNTIME=tpu-ubuntu2204-base ;;
  esac
  allow ACCELERATOR '^(v2|v3|v4|v5litepod|v5p|v6e)-[0-9]+$' \
    'KIND-SIZE with KIND v2, v3, v4, v5litepod, v5p or v6e, such as v5litepod-16'
}

fix_revision() { # makes REVISION a full commit and REPOSITORY a URL
  local git=(git -C "$(dirname "${BASH_SOURCE[0]}")/..")
  if [[ -z $REVISION ]]; then
    [[ -z $("${git[@]}" status --porcelain --untracked-files=no) ]] ||
      die 2 "REVISION: '' is not allowed while this checkout has changes: commit them, or name one"
    REVISION=HEAD
  fi
  if [[ ! $REVISION =~ ^[0-9a-f]{40}$ ]]; then
    REVISION=$("${git[@]}" rev-parse --verify --quiet "$REVISION^{commit}") ||
      die 2 "REVISION: '$REVISION' is not allowed: a commit that this checkout has"
  fi
  if [[ -z $REPOSITORY ]]; then
    REPOSITORY=$("${git[@]}" remote get-url origin 2>/dev/null) ||
      die 2 "REPOSITORY: '' is not allowed: a git URL, since this checkout has no origin"
    [[ -n $("${git[@]}" branch --remotes --contains "$REVISION" 2>/dev/null) ]] ||
      say "warning: no branch of $REPOSITORY is known to have $REVISION; push it first"
  fi
}

# --- gcloud ---

shown() { # COMMAND ARGS...: printed so that a shell would read it back
  local word line=
  for word in "$@"; do
    # shellcheck disable=SC2001 # bash 3.2, macOS's, is wrong about quotes in ${word//}
    case $word in
      '' | *[!A-Za-z0-9_./:=@%+,-]*) word="'$(sed "s/'/'\\\\''/g" <<<"$word")'" ;;
    esac
    line="$line $word"
  done
  printf '%s\n' "${line# }"
}

tpus() { # gcloud compute tpus ARGS...
  local group=$1 verb=$2 flags=("--zone=$ZONE")
  shift 2
  [[ -z $PROJECT ]] || flags+=("--project=$PROJECT")
  set -- gcloud compute tpus "$group" "$verb" "$NAME" "${flags[@]}" "$@"
  if ((DRY)); then shown "$@"; else "$@" </dev/null; fi
}

failed() { # 3 where what gcloud wrote to $scratch/error may pass by itself; else it ends here
  # Quota has the code of missing capacity, RESOURCE_EXHAUSTED, but waiting does not raise it.
  local lasting='quota|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT'
  local passing='RESOURCE_EXHAUSTED|capacity|enough resources|code"?: 8|UNAVAILABLE|INTERNAL'
  passing="$passing|DEADLINE_EXCEEDED|ABORTED|FAILED_PRECONDITION|ALREADY_EXISTS|NOT_FOUND"
  passing="$passing|timed out|connect|return code \[255\]|This TPU has"
  grep -qiE "$lasting" "$scratch/error" || ! grep -qiE "$passing" "$scratch/error" || return 3
  die 3 "$NAME: gcloud failed, with the message above; trying again would not help"
}

try() { # COMMAND ARGS...: shows its messages as they come
  { "$@" 2>&1 >&3 3>&- | tee "$scratch/error" >&2; } 3>&1 || failed
}

describe() { # queued-resources|tpu-vm FORMAT: sets STATE
  local tries
  for tries in 1 2 3; do
    STATE=$(tpus "$1" describe --format="$2" 2>"$scratch/error") && return
    STATE=MISSING
    ! grep -q NOT_FOUND "$scratch/error" || return 0
    cat "$scratch/error" >&2
    failed || true
    ((tries == 3)) || sleep "$POLL_SECONDS"
  done
  die 3 "$NAME: its state cannot be seen; gcloud's message is above"
}

look() { # sets STATE: the TPU VM's, or its queued resource's while there is none; or MISSING
  if ((DRY)); then
    ! ((QUEUED)) || tpus queued-resources describe --format='value(state.state)'
    tpus tpu-vm describe --format='value(state)'
    STATE=$PRETENDED
    return
  fi
  if ((QUEUED)); then
    describe queued-resources 'value(state.state)'
    [[ $STATE == ACTIVE ]] || return 0
  fi
  describe tpu-vm 'value(state)'
  # The request outlives its machines for a while.
  [[ $QUEUED$STATE != 1MISSING ]] || STATE=TERMINATED
}

is_dead() { # STATE will never become READY
  case $STATE in
    PREEMPTED | TERMINATED | FAILED | SUSPENDING | SUSPENDED | DELETING) return 0 ;;
    *) return 1 ;;
  esac
}

# --- create, delete ---

create() { # 3 where there is no capacity
  look
  case $STATE in
    READY) say "$NAME is READY already" && return ;;
    MISSING) request || return ;;
    STOPPED) try tpus tpu-vm start || return ;;
    *) ! is_dead || die 3 "$NAME is $STATE for good: launch/tpu.sh delete comes first" ;;
  esac
  PRETENDED=READY
  local said=
  while look && [[ $STATE != READY ]]; do
    if [[ $STATE == MISSING ]] || is_dead; then
      tpus queued-resources describe --format='value(state)' 2>&1 | tee "$scratch/error" >&2 || true
      ! grep -qiE 'quota|PERMISSION_DENIED' "$scratch/error" || failed # a request fails later
      say "$NAME is $STATE"
      return 3
    fi
    [[ $said == "$STATE" ]] || say "$NAME is $STATE; looking every $POLL_SECONDS s"
    said=$STATE
    sleep "$POLL_SECONDS"
  done
  say "$NAME is READY: $ACCELERATOR in $ZONE"
}

request() {
  local flags=("--accelerator-type=$ACCELERATOR")
  ! ((SPOT)) || flags+=(--spot)
  if ((QUEUED)); then
    try tpus queued-resources create --node-id="$NAME" --runtime-version="$RUNTIME" "${flags[@]}"
  else
    try tpus tpu-vm create --version="$RUNTIME" "${flags[@]}"
  fi
}

delete() {
  look
  if [[ $STATE == MISSING ]]; then
    say "$NAME is not there"
  elif ((QUEUED)); then
    try tpus queued-resources delete --force --quiet
  else
    try tpus tpu-vm delete --quiet
  fi
}

confirm_delete() {
  local answer=
  printf 'Delete %s in %s? Buckets stay. [y/N] ' "$NAME" "$ZONE" >&2
  read -r answer || true
  case $answer in
    y | Y | yes) ;;
    *) die 2 "delete: '$answer' is not allowed: y, or --yes; nothing was deleted" ;;
  esac
}

# --- What runs on the workers. Each answers in lines of 'simclr: KEY VALUE'. ---

common() {
  cat <<'END'
code=$HOME/simclr_jax run=$HOME/simclr_run
mkdir -p "$run" && cd "$run" || exit
running() {
  [ ! -e exit ] && [ -e pid ] && grep -qa simclr- "/proc/$(cat pid)/cmdline" 2>/dev/null
}
report() {
  [ ! -e stopped ] || echo 'simclr: stopped yes'
  if running; then echo 'simclr: job running'
  elif [ -e exit ]; then echo "simclr: job ended $(cat exit)"
  elif [ -e pid ]; then echo 'simclr: job lost'
  else echo 'simclr: job none'
  fi
  [ ! -e log ] || grep '^step ' log | tail -n 1 | sed 's/^/simclr: last /'
}
END
}

setup_script() {
  common
  printf 'repository=%q revision=%q bucket=%q mount=%q\n' \
    "$REPOSITORY" "$REVISION" "$BUCKET" "$MOUNT"
  cat <<'END'
if running; then echo 'simclr: revision busy'; exit; fi
(
set -e
[ -d "$code/.git" ] || git clone --quiet "$repository" "$code"
cd "$code"
git fetch --quiet --tags "$repository" '+refs/heads/*:refs/remotes/origin/*'
git checkout --quiet --detach "$revision"
END
  python_script
  echo "venv/bin/pip install --quiet --disable-pip-version-check -e '.[tpu]'"
  [[ -z $BUCKET ]] || mount_script
  echo "git rev-parse HEAD | sed 's/^/simclr: revision /'"
  echo '); true'
}

python_script() { # makes venv, with the image's Python if it will do
  # Many images have 3.10. Then uv brings one, from PyPI, which has to be reachable anyway: apt is
  # often locked after the first boot, and deadsnakes is a third party that drops versions.
  cat <<'END'
if [ ! -x venv/bin/pip ]; then
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
fi
END
}

mount_script() {
  cat <<'END'
if ! mountpoint -q "$mount"; then
  if ! command -v gcsfuse >/dev/null; then
    apt=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
    curl -fsS "$apt/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -o DPkg::Lock::Timeout=300 -qq update
    sudo apt-get -o DPkg::Lock::Timeout=300 -qq install gcsfuse
  fi
  mkdir -p "$mount" 2>/dev/null || { sudo mkdir -p "$mount" && sudo chown "$(id -u)" "$mount"; }
  gcsfuse --implicit-dirs -o ro "$bucket" "$mount"
fi
END
}

job_script() { # ID PROGRAM ARGS...: starts it, detached, and does so once
  common
  printf 'id=%q revision=%q data=%q\n' "$1" "$REVISION" "$TFDS_DATA_DIR"
  shift
  printf 'set --%s\n' "$(printf ' %q' "$@")"
  cat <<'END'
command=$(printf '%q ' "$@")
program=$code/venv/bin/$1
shift
if running && [ "$command" = "$(cat command)" ]; then
  echo 'simclr: start already'; exit
elif running; then
  echo 'simclr: start busy'; exit
elif [ "$id" = "$(cat id 2>/dev/null)" ]; then
  echo 'simclr: start already'; exit # gcloud sends a command again when its connection drops
elif [ ! -x "$program" ] ||
  { [ -n "$revision" ] && [ "$revision" != "$(git -C "$code" rev-parse HEAD)" ]; }; then
  echo 'simclr: start unprepared'; exit
fi
printf '%s\n' "$command" >command
printf '== %s %s\n' "$(date -u +%FT%TZ)" "$command" >>log
wc -l <log >start
rm -f exit pid child stopped
[ -z "$data" ] || export TFDS_DATA_DIR="$data"
export PYTHONUNBUFFERED=1 # or a log in a file lags behind
cd "$code"
setsid bash -c '
  run=$1; shift
  "$@" & echo $! >"$run/child"
  wait $!
  echo $? >"$run/exit.new" && mv "$run/exit.new" "$run/exit"
' simclr-job "$run" "$program" "$@" </dev/null >>"$run/log" 2>&1 &
echo $! >"$run/pid"
echo "$id" >"$run/id"
# Until it has a session of its own, the end of this connection could be its end.
for _ in $(seq 200); do [ ! -e "$run/child" ] || break; sleep 0.05; done
echo 'simclr: start now'
END
}

follow_script() { # LINES-SEEN: NUMBER:LINE for each later one, until the job ends
  common
  printf 'seen=%q\n' "$1"
  cat <<'END'
[ -e log ] || exit 0
if [ "$seen" = job ]; then seen=$(cat start)
elif [ "$seen" = last ]; then seen=$(($(wc -l <log) - 100)) seen=$((seen > 0 ? seen : 0))
fi
if running; then
  while running && kill -0 $$; do sleep 0.5; done >/dev/null 2>&1 &
  set -- -f --pid=$!
fi
tail -n "+$((seen + 1))" "$@" log | while IFS= read -r line || [ -n "$line" ]; do
  seen=$((seen + 1))
  printf '%s:%s\n' "$seen" "$line"
done
END
}

stop_script() { # BY: user, who wants no other try, or retry
  common
  printf 'seconds=%q\n' "$STOP_SECONDS"
  [[ $1 != user ]] || echo 'touch stopped'
  cat <<'END'
if running; then
  kill -TERM "$(cat child)"
  until=$(($(date +%s) + seconds))
  while running && [ "$(date +%s)" -lt "$until" ]; do sleep 0.2; done
fi
report
END
}

# --- Talking with the workers ---

remote() { # SCRIPT: runs it on every worker; what worker K says is in $scratch/workers/K.log
  rm -rf "$scratch/workers"
  mkdir "$scratch/workers"
  if ((DRY)); then
    tpus tpu-vm ssh --worker=all "--command=$1"
  elif ! tpus tpu-vm ssh --worker=all "--output-directory=$scratch/workers" "--command=$1" \
    >"$scratch/error" 2>&1; then
    cat "$scratch/error" >&2
    failed
  fi
}

answers() { # KEY: WORKER VALUE a line
  local file worker
  for file in "$scratch"/workers/*.log; do
    worker=${file##*/}
    printf '%s %s\n' "${worker%.log}" "$(sed -n "s/^simclr: $1 //p" "$file" | tail -n 1)"
  done | sort -n
}

setup() {
  say "installing $REVISION on every worker of $NAME"
  remote "$(setup_script)" || return
  ! ((DRY)) || return 0
  local worker revision bad=0
  while read -r worker revision; do
    say "worker $worker: ${revision:-not installed}"
    [[ $revision != "$REVISION" ]] || continue
    bad=1
    tail -n 5 "$scratch/workers/$worker.log" | sed "s/^/worker $worker: /" >&2
  done < <(answers revision)
  ((bad == 0)) || say "not every worker has $REVISION (busy: a job runs there; launch/tpu.sh stop)"
  return $((bad * 3))
}

start() { # PROGRAM ARGS...: 4 where it is not set up at REVISION, if that is set
  local id worker answer
  id=$(date +%s)-$$-$RANDOM
  echo job >"$scratch/seen"
  remote "$(job_script "$id" "$@")" || return
  ! ((DRY)) || return 0
  while read -r worker answer; do
    case $answer in
      now | already) ;;
      busy) die 2 "worker $worker: another job runs there; see logs and stop" ;;
      unprepared) return 4 ;;
      *) cat "$scratch/workers/$worker.log" >&2 && return 3 ;;
    esac
  done < <(answers start)
}

show_new() { # prints the lines not printed before; keeps their number, and the last step
  local row number step='^step ([0-9]+)/'
  while IFS= read -r row; do
    number=${row%%:*} row=${row#*:}
    [[ $number =~ ^[0-9]+$ ]] || continue
    [[ $(<"$scratch/seen") == [jl]* ]] || ((number > $(<"$scratch/seen"))) || continue
    printf '%s\n' "$row"
    echo "$number" >"$scratch/seen"
    [[ ! $row =~ $step ]] || echo "${BASH_REMATCH[1]}" >"$scratch/step"
  done
}

follow() { # worker 0, until its job ends; 3 where the TPU does
  local before silent=0
  while true; do
    before=$(<"$scratch/seen")
    if tpus tpu-vm ssh --worker=0 --command="$(follow_script "$before")" 2>"$scratch/error" |
      if ((DRY)); then cat; else show_new; fi; then return 0; fi
    look
    [[ $STATE == READY ]] || return 3
    silent=$((silent + 1))
    [[ $(<"$scratch/seen") == "$before" ]] || silent=0
    ((silent <= MAX_RETRIES)) || { cat "$scratch/error" >&2 && return 3; }
    say "the connection to worker 0 is lost, the job is not; connecting again in $POLL_SECONDS s"
    sleep "$POLL_SECONDS"
  done
}

collect() { # every worker's exit status, as one
  local since=$SECONDS worker answer status statuses running
  while true; do
    remote "$(common && echo report)" || return
    ! ((DRY)) || return 0
    statuses=' ' running='' STOPPED=0
    ! answers stopped | grep -q yes || STOPPED=1
    while read -r worker answer; do
      case $answer in
        running) running="$running $worker" ;;
        'ended 0') ;;
        'ended '*) statuses="$statuses${answer#ended } " ;;
        *) statuses="${statuses}3 " ;; # its machine was started anew, or is gone
      esac
    done < <(answers job)
    [[ -n $running ]] || break
    if ((SECONDS - since >= STOP_SECONDS)); then
      say "workers still running after $STOP_SECONDS s:$running; end them with: launch/tpu.sh stop"
      return 3
    fi
    sleep "$POLL_SECONDS"
  done
  # A bad input or a bug on one worker is why the others lost a peer; so it goes before 3 and 75.
  for status in 2 1 3 75 $statuses; do
    case $statuses in *" $status "*) return "$status" ;; esac
  done
}

detach() {
  say 'no longer following; a job that has started goes on, but is not retried'
  say 'follow it: launch/tpu.sh logs; end it: launch/tpu.sh stop'
  exit 130
}

# --- train, eval ---

attempt() { # PROGRAM ARGS...: with RETRY from whatever state the TPU is in
  local status=0
  look
  if [[ $STATE != READY ]]; then
    ((RETRY)) || die 3 "$NAME is $STATE: launch/tpu.sh create, and setup, come first"
    say "$NAME is $STATE"
    ! is_dead || delete || return
    create || return
    setup || return
  fi
  start "$@" || status=$?
  if ((status == 4)); then
    ((RETRY)) ||
      die 2 "$NAME is not set up${REVISION:+ at $REVISION}: launch/tpu.sh setup comes first"
    setup || return
    start "$@" || return 3
  elif ((status)); then
    return "$status"
  fi
  trap detach INT
  if ! follow; then
    say "$NAME is $STATE"
    return 3
  fi
  collect || status=$?
  ((DRY)) || say "ended on every worker; status $status"
  return "$status"
}

until_done() { # PROGRAM ARGS...: the program goes on from its checkpoint by itself
  local status best=-1 failures=0 delay=$RETRY_SECONDS
  echo -1 >"$scratch/step"
  while true; do
    status=0
    attempt "$@" || status=$?
    ! ((DRY || STOPPED)) || return "$status"
    case $status in
      0 | 2) return "$status" ;;
      1) # a machine that is taken away can make its neighbours fail in any way
        look
        [[ $STATE != READY ]] || return 1
        ;;
    esac
    if (($(<"$scratch/step") > best)); then
      best=$(<"$scratch/step") failures=0 delay=$RETRY_SECONDS
    fi
    failures=$((failures + 1))
    ((failures <= MAX_RETRIES)) ||
      die "$status" "MAX_RETRIES: $MAX_RETRIES tries in a row reached no new step"
    say "status $status; trying again in $delay s (step $best, $failures of $MAX_RETRIES)"
    sleep "$delay"
    delay=$((delay * 2 < 900 ? delay * 2 : 900))
    look
    # Nothing of the last try may be left running.
    [[ $STATE != READY ]] || remote "$(stop_script retry)" || true
  done
}

job() { # train|eval ARGS...
  local program=simclr-$1 folder=workdir arg
  [[ $1 == train ]] || folder=run
  shift
  for arg in "$@"; do
    [[ ! $arg =~ ^--?$folder(=|$) ]] || folder=
  done
  if [[ -n $folder ]]; then
    [[ -n $WORKDIR ]] || die 2 "WORKDIR: '' is not allowed: gs://BUCKET/FOLDER, or give --$folder"
    set -- "--$folder=$WORKDIR" "$@"
  fi
  if ((RETRY)) || [[ -n $REVISION ]]; then fix_revision; fi
  if ((RETRY)); then
    PRETENDED=MISSING
    until_done "$program" "$@"
  else
    attempt "$program" "$@"
  fi
}

# --- status, logs, stop ---

print_jobs() { # of the last report; 3 where one is still running
  local worker answer status=0
  while read -r worker answer; do
    echo "worker $worker: ${answer:-no answer}"
    [[ $answer != running ]] || status=3
  done < <(answers job)
  return "$status"
}

status() {
  look
  echo "$NAME: $STATE"
  [[ $STATE == READY ]] || return 0
  remote "$(common && echo report)" || return
  ! ((DRY)) || return 0
  print_jobs || true
  answers last | sed -n 's/^0 \(.\)/\1/p'
}

fetch_logs() {
  remote "$(common && echo 'cat log 2>/dev/null || true')" || return
  ! ((DRY)) || return 0
  mkdir -p "logs/$NAME"
  local file worker
  for file in "$scratch"/workers/*.log; do
    worker=${file##*/}
    cp "$file" "logs/$NAME/worker-$worker"
    echo "logs/$NAME/worker-$worker"
  done
}

stop() {
  remote "$(stop_script user)" || return
  ((DRY)) || print_jobs || die 3 "still running after STOP_SECONDS=$STOP_SECONDS"
  ! ((VM)) || try tpus tpu-vm stop
}

# --- The command line ---

run() { # COMMAND ARGS...
  local command=$1
  shift
  case $command in
    create) PRETENDED=MISSING && create ;;
    setup) fix_revision && setup ;;
    train | eval) job "$command" "$@" ;;
    logs) if ((ALL)); then fetch_logs; else echo last >"$scratch/seen" && follow; fi ;;
    ssh) set -- gcloud compute tpus tpu-vm ssh "$NAME" "--zone=$ZONE" \
      ${PROJECT:+"--project=$PROJECT"} "--worker=${1-0}"
      if ((DRY)); then shown "$@"; else "$@"; fi ;;
    delete) ((YES || DRY)) || confirm_delete && delete ;;
    status | stop) "$command" ;;
  esac
}

main() {
  local command=${1-} arg
  case $command in
    help | -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && return ;;
    create | setup | train | eval | status | logs | ssh | stop | delete) shift ;;
    *) die 2 "COMMAND: '$command' is not allowed: $COMMANDS" ;;
  esac
  while (($#)); do
    case "$command $1" in
      *' --dry-run') DRY=1 ;;
      'train --retry') RETRY=1 ;;
      'logs --all') ALL=1 ;;
      'stop --vm') VM=1 ;;
      'delete --yes') YES=1 ;;
      *) break ;;
    esac
    shift
  done
  case $command/${1-} in
    train/-- | eval/--) shift ;;
    train/* | eval/*) # among ARGS it would start the real thing
      for arg in "$@"; do
        [[ ! $arg =~ ^--(dry-run|retry)$ ]] ||
          die 2 "$command: '$arg' is not allowed there: before ARGS, or after -- as one of them"
      done ;;
    ssh/*)
      [[ $# -le 1 && ${1-0} =~ ^[0-9]+$ ]] ||
        die 2 "ssh: '$*' is not allowed: a worker's number" ;;
    *) (($# == 0)) || die 2 "$command: '$1' is not allowed: launch/tpu.sh help lists its options" ;;
  esac
  check_settings
  ((DRY)) || command -v gcloud >/dev/null ||
    die 3 "gcloud is not on PATH: https://cloud.google.com/sdk/docs/install"
  run "$command" "$@"
}

main "$@"
