# guard.sh SIGNALS COMMAND [ARG...]: becomes COMMAND and leaves a watcher beside it.
#
# The owner holds the other end of stdin. However the owner ends, also by kill -9, the watcher reads the end of
# that pipe, sends COMMAND each of SIGNALS with ten seconds to obey, then KILL, and goes. It keeps stdout open
# until then: who holds the other end learns that all is over. COMMAND itself has no stdin, and writes to stderr.

signals=$1
shift
server=$$

alive() {
  kill -0 "$server" || return
  case $(sed 's/.*) //' "/proc/$server/stat" || ps -o stat= -p "$server") in
    Z*) return 1 ;; # dead; only its parent has not looked yet
  esac
}

family() {
  echo "$server"
  cat "/proc/$server/task/$server/children" || pgrep -P "$server"
}

watch() {
  read -r _ <&3
  alive || return
  kill -CONT $(family) # a stopped process hears nothing but this and KILL
  for signal in $signals; do
    kill -s "$signal" "$server"
    looks=200
    while [ $((looks -= 1)) -ge 0 ]; do
      alive || return
      sleep 0.05
    done
  done
  kill -KILL $(family)
  while alive; do sleep 0.05; done
}

exec 3<&0
# Twice in the background: the watcher must not be a child of COMMAND, which counts its children.
(trap '' HUP INT QUIT TERM; exec 2>/dev/null; watch &)
exec "$@" 3<&- </dev/null >&2
