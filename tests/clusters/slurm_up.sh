#!/usr/bin/env bash
# A real SLURM of N nodes on one machine, for tests: no systemd, no cgroups, no database.
#   apt-get update && apt-get install -y --no-install-recommends slurm-wlm slurm-client munge
#   slurm_up.sh DIR [NODES=3] [CPUS_A_NODE=2]    starts it, and prints how to use it
#   slurm_down.sh DIR                            ends exactly what this started
# Everything (keys, sockets, state, logs) lies in DIR; nothing of /etc is read or written.
set -euo pipefail
DIR=$(realpath -m "$1"); NODES=${2:-3}; CPUS=${3:-2}; PORT=${PORT:-27100}
ME=$(id -un); HOST=$(hostname -s)
mkdir -p "$DIR"/{munge,state,spool,log}; chmod 700 "$DIR/munge"
[ -s "$DIR/munge/key" ] || { head -c 1024 /dev/urandom > "$DIR/munge/key"; chmod 400 "$DIR/munge/key"; }

cat > "$DIR/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=$ME
SlurmdUser=$ME
SlurmctldPort=$PORT
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=${KILL_WAIT_SEC:-10}
MinJobAge=60
SlurmdTimeout=15
SchedulerParameters=bf_interval=2,sched_interval=2
MaxArraySize=10001
MaxJobCount=20000
MailProg=/bin/true
GresTypes=gpu,shard
CONF
# On one machine the nodes must not claim to have more than it has unless slurmd is told not to look.
echo "SlurmdParameters=config_overrides" >> "$DIR/slurm.conf"
: > "$DIR/gres.conf"
for n in $(seq 1 "$NODES"); do
  rm -f "$DIR/gpu$n"; mknod "$DIR/gpu$n" c 1 3   # a null device stands for a GPU: SLURM sets CUDA_VISIBLE_DEVICES; needs root
  echo "NodeName=n$n Name=gpu File=$DIR/gpu$n" >> "$DIR/gres.conf"
  echo "NodeName=n$n Name=shard Count=4" >> "$DIR/gres.conf"
  echo "NodeName=n$n NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + n)) CPUs=$CPUS RealMemory=4000 Gres=gpu:1,shard:4 State=UNKNOWN" >> "$DIR/slurm.conf"
done
cat >> "$DIR/slurm.conf" <<CONF
PartitionName=low  Nodes=ALL Default=YES MaxTime=1-0 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=${GRACE_SEC:-20} OverTimeLimit=0
PartitionName=frail Nodes=ALL Default=NO MaxTime=1-0 State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=${GRACE_SEC:-20}
PartitionName=high Nodes=ALL Default=NO  MaxTime=1-0 State=UP PriorityTier=2 PreemptMode=OFF
CONF

export SLURM_CONF="$DIR/slurm.conf"
munged --key-file="$DIR/munge/key" --socket="$DIR/munge/socket" --pid-file="$DIR/munge/pid" \
       --log-file="$DIR/munge/log" --seed-file="$DIR/munge/seed" --num-threads=2 --force
slurmctld -c -i >/dev/null 2>&1 || slurmctld -c
for n in $(seq 1 "$NODES"); do slurmd -N "n$n" -c; done
for _ in $(seq 1 100); do
  up=$(sinfo -h -N -p low -t idle -o %N 2>/dev/null | sort -u | wc -l)
  [ "$up" = "$NODES" ] && break; sleep 0.2
done
[ "$up" = "$NODES" ] || { echo "only $up of $NODES nodes came up; see $DIR/log" >&2; exit 1; }
echo "export SLURM_CONF=$SLURM_CONF"
