//! Lua scripts and their calls.
//!
//! A call encodes its keys and arguments into two buffers, which are joined when it is sent. The
//! driver's own type allocates each key and argument separately, and a call has up to thirty of
//! them.

use redis::{Arg, Cmd, ToRedisArgs};

/// Initial capacity in bytes for keys, and for arguments.
const BYTES: usize = 256;
/// Initial capacity in number of keys, and of arguments.
const COUNT: usize = 16;

/// A Lua script. Sent by its hash; loaded if the server does not have it.
#[derive(Clone, Debug)]
pub struct Script {
    inner: redis::Script,
}

impl Script {
    /// Creates a script from its source.
    pub fn new(code: &str) -> Self {
        Self { inner: redis::Script::new(code) }
    }

    /// Starts a call without keys and arguments.
    pub fn prepare_invoke(&self) -> Call<'_> {
        let empty = || Cmd::with_capacity(COUNT, BYTES);
        Call { script: self, keys: empty(), args: empty() }
    }

    /// Starts a call with one key.
    pub fn key(&self, key: impl ToRedisArgs) -> Call<'_> {
        let mut call = self.prepare_invoke();
        call.key(key);
        call
    }

    /// Starts a call with one argument.
    pub fn arg(&self, arg: impl ToRedisArgs) -> Call<'_> {
        let mut call = self.prepare_invoke();
        call.arg(arg);
        call
    }
}

/// A call of a [`Script`], with keys and arguments.
#[derive(Debug)]
pub struct Call<'a> {
    script: &'a Script,
    keys: Cmd,
    args: Cmd,
}

impl Call<'_> {
    /// Appends a key to `KEYS`.
    pub fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.keys.arg(key);
        self
    }

    /// Appends an argument to `ARGV`.
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.args.arg(arg);
        self
    }

    /// Returns the EVALSHA command of the call.
    pub(crate) fn command(&self) -> Cmd {
        self.command_with("EVALSHA")
    }

    /// Returns the EVALSHA_RO command of the call, for a script that only reads. Redis counts it
    /// apart from the calls that serve callers.
    pub(crate) fn read_only_command(&self) -> Cmd {
        self.command_with("EVALSHA_RO")
    }

    fn command_with(&self, name: &str) -> Cmd {
        let (keys, args) = (self.keys.args_iter(), self.args.args_iter());
        let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), 3 * BYTES);
        command.arg(name).arg(self.script.inner.get_hash()).arg(keys.len());
        for arg in keys.chain(args) {
            if let Arg::Simple(bytes) = arg {
                command.arg(bytes); // there is nothing else: only a scan has a cursor
            }
        }
        command
    }

    /// Returns the script, to load it.
    pub(crate) fn script(&self) -> &redis::Script {
        &self.script.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_command_that_the_driver_would_send() {
        let (ours, theirs) = (Script::new("return 1"), redis::Script::new("return 1"));
        let mut call = ours.key("a");
        call.arg(1).arg(&b"\r\n\0"[..]).key("b").arg("").arg(&["x", "y"]);
        let mut reference = theirs.key("a");
        reference.arg(1).arg(&b"\r\n\0"[..]).key("b").arg("").arg(&["x", "y"]);

        let packed = redis::Pipeline::new().invoke_script(&reference).get_packed_pipeline();
        assert_eq!(call.command().get_packed_command(), packed);
    }
}
