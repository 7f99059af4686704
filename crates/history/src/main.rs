//! `tidings-history`: the history service as a binary of its own, for container images.

tidings_service::main!(tidings_history::Config);
