//! Lua scripts, and calls of them.
//!
//! A call is written into two buffers, whatever it says, and those into a third when it is sent. The driver's own keeps each
//! key and each argument in a piece of memory of its own, of which a call has up to thirty.

use redis::{Arg, Cmd, ToRedisArgs};

/// Room that a call has from the start: for most keys, and most arguments.
const BYTES: usize = 256;
/// Keys, or arguments, that there is room for from the start.
const COUNT: usize = 16;

/// A Lua script, sent by its hash and loaded when the server does not know it.
#[derive(Clone, Debug)]
pub struct Script {
    inner: redis::Script,
}

impl Script {
    /// A script of this code.
    pub fn new(code: &str) -> Self {
        Self { inner: redis::Script::new(code) }
    }

    /// A call without keys and arguments yet.
    pub fn prepare_invoke(&self) -> Call<'_> {
        let empty = || Cmd::with_capacity(COUNT, BYTES);
        Call { script: self, keys: empty(), args: empty() }
    }

    /// A call with a key.
    pub fn key(&self, key: impl ToRedisArgs) -> Call<'_> {
        let mut call = self.prepare_invoke();
        call.key(key);
        call
    }

    /// A call without keys, with an argument.
    pub fn arg(&self, arg: impl ToRedisArgs) -> Call<'_> {
        let mut call = self.prepare_invoke();
        call.arg(arg);
        call
    }
}

/// A call of a [`Script`] with its keys and arguments.
#[derive(Debug)]
pub struct Call<'a> {
    script: &'a Script,
    keys: Cmd,
    args: Cmd,
}

impl Call<'_> {
    /// Adds a key: the next of `KEYS`.
    pub fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.keys.arg(key);
        self
    }

    /// Adds an argument: the next of `ARGV`.
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.args.arg(arg);
        self
    }

    /// The command that runs a script which the server knows.
    pub(crate) fn command(&self) -> Cmd {
        let (keys, args) = (self.keys.args_iter(), self.args.args_iter());
        let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), 3 * BYTES);
        command.arg("EVALSHA").arg(self.script.inner.get_hash()).arg(keys.len());
        for arg in keys.chain(args) {
            if let Arg::Simple(bytes) = arg {
                command.arg(bytes); // there is nothing else: only a scan has a cursor
            }
        }
        command
    }

    /// The script, for the server to learn.
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
