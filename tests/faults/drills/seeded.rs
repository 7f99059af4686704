//! Seeded bugs: the ledgers that find nothing in the other drills must find lost, duplicated,
//! reordered and reverted data here.

use std::time::Duration;

use redis::{Client, cmd};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_client::Event;
use tokio::time::sleep;

use super::RecoveryTimes;
use crate::drill::Drill;
use crate::installation::DrillInstallation;
use crate::workload::LedgerCounts;

const NONE: RecoveryTimes = [("user", None), ("history", None), ("lock", None), ("broadcast", None)];

/// Runs SQL in the database of a service.
async fn run_sql(installation: &DrillInstallation, database: &str, statements: &str) {
    let mut connection = PgConnection::connect(&installation.stack.postgres().url(database)).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
}

/// Creates a drill of a service with a seeded bug.
fn seeded_drill(name: &'static str, service: &'static str) -> Drill {
    Drill { seeded_bug: Some(service), ..Drill::new(name, NONE) }
}

/// Runs the drill; returns the ledger of its service, which must show violations.
fn run(drill: Drill, bug: impl AsyncFnOnce(&mut DrillInstallation)) -> LedgerCounts {
    let results = drill.results(async |installation, _| bug(installation).await);
    assert!(results[0].ledger.violations() > 0, "{:?}", results[0]);
    results[0].ledger
}

#[test]
fn lost_duplicated_and_reordered_messages_are_found() {
    let drill = seeded_drill("seeded: loses, duplicates, swaps", "history");
    let ledger = run(drill, async |installation| {
        let bug = "
            CREATE FUNCTION pg_temp.no(number int) RETURNS bigint RETURN
                (SELECT no FROM conversation WHERE id = 'conversation-' || number);
            DELETE FROM message WHERE conversation_no = pg_temp.no(1) AND seq = 2;
            ALTER TABLE message DROP CONSTRAINT message_conversation_no_sender_id_client_message_id_key;
            UPDATE message SET client_message_id = other.client_message_id FROM message AS other
            WHERE message.conversation_no = pg_temp.no(2) AND message.seq = 3
              AND other.conversation_no = pg_temp.no(2) AND other.seq = 1;
            UPDATE message SET seq = -1 WHERE conversation_no = pg_temp.no(3) AND seq = 1;
            UPDATE message SET seq = 1 WHERE conversation_no = pg_temp.no(3) AND seq = 2;
            UPDATE message SET seq = 2 WHERE conversation_no = pg_temp.no(3) AND seq = -1;";
        run_sql(installation, installation.history[0].database(), bug).await;
    });

    assert!(ledger.lost > 0 && ledger.duplicated > 0 && ledger.reordered > 0, "{ledger:?}");
}

#[test]
fn lost_and_duplicated_updates_are_found() {
    let drill = seeded_drill("seeded: loses, duplicates", "user");
    let ledger = run(drill, async |installation| {
        for _ in 0..20 {
            let bug = "
                UPDATE user_account SET version = greatest(version - 1, 1) WHERE id = 'user-4';
                UPDATE user_account SET version = version + 2 WHERE id = 'user-8'";
            run_sql(installation, installation.user[0].database(), bug).await;
            sleep(Duration::from_millis(50)).await;
        }
    });

    assert!(ledger.lost > 0 && ledger.duplicated > 0, "{ledger:?}");
}

#[test]
fn locks_with_two_holders_and_reverted_tokens_are_found() {
    let drill = seeded_drill("seeded: two holders, reverted tokens", "lock");
    let ledger = run(drill, async |installation| {
        let mut redis = Client::open(installation.stack.redis().url()).unwrap().get_connection().unwrap();
        let prefix = format!("{}:lock:{{lk00}}", installation.lock[0].redis_prefix());
        for _ in 0..200 {
            cmd("DEL").arg(format!("{prefix}:holds")).exec(&mut redis).unwrap();
            cmd("HSET").arg(format!("{prefix}:meta")).arg("seq").arg(1).exec(&mut redis).unwrap();
            sleep(Duration::from_millis(5)).await;
        }
    });

    assert!(ledger.duplicated > 0 && ledger.reverted > 0, "{ledger:?}");
}

#[test]
fn lost_duplicated_and_reordered_deliveries_are_found() {
    /// Of twelve events, loses one, swaps one with its predecessor, and duplicates one.
    fn faulty_recorder(received: &mut Vec<Event>, event: Event) {
        let count = received.len();
        match count % 12 {
            // The first event, a `CaughtUp`, replaces the lost message.
            3 if matches!(event, Event::Message(_)) => received.push(received[0].clone()),
            6 => received.insert(count - 1, event),
            9 => received.extend([event.clone(), event]),
            _ => received.push(event),
        }
    }
    let drill = Drill { recorder: faulty_recorder, ..seeded_drill("seeded: loses, duplicates, swaps", "broadcast") };
    let ledger = run(drill, async |_| {});

    assert!(ledger.lost > 0 && ledger.duplicated > 0 && ledger.reordered > 0, "{ledger:?}");
}
