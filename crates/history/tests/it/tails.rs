//! The tail in Redis: bounded, and read only if it is contiguous.

use redis::cmd;

use crate::support::client::{Anchor, Source, at, newest, source, text};
use crate::support::{HistoryCluster, seqs};

/// A page is correct if any part of the tail is missing, duplicated or not a message.
#[tokio::test]
async fn a_tail_is_bounded_and_read_only_if_contiguous() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 230).await;
    let redis = cluster.redis().await;
    let key = redis.tail_key("lobby");
    cluster.newest("lobby", 50).await;
    assert_eq!(redis.tail("lobby").await, (31..=230).collect::<Vec<_>>());
    let truth = cluster.truth("lobby").await;
    let elements = redis.elements("lobby").await;

    let tampered = [
        ("the first message is missing", cmd("LPOP").arg(&key).to_owned()),
        ("a middle message is missing", cmd("LREM").arg(&key).arg(1).arg(&elements[100]).to_owned()),
        ("the last message is missing", cmd("RPOP").arg(&key).to_owned()),
        ("a message is duplicated", cmd("RPUSH").arg(&key).arg(&elements[199]).to_owned()),
        ("a message is replaced by another", cmd("LSET").arg(&key).arg(190).arg(&elements[10]).to_owned()),
        ("an element is not a message", cmd("LSET").arg(&key).arg(190).arg("junk").to_owned()),
        ("the last element is too short", cmd("LSET").arg(&key).arg(-1).arg("junk").to_owned()),
        ("the first element is too short", cmd("LSET").arg(&key).arg(0).arg("").to_owned()),
        ("the last element is long and not a message", cmd("RPUSH").arg(&key).arg("junk".repeat(20)).to_owned()),
        ("the value is not a list", cmd("SET").arg(&key).arg("junk").to_owned()),
    ];
    for (what, command) in tampered {
        redis.run::<()>(&command).await;
        for anchor in [Anchor::BeforeSeq(222), Anchor::BeforeSeq(227), Anchor::AfterSeq(220), Anchor::AfterSeq(100)] {
            let page = cluster.list(at("lobby", anchor, 1)).await.unwrap();
            let first = seqs(&page.messages)[0] as usize;
            let expected = match anchor {
                Anchor::BeforeSeq(seq) => seq - 1,
                Anchor::AfterSeq(seq) | Anchor::AroundSeq(seq) => seq + 1,
            };
            assert_eq!(first as i64, expected, "{what}");
            assert_eq!(page.messages[0], truth[first - 1], "{what}");
        }
        let page = cluster.newest("lobby", 50).await;
        // Without its first message a tail is contiguous. Without its last it is only behind, which
        // `min_seq` and the relay correct.
        let contiguous = what == "the first message is missing" || what == "the last message is missing";
        let behind = usize::from(what == "the last message is missing");
        assert_eq!(page.messages, truth[180 - behind..230 - behind], "{what}");
        assert_eq!(source(page.read_info), if contiguous { Source::Redis } else { Source::Postgres }, "{what}");
        redis.evict("lobby").await;
        assert_eq!(cluster.newest("lobby", 50).await.messages, truth[180..], "{what}");
        let page = cluster.newest("lobby", 50).await;
        assert_eq!((source(page.read_info), page.messages.len()), (Source::Redis, 50), "{what}");
    }
}

/// The next read of the newest page replaces the junk with a valid tail.
#[tokio::test]
async fn junk_in_a_tail_blocks_nothing_and_is_replaced() {
    let cluster = HistoryCluster::start().await;
    let redis = cluster.redis().await;
    cluster.fill("hall", 3).await;
    cluster.fill("lobby", 3).await;
    let junk = [
        cmd("SET").arg(redis.tail_key("lobby")).arg("junk").to_owned(),
        cmd("RPUSH").arg(redis.tail_key("lobby")).arg("junk").to_owned(),
        cmd("RPUSH").arg(redis.tail_key("lobby")).arg("junk".repeat(9)).to_owned(),
    ];
    for (key, command) in ["a", "b", "c"].into_iter().zip(junk) {
        redis.evict("lobby").await;
        redis.run::<()>(&command).await;
        for conversation in ["lobby", "hall"] {
            cluster.say(conversation, "bob", key).await;
        }
        cluster.wait_until_relayed().await;
        for conversation in ["lobby", "hall"] {
            let truth = cluster.truth(conversation).await;
            assert_eq!(cluster.newest(conversation, 9).await.messages, truth);
            let page = cluster.newest(conversation, 9).await;
            assert_eq!((source(page.read_info), page.messages), (Source::Redis, truth));
        }
    }
}

#[tokio::test]
async fn a_tail_follows_the_appends_and_keeps_two_hundred_messages() {
    let cluster = HistoryCluster::start().await;
    let redis = cluster.redis().await;
    cluster.fill("lobby", 150).await;
    cluster.newest("lobby", 1).await;

    for round in 0..3 {
        let requests = (0..70).map(|key| text("lobby", "bob", &format!("{round}-{key}"), "x"));
        cluster.batch(requests.collect()).await.unwrap();
        let newest = 150 + 70 * (round + 1);
        let oldest = (newest - 199).max(1);
        assert_eq!(redis.tail("lobby").await, (oldest..=newest).collect::<Vec<_>>());
        let page = cluster.newest("lobby", 200).await;
        assert_eq!((source(page.read_info), page.messages.len()), (Source::Redis, 200));
    }
    let left: i64 = redis.run(cmd("PTTL").arg(redis.tail_key("lobby"))).await;
    let hours = left / 3_600_000;
    assert!((20..=27).contains(&hours), "{left} ms");
}

/// The limit holds for a loaded tail and for one that grew by appends.
#[tokio::test]
async fn a_tail_keeps_at_most_half_a_mebibyte() {
    let cluster = HistoryCluster::start().await;
    let redis = cluster.redis().await;
    cluster.create("lobby").await;
    let size = 15 * 1024;
    let bytes = |elements: &[Vec<u8>]| elements.iter().map(|element| element.len() - 20).sum::<usize>();
    let max = 512 * 1024;
    let append = async |key: usize| {
        let length = if key.is_multiple_of(3) { size } else { size / 2 };
        cluster.append(text("lobby", "ada", &key.to_string(), &"x".repeat(length))).await.unwrap();
    };
    for key in 0..70 {
        append(key).await;
    }

    cluster.newest("lobby", 1).await;
    let loaded = redis.elements("lobby").await;
    assert!((max - size..=max).contains(&bytes(&loaded)), "{}", bytes(&loaded));
    for key in 70..90 {
        append(key).await;
        let grown = redis.elements("lobby").await;
        assert!((max - 2 * size..=max).contains(&bytes(&grown)), "{}", bytes(&grown));
    }
    let tail = redis.tail("lobby").await;
    assert_eq!(tail, (tail[0]..=90).collect::<Vec<_>>());
    let page = cluster.newest("lobby", 60).await;
    assert_eq!((source(page.read_info), seqs(&page.messages)), (Source::Postgres, (31..=90).collect()));
}

/// Pages on both sides of the long message are correct.
#[tokio::test]
async fn a_long_message_drops_the_tail() {
    let cluster = HistoryCluster::start().await;
    let redis = cluster.redis().await;
    cluster.fill("lobby", 20).await;
    cluster.newest("lobby", 1).await;

    let long = text("lobby", "bob", "long", &"x".repeat(16 * 1024));
    cluster.append(long.clone()).await.unwrap();
    assert!(redis.tail("lobby").await.is_empty());
    for _ in 0..2 {
        let page = cluster.newest("lobby", 5).await;
        assert_eq!((source(page.read_info), seqs(&page.messages)), (Source::Postgres, vec![17, 18, 19, 20, 21]));
    }

    for key in ["a", "b", "c"] {
        cluster.say("lobby", "bob", key).await;
    }
    cluster.newest("lobby", 5).await;
    assert_eq!(redis.tail("lobby").await, [22, 23, 24]);
    let truth = cluster.truth("lobby").await;
    for (size, from) in [(2, Source::Redis), (3, Source::Redis), (4, Source::Postgres), (50, Source::Postgres)] {
        let page = cluster.newest("lobby", size).await;
        let expected = truth.len().saturating_sub(size as usize);
        assert_eq!((source(page.read_info), &page.messages[..]), (from, &truth[expected..]));
    }

    // A duplicate of the long message does not touch the tail.
    assert!(cluster.append(long).await.unwrap().deduplicated);
    cluster.wait_until_relayed().await;
    assert_eq!(redis.tail("lobby").await, [22, 23, 24]);
}

/// This holds for every instance.
#[tokio::test]
async fn the_second_read_of_the_newest_page_comes_from_redis() {
    let cluster = HistoryCluster::start_two().await;
    cluster.fill("lobby", 120).await;
    let truth = cluster.truth("lobby").await;

    let first = cluster.newest("lobby", 50).await;
    assert_eq!((source(first.read_info), first.messages), (Source::Postgres, truth[70..].to_vec()));
    for index in [0, 1] {
        let client = cluster.client(index);
        let page = client.list(newest("lobby", 120)).await.unwrap();
        assert_eq!((source(page.read_info), &page.messages), (Source::Redis, &truth));
        assert!(page.older_page_token.is_empty() && page.newer_page_token.is_empty());
        assert!(!page.read_info.unwrap().stale);
    }
    cluster.client(1).say("lobby", "bob", "new").await;
    let page = cluster.newest("lobby", 1).await;
    assert_eq!((source(page.read_info), seqs(&page.messages)), (Source::Redis, vec![121]));
}
