//! Hears what the relays of all instances tell.

use tidings_redis::{Args, OpenError, Role, Session, Subscriber};
use tokio_util::sync::CancellationToken;

use crate::cache::SERVICE;
use crate::cache::news::{NEWS, heard};
use crate::domain::Watching;

/// Begins to hear.
pub fn listen(args: &Args, watching: Watching) -> Result<Subscriber, OpenError> {
    Subscriber::open(args, SERVICE, Role::Cache, move |channel, told| watching.hear(&heard(channel, &told)))
}

/// Subscribes in one session after the other, and says when news may have been lost, until told to stop.
pub async fn attend(watching: Watching, subscriber: Subscriber, stop: CancellationToken) {
    let mut sessions = subscriber.sessions();
    let attending = async {
        loop {
            let session = sessions.borrow_and_update().clone();
            let hears = match session {
                Some(session) => subscribe(session).await,
                None => false,
            };
            if hears {
                watching.set_hears(true);
            }
            if sessions.changed().await.is_err() {
                return;
            }
            if hears {
                watching.set_hears(false);
            }
        }
    };
    stop.run_until_cancelled(attending).await;
}

/// Says whether everything is heard from now on. If not, the session is over, and another begins.
async fn subscribe(mut session: Session) -> bool {
    let subscribed = session.subscribe(&[NEWS]).await;
    subscribed.inspect_err(|error| tracing::debug!(%error, "could not listen to news")).is_ok()
}
