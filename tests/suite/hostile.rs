//! Abusive clients against real services: an abusive client may harm itself, never other clients.
//!
//! `frames` and `raw_connection` build HTTP/2 by hand, since no library sends such input. During
//! all abuse, `background_load` calls the service on other connections, and every call must
//! succeed. `cost_report` prints the CPU time and memory that the abuse costs the service.

mod background_load;
mod calls;
mod cancels;
mod connection_age;
mod cost_report;
mod file_descriptors;
mod floods;
mod flow_control;
mod frames;
pub(crate) mod grpc_client;
mod handshakes;
mod malformed;
mod raw_connection;
mod refusals;
mod shutdown;
mod slow_clients;
