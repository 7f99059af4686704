//! The result of a creation, which a retry may repeat.

/// Result of an idempotent creation: the value, and its origin.
///
/// Every service that creates something under an idempotency key reports both to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created<T> {
    /// The created value, as it is now.
    pub value: T,
    /// True if an earlier call with the same idempotency key created it.
    pub deduplicated: bool,
}
