# shellcheck shell=bash
# The job on the workers: sends launch/worker.sh to them, and reads what they answer. Part of
# launch/tpu.sh, which describes the settings that are used here.
# shellcheck disable=SC2034 # The other files read some of the variables.

WORKER_SH=$(<"$SCRIPTS/worker.sh") # read once, as it may change while train --retry goes on
STOPPED=0                          # 1: launch/tpu.sh stop ended the job
RUNNING=0                          # 1: a job that was started here may still run

send() { # SSH-FLAGS... -- COMMAND ARGS...: runs a command of worker.sh, whose text is sent with it
  local flags=() call
  while [[ $1 != -- ]]; do
    flags+=("$1")
    shift
  done
  shift
  call="set --$(printf ' %q' "$@")"
  if ((DRY)); then # The shell that the printed command is pasted into reads the text.
    printf "%s\$'\\\\n'\"\$(cat %s)\"\n" \
      "$(tpus tpu-vm ssh "${flags[@]}" "--command=$call")" "$(print_command "$SCRIPTS/worker.sh")"
  else
    tpus tpu-vm ssh "${flags[@]}" "--command=$call"$'\n'"$WORKER_SH"
  fi
}

send_to_all() { # COMMAND ARGS...: what worker K says is in $SCRATCH/workers/K.log
  rm -rf "$SCRATCH/workers"
  mkdir "$SCRATCH/workers"
  if ((DRY)); then
    send --worker=all -- "$@"
  elif ! send --worker=all "--output-directory=$SCRATCH/workers" -- "$@" \
    >"$SCRATCH/error" 2>&1; then
    cat "$SCRATCH/error" >&2
    judge_error
  fi
}

answers() { # KEY: prints WORKER VALUE for each worker, where VALUE is empty if it did not answer
  local file worker
  for file in "$SCRATCH"/workers/*.log; do
    worker=${file##*/}
    printf '%s %s\n' "${worker%.log}" "$(sed -n "s/^simclr: $1 //p" "$file" | tail -n 1)"
  done | sort -n
}

setup() {
  say "installing $REVISION on every worker of $NAME"
  send_to_all setup "$REPOSITORY" "$REVISION" "$BUCKET" "$MOUNT" || return
  ! ((DRY)) || return 0
  local worker answer bad=0
  while read -r worker answer; do
    say "worker $worker: ${answer:-not installed}"
    [[ $answer != "$REVISION" ]] || continue
    bad=1
    tail -n 5 "$SCRATCH/workers/$worker.log" | sed "s/^/worker $worker: /" >&2
  done < <(answers revision)
  ((bad == 0)) || say "not every worker has $REVISION (busy: a job runs there; launch/tpu.sh stop)"
  return $((bad * 3))
}

start() { # PROGRAM ARGS...: returns 4 where setup is missing, or was for another REVISION
  local id worker answer
  id=$(date +%s)-$$-$RANDOM
  echo job >"$SCRATCH/seen"
  RUNNING=1 ACCOUNT=1
  send_to_all start "$id" "$REVISION" "$TFDS_DATA_DIR" "$@" || return
  ! ((DRY)) || return 0
  while read -r worker answer; do
    case $answer in
      now | already) ;;
      busy)
        RUNNING=0 ACCOUNT=0
        die 2 "worker $worker: another job runs there; see logs and stop" ;;
      unprepared) RUNNING=0 ACCOUNT=$RETRY && return 4 ;;
      *) cat "$SCRATCH/workers/$worker.log" >&2 && return 3 ;;
    esac
  done < <(answers start)
}

show_new() { # prints the lines not printed before, and keeps their number and what was reached
  local row number point step at_point='^point ([0-9]+) of ' at_step='^step ([0-9]+)/'
  while IFS= read -r row; do
    number=${row%%:*} row=${row#*:}
    [[ $number =~ ^[0-9]+$ ]] || continue
    [[ $(<"$SCRATCH/seen") == [jl]* ]] || ((number > $(<"$SCRATCH/seen"))) || continue
    printf '%s\n' "$row"
    echo "$number" >"$SCRATCH/seen"
    read -r point step <"$SCRATCH/reached"
    if [[ $row =~ $at_point ]]; then
      point=${BASH_REMATCH[1]} step=-1
    elif [[ $row =~ $at_step ]]; then
      step=${BASH_REMATCH[1]}
    fi
    echo "$point $step" >"$SCRATCH/reached"
  done
}

follow() { # shows worker 0's log until its job ends; returns 3 if the TPU ends before
  local before silent=0
  while true; do
    before=$(<"$SCRATCH/seen")
    if send --worker=0 -- follow "$before" 2>"$SCRATCH/error" |
      if ((DRY)); then cat; else show_new; fi; then return 0; fi
    query_state
    [[ $STATE == READY ]] || return 3
    silent=$((silent + 1))
    [[ $(<"$SCRATCH/seen") == "$before" ]] || silent=0
    ((silent <= MAX_RETRIES)) || { cat "$SCRATCH/error" >&2 && return 3; }
    say "the connection to worker 0 is lost, the job is not; connecting again in $POLL_SECONDS s"
    sleep "$POLL_SECONDS"
  done
}

wait_for_all() { # until the job has ended on every worker; returns its status
  local since=$SECONDS worker answer status statuses running
  while true; do
    send_to_all report || return
    ! ((DRY)) || return 0
    statuses=' ' running='' STOPPED=0
    ! answers stopped | grep -q yes || STOPPED=1
    while read -r worker answer; do
      case $answer in
        running) running="$running $worker" ;;
        'ended 0') ;;
        'ended '*) statuses="$statuses${answer#ended } " ;;
        *) statuses="${statuses}3 " ;; # The worker's machine was started anew, or is gone.
      esac
    done < <(answers job)
    [[ -n $running ]] || break
    if ((SECONDS - since >= STOP_SECONDS)); then
      say "workers still running after $STOP_SECONDS s:$running; end them with: launch/tpu.sh stop"
      return 3
    fi
    sleep "$POLL_SECONDS"
  done
  # The others lost a peer (3) or saved (75) because of bad input (2) or a bug (1) on one worker.
  for status in 2 1 3 75 $statuses; do
    case $statuses in *" $status "*) return "$status" ;; esac
  done
}

was_stopped() {
  ((STOPPED))
}

print_jobs() { # what the last report said; returns 3 if a job is still running
  local worker answer status=0
  while read -r worker answer; do
    echo "worker $worker: ${answer:-no answer}"
    [[ $answer != running ]] || status=3
  done < <(answers job)
  return "$status"
}
