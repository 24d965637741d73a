# shellcheck shell=bash
# The TPU as Google Cloud sees it: its state, creation and deletion. Part of launch/tpu.sh, which
# describes the settings that are used here.
# shellcheck disable=SC2034 # The other files read some of the variables.

# What query_state saw last. States are Google Cloud's, or MISSING where there is nothing.
MACHINE=        # state of the TPU VM
REQUEST=        # state of the queued resource, which asks for a TPU VM of its own name
STATE=          # the one of the two that decides what can be done with the TPU
MACHINE_TYPE=   # accelerator type of the TPU VM, such as v5litepod-16
REQUEST_TYPE=   # accelerator type that the queued resource asks for
GRANTED=        # the queued resource that the TPU VM is of; empty if it was created on demand
DRY_STATE=READY # state that a dry run takes the TPU to have
HIDDEN=0        # 1: queued resources cannot be seen, and are not needed for QUEUED=0
ASKING=0        # 1: gcloud is creating, starting, stopping or deleting something
INPUT=/dev/null # what gcloud reads; empty: what this script reads, for a shell on a worker

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
  local group=$1 verb=$2 gcloud=(gcloud) flags=("--zone=$ZONE") more=()
  shift 2
  [[ -z $PROJECT ]] || flags+=("--project=$PROJECT")
  case $verb in
    create) read -ra more <<<"$CREATE_FLAGS" ;;
    ssh) read -ra more <<<"$SSH_FLAGS" ;;
  esac
  # Only gcloud alpha can reach a TPU VM through Identity-Aware Proxy.
  [[ " ${more[*]-} " != *' --tunnel-through-iap'[\ =]* ]] || gcloud+=(alpha)
  # bash 3.2 takes an array without elements for a variable that is not set.
  set -- "${gcloud[@]}" compute tpus "$group" "$verb" "$NAME" "${flags[@]}" \
    ${more[@]+"${more[@]}"} "$@"
  if ((DRY)); then print_command "$@"; elif [[ -z $INPUT ]]; then "$@"; else "$@" <"$INPUT"; fi
}

may_pass() { # whether the error in $SCRATCH/error may pass by itself
  # An exceeded quota has the same code as missing capacity, RESOURCE_EXHAUSTED, but waiting does
  # not raise it. So the lasting errors are looked for first.
  local lasting='quota|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT'
  local passing='RESOURCE_EXHAUSTED|capacity|enough resources|code"?: 8|UNAVAILABLE|INTERNAL'
  passing="$passing|DEADLINE_EXCEEDED|ABORTED|FAILED_PRECONDITION|ALREADY_EXISTS|NOT_FOUND"
  passing="$passing|timed out|connect|return code \[255\]|This TPU has"
  ! grep -qiE "$lasting" "$SCRATCH/error" && grep -qiE "$passing" "$SCRATCH/error"
}

judge_error() { # of $SCRATCH/error: returns 3 if it may pass by itself, and ends the script if not
  ! may_pass || return 3
  ! grep -q 'unrecognized arguments' "$SCRATCH/error" ||
    die 2 'CREATE_FLAGS, SSH_FLAGS: gcloud does not know a flag among them; its message is above'
  die 3 "$NAME: gcloud failed, with the message above; trying again would not help"
}

try() { # COMMAND ARGS...: shows its messages as they come, and judges them if it fails
  local status=0
  ASKING=1
  { "$@" 2>&1 >&3 3>&- | tee "$SCRATCH/error" >&2; } 3>&1 || status=$?
  ASKING=0
  ((status == 0)) || judge_error
}

describe() { # queued-resources|tpu-vm KEYS: sets SEEN to their values, with commas, or to MISSING
  local tries=2 delay=$POLL_SECONDS
  # Nobody may be there to look again, and a TPU would stay that is billed.
  ! ((RETRY || (ACCOUNT && DELETE))) || tries=$((tries + MAX_RETRIES))
  while true; do
    SEEN=$(tpus "$1" describe --format="csv[no-heading]($2)" 2>"$SCRATCH/error") && return
    SEEN=MISSING
    ! grep -q NOT_FOUND "$SCRATCH/error" || return 0
    cat "$SCRATCH/error" >&2
    { may_pass && ((tries)); } || break
    tries=$((tries - 1))
    back_off
  done
  if [[ $QUEUED$1 == 0queued-resources ]] && ! may_pass; then
    HIDDEN=1
    say "whether $NAME has a queued request cannot be seen, with the message above; taken as none"
    return 0
  fi
  ACCOUNT=0
  die 3 "$NAME: neither its state nor what is billed can be seen; gcloud's message is above"
}

query_state() { # looks for both kinds, whatever QUEUED is: either can be billed, or come to be
  local request="state.state,tpu.nodeSpec[0].node.acceleratorType.basename()"
  local machine="state,acceleratorType.basename(),queuedResource.basename()"
  if ((DRY)); then
    tpus queued-resources describe --format="csv[no-heading]($request)"
    tpus tpu-vm describe --format="csv[no-heading]($machine)"
    STATE=$DRY_STATE MACHINE=$DRY_STATE REQUEST=MISSING GRANTED=
    ! ((QUEUED)) || REQUEST=$DRY_STATE GRANTED=$NAME
    return 0
  fi
  SEEN=MISSING
  ((HIDDEN)) || describe queued-resources "$request"
  IFS=, read -r REQUEST REQUEST_TYPE <<<"$SEEN"
  describe tpu-vm "$machine"
  IFS=, read -r MACHINE MACHINE_TYPE GRANTED <<<"$SEEN"
  STATE=$MACHINE
  # A machine on demand does not depend on what becomes of a request of its name.
  if [[ $REQUEST != MISSING && ($MACHINE == MISSING || -n $GRANTED) ]]; then
    [[ $REQUEST == ACTIVE ]] || STATE=$REQUEST
    # For a while, a queued resource is still ACTIVE when its machines have been taken away.
    [[ $STATE != MISSING ]] || STATE=TERMINATED
  fi
  [[ $STATE == READY ]] || RUNNING=0
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
    READY) say "$NAME is READY already" && say_billed && return ;;
    MISSING) request || return ;;
    STOPPED) try tpus tpu-vm start || return ;;
    *) ! is_dead || die 3 "$NAME is $STATE for good: launch/tpu.sh delete comes first" ;;
  esac
  DRY_STATE=READY
  local said=
  while query_state && [[ $STATE != READY ]]; do
    if [[ $STATE == MISSING ]] || is_dead; then
      # Missing quota is an error of the queued resource, some time after its creation.
      [[ $REQUEST == MISSING ]] || tpus queued-resources describe --format='value(state)' 2>&1 |
        tee "$SCRATCH/error" >&2 || true
      ! grep -qiE 'quota|PERMISSION_DENIED' "$SCRATCH/error" || judge_error
      say "$NAME is $STATE"
      return 3
    fi
    [[ $said == "$STATE" ]] || say "$NAME is $STATE; looking every $POLL_SECONDS s"
    said=$STATE
    sleep "$POLL_SECONDS"
  done
  say_billed
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

delete() { # the queued resource with its machine, and a machine that is of none
  query_state
  [[ $REQUEST$MACHINE != MISSINGMISSING ]] || say "$NAME is not there, in $ZONE"
  [[ $REQUEST == MISSING ]] || try tpus queued-resources delete --force --quiet || return
  [[ $MACHINE == MISSING || ($REQUEST != MISSING && -n $GRANTED) ]] ||
    try tpus tpu-vm delete --quiet
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
