//! The news: subscribes this instance to its channel in each session with Redis.

use tidings_redis::{Session, Subscriber};
use tokio_util::sync::CancellationToken;

use crate::domain::Locks;
use crate::leases;

/// Subscribes in each session until told to stop.
pub async fn run(locks: Locks, subscriber: Subscriber, stop: CancellationToken) {
    let mut sessions = subscriber.sessions();
    let listen = async {
        loop {
            let session = sessions.borrow_and_update().clone();
            if let Some(session) = session {
                subscribe(&locks, session).await;
            }
            if sessions.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(listen).await;
}

/// Subscribes; from then on no news is lost, so what was lost before is looked for.
async fn subscribe(locks: &Locks, mut session: Session) {
    match session.subscribe(&[leases::channel(locks.instance())]).await {
        Ok(()) => locks.listens(),
        Err(error) => tracing::debug!(%error, "no news yet"), // the session is over, another one comes
    }
}
