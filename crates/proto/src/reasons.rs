//! The text of error reasons in `ErrorInfo`, from the `ErrorReason` enum of each contract.

use crate::{broadcast, history, lock, user};

/// Prefix of the names of enum values; the text has none.
const PREFIX: &str = "ERROR_REASON_";

macro_rules! texts {
    ($($contract:ident),*) => {$(
        impl $contract::ErrorReason {
            /// Returns the text that `ErrorInfo` carries, e.g. `INTERNAL`.
            pub fn text(self) -> &'static str {
                let name = self.as_str_name();
                name.strip_prefix(PREFIX).unwrap_or(name)
            }

            /// Returns the reason with this text; `None` if the contract has no such reason.
            pub fn of_text(text: &str) -> Option<Self> {
                Self::from_str_name(&format!("{PREFIX}{text}"))
            }
        }
    )*};
}

texts!(user, history, lock, broadcast);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_its_text() {
        assert_eq!(lock::ErrorReason::LeaseOver.text(), "LEASE_OVER");
        assert_eq!(lock::ErrorReason::of_text("LEASE_OVER"), Some(lock::ErrorReason::LeaseOver));
        assert_eq!(broadcast::ErrorReason::of_text("LEASE_OVER"), None);
    }
}
