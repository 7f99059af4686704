//! Lists of users and their page tokens.

use std::collections::BTreeSet;

use prost::Message as _;
use tidings_proto::user as pb;
use tidings_server::page_token;
use tidings_status::Failure;
use tonic::Code;

use super::support::{TestEnv, UserInstance};

/// Inserts users `user-000` and so on, with handles `User-000` and so on.
async fn seed(env: &TestEnv, count: usize) {
    let seed = format!(
        "INSERT INTO user_account (id, handle, handle_key, display_name, avatar_uri, bio, attributes, version) \
         SELECT 'user-' || n, 'User-' || n, 'user-' || n, '', '', '', '{{}}', 1 \
         FROM (SELECT lpad(n::text, 3, '0') AS n FROM generate_series(0, {count} - 1) AS n) AS numbers"
    );
    env.execute(&seed).await;
}

fn list(handle_prefix: &str, page_size: i32) -> pb::ListUsersRequest {
    pb::ListUsersRequest { handle_prefix: handle_prefix.to_owned(), page_size, ..Default::default() }
}

fn ids(page: &pb::ListUsersResponse) -> Vec<String> {
    page.users.iter().map(|user| user.id.clone()).collect()
}

/// Reads all pages of a list; returns the ids and the number of pages. Calls `between` after each
/// page.
async fn read_all(
    users: &UserInstance,
    request: pb::ListUsersRequest,
    between: impl AsyncFn(usize),
) -> (Vec<String>, usize) {
    let (mut request, mut listed, mut pages) = (request, Vec::new(), 0);
    loop {
        let page = users.call_list(request.clone()).await.unwrap();
        listed.extend(ids(&page));
        pages += 1;
        if page.next_page_token.is_empty() {
            return (listed, pages);
        }
        assert!(!page.users.is_empty());
        between(pages).await;
        request.page_token = page.next_page_token;
    }
}

fn expect_refused(answer: Result<pb::ListUsersResponse, Failure>, field: &str) {
    let failure = answer.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
    assert_eq!(failure.violations.iter().map(|violation| &violation.field).collect::<Vec<_>>(), [field]);
}

/// Reads all pages, and deletes and creates users before and after each page's end meanwhile.
/// Returns the seeded users that still exist, and the listed ids.
async fn read_all_among_writes(users: &UserInstance, prefix: &str) -> (BTreeSet<String>, Vec<String>) {
    let (listed, pages) = read_all(users, list(prefix, 20), async |page| {
        for number in [page * 20 - 7, page * 20 + 5] {
            users.delete(&format!("user-{number:03}")).await.ok(); // there are 250
        }
        for prefix in ["user-", "user-1005", "user-0505", "user-999"] {
            let id = format!("{prefix}-{page}");
            users.create_with_handle(&id, &id).await.unwrap();
        }
    })
    .await;
    assert!(pages > 10, "{pages}");
    let current = read_all(users, list(prefix, 500), async |_| {}).await.0;
    let stayed = (0..250).map(|number| format!("user-{number:03}")).filter(|id| current.contains(id)).collect();
    (stayed, listed)
}

/// Every user that exists throughout is returned exactly once, in order.
#[tokio::test]
async fn paging_through_concurrent_writes_returns_each_user_once() {
    for prefix in ["", "uSER"] {
        let env = TestEnv::shared().await;
        seed(&env, 250).await;
        let users = env.serve().await;

        let (stayed, listed) = read_all_among_writes(&users, prefix).await;

        assert!((210..250).contains(&stayed.len()), "some were deleted: {}", stayed.len());
        let sorted: BTreeSet<String> = listed.iter().cloned().collect();
        assert_eq!(listed, sorted.iter().cloned().collect::<Vec<_>>(), "in order, without duplicates");
        assert!(stayed.is_subset(&sorted), "{:?}", stayed.difference(&sorted));
        assert!(sorted.len() > stayed.len() + 10, "users created after the current page are listed, too");
    }
}

#[tokio::test]
async fn deleted_users_are_left_out() {
    let env = TestEnv::shared().await;
    seed(&env, 5).await;
    let users = env.serve().await;
    for id in ["user-000", "user-002", "user-004"] {
        users.delete(id).await.unwrap();
    }

    for prefix in ["", "user"] {
        let page = users.call_list(list(prefix, 2)).await.unwrap();
        assert_eq!(ids(&page), ["user-001", "user-003"]);
        assert_eq!(page.next_page_token, "");
    }
}

#[tokio::test]
async fn a_prefix_ignores_case_and_has_no_wildcards() {
    let users = TestEnv::shared().await.serve().await;
    for (id, handle) in [("4", "ada"), ("3", "Ad_a"), ("2", "AD.a"), ("1", "a"), ("0", ""), ("5", "b-ada"), ("6", "aE")]
    {
        users.create_with_handle(id, handle).await.unwrap();
    }

    for (prefix, expected) in [
        ("", &["0", "1", "2", "3", "4", "5", "6"][..]),
        ("A", &["1", "2", "3", "4", "6"]),
        ("aD", &["2", "3", "4"]),
        ("AD_", &["3"]),
        ("ad.", &["2"]),
        ("ADA", &["4"]),
        ("adam", &[]),
        ("z", &[]),
    ] {
        for size in [1, 2, 500] {
            assert_eq!(read_all(&users, list(prefix, size), async |_| {}).await.0, expected, "{prefix:?}");
        }
    }
}

#[tokio::test]
async fn a_page_has_100_users_by_default_and_at_most_500() {
    let env = TestEnv::shared().await;
    seed(&env, 500).await;
    let users = env.serve().await;

    for (size, expected, last) in [(0, 100, false), (1, 1, false), (499, 499, false), (500, 500, true)] {
        let page = users.call_list(list("", size)).await.unwrap();
        assert_eq!((page.users.len(), page.next_page_token.is_empty()), (expected, last));
    }
    for size in [-1, 501, i32::MAX, i32::MIN] {
        expect_refused(users.call_list(list("", size)).await, "page_size");
    }
    assert_eq!(read_all(&users, list("", 250), async |_| {}).await.1, 2, "the last page, though full, has no token");
}

/// The next page continues after its last user.
#[tokio::test]
async fn a_page_of_the_largest_users_fits_the_message_limit() {
    let env = TestEnv::shared().await;
    env.execute(
        "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
         SELECT 'user-' || n, '', repeat('x', 256), repeat('x', 2048), repeat('x', 4096), \
                jsonb_build_object('x', repeat('x', 4095)), 1 FROM generate_series(100, 599) AS n",
    )
    .await;
    let users = env.serve().await;

    let page = users.call_list(list("", 500)).await.unwrap();
    assert!((300..500).contains(&page.users.len()), "{}", page.users.len());
    assert!(page.encoded_len() < 3_670_016 + 256);

    let (listed, pages) = read_all(&users, list("", 500), async |_| {}).await;
    assert_eq!((listed.len(), pages), (500, 2));
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), 500);
}

#[tokio::test]
async fn a_page_token_with_any_byte_altered_is_refused() {
    let env = TestEnv::shared().await;
    seed(&env, 5).await;
    let users = env.serve().await;

    for prefix in ["", "user"] {
        let token = users.call_list(list(prefix, 2)).await.unwrap().next_page_token;
        for index in 0..token.len() {
            for letter in ["A", "z", "="].into_iter().filter(|letter| token[index..=index] != **letter) {
                let mut page_token = token.clone();
                page_token.replace_range(index..=index, letter);
                expect_refused(
                    users.call_list(pb::ListUsersRequest { page_token, ..list(prefix, 2) }).await,
                    "page_token",
                );
            }
        }
        for page_token in [token[1..].to_owned(), format!("{token}A"), "next".to_owned(), "\0".to_owned()] {
            expect_refused(users.call_list(pb::ListUsersRequest { page_token, ..list(prefix, 2) }).await, "page_token");
        }
    }
}

#[tokio::test]
async fn a_page_token_belongs_to_one_list_of_any_page_size() {
    let env = TestEnv::shared().await;
    seed(&env, 5).await;
    let users = env.serve().await;
    let by_id = users.call_list(list("", 2)).await.unwrap().next_page_token;
    let by_handle = users.call_list(list("User-", 2)).await.unwrap().next_page_token;

    for (token, right, wrong) in [(by_id, "", ["user-", "u"]), (by_handle, "uSER-", ["", "user"])] {
        let page = |prefix, size| pb::ListUsersRequest { page_token: token.clone(), ..list(prefix, size) };
        assert_eq!(ids(&users.call_list(page(right, 1)).await.unwrap()), ["user-002"]);
        assert_eq!(ids(&users.call_list(page(right, 0)).await.unwrap()), ["user-002", "user-003", "user-004"]);
        for prefix in wrong {
            expect_refused(users.call_list(page(prefix, 2)).await, "page_token");
        }
    }
    // A forged token with a cursor that Postgres refuses.
    let page_token = page_token::encode(1, "", &"a\0b".to_owned());
    expect_refused(users.call_list(pb::ListUsersRequest { page_token, ..list("", 2) }).await, "page_token");
}
