# shellcheck shell=bash
# The TPU as Google Cloud sees it: its state, creation and deletion. Part of launch/tpu.sh, which
# describes the settings that are used here.

STATE=          # state of the TPU VM or of its queued resource when last queried, or MISSING
DRY_STATE=READY # state that a dry run takes the TPU to have

print_command() { # COMMAND ARGS...: quoted so that a shell would read it back
  local word line=
  for word in "$@"; do
    # shellcheck disable=SC2001 # macOS's bash 3.2 handles quotes in ${word//} wrongly.
    case $word in
      '' | *[!A-Za-z0-9_./:=@%+,-]*) word="'$(sed "s/'/'\\\\''/g" <<<"$word")'" ;;
    esac
    line="$line $word"
  done
  printf '%s\n' "${line# }"
}

tpus() { # GROUP VERB ARGS...: gcloud compute tpus GROUP VERB NAME ARGS...
  local group=$1 verb=$2 flags=("--zone=$ZONE")
  shift 2
  [[ -z $PROJECT ]] || flags+=("--project=$PROJECT")
  set -- gcloud compute tpus "$group" "$verb" "$NAME" "${flags[@]}" "$@"
  if ((DRY)); then print_command "$@"; else "$@" </dev/null; fi
}

judge_error() { # of $SCRATCH/error: returns 3 if it may pass by itself, and ends the script if not
  # An exceeded quota has the same code as missing capacity, RESOURCE_EXHAUSTED, but waiting does
  # not raise it. So the lasting errors are looked for first.
  local lasting='quota|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT'
  local passing='RESOURCE_EXHAUSTED|capacity|enough resources|code"?: 8|UNAVAILABLE|INTERNAL'
  passing="$passing|DEADLINE_EXCEEDED|ABORTED|FAILED_PRECONDITION|ALREADY_EXISTS|NOT_FOUND"
  passing="$passing|timed out|connect|return code \[255\]|This TPU has"
  grep -qiE "$lasting" "$SCRATCH/error" || ! grep -qiE "$passing" "$SCRATCH/error" || return 3
  die 3 "$NAME: gcloud failed, with the message above; trying again would not help"
}

try() { # COMMAND ARGS...: shows its messages as they come, and judges them if it fails
  { "$@" 2>&1 >&3 3>&- | tee "$SCRATCH/error" >&2; } 3>&1 || judge_error
}

describe() { # queued-resources|tpu-vm FORMAT: sets STATE
  local tries
  for tries in 1 2 3; do
    STATE=$(tpus "$1" describe --format="$2" 2>"$SCRATCH/error") && return
    STATE=MISSING
    ! grep -q NOT_FOUND "$SCRATCH/error" || return 0
    cat "$SCRATCH/error" >&2
    judge_error || true
    ((tries == 3)) || sleep "$POLL_SECONDS"
  done
  die 3 "$NAME: its state cannot be seen; gcloud's message is above"
}

query_state() { # sets STATE: the queued resource's until that is ACTIVE, otherwise the TPU VM's
  if ((DRY)); then
    ! ((QUEUED)) || tpus queued-resources describe --format='value(state.state)'
    tpus tpu-vm describe --format='value(state)'
    STATE=$DRY_STATE
    return
  fi
  if ((QUEUED)); then
    describe queued-resources 'value(state.state)'
    [[ $STATE == ACTIVE ]] || return 0
  fi
  describe tpu-vm 'value(state)'
  # For a while, a queued resource is still ACTIVE when its machines have been taken away.
  [[ $QUEUED$STATE != 1MISSING ]] || STATE=TERMINATED
}

is_dead() { # whether STATE is one that never becomes READY
  case $STATE in
    PREEMPTED | TERMINATED | FAILED | SUSPENDING | SUSPENDED | DELETING) return 0 ;;
    *) return 1 ;;
  esac
}

create() { # returns 3 where there is no capacity
  query_state
  case $STATE in
    READY) say "$NAME is READY already" && return ;;
    MISSING) request || return ;;
    STOPPED) try tpus tpu-vm start || return ;;
    *) ! is_dead || die 3 "$NAME is $STATE for good: launch/tpu.sh delete comes first" ;;
  esac
  DRY_STATE=READY
  local said=
  while query_state && [[ $STATE != READY ]]; do
    if [[ $STATE == MISSING ]] || is_dead; then
      tpus queued-resources describe --format='value(state)' 2>&1 | tee "$SCRATCH/error" >&2 || true
      # Missing quota is an error of the queued resource, some time after its creation.
      ! grep -qiE 'quota|PERMISSION_DENIED' "$SCRATCH/error" || judge_error
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
  query_state
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
