//! `tidings-lock`: the lock service as a binary of its own, for container images.

tidings_service::main!(tidings_lock::Config);
