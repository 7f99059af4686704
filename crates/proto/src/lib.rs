//! The contracts of Tidings: messages, clients and servers generated from `proto/`, where every field is explained.
//!
//! Maps are ordered and bytes are [`bytes::Bytes`], so that equal messages encode to equal bytes.

mod codec;
mod methods;

pub use codec::{Codec, Decode};
pub use methods::{METHODS, Method, Retry, Scope, Work};

/// Every contract with its imports, as a serialized `google.protobuf.FileDescriptorSet`: for reflection and for
/// clients that learn the contracts at run time.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `tidings.user.v1`.
pub mod user {
    tonic::include_proto!("tidings.user.v1");

    /// The same contract with each `User` that is read by name already encoded, for the server: equal on the wire.
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

    /// The same contract with each `Message` of a `Messages` already encoded, for the server: equal on the wire.
    pub mod encoded {
        include!(concat!(env!("OUT_DIR"), "/encoded/tidings.broadcast.v1.rs"));
    }
}
