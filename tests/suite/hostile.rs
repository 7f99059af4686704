//! Clients of ill will against real services: what they do to themselves they may, to others never.
//!
//! `frames` and `raw` speak HTTP/2 by hand, for no library would send what is sent here. Beside every attack `victims` call
//! on connections of their own, and each of their calls must succeed. `ledger` prints what an attack cost.

mod age;
mod calls;
mod cancels;
mod ends;
mod files;
mod floods;
mod frames;
mod handshakes;
mod ledger;
mod malformed;
pub(crate) mod plain;
mod raw;
mod refusals;
mod slow;
mod victims;
mod windows;
