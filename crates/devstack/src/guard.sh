# guard.sh SIGNALS COMMAND [ARG...]: starts a guard in the background, then becomes COMMAND.
#
# The owner holds the write end of stdin. When the owner ends, also by kill -9, the guard reads EOF.
# It then sends COMMAND each of SIGNALS, waits up to ten seconds after each, sends KILL and exits.
# The guard keeps stdout open until COMMAND has ended, so that the reader of stdout sees EOF only
# then. COMMAND itself has no stdin and writes to stderr.

signals=$1
shift
server=$$

alive() {
  kill -0 "$server" || return
  case $(sed 's/.*) //' "/proc/$server/stat" || ps -o stat= -p "$server") in
    Z*) return 1 ;; # a zombie: dead, but not yet reaped
  esac
}

process_tree() {
  echo "$server"
  cat "/proc/$server/task/$server/children" || pgrep -P "$server"
}

guard() {
  read -r _ <&3
  alive || return
  kill -CONT $(process_tree) # a stopped process handles only CONT and KILL
  for signal in $signals; do
    kill -s "$signal" "$server"
    checks=200
    while [ $((checks -= 1)) -ge 0 ]; do
      alive || return
      sleep 0.05
    done
  done
  kill -KILL $(process_tree)
  while alive; do sleep 0.05; done
}

exec 3<&0
# A double fork: the guard must not become a child of COMMAND, which tracks its children.
(trap '' HUP INT QUIT TERM; exec 2>/dev/null; guard &)
exec "$@" 3<&- </dev/null >&2
