//! `tidings user update`: changes fields of a user.

use std::collections::BTreeSet;

use prost_types::FieldMask;
use tidings_client::Caller;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{ErrorReason, UpdateUserRequest, UpdateUserResponse, User};

use super::error::Error;
use super::field::{Field, FieldAssignment};
use super::service::{UserServiceArgs, read};
use super::show;

const MORE: &str = "\
Fields: handle, display_name, age, avatar_uri, bio, attributes.NAME. The fields that
are given change together, atomically; all others stay.

The update is made only if the user has the expected version: the one given with
--expected-version, by default the one read just before. Of two concurrent updates
of one user the later ends with exit code 1 and can be run again; neither overwrites
the other.

Exit codes: 0 changed, 1 there is no such user, it has another version or the handle
is taken, 2 wrong usage, 3 the service failed or did not respond.

Examples:
  tidings user update ada --set age=37 --set attributes.team=engines
  tidings user update ada --clear bio --clear attributes.team --expected-version 2";

/// Change some fields of a user.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// User id
    #[arg(value_name = "ID")]
    id: String,

    /// Set a field; may be given more than once
    #[arg(long, value_name = "FIELD=VALUE", required_unless_present = "clear")]
    set: Vec<FieldAssignment>,

    /// Clear a field (`attributes`: all attributes); may be given more than once
    #[arg(long, value_name = "FIELD")]
    clear: Vec<Field>,

    /// Change the user only at this version, 1 or more [default: its current version]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    expected_version: Option<i64>,

    #[command(flatten)]
    service: UserServiceArgs,
}

/// Changes the user and prints it.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let change = UserChange::new(args.set, args.clear)?;
    let caller = args.service.caller()?;
    let (user, expected_version) = match args.expected_version {
        Some(version) if !change.needs_attributes() => (User { id: args.id, ..User::default() }, version),
        expected => {
            let now = read(&caller, &args.id, expected.unwrap_or(0)).await?;
            let expected = expected.unwrap_or(now.version);
            if now.version != expected {
                return Err(Error::VersionMismatch { id: now.id, found: now.version, expected });
            }
            (now, expected)
        }
    };
    let response = change.send(&caller, user, expected_version).await?;
    args.service
        .print("UpdateUserResponse", &response, || show::user(&response.user.clone().unwrap_or_default(), None));
    Ok(())
}

/// A set of field changes, each field at most once.
struct UserChange {
    set: Vec<FieldAssignment>,
    clear: Vec<Field>,
}

impl UserChange {
    /// # Errors
    /// A field is given twice.
    fn new(set: Vec<FieldAssignment>, clear: Vec<Field>) -> Result<Self, Error> {
        let all_attributes = clear.contains(&Field::Attributes);
        let mut named = BTreeSet::new();
        for field in set.iter().map(|setting| &setting.field).chain(&clear) {
            let within = all_attributes && matches!(field, Field::Attribute(_)) && clear.contains(field);
            if !named.insert(field) || within {
                return Err(Error::FieldGivenTwice(field.to_string()));
            }
        }
        Ok(Self { set, clear })
    }

    /// Returns true if the change keeps some attributes: a request replaces all of them, so it must
    /// repeat those.
    fn needs_attributes(&self) -> bool {
        let mut fields = self.set.iter().map(|setting| &setting.field).chain(&self.clear);
        fields.any(|field| matches!(field, Field::Attribute(_))) && !self.clear.contains(&Field::Attributes)
    }

    /// Returns `user` with the change applied.
    fn apply(&self, mut user: User) -> User {
        self.clear.iter().for_each(|field| field.clear(&mut user));
        for setting in &self.set {
            // The value was validated when the flag was parsed.
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
        let retries = caller.retries();
        let send = async |channel, request| UserServiceClient::new(channel).update_user(request).await;
        let error = match caller.call("UpdateUser", &request, send).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if error.has_reason(ErrorReason::VersionMismatch.text()) && caller.retries() > retries {
            // An earlier attempt of this call may have succeeded and its response been lost.
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

    fn change(set: &[&str], clear: &[&str]) -> Result<UserChange, Error> {
        let set = set.iter().map(|text| text.parse().unwrap()).collect();
        UserChange::new(set, clear.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn ada() -> User {
        let attributes = [("team", "ops"), ("desk", "7")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        User { bio: "a bio".into(), age: Some(36), attributes: attributes.into(), ..User::default() }
    }

    #[test]
    fn the_mask_names_each_given_path_once() {
        let change = change(&["attributes.team=x", "age=37"], &["attributes.desk", "bio"]).unwrap();

        assert_eq!(change.mask().paths, ["age", "attributes", "bio"]);
    }

    #[test]
    fn changing_one_attribute_keeps_the_others() {
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
    fn a_field_given_twice_is_refused() {
        for (set, clear) in [
            (&["age=1", "age=2"][..], &[][..]),
            (&["age=1"], &["age"]),
            (&["attributes.team=x"], &["attributes.team"]),
            (&[], &["attributes", "attributes.team"]),
        ] {
            assert!(matches!(change(set, clear), Err(Error::FieldGivenTwice(_))), "{set:?} {clear:?}");
        }
    }
}
