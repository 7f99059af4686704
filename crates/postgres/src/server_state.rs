//! State of the server as observed by both pools of a service.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::cause::Cause;
use crate::fault::Fault;

/// State of the server as observed by both pools.
#[derive(Debug, Default)]
pub(crate) struct ServerState {
    /// True once the server was checked and accepted.
    pub(crate) open: AtomicBool,
    /// True if the latest work received a response.
    pub(crate) answers: AtomicBool,
    /// True if it was out of disk space or memory when last used.
    pub(crate) full: AtomicBool,
    /// Reason why it could not be used when last used.
    pub(crate) problem: Mutex<Option<Cause>>,
}

impl ServerState {
    /// Keeps the reason why the server cannot be used.
    pub(crate) fn note(&self, problem: impl Into<String>) {
        *self.problem.lock() = Some(Cause::new(problem));
    }

    /// Records a response.
    pub(crate) fn found_answering(&self) {
        if !self.answers.swap(true, Ordering::Relaxed) {
            *self.problem.lock() = None;
        }
    }

    /// Records a successful probe.
    pub(crate) fn found_well(&self) {
        self.answers.store(true, Ordering::Relaxed);
        *self.problem.lock() = None;
    }

    /// Updates the state from a fault, and refines the fault by it: while the server does not
    /// answer, busy connections only wait for it.
    pub(crate) fn judge(&self, fault: Fault) -> Fault {
        let fault = match fault {
            Fault::Exhausted if !self.answers.load(Ordering::Relaxed) => {
                let problem = self.problem.lock().clone();
                Fault::Away(problem.unwrap_or_else(|| Cause::timeout("all connections wait for responses")))
            }
            fault => fault,
        };
        if matches!(fault, Fault::Full(_)) {
            self.full.store(true, Ordering::Relaxed);
        }
        if let Some(cause) = fault.cause() {
            self.answers.store(false, Ordering::Relaxed);
            *self.problem.lock() = Some(cause.clone());
        }
        fault
    }
}
