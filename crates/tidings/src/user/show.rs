//! Renders users as text.

use tidings_proto::user::read_info::Source;
use tidings_proto::user::{ReadInfo, User};

use crate::display::{duration, one_line, render, table, timestamp};

/// Renders one user, a line for each field that is set, and the source of the response.
pub(super) fn user(user: &User, read: Option<&ReadInfo>) -> String {
    let mut rows = table();
    let age = user.age.map(|age| age.to_string()).unwrap_or_default();
    let fields = [
        ("id", &user.id),
        ("handle", &user.handle),
        ("display_name", &user.display_name),
        ("age", &age),
        ("avatar_uri", &user.avatar_uri),
        ("bio", &user.bio),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        rows.add_row([name, &one_line(value)]);
    }
    for (name, value) in &user.attributes {
        rows.add_row([&one_line(&format!("attributes.{name}")), &one_line(value)]);
    }
    rows.add_row(["version", &user.version.to_string()]);
    rows.add_row(["create_time", &timestamp(user.create_time)]);
    rows.add_row(["update_time", &timestamp(user.update_time)]);
    if let Some(read) = read {
        rows.add_row(["read from", &read_from(read)]);
    }
    render(rows)
}

/// Renders users as a table with a row each; the source has a column if any user has one.
pub(super) fn users<'a>(users: impl Iterator<Item = (&'a User, Option<&'a ReadInfo>)> + Clone) -> String {
    let with_read = users.clone().any(|(_, read)| read.is_some());
    let mut rows = table();
    let mut header = vec!["id", "version", "handle", "display_name", "age", "update_time"];
    header.extend(with_read.then_some("read from"));
    rows.set_header(header);
    for (user, read) in users {
        let age = user.age.map(|age| age.to_string()).unwrap_or_default();
        let mut row = vec![
            user.id.clone(),
            user.version.to_string(),
            one_line(&user.handle),
            one_line(&user.display_name),
            age,
            timestamp(user.update_time),
        ];
        row.extend(with_read.then(|| read.map(read_from).unwrap_or_default()));
        rows.add_row(row);
    }
    render(rows)
}

/// Renders the source of a response and its age.
fn read_from(read: &ReadInfo) -> String {
    let source = match read.source() {
        Source::LocalCache => "local_cache",
        Source::Redis => "redis",
        Source::Postgres => return "postgres".to_owned(),
        Source::Unspecified => "unknown source",
    };
    let stale = if read.stale { ", may be stale: postgres is unavailable" } else { "" };
    format!("{source}, {} old{stale}", duration(read.age))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    fn ada() -> User {
        let (id, bio) = ("ada".into(), "one\ntwo".into());
        User {
            id,
            bio,
            age: Some(0),
            version: 3,
            attributes: [("team".into(), "ops".into())].into(),
            ..User::default()
        }
    }

    fn redis(stale: bool) -> ReadInfo {
        let age = Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 });
        ReadInfo { source: Source::Redis.into(), age, stale }
    }

    #[test]
    fn a_user_has_a_line_for_each_field_that_is_set() {
        let shown = lines(&user(&ada(), Some(&redis(false))));

        let expected = ["id ada", "age 0", r"bio one\ntwo", "attributes.team ops", "version 3", "create_time"];
        assert_eq!(shown[..6], expected);
        assert_eq!(shown[7], "read from redis, 1s 500ms old");
    }

    #[test]
    fn a_stale_response_says_so() {
        let users = users([(&ada(), Some(&redis(true)))].into_iter());

        assert!(users.ends_with("old, may be stale: postgres is unavailable"), "{users}");
    }

    #[test]
    fn a_list_has_a_source_column_only_if_a_user_has_one() {
        let header = |read| lines(&users([(&ada(), read)].into_iter()))[0].clone();

        assert_eq!(header(None), "id version handle display_name age update_time");
        assert!(header(Some(&redis(false))).ends_with(" read from"));
    }
}
