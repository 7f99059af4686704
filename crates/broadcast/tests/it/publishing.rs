//! Publish and BatchPublish: what an answer means, and what a repeat does.

use crate::support::Broadcasts;
use crate::support::client::{everything, latest};

#[tokio::test]
async fn what_is_published_is_delivered_to_every_subscriber_with_all_it_says() {
    let broadcasts = Broadcasts::start_two().await;
    let mut here = broadcasts.listen("orders/eu/42").await;
    let mut there = broadcasts.client(1).listen("orders/eu/42").await;

    let (epoch, offset) = broadcasts.say("orders/eu/42", "one").await;
    assert_eq!(offset, 1);
    assert_eq!(broadcasts.client(1).say("orders/eu/42", "two").await, (epoch.clone(), 2));

    for ear in [&mut here, &mut there] {
        assert_eq!(ear.text().await, "one");
        assert_eq!(ear.text().await, "two");
    }
    let mut later = broadcasts.subscribe(everything("orders/eu/42")).await;
    assert_eq!(later.offsets(2).await, [1, 2]);
    assert_eq!(later.caught_up().await, (epoch, 2));
    let _ = latest("x");
}
