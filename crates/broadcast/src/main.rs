//! `tidings-broadcast`: the broadcast service as a binary of its own, for container images.

tidings_service::main!(tidings_broadcast::Config);
