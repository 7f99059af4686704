//! The tail in Redis: bounded, whole or not believed.

use redis::cmd;

use crate::support::client::{Anchor, Source, at, newest, source, text};
use crate::support::{Histories, seqs};

#[tokio::test]
async fn the_newest_page_comes_from_a_bounded_tail_that_proves_itself_contiguous() {
    let histories = Histories::start().await;
    histories.fill("lobby", 230).await;
    let redis = histories.redis().await;
    let key = redis.tail_key("lobby");
    histories.newest("lobby", 50).await;
    assert_eq!(redis.tail("lobby").await, (31..=230).collect::<Vec<_>>());
    let truth = histories.truth("lobby").await;
    let elements = redis.elements("lobby").await;

    let tampered = [
        ("the first is missing", cmd("LPOP").arg(&key).to_owned()),
        ("one in the middle is missing", cmd("LREM").arg(&key).arg(1).arg(&elements[100]).to_owned()),
        ("the last is missing", cmd("RPOP").arg(&key).to_owned()),
        ("one is there twice", cmd("RPUSH").arg(&key).arg(&elements[199]).to_owned()),
        ("one stands for another", cmd("LSET").arg(&key).arg(190).arg(&elements[10]).to_owned()),
        ("one is no message", cmd("LSET").arg(&key).arg(190).arg("junk").to_owned()),
        ("the last is short", cmd("LSET").arg(&key).arg(-1).arg("junk").to_owned()),
        ("the first is short", cmd("LSET").arg(&key).arg(0).arg("").to_owned()),
        ("the last is long and no message", cmd("RPUSH").arg(&key).arg("junk".repeat(20)).to_owned()),
        ("it is no list", cmd("SET").arg(&key).arg("junk").to_owned()),
    ];
    for (what, command) in tampered {
        redis.run::<()>(&command).await;
        for anchor in [Anchor::BeforeSeq(222), Anchor::BeforeSeq(227), Anchor::AfterSeq(220), Anchor::AfterSeq(100)] {
            let page = histories.list(at("lobby", anchor, 1)).await.unwrap();
            let first = seqs(&page.messages)[0] as usize;
            let expected = match anchor {
                Anchor::BeforeSeq(seq) => seq - 1,
                Anchor::AfterSeq(seq) | Anchor::AroundSeq(seq) => seq + 1,
            };
            assert_eq!(first as i64, expected, "{what}");
            assert_eq!(page.messages[0], truth[first - 1], "{what}");
        }
        let page = histories.newest("lobby", 50).await;
        // Without its first message a tail is whole, and without its last only behind: `min_seq` and the outbox see to that.
        let whole = what == "the first is missing" || what == "the last is missing";
        let behind = usize::from(what == "the last is missing");
        assert_eq!(page.messages, truth[180 - behind..230 - behind], "{what}");
        assert_eq!(source(page.read_info), if whole { Source::Redis } else { Source::Postgres }, "{what}");
        redis.evict("lobby").await;
        assert_eq!(histories.newest("lobby", 50).await.messages, truth[180..], "{what}");
        let page = histories.newest("lobby", 50).await;
        assert_eq!((source(page.read_info), page.messages.len()), (Source::Redis, 50), "{what}");
    }
}

#[tokio::test]
async fn junk_in_one_tail_holds_up_nothing_and_is_gone_with_the_next_newest_page() {
    let histories = Histories::start().await;
    let redis = histories.redis().await;
    histories.fill("hall", 3).await;
    histories.fill("lobby", 3).await;
    let junk = [
        cmd("SET").arg(redis.tail_key("lobby")).arg("junk").to_owned(),
        cmd("RPUSH").arg(redis.tail_key("lobby")).arg("junk").to_owned(),
        cmd("RPUSH").arg(redis.tail_key("lobby")).arg("junk".repeat(9)).to_owned(),
    ];
    for (key, command) in ["a", "b", "c"].into_iter().zip(junk) {
        redis.evict("lobby").await;
        redis.run::<()>(&command).await;
        for conversation in ["lobby", "hall"] {
            histories.say(conversation, "bob", key).await;
        }
        histories.settled().await;
        for conversation in ["lobby", "hall"] {
            let truth = histories.truth(conversation).await;
            assert_eq!(histories.newest(conversation, 9).await.messages, truth);
            let page = histories.newest(conversation, 9).await;
            assert_eq!((source(page.read_info), page.messages), (Source::Redis, truth));
        }
    }
}

#[tokio::test]
async fn a_tail_follows_the_appends_and_keeps_two_hundred_messages() {
    let histories = Histories::start().await;
    let redis = histories.redis().await;
    histories.fill("lobby", 150).await;
    histories.newest("lobby", 1).await;

    for round in 0..3 {
        let requests = (0..70).map(|key| text("lobby", "bob", &format!("{round}-{key}"), "x"));
        histories.batch(requests.collect()).await.unwrap();
        let newest = 150 + 70 * (round + 1);
        let oldest = (newest - 199).max(1);
        assert_eq!(redis.tail("lobby").await, (oldest..=newest).collect::<Vec<_>>());
        let page = histories.newest("lobby", 200).await;
        assert_eq!((source(page.read_info), page.messages.len()), (Source::Redis, 200));
    }
    let left: i64 = redis.run(cmd("PTTL").arg(redis.tail_key("lobby"))).await;
    let hours = left / 3_600_000;
    assert!((20..=27).contains(&hours), "{left} ms");
}

#[tokio::test]
async fn a_tail_keeps_half_a_mebibyte_however_it_came_about() {
    let histories = Histories::start().await;
    let redis = histories.redis().await;
    histories.create("lobby").await;
    let size = 15 * 1024;
    let bytes = |elements: &[Vec<u8>]| elements.iter().map(|element| element.len() - 20).sum::<usize>();
    let most = 512 * 1024;
    let say = async |key: usize| {
        let length = if key.is_multiple_of(3) { size } else { size / 2 };
        histories.append(text("lobby", "ada", &key.to_string(), &"x".repeat(length))).await.unwrap();
    };
    for key in 0..70 {
        say(key).await;
    }

    histories.newest("lobby", 1).await;
    let loaded = redis.elements("lobby").await;
    assert!((most - size..=most).contains(&bytes(&loaded)), "{}", bytes(&loaded));
    for key in 70..90 {
        say(key).await;
        let grown = redis.elements("lobby").await;
        assert!((most - 2 * size..=most).contains(&bytes(&grown)), "{}", bytes(&grown));
    }
    let tail = redis.tail("lobby").await;
    assert_eq!(tail, (tail[0]..=90).collect::<Vec<_>>());
    let page = histories.newest("lobby", 60).await;
    assert_eq!((source(page.read_info), seqs(&page.messages)), (Source::Postgres, (31..=90).collect()));
}

#[tokio::test]
async fn a_long_message_empties_the_tail_and_pages_are_right_around_it() {
    let histories = Histories::start().await;
    let redis = histories.redis().await;
    histories.fill("lobby", 20).await;
    histories.newest("lobby", 1).await;

    let long = text("lobby", "bob", "long", &"x".repeat(16 * 1024));
    histories.append(long.clone()).await.unwrap();
    assert!(redis.tail("lobby").await.is_empty());
    for _ in 0..2 {
        let page = histories.newest("lobby", 5).await;
        assert_eq!((source(page.read_info), seqs(&page.messages)), (Source::Postgres, vec![17, 18, 19, 20, 21]));
    }

    for key in ["a", "b", "c"] {
        histories.say("lobby", "bob", key).await;
    }
    histories.newest("lobby", 5).await;
    assert_eq!(redis.tail("lobby").await, [22, 23, 24]);
    let truth = histories.truth("lobby").await;
    for (size, from) in [(2, Source::Redis), (3, Source::Redis), (4, Source::Postgres), (50, Source::Postgres)] {
        let page = histories.newest("lobby", size).await;
        let expected = truth.len().saturating_sub(size as usize);
        assert_eq!((source(page.read_info), &page.messages[..]), (from, &truth[expected..]));
    }

    // A repeat of the long one is told to nobody.
    assert!(histories.append(long).await.unwrap().deduplicated);
    histories.settled().await;
    assert_eq!(redis.tail("lobby").await, [22, 23, 24]);
}

#[tokio::test]
async fn the_second_reading_of_the_newest_page_comes_from_redis_on_every_instance() {
    let histories = Histories::start_two().await;
    histories.fill("lobby", 120).await;
    let truth = histories.truth("lobby").await;

    let first = histories.newest("lobby", 50).await;
    assert_eq!((source(first.read_info), first.messages), (Source::Postgres, truth[70..].to_vec()));
    for place in [0, 1] {
        let client = histories.client(place);
        let page = client.list(newest("lobby", 120)).await.unwrap();
        assert_eq!((source(page.read_info), &page.messages), (Source::Redis, &truth));
        assert!(page.older_page_token.is_empty() && page.newer_page_token.is_empty());
        assert!(!page.read_info.unwrap().stale);
    }
    histories.client(1).say("lobby", "bob", "news").await;
    let page = histories.newest("lobby", 1).await;
    assert_eq!((source(page.read_info), seqs(&page.messages)), (Source::Redis, vec![121]));
}
