//! What tokens are good for.

use std::fmt;
use std::str::FromStr;

use tidings_proto::{Method, Scope};

const SERVICES: [&str; 4] = ["user", "history", "lock", "broadcast"];
const ACTIONS: [Scope; 3] = [Scope::Read, Scope::Write, Scope::Admin];
const EVERY_SERVICE: &str = "*";

/// A set of scopes, each `SERVICE:ACTION`, written with commas between: `history:read,history:write`, `*:read`.
///
/// Each stands for itself: to write is not to read. `*` is every service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// A bit for each service, by action.
    services: [u8; ACTIONS.len()],
}

impl Scopes {
    /// Whether they are enough for a method.
    pub fn allow(self, method: &Method) -> bool {
        let service = SERVICES.iter().position(|name| *name == method.service());
        let action = ACTIONS.iter().position(|action| *action == method.scope);
        matches!((service, action), (Some(service), Some(action)) if self.services[action] & 1 << service != 0)
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (services, more) in self.services.iter_mut().zip(other.services) {
            *services |= more;
        }
        self
    }

    fn one(text: &str) -> Option<Self> {
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
            let scope = Self::one(word).ok_or_else(|| {
                format!("expected SERVICE:ACTION, of {}, * and read, write, admin, got '{word}'", SERVICES.join(", "))
            })?;
            Ok(scopes.and(scope))
        })
    }
}

impl fmt::Display for Scopes {
    /// In an order of its own, each once; `*` where a scope holds for every service.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (action, services) in ACTIONS.iter().zip(self.services) {
            let all = services == (1 << SERVICES.len()) - 1;
            let named = SERVICES.iter().enumerate().filter(|(place, _)| services & 1 << place != 0 && !all);
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

    /// The short names of the methods that these scopes allow.
    fn allowed(scopes: &str) -> Vec<&'static str> {
        let scopes: Scopes = scopes.parse().unwrap();
        METHODS.iter().filter(|method| scopes.allow(method)).map(Method::short_name).collect()
    }

    #[test]
    fn a_scope_stands_for_itself() {
        assert_eq!(allowed("lock:read"), ["CheckLock", "GetLock"]);
        assert_eq!(allowed("lock:write"), ["AcquireLock", "RenewLock", "ReleaseLock"]);
        assert_eq!(allowed("broadcast:read,lock:read"), ["CheckLock", "GetLock", "Subscribe", "GetChannel"]);
    }

    #[test]
    fn the_star_is_every_service_so_that_all_methods_are_within_three_scopes() {
        assert_eq!(allowed("*:read,*:write,*:admin").len(), METHODS.len());
        assert!(allowed("*:read").contains(&"GetUser") && !allowed("*:read").contains(&"CreateUser"));
    }

    #[test]
    fn scopes_are_written_as_they_are_read() {
        for text in ["history:read,history:write", "*:read", "*:read,lock:write,broadcast:admin"] {
            assert_eq!(text.parse::<Scopes>().unwrap().to_string(), text);
        }
        let all = "user:read,history:read,lock:read,broadcast:read,user:read";
        assert_eq!(all.parse::<Scopes>().unwrap().to_string(), "*:read");
    }

    #[test]
    fn what_is_no_scope_is_named() {
        for (text, word) in [("", ""), ("lock:read,", ""), ("lock:*", "lock:*"), ("locks:read", "locks:read")] {
            let error = text.parse::<Scopes>().unwrap_err();
            assert!(error.ends_with(&format!("got '{word}'")), "{error}");
        }
    }
}
