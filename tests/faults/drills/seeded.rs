//! Bugs that are there on purpose: whoever loses, doubles, reorders or goes back is found out by the same accounts that find
//! nothing in the other drills.

use std::time::Duration;

use redis::{Client, cmd};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_client::Event;
use tokio::time::sleep;

use super::Recovery;
use crate::drill::Drill;
use crate::stage::Stage;
use crate::work::Account;

const NONE: Recovery = [("user", None), ("history", None), ("lock", None), ("broadcast", None)];

/// Runs SQL in the database of a service.
async fn sql(stage: &Stage, database: &str, statements: &str) {
    let mut connection = PgConnection::connect(&stage.stack.postgres().url(database)).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
}

/// A drill of a service that has a bug.
fn seeded(name: &'static str, service: &'static str) -> Drill {
    Drill { bug: Some(service), ..Drill::new(name, NONE) }
}

/// What the account of that service showed.
fn found(drill: Drill, bug: impl AsyncFnOnce(&mut Stage)) -> Account {
    let lines = drill.lines(async |stage, _| bug(stage).await);
    assert!(lines[0].account.wrong() > 0, "{:?}", lines[0]);
    lines[0].account
}

#[test]
fn messages_that_are_lost_doubled_and_swapped_are_found() {
    let drill = seeded("seeded: loses, doubles, swaps", "history");
    let account = found(drill, async |stage| {
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
        sql(stage, stage.history[0].database(), bug).await;
    });

    assert!(account.lost > 0 && account.duplicated > 0 && account.reordered > 0, "{account:?}");
}

#[test]
fn changes_that_are_lost_and_doubled_are_found() {
    let drill = seeded("seeded: loses and doubles", "user");
    let account = found(drill, async |stage| {
        for _ in 0..20 {
            let bug = "
                UPDATE user_account SET version = greatest(version - 1, 1) WHERE id = 'user-4';
                UPDATE user_account SET version = version + 2 WHERE id = 'user-8'";
            sql(stage, stage.user[0].database(), bug).await;
            sleep(Duration::from_millis(50)).await;
        }
    });

    assert!(account.lost > 0 && account.duplicated > 0, "{account:?}");
}

#[test]
fn locks_that_two_believe_in_and_tokens_that_go_back_are_found() {
    let drill = seeded("seeded: grants twice, tokens go back", "lock");
    let account = found(drill, async |stage| {
        let mut redis = Client::open(stage.stack.redis().url()).unwrap().get_connection().unwrap();
        let prefix = format!("{}:lock:{{lk00}}", stage.lock[0].place());
        for _ in 0..200 {
            cmd("DEL").arg(format!("{prefix}:holds")).exec(&mut redis).unwrap();
            cmd("HSET").arg(format!("{prefix}:meta")).arg("seq").arg(1).exec(&mut redis).unwrap();
            sleep(Duration::from_millis(5)).await;
        }
    });

    assert!(account.duplicated > 0 && account.gone_back > 0, "{account:?}");
}

#[test]
fn news_that_is_lost_doubled_and_swapped_is_found() {
    /// Of twelve, loses one, swaps one with the one before, and hears one twice.
    fn bad_ear(heard: &mut Vec<Event>, event: Event) {
        let count = heard.len();
        match count % 12 {
            3 if matches!(event, Event::Message(_)) => heard.push(heard[0].clone()), // its word that it had caught up
            6 => heard.insert(count - 1, event),
            9 => heard.extend([event.clone(), event]),
            _ => heard.push(event),
        }
    }
    let drill = Drill { ear: bad_ear, ..seeded("seeded: loses, doubles, swaps", "broadcast") };
    let account = found(drill, async |_| {});

    assert!(account.lost > 0 && account.duplicated > 0 && account.reordered > 0, "{account:?}");
}
