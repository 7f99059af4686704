//! Scopes: the permissions of a token.

use std::fmt;
use std::str::FromStr;

use tidings_proto::{Method, Scope};

const SERVICES: [&str; 4] = ["user", "history", "lock", "broadcast"];
const ACTIONS: [Scope; 4] = [Scope::Read, Scope::Write, Scope::Admin, Scope::Relay];
const EVERY_SERVICE: &str = "*";

/// A set of scopes, each `SERVICE:ACTION`, separated by commas: `history:read,history:write`,
/// `*:read`.
///
/// No action includes another: `write` does not allow reads. `*` means every service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// For each action, a bit set of services.
    services: [u8; ACTIONS.len()],
}

impl Scopes {
    /// Returns whether these scopes allow a method.
    pub fn allow(self, method: &Method) -> bool {
        self.contain(method.service(), method.scope)
    }

    /// Returns whether these scopes contain `service:action`.
    pub fn contain(self, service: &str, action: Scope) -> bool {
        let service = SERVICES.iter().position(|name| *name == service);
        let action = ACTIONS.iter().position(|known| *known == action);
        matches!((service, action), (Some(service), Some(action)) if self.services[action] & 1 << service != 0)
    }

    /// Returns the union of both sets.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (services, more) in self.services.iter_mut().zip(other.services) {
            *services |= more;
        }
        self
    }

    fn parse_one(text: &str) -> Option<Self> {
        let (service, action) = text.split_once(':')?;
        let services = match service {
            EVERY_SERVICE => (1 << SERVICES.len()) - 1,
            _ => 1 << SERVICES.iter().position(|name| *name == service)?,
        };
        let mut scopes = Self::default();
        scopes.services[ACTIONS.iter().position(|name| name.as_str() == action)?] = services;
        Some(scopes)
    }
}

impl FromStr for Scopes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').try_fold(Self::default(), |scopes, word| {
            let scope = Self::parse_one(word).ok_or_else(|| {
                format!(
                    "expected SERVICE:ACTION, of {}, * and read, write, admin, relay, got '{word}'",
                    SERVICES.join(", ")
                )
            })?;
            Ok(scopes.and(scope))
        })
    }
}

impl fmt::Display for Scopes {
    /// Writes each scope once, in canonical order, with `*` where a scope covers every service.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (action, services) in ACTIONS.iter().zip(self.services) {
            let all = services == (1 << SERVICES.len()) - 1;
            let named = SERVICES.iter().enumerate().filter(|(index, _)| services & 1 << index != 0 && !all);
            let named = named.map(|(_, name)| *name);
            for service in named.chain(all.then_some(EVERY_SERVICE)) {
                write!(f, "{separator}{service}:{}", action.as_str())?;
                separator = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidings_proto::METHODS;

    use super::*;

    /// Short names of the methods that these scopes allow.
    fn allowed(scopes: &str) -> Vec<&'static str> {
        let scopes: Scopes = scopes.parse().unwrap();
        METHODS.iter().filter(|method| scopes.allow(method)).map(Method::short_name).collect()
    }

    #[test]
    fn an_action_does_not_include_another() {
        assert_eq!(allowed("lock:read"), ["CheckLock", "GetLock"]);
        assert_eq!(allowed("lock:write"), ["AcquireLock", "RenewLock", "ReleaseLock"]);
        assert_eq!(allowed("broadcast:read,lock:read"), ["CheckLock", "GetLock", "Subscribe", "GetChannel"]);
    }

    #[test]
    fn three_scopes_with_a_star_cover_all_methods() {
        assert_eq!(allowed("*:read,*:write,*:admin").len(), METHODS.len());
        assert!(allowed("*:read").contains(&"GetUser") && !allowed("*:read").contains(&"CreateUser"));
    }

    #[test]
    fn scopes_are_written_in_canonical_form() {
        for text in ["history:read,history:write", "*:read", "*:read,lock:write,broadcast:admin,broadcast:relay"] {
            assert_eq!(text.parse::<Scopes>().unwrap().to_string(), text);
        }
        let all = "user:read,history:read,lock:read,broadcast:read,user:read";
        assert_eq!(all.parse::<Scopes>().unwrap().to_string(), "*:read");
    }

    #[test]
    fn an_invalid_scope_is_named_in_the_error() {
        for (text, word) in [("", ""), ("lock:read,", ""), ("lock:*", "lock:*"), ("locks:read", "locks:read")] {
            let error = text.parse::<Scopes>().unwrap_err();
            assert!(error.ends_with(&format!("got '{word}'")), "{error}");
        }
    }
}
