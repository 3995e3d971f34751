# ---- From here on every such script is the same; command, run_dir, offline, srun_args and teardown stand above.

# The bare id of an array's last task names the whole array: `scontrol requeue` would take all of it.
job=$SLURM_JOB_ID
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
restart=${SLURM_RESTART_COUNT:-0}
verdict=$run_dir/verdicts/$SLURM_JOB_ID-$restart.json

# Nodes without internet use what `supervisor prefetch` has brought, and ask nobody.
[ -z "$offline" ] || export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" HF_DATASETS_OFFLINE="${HF_DATASETS_OFFLINE:-1}"

say() { printf 'supervisor: %s\n' "$*" >&2; }

# Replaces a small JSON file, whole or not at all: path, format, values without quotes and line ends.
put() {
    local path=$1 format=$2 values=()
    shift 2
    for value; do
        value=${value//[\"\\]/}
        values+=("${value//[[:cntrl:]]/ }")
    done
    # shellcheck disable=SC2059
    (umask 077 && printf "$format\n" "${values[@]}" >"$path.$SLURM_JOB_ID" && mv -f "$path.$SLURM_JOB_ID" "$path")
}

# How the job stands: `queued` again, `cancelled`, or `ours` to put back; fails where SLURM cannot be asked. While
# processes are being ended all that shows is COMPLETING; then a preemption or a reached limit leaves a trace, and what
# leaves none is a cancellation. The first line is the name's, which may hold anything; so may the last ones.
standing() {
    scontrol show job "$job" 2>/dev/null | awk -v restart="$restart" '
        function seconds(text,   part, days) {
            days = sub(/-/, ":", text) ? 1 : 0
            split(days ? text : "0:" text, part, ":")
            return ((part[1] * 24 + part[2]) * 60 + part[3]) * 60 + part[4]
        }
        NR > 1 { for (i = 1; i <= NF; i++) { key = substr($i, 1, index($i, "=") - 1)
            if (!(key in told)) told[key] = substr($i, length(key) + 2) } }
        END {
            state = told["JobState"]
            if (state == "") exit 1
            limited = told["TimeLimit"] ~ /^[0-9]/ && seconds(told["RunTime"]) >= seconds(told["TimeLimit"]) - 5
            traced = told["PreemptTime"] ~ /^[0-9]/ || limited
            if (told["Restarts"] + 0 > restart + 0 || state ~ /^(PENDING|REQUEUED)/) print "queued"
            else if (state ~ /^CANCELLED/ || (state == "COMPLETING" && !traced)) print "cancelled"
            else print "ours"
        }'
}

# A job of its own goes on once this one has ended. What SLURM told this job would be taken for wishes there.
resubmit() (
    array=${SLURM_ARRAY_TASK_ID:-}
    export SUPERVISOR_AFTER=$SLURM_JOB_ID # whose lease is over then
    for name in "${!SLURM@}"; do
        case $name in SLURM_CONF | SLURM_CONF_SERVER | SLURM_CLUSTERS | SLURM_JWT) ;; *) unset "$name" ;; esac
    done
    exec sbatch --parsable --dependency="afterany:$job" ${array:+--array="$array"} "$0" "$@"
)

# Puts the job back, once: by requeueing, or where that is refused by resubmission; else says why not. SLURM would
# requeue a cancelled job, too, so each step is taken only after a look.
put_back() {
    local pause said='' seen=''
    for pause in 0 2 4 8 15 30 60 60 60 60; do # a slurmctld that is restarted is back within minutes
        sleep "$pause"
        if ! seen=$(standing); then
            said='SLURM cannot be asked'
            command -v scontrol >/dev/null || break
        elif [ "$seen" = ours ]; then
            if said=$(scontrol requeue "$job" 2>&1); then
                put "$verdict" '{"requeue": "done", "reason": "scontrol requeue by the batch script"}'
                return
            fi
            [[ $said == *disabled* ]] && break # any other refusal may pass
        else
            break
        fi
    done
    case $seen in
        queued) put "$verdict" '{"requeue": "done", "reason": "the job was in the queue already"}' ;;
        cancelled) put "$verdict" '{"requeue": "no", "reason": "the job was cancelled"}' ;;
        '') # whether it was cancelled or requeued meanwhile cannot be known
            put "$verdict" '{"requeue": "wanted", "reason": "%s"}' "$said"
            say "job $job was not put back ($said); the run goes on when it is submitted again"
            ;;
        *) submit_anew "${said##*$'\n'}" "$@" ;;
    esac
}

# The last rung: why it comes to that, and the arguments of this script.
submit_anew() {
    local why=$1 successor record=$run_dir/control/slurm.json
    shift
    say "job $job cannot be requeued ($why), so it is submitted anew"
    scontrol update JobId="$job" Requeue=0 2>/dev/null # for good: a job of its own goes on
    if successor=$(resubmit "$@"); then
        successor=${successor##*$'\n'} successor=${successor%%;*}
        successor=${successor//[!0-9]/}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
        [ ! -e "$record" ] || sed -i 's/"job_id": "[^"]*"/"job_id": "'"$successor"'"/' "$record"
        put "$verdict" '{"requeue": "done", "reason": "resubmitted", "resubmitted": "%s"}' "$successor"
        say "job $successor goes on with it"
    else
        put "$verdict" '{"requeue": "wanted", "reason": "neither requeued nor resubmitted: %s"}' "$why"
        say "it could not be submitted either; the run goes on when it is submitted again"
    fi
}

# Leaves with this exit code, or the next higher one that the site does not take for a wish to be requeued: RequeueExit
# holds for jobs submitted with --no-requeue, too.
unrequested() {
    local code=$1 entry listed
    listed=$(scontrol show config 2>/dev/null | sed -n 's/^RequeueExit[A-Za-z]* *= *//p' | tr ',\n' '  ')
    [ "$code" -eq 0 ] || for entry in $(printf '%s\n' $listed | sort -n); do
        [[ $entry =~ ^([0-9]+)(-([0-9]+))?$ ]] || continue # (null)
        [ "$code" -lt "${BASH_REMATCH[1]}" ] || [ "$code" -gt "${BASH_REMATCH[3]:-${BASH_REMATCH[1]}}" ] ||
            code=$((${BASH_REMATCH[3]:-${BASH_REMATCH[1]}} + 1))
    done
    [ "$code" -lt 256 ] || code=1
    return "$code"
}

# The supervisors are the tasks, for tasks are what SLURM signals. What reaches only this script (--signal=B:USR1) is
# passed on through SLURM, and not by srun: that kills its tasks at SIGTERM. A SIGTERM is not passed on: SLURM's own
# reaches the tasks as well, and a late copy would meet the job's next start.
pass_on() {
    local pause
    for pause in 0 1 2; do
        sleep "$pause"
        scancel --quiet --signal=USR1 "$job" && return
    done
}
trap 'pass_on &' USR1 USR2
trap : TERM HUP

# One task on every node; that of the first leads. Since 22.05 srun does not inherit the CPUs of a task, and without
# the option it takes all. Ranks place their threads themselves. No task's end ends the others': the leader decides.
srun --export=ALL --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} --cpu-bind=none \
    --kill-on-bad-exit=0 --wait=0 "${srun_args[@]}" "${command[@]}" &
srun_pid=$!
while :; do
    wait "$srun_pid" # first: an srun that has ended by now has its exit code all the same
    code=$?
    kill -0 "$srun_pid" 2>/dev/null || break # else a signal has interrupted the wait
done

# Nobody is left to be told, and what follows is not to be cut short: SLURM may signal every process of this script.
trap '' TERM HUP USR1 USR2

# The leader requeues the job itself. Where it could not (a container without scontrol), its verdict says so; an exit
# code would not do, since srun reports the highest of all tasks. Without a verdict nothing is put back: a supervisor
# that could not start would go round for ever, and the job of a node that died is requeued by SLURM itself.
grep -qs '"requeue": "wanted"' "$verdict" && put_back "$@"
# To srun a step has failed that lost a process to its memory limit, also where the run went on and came to its end.
grep -qs '"reason": "finished"' "$verdict" && code=0
teardown
unrequested "$code"
exit
