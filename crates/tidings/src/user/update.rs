//! `tidings user update`.

use std::collections::BTreeSet;

use prost_types::FieldMask;
use tidings_client::Caller;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{UpdateUserRequest, UpdateUserResponse, User};

use super::field::{Field, Setting};
use super::{Error, Service, read, show};

const MORE: &str = "\
Fields: handle, display_name, age, avatar_uri, bio, attributes.NAME. Those that
are named are changed and no others, in one step.

The change is made only if the user still has the version it is meant for: that
of --expected-version, or that of a reading just before. So two who change the
same user at once do not overwrite each other: one of them ends with exit code 1,
and may try again.

Exit codes: 0 changed; 1 there is no such user, it has another version, or the
handle is taken, 2 wrong usage, 3 a service did not do it.

Examples:
  tidings user update ada --set age=37 --set attributes.team=engines
  tidings user update ada --clear bio --clear attributes.team --expected-version 2";

/// Change some fields of a user.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// Whom, by id
    #[arg(value_name = "ID")]
    id: String,

    /// Give a field a value; may be given more than once
    #[arg(long, value_name = "FIELD=VALUE", required_unless_present = "clear")]
    set: Vec<Setting>,

    /// Empty a field; attributes means all of them; may be given more than once
    #[arg(long, value_name = "FIELD")]
    clear: Vec<Field>,

    /// Change it only if it has this version, 1 or more [default: that which it has now]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    expected_version: Option<i64>,

    #[command(flatten)]
    service: Service,
}

/// Changes the user, and prints it.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let change = Change::new(args.set, args.clear)?;
    let caller = args.service.caller()?;
    let (user, expected_version) = match args.expected_version {
        Some(version) if !change.needs_attributes() => (User { id: args.id, ..User::default() }, version),
        expected => {
            let now = read(&caller, &args.id, expected.unwrap_or(0)).await?;
            let expected = expected.unwrap_or(now.version);
            if now.version != expected {
                return Err(Error::Moved { id: now.id, found: now.version, expected });
            }
            (now, expected)
        }
    };
    let answer = change.send(&caller, user, expected_version).await?;
    args.service.print("UpdateUserResponse", &answer, || show::user(&answer.user.clone().unwrap_or_default(), None));
    Ok(())
}

/// What is to become of which fields.
struct Change {
    set: Vec<Setting>,
    clear: Vec<Field>,
}

impl Change {
    /// # Errors
    /// A field is named twice.
    fn new(set: Vec<Setting>, clear: Vec<Field>) -> Result<Self, Error> {
        let all_attributes = clear.contains(&Field::Attributes);
        let mut named = BTreeSet::new();
        for field in set.iter().map(|setting| &setting.field).chain(&clear) {
            let within = all_attributes && matches!(field, Field::Attribute(_)) && clear.contains(field);
            if !named.insert(field) || within {
                return Err(Error::Twice(field.to_string()));
            }
        }
        Ok(Self { set, clear })
    }

    /// Whether it changes some attributes and leaves others, which must be sent again.
    fn needs_attributes(&self) -> bool {
        let mut fields = self.set.iter().map(|setting| &setting.field).chain(&self.clear);
        fields.any(|field| matches!(field, Field::Attribute(_))) && !self.clear.contains(&Field::Attributes)
    }

    /// The user as it shall be.
    fn apply(&self, mut user: User) -> User {
        self.clear.iter().for_each(|field| field.clear(&mut user));
        for setting in &self.set {
            // It was looked at when it was read.
            let _ = setting.field.set(&mut user, &setting.value);
        }
        user
    }

    fn mask(&self) -> FieldMask {
        let fields = self.set.iter().map(|setting| &setting.field).chain(&self.clear);
        let paths: BTreeSet<_> = fields.map(Field::path).collect();
        FieldMask { paths: paths.into_iter().map(ToOwned::to_owned).collect() }
    }

    async fn send(&self, caller: &Caller, user: User, expected_version: i64) -> Result<UpdateUserResponse, Error> {
        let (id, wanted) = (user.id.clone(), self.apply(user));
        let request = UpdateUserRequest { user: Some(wanted), update_mask: Some(self.mask()), expected_version };
        let repeats = caller.repeats();
        let send = async |channel, request| UserServiceClient::new(channel).update_user(request).await;
        let error = match caller.call("UpdateUser", &request, send).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let moved = error.refused().is_some_and(|failure| failure.reason == "VERSION_MISMATCH");
        if moved && caller.repeats() > repeats {
            // It may have been an attempt of our own whose answer was lost.
            let now = read(caller, &id, 0).await?;
            if now.version == expected_version + 1 && self.apply(now.clone()) == now {
                return Ok(UpdateUserResponse { user: Some(now) });
            }
        }
        Err(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(set: &[&str], clear: &[&str]) -> Result<Change, Error> {
        let set = set.iter().map(|text| text.parse().unwrap()).collect();
        Change::new(set, clear.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn ada() -> User {
        let attributes = [("team", "ops"), ("desk", "7")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        User { bio: "a bio".into(), age: Some(36), attributes: attributes.into(), ..User::default() }
    }

    #[test]
    fn the_mask_names_what_was_given_and_each_path_once() {
        let change = change(&["attributes.team=x", "age=37"], &["attributes.desk", "bio"]).unwrap();

        assert_eq!(change.mask().paths, ["age", "attributes", "bio"]);
    }

    #[test]
    fn one_attribute_is_changed_and_the_others_stay() {
        let changed = change(&["attributes.team=engines"], &[]).unwrap().apply(ada());

        assert_eq!(changed.attributes["team"], "engines");
        assert_eq!(changed.attributes["desk"], "7");
    }

    #[test]
    fn all_attributes_can_be_cleared_before_one_is_set() {
        let change = change(&["attributes.team=engines"], &["attributes"]).unwrap();

        assert!(!change.needs_attributes());
        assert_eq!(change.apply(ada()).attributes.into_iter().collect::<Vec<_>>(), [("team".into(), "engines".into())]);
    }

    #[test]
    fn a_field_that_is_named_twice_is_refused() {
        for (set, clear) in [
            (&["age=1", "age=2"][..], &[][..]),
            (&["age=1"], &["age"]),
            (&["attributes.team=x"], &["attributes.team"]),
            (&[], &["attributes", "attributes.team"]),
        ] {
            assert!(matches!(change(set, clear), Err(Error::Twice(_))), "{set:?} {clear:?}");
        }
    }
}
