//! Seeded bugs: the ledgers that find nothing in the other drills must find lost, duplicated,
//! reordered and reverted data here.

use std::time::Duration;

use redis::{Client, cmd};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_client::Event;
use tokio::join;
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

/// Deletes a message, gives another the key of a third, and swaps two.
async fn damage_messages(installation: &DrillInstallation) {
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
}

/// Reverts updates of one user, and counts updates of another twice.
async fn damage_users(installation: &DrillInstallation) {
    for _ in 0..20 {
        let bug = "
            UPDATE user_account SET version = greatest(version - 1, 1) WHERE id = 'user-4';
            UPDATE user_account SET version = version + 2 WHERE id = 'user-8'";
        run_sql(installation, installation.user[0].database(), bug).await;
        sleep(Duration::from_millis(50)).await;
    }
}

/// Frees held locks, and resets the counter of fencing tokens.
async fn damage_locks(installation: &DrillInstallation) {
    let client = Client::open(installation.stack.redis().url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let prefix = format!("{}:lock:{{lk00}}", installation.lock[0].redis_prefix());
    for _ in 0..200 {
        cmd("DEL").arg(format!("{prefix}:holds")).exec_async(&mut redis).await.unwrap();
        cmd("HSET").arg(format!("{prefix}:meta")).arg("seq").arg(1).exec_async(&mut redis).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
}

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

#[test]
fn every_ledger_finds_what_is_lost_duplicated_or_out_of_order() {
    let drill = Drill { recorder: faulty_recorder, seeded: true, ..Drill::new("seeded bugs", NONE) };

    let results = drill.results(async |installation, _| {
        join!(damage_users(installation), damage_messages(installation), damage_locks(installation));
    });

    for result in &results {
        let LedgerCounts { lost, duplicated, reordered, reverted, .. } = result.ledger;
        let found = match result.service {
            "user" => lost > 0 && duplicated > 0,
            "history" | "broadcast" => lost > 0 && duplicated > 0 && reordered > 0,
            "lock" => duplicated > 0 && reverted > 0,
            service => panic!("{service} has no seeded bug"),
        };
        assert!(found && result.ledger.violations() > 0, "{result:?}");
    }
    assert_eq!(results.len(), NONE.len());
}
