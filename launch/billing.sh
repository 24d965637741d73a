# shellcheck shell=bash
# What is billed, and how this script leaves it: said, or deleted with DELETE=1. Part of
# launch/tpu.sh, which describes the settings that are used here.

ACCOUNT=0 # 1: this script asked for a TPU or started a job, and does not leave without a word

count() { # NUMBER NOUN
  if (($1 == 1)); then echo "1 $2"; else echo "$1 $2s"; fi
}

chips() { # TYPE: the number of chips of an accelerator type; of ACCELERATOR, if it is not known
  local type=$1
  [[ $type =~ ^[a-z0-9]+-[0-9]+$ ]] || type=$ACCELERATOR
  case $type in
    v2-* | v3-* | v4-* | v5p-*) echo $((10#${type#*-} / 2)) ;; # These count cores, two a chip.
    *) echo $((10#${type#*-})) ;;
  esac
}

say_billed() { # what query_state saw, what it costs, and the command that ends it
  ! ((DRY)) || return 0
  local number end="NAME=$NAME ZONE=$ZONE${PROJECT:+ PROJECT=$PROJECT} launch/tpu.sh delete"
  number=$(chips "$MACHINE_TYPE")
  case $MACHINE in # It is billed while it is READY.
    MISSING) ;;
    READY)
      say "$NAME is READY and billed: $(count "$number" chip) (${MACHINE_TYPE:-$ACCELERATOR})," \
        "$(count "$number" chip-hour) an hour, until: $end" ;;
    STOPPED | PREEMPTED | TERMINATED | DELETING)
      say "$NAME is $MACHINE and no longer billed; what is left of it goes with: $end" ;;
    *)
      say "$NAME is $MACHINE; once READY, $(count "$number" chip) will be billed, until: $end" ;;
  esac
  number=$(chips "$REQUEST_TYPE")
  case $REQUEST/$MACHINE in
    MISSING/* | ACTIVE/[!M]*) ;;
    FAILED/* | SUSPEND*/* | DELETING/* | ACTIVE/MISSING)
      say "the request of $NAME is $REQUEST and not billed; it goes with: $end" ;;
    *)
      say "the request of $NAME is $REQUEST; once it is granted," \
        "$(count "$number" chip) will be billed, until: $end" ;;
  esac
}

settle() { # queries the state; what an interrupted gcloud asked for may be seen a little later
  local tries
  for tries in 1 2 3; do
    query_state
    [[ $ASKING$STATE == 1MISSING ]] || return 0
    ((tries == 3)) || sleep "$POLL_SECONDS"
  done
  say "nothing is there yet of what gcloud was asking for; look again: launch/tpu.sh status"
}

delete_at_end() { # STATUS: returns 3 if something may be left
  local failures=0 delay=$RETRY_SECONDS
  trap 'say "interrupted: not everything may be deleted" && query_state && say_billed; exit 3' INT
  if ! ((DRY)); then
    settle
    [[ $REQUEST$MACHINE != MISSINGMISSING ]] || return 0
    say "DELETE=1: deleting $NAME"
    # After a failure, the workers' logs may be needed, and are on no other disk.
    [[ $1 == 0 || $STATE != READY || ! -e $SCRATCH/seen ]] || (fetch_logs >&2)
  fi
  until (delete); do
    failures=$((failures + 1))
    if ((failures > MAX_RETRIES)) || ! may_pass; then
      say "$NAME could not be deleted" && query_state && say_billed
      return 3
    fi
    say "DELETE=1: $NAME is not deleted yet; trying again in $delay s"
    back_off
  done
  ((DRY)) || say "$NAME is deleted; nothing of it is billed any more"
}

leave() { # STATUS: ends this script, after whatever command or signal, and with that status
  local status=$1
  set +e
  trap : INT
  trap '' HUP TERM PIPE # They must not keep it from being deleted.
  if ((ACCOUNT && RUNNING && !DRY)); then
    say 'no longer following; a job that has started goes on, but is not retried'
    say 'follow it: launch/tpu.sh logs; end it: launch/tpu.sh stop'
    ! ((DELETE)) || say 'DELETE=1: the same command, given again, follows it and deletes at its end'
    (settle && say_billed)
  elif ((ACCOUNT && DELETE)); then
    (delete_at_end "$status") || ((status)) || status=3
  elif ((ACCOUNT && !DRY)); then
    (settle && say_billed)
  fi
  rm -rf "$SCRATCH"
  exit "$status"
}
