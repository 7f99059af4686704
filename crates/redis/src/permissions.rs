//! Permissions that a service needs of its Redis user, and the check that it has them.
//!
//! A user without a permission would fail in the middle of a script: a message would be stored and
//! never announced. So no lane is used before the user has all required permissions, and a lane is
//! given up as soon as it loses one.
//!
//! Redis checks its own rules (`redis.acl_check_cmd`), which needs no permission beyond those of
//! running a script.

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use crate::script::Script;
use crate::unusable::is_denied;

/// Commands that every service runs: in probes, and for scripts.
const ALWAYS: [&str; 4] = ["evalsha hash 0", "info", "set K value", "script load script"];
/// Commands whose first argument is a subcommand, which ACL rules name.
const CONTAINERS: [&str; 2] = ["client", "script"];

/// Commands that a service runs: each whole, in lower case, with `K` for a key and `C` for a
/// channel to which a pattern applies (not that of UNSUBSCRIBE).
#[derive(Clone, Copy, Debug, Default)]
pub struct Permissions {
    /// Commands without which the service does not use the server.
    pub required: &'static [&'static str],
    /// A command without which one feature is off, and the name of the feature.
    pub optional: Option<(&'static str, &'static str)>,
}

impl Permissions {
    /// Returns the ACL rules that grant the commands, those of every service included.
    pub fn rules(&self) -> Vec<String> {
        let mut rules: Vec<_> = self.commands().map(rule).chain(["+evalsha_ro".to_owned()]).collect();
        rules.sort();
        rules.dedup();
        rules
    }

    fn commands(&self) -> impl Iterator<Item = &'static str> {
        ALWAYS.into_iter().chain(self.required.iter().copied()).chain(self.optional.map(|(command, _)| command))
    }
}

/// Returns the ACL rule that grants a command.
fn rule(command: &str) -> String {
    let mut words = command.split(' ');
    let name = words.next().unwrap_or_default();
    match words.next() {
        Some(subcommand) if CONTAINERS.contains(&name) => format!("+{name}|{subcommand}"),
        _ => format!("+{name}"),
    }
}

/// Missing permissions, as ACL rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MissingPermissions {
    pub(crate) required: Vec<String>,
    pub(crate) optional: Vec<String>,
}

/// The check of the permissions of one service.
#[derive(Clone, Debug)]
pub(crate) struct PermissionCheck {
    permissions: Permissions,
    /// Prefixes of all keys, and of all channels.
    prefixes: [String; 2],
    script: Script,
}

impl PermissionCheck {
    pub(crate) fn new(permissions: Permissions, keys: &str, channels: &str) -> Self {
        let prefixes = [keys.to_owned(), channels.to_owned()];
        Self { permissions, prefixes, script: Script::new(include_str!("permissions.lua")) }
    }

    /// Returns the permissions that the user of the connection lacks. One round trip.
    pub(crate) async fn missing(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<MissingPermissions, RedisError> {
        let mut call = self.script.prepare_invoke();
        for prefix in &self.prefixes {
            call.arg(format!("{prefix}proof"));
        }
        for command in self.permissions.commands() {
            call.arg(command);
        }
        let command = call.read_only_command();
        let mut reply = command.query_async(connection).await;
        if reply.as_ref().is_err_and(|error: &RedisError| error.code() == Some("NOSCRIPT")) {
            if let Err(error) = call.script().load_async(connection).await {
                return on_error(error, "+script|load");
            }
            reply = command.query_async(connection).await;
        }
        let missing: Vec<String> = match reply {
            Ok(missing) => missing,
            Err(error) => return on_error(error, "+evalsha_ro"),
        };
        let optional = self.permissions.optional.map(|(command, _)| command);
        let (optional, required): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|command| Some(command.as_str()) == optional);
        let rules = |commands: Vec<String>| commands.iter().map(|command| self.rule(command)).collect();
        Ok(MissingPermissions { required: rules(required), optional: rules(optional) })
    }

    fn rule(&self, missing: &str) -> String {
        let [keys, channels] = &self.prefixes;
        match missing {
            "K" => format!("~{keys}*"),
            "C" => format!("&{channels}*"),
            command => rule(command),
        }
    }

    /// Describes the feature that is off because of these missing permissions; empty if none is.
    pub(crate) fn describe(&self, user: &str, missing: &MissingPermissions) -> String {
        match self.permissions.optional {
            Some((_, feature)) if !missing.optional.is_empty() => {
                let rules = missing.optional.join(" ");
                format!("{feature} is off: the ACL user {user} lacks {rules}: ACL SETUSER {user} {rules}")
            }
            _ => String::new(),
        }
    }
}

/// Converts the refusal of the check itself.
fn on_error(error: RedisError, rule: &str) -> Result<MissingPermissions, RedisError> {
    if is_denied(&error) {
        return Ok(MissingPermissions { required: vec![rule.to_owned()], ..MissingPermissions::default() });
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_subcommands_and_each_command_once() {
        let permissions = Permissions {
            required: &["get K", "info", "publish C message"],
            optional: Some(("client tracking on", "the local cache")),
        };

        let rules = permissions.rules();

        let expected =
            ["+client|tracking", "+evalsha", "+evalsha_ro", "+get", "+info", "+publish", "+script|load", "+set"];
        assert_eq!(rules, expected);
    }
}
