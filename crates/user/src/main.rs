//! `tidings-user`: the user service as a binary of its own, for container images.

tidings_service::main!(tidings_user::Config);
