#!/usr/bin/env bash
# Trains and evaluates on a Cloud TPU: one machine or a slice of many, on demand, spot or queued.
#
#   launch/tpu.sh create            create the TPU and wait until it is READY, unless it is already
#   launch/tpu.sh setup             install REVISION on every worker, and check that all have it
#   launch/tpu.sh train ARGS...     run simclr-train ARGS on every worker, show worker 0's output
#   launch/tpu.sh train --retry ARGS...   the same again until it is done, on a new TPU if need be
#   launch/tpu.sh sweep [--retry] ARGS... the same for simclr-sweep, one point after another
#   launch/tpu.sh eval ARGS...      run simclr-eval ARGS on every worker, show worker 0's output
#   launch/tpu.sh status            show the TPU's state and cost, the workers' jobs, the last step
#   launch/tpu.sh logs [--all]      follow worker 0's log; --all: copy all to logs/NAME/worker-K.log
#   launch/tpu.sh ssh [K]           open a shell on worker K (0 unless given)
#   launch/tpu.sh stop [--vm]       save and end the job on every worker; --vm: stop the machine too
#   launch/tpu.sh delete [--yes]    delete the TPU and its request, but no bucket; --yes: do not ask
#   launch/tpu.sh help              print this
#
# --dry-run, after any COMMAND, prints what would be run. Options come before ARGS, which reach the
# program unchanged; WORKDIR becomes --workdir (train, sweep) or --run (eval) where ARGS have none.
# The exit status of train, sweep and eval is the program's: 0 done, 1 a bug, 2 input, 3
# environment, 75 preempted but saved; where workers differ, the first of 2, 1, 3, 75 that any has.
# Any command ends with 2 for input that is not allowed, 3 where gcloud fails, and 130 after Ctrl-C,
# which ends the following but not the job. create, train, sweep, eval and stop say at their end
# what is still billed, and how many chip-hours an hour. With DELETE=1, train, sweep and eval delete
# the TPU and its request at their end, unless the job goes on, and create does where it fails or is
# interrupted.
# Settings are the variables below, each also taken from the environment.

set -euo pipefail

NAME=${NAME:-simclr}                      # name of the TPU VM, and of its queued resource
PROJECT=${PROJECT:-}                      # Google Cloud project; empty: the one gcloud is set to
ZONE=${ZONE:-}                            # required: zone of the TPU, such as us-west4-a
ACCELERATOR=${ACCELERATOR:-v5litepod-16}  # type and size; v2 to v4, v5p: cores, v5e, v6e: chips
RUNTIME=${RUNTIME:-}                      # machine image; empty: the one for ACCELERATOR
SPOT=${SPOT:-0}                           # 1: costs less, and may be taken away at any time
QUEUED=${QUEUED:-0}                       # 1: a queued resource, which waits for capacity
DELETE=${DELETE:-0}                       # 1: what is billed is deleted at the end, see above
CREATE_FLAGS=${CREATE_FLAGS:-}            # more of gcloud's flags for creation: --internal-ips ...
SSH_FLAGS=${SSH_FLAGS:-}                  # more of gcloud's flags for SSH: --tunnel-through-iap ...
REPOSITORY=${REPOSITORY:-}                # git URL the workers can read; empty: this one's origin
REVISION=${REVISION:-}                    # commit to install; empty: this checkout's HEAD
BUCKET=${BUCKET:-}                        # gs://BUCKET of data, mounted read-only; empty: none
MOUNT=${MOUNT:-/mnt/data}                 # folder on the workers where BUCKET is mounted
TFDS_DATA_DIR=${TFDS_DATA_DIR:-}          # folder on the workers or gs://; empty: TFDS's default
WORKDIR=${WORKDIR:-}                      # the run's or sweep's folder, gs://BUCKET/FOLDER
RETRY_SECONDS=${RETRY_SECONDS:-60}        # wait before another try; doubled each time, up to 900
MAX_RETRIES=${MAX_RETRIES:-10}            # tries in a row without a new step before giving up
POLL_SECONDS=${POLL_SECONDS:-15}          # time between two queries of a state
STOP_SECONDS=${STOP_SECONDS:-180}         # time for workers to save a checkpoint and end

COMMANDS='create, setup, train, sweep, eval, status, logs, ssh, stop, delete, help'
RETRY=0 ALL=0 VM=0 YES=0                  # 1: the option of this name was given
DRY=0                                     # 1: --dry-run was given; commands are only printed

# Files hold what variables that are set in a pipeline would lose: error (gcloud's messages),
# workers/K.log (what worker K said), seen (number of the last line shown of worker 0's log; before
# the first, where to begin: job or last, see follow_log in worker.sh), reached (POINT STEP, the
# last ones; POINT is that of a sweep, and -1 in a run).
SCRATCH=$(mktemp -d)
echo '-1 -1' >"$SCRATCH/reached"

say() { printf 'tpu.sh: %s\n' "$*" >&2 || true; }

die() { # STATUS MESSAGE
  say "$2"
  exit "$1"
}

back_off() { # waits for the caller's delay, and doubles it for the next time
  sleep "$delay"
  delay=$((delay * 2 < 900 ? delay * 2 : 900))
}

own_folder() { # where this script is, also if it is called through a link
  local script=${BASH_SOURCE[0]} link
  while [[ -L $script ]]; do # Not every macOS has readlink -f.
    link=$(readlink "$script")
    [[ $link == /* ]] || link=$(dirname "$script")/$link
    script=$link
  done
  [[ $script == /* ]] || script=$PWD/$script # Printed commands can then be pasted anywhere.
  dirname "$script"
}

SCRIPTS=$(own_folder)
# shellcheck source-path=SCRIPTDIR source=machine.sh
. "$SCRIPTS/machine.sh"
# shellcheck source-path=SCRIPTDIR source=job.sh
. "$SCRIPTS/job.sh"
# shellcheck source-path=SCRIPTDIR source=billing.sh
. "$SCRIPTS/billing.sh"
# At SIGTERM and SIGHUP, which have no trap, bash ends at once by way of the one at EXIT.
trap 'leave $?' EXIT
trap 'exit 130' INT

# --- Input ---

allow() { # VARIABLE REGEX WHAT-IS-ALLOWED
  local newline=$'\n'
  [[ ${!1} =~ $2 ]] || die 2 "$1: '${!1//$newline/\\n}' is not allowed: $3"
}

allow_flags() { # VARIABLE FLAG:SETTING...: refuses what is no flag, and what has a setting
  local variable=$1 words word own
  shift
  allow "$variable" '^ *(--[a-z][-a-z0-9]*(=[^[:space:]]*)?( +|$))*$' \
    'words like --flag and --flag=value, separated by spaces'
  read -ra words <<<"${!variable}"
  for word in ${words[@]+"${words[@]}"}; do
    for own in "$@"; do
      [[ ${word%%=*} != "--${own%:*}" ]] ||
        die 2 "$variable: '$word' is not allowed: ${own#*:} sets it"
    done
  done
}

check_settings() {
  allow NAME '^[a-z]([-a-z0-9]*[a-z0-9])?$' 'lower-case letters, digits and -'
  allow PROJECT '^([a-z][-a-z0-9.:]*)?$' 'a project id, or empty for the one gcloud is set to'
  allow ZONE '^[a-z]+-[a-z]+[0-9]+-[a-z]$' 'a zone such as us-west4-a'
  allow SPOT '^[01]$' '0 or 1'
  allow QUEUED '^[01]$' '0 or 1'
  allow DELETE '^[01]$' '0 or 1'
  allow_flags CREATE_FLAGS zone:ZONE project:PROJECT spot:SPOT {runtime-version,version}:RUNTIME \
    {accelerator-type,type,topology}:ACCELERATOR node-{id,count,prefix}:NAME
  allow_flags SSH_FLAGS zone:ZONE project:PROJECT {worker,command,output-directory}:"the script"
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

fix_revision() { # makes REVISION a full commit hash, and REPOSITORY a URL
  local git=(git -C "$SCRIPTS/..")
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

# --- train, sweep, eval ---

attempt() { # PROGRAM ARGS...: one try; with RETRY, on a TPU in any state or none
  local status=0
  query_state
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
  if ! follow; then
    say "$NAME is $STATE"
    return 3
  fi
  wait_for_all || status=$?
  RUNNING=0
  ((DRY)) || say "ended on every worker; status $status"
  return "$status"
}

until_done() { # PROGRAM ARGS...: each try goes on from the last one's checkpoint
  local status point step best_point=-1 best=-1 failures=0 delay=$RETRY_SECONDS reached
  while true; do
    status=0
    attempt "$@" || status=$?
    ! { ((DRY)) || was_stopped; } || return "$status"
    case $status in
      0 | 2) return "$status" ;;
      1) # A machine that is taken away can make the programs on the others fail in any way.
        query_state
        [[ $STATE != READY ]] || return 1
        ;;
    esac
    read -r point step <"$SCRATCH/reached"
    if ((point > best_point || (point == best_point && step > best))); then
      best_point=$point best=$step failures=0 delay=$RETRY_SECONDS
    fi
    reached="step $best"
    ((best_point < 0)) || reached="point $best_point, $reached"
    failures=$((failures + 1))
    if ((failures > MAX_RETRIES)); then
      RUNNING=0
      die "$status" "MAX_RETRIES: $MAX_RETRIES tries in a row reached no new step"
    fi
    say "status $status; trying again in $delay s ($reached, $failures of $MAX_RETRIES)"
    back_off
    query_state
    # No worker may still run the last try.
    [[ $STATE != READY ]] || send_to_all stop "$STOP_SECONDS" retry || true
    RUNNING=0
  done
}

job() { # train|sweep|eval ARGS...
  local program=simclr-$1 folder=workdir arg
  [[ $1 != eval ]] || folder=run
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
    DRY_STATE=MISSING ACCOUNT=1
    until_done "$program" "$@"
  else
    attempt "$program" "$@"
  fi
}

# --- status, logs, stop ---

status() {
  query_state
  echo "$NAME: $STATE"
  ((DRY)) || say_billed
  [[ $STATE != MISSING ]] || say "neither a TPU VM nor a queued request has this name in $ZONE"
  [[ $STATE == READY ]] || return 0
  send_to_all report || return
  ! ((DRY)) || return 0
  print_jobs || true
  answers last | sed -n 's/^0 \(.\)/\1/p'
}

fetch_logs() {
  send_to_all log || return
  ! ((DRY)) || return 0
  mkdir -p "logs/$NAME"
  local file worker
  for file in "$SCRATCH"/workers/*.log; do
    worker=${file##*/}
    cp "$file" "logs/$NAME/worker-$worker"
    echo "logs/$NAME/worker-$worker"
  done
}

stop() {
  send_to_all stop "$STOP_SECONDS" user || return
  ((DRY)) || print_jobs || die 3 "still running after STOP_SECONDS=$STOP_SECONDS"
  ! ((VM)) || try tpus tpu-vm stop
}

# --- The command line ---

run() { # COMMAND ARGS...
  local command=$1
  shift
  case $command in
    create) DRY_STATE=MISSING ACCOUNT=1 && create && ACCOUNT=0 ;;
    setup) fix_revision && setup ;;
    train | sweep | eval) job "$command" "$@" ;;
    logs) if ((ALL)); then fetch_logs; else echo last >"$SCRATCH/seen" && follow; fi ;;
    ssh) INPUT='' && tpus tpu-vm ssh "--worker=${1-0}" ;;
    delete) ((YES || DRY)) || confirm_delete && DELETE=0 ACCOUNT=1 && delete && ACCOUNT=0 ;;
    status) status ;;
    stop) DELETE=0 ACCOUNT=1 && stop ;;
  esac
}

main() {
  local command=${1-} arg
  case $command in
    help | -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && return ;;
    create | setup | train | sweep | eval | status | logs | ssh | stop | delete) shift ;;
    *) die 2 "COMMAND: '$command' is not allowed: $COMMANDS" ;;
  esac
  while (($#)); do
    case "$command $1" in
      *' --dry-run') DRY=1 ;;
      'train --retry' | 'sweep --retry') RETRY=1 ;;
      'logs --all') ALL=1 ;;
      'stop --vm') VM=1 ;;
      'delete --yes') YES=1 ;;
      *) break ;;
    esac
    shift
  done
  case $command/${1-} in
    train/-- | sweep/-- | eval/--) shift ;;
    train/* | sweep/* | eval/*) # An option among ARGS would be passed on, and a real job started.
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
