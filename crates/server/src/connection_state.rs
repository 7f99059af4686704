//! The state of one connection that its calls share.

use std::sync::Arc;

use crate::drain_signal::ConnectionDrain;
use crate::long_calls::LongCallSlots;
use crate::reset_budget::ResetBudget;

/// The drain, the budget of resets and the room for long calls of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    pub(crate) drain: Arc<ConnectionDrain>,
    pub(crate) resets: ResetBudget,
    pub(crate) long_calls: LongCallSlots,
}

impl ConnectionState {
    /// Creates the state of a connection with this limit of concurrent calls.
    pub(crate) fn new(max_calls: u32) -> Arc<Self> {
        Arc::new(Self {
            drain: Arc::default(),
            resets: ResetBudget::default(),
            long_calls: LongCallSlots::new(max_calls),
        })
    }
}
