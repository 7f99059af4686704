//! Messages, clients and servers generated from the contracts in `proto/`, which document every
//! field.
//!
//! Maps are ordered and bytes are [`bytes::Bytes`], so that equal messages encode to equal bytes.

mod codec;
mod methods;
mod reasons;

pub use codec::{Codec, Decode};
pub use methods::{METHODS, Method, Retry, Scope, Work};

/// Every contract with its comments and imports, as a serialized
/// `google.protobuf.FileDescriptorSet`: for reflection, and for clients that load the contracts at
/// run time.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `tidings.user.v1`.
pub mod user {
    tonic::include_proto!("tidings.user.v1");

    /// The same contract, for the server: each `User` that a read returns is a field of encoded
    /// bytes. Equal on the wire.
    pub mod encoded {
        include!(concat!(env!("OUT_DIR"), "/encoded/tidings.user.v1.rs"));
    }
}

/// `tidings.history.v1`.
pub mod history {
    tonic::include_proto!("tidings.history.v1");
}

/// `tidings.lock.v1`.
pub mod lock {
    tonic::include_proto!("tidings.lock.v1");
}

/// `tidings.broadcast.v1`.
pub mod broadcast {
    tonic::include_proto!("tidings.broadcast.v1");

    /// The same contract, for the server: each `Message` of a `Messages` is a field of encoded
    /// bytes. Equal on the wire.
    pub mod encoded {
        include!(concat!(env!("OUT_DIR"), "/encoded/tidings.broadcast.v1.rs"));
    }
}
