//! The fields of a user, as named by flags and by the columns of import files.

use std::fmt;
use std::str::FromStr;

use tidings_proto::user::User;

/// A field of a user that callers can set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Handle,
    DisplayName,
    Age,
    AvatarUri,
    Bio,
    /// All attributes at once.
    Attributes,
    /// The attribute of this name.
    Attribute(String),
}

/// The error for a name that is not a field of a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected handle, display_name, age, avatar_uri, bio, attributes or attributes.NAME")]
pub(super) struct UnknownField;

impl FromStr for Field {
    type Err = UnknownField;

    fn from_str(text: &str) -> Result<Self, UnknownField> {
        Ok(match text {
            "handle" => Self::Handle,
            "display_name" => Self::DisplayName,
            "age" => Self::Age,
            "avatar_uri" => Self::AvatarUri,
            "bio" => Self::Bio,
            "attributes" => Self::Attributes,
            _ => match text.strip_prefix("attributes.") {
                Some(name) if !name.is_empty() => Self::Attribute(name.to_owned()),
                _ => return Err(UnknownField),
            },
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => write!(f, "attributes.{name}"),
            field => f.write_str(field.path()),
        }
    }
}

impl Field {
    /// Returns the field's path in a field mask; a mask can only name all attributes together.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Handle => "handle",
            Self::DisplayName => "display_name",
            Self::Age => "age",
            Self::AvatarUri => "avatar_uri",
            Self::Bio => "bio",
            Self::Attributes | Self::Attribute(_) => "attributes",
        }
    }

    /// Sets the field of `user` to `value`.
    ///
    /// # Errors
    /// The value is invalid for the field; the text says what is expected.
    pub(super) fn set(&self, user: &mut User, value: &str) -> Result<(), &'static str> {
        let text = value.to_owned();
        match self {
            Self::Handle => user.handle = text,
            Self::DisplayName => user.display_name = text,
            Self::Age => user.age = Some(value.trim().parse().map_err(|_| "expected a whole number of years")?),
            Self::AvatarUri => user.avatar_uri = text,
            Self::Bio => user.bio = text,
            Self::Attributes => return Err("attributes takes no value: set attributes.NAME"),
            Self::Attribute(name) => drop(user.attributes.insert(name.clone(), text)),
        }
        Ok(())
    }

    /// Clears the field of `user`.
    pub(super) fn clear(&self, user: &mut User) {
        match self {
            Self::Handle => user.handle.clear(),
            Self::DisplayName => user.display_name.clear(),
            Self::Age => user.age = None,
            Self::AvatarUri => user.avatar_uri.clear(),
            Self::Bio => user.bio.clear(),
            Self::Attributes => user.attributes.clear(),
            Self::Attribute(name) => drop(user.attributes.remove(name)),
        }
    }
}

/// A parsed `FIELD=VALUE`, whose value is valid for the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldAssignment {
    pub(super) field: Field,
    pub(super) value: String,
}

impl FromStr for FieldAssignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected FIELD=VALUE")?;
        let field: Field = name.parse().map_err(|unknown: UnknownField| unknown.to_string())?;
        field.set(&mut User::default(), value)?;
        Ok(Self { field, value: value.to_owned() })
    }
}

/// Parses the `NAME=VALUE` of an attribute.
pub(super) fn attribute(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_names_of_the_contract() {
        for name in ["handle", "display_name", "age", "avatar_uri", "bio", "attributes", "attributes.team"] {
            assert_eq!(name.parse::<Field>().unwrap().to_string(), name);
        }
        for name in ["", "id", "version", "Handle", "attributes."] {
            assert_eq!(name.parse::<Field>(), Err(UnknownField), "{name}");
        }
    }

    #[test]
    fn an_assignment_is_a_field_and_a_valid_value() {
        let assignment = |field, value: &str| FieldAssignment { field, value: value.to_owned() };

        assert_eq!("bio=a=b".parse(), Ok(assignment(Field::Bio, "a=b")));
        assert_eq!("attributes.team=".parse(), Ok(assignment(Field::Attribute("team".into()), "")));
        for text in ["bio", "age=old", "attributes=x", "nick=x"] {
            assert!(text.parse::<FieldAssignment>().is_err(), "{text}");
        }
    }

    #[test]
    fn clear_undoes_set() {
        for name in ["handle", "display_name", "age", "avatar_uri", "bio", "attributes.team"] {
            let field: Field = name.parse().unwrap();
            let mut user = User::default();

            field.set(&mut user, "7").unwrap();
            assert_ne!(user, User::default(), "{name}");

            field.clear(&mut user);
            assert_eq!(user, User::default(), "{name}");
        }
    }
}
