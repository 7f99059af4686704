//! Prints methods and messages in .proto syntax. Comments are missing: they are not compiled in.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use crate::contracts::{Contracts, UnresolvedName};

/// Describes a method and its request, or a message, with every message and enum that it refers to.
///
/// # Errors
/// `name` matches no method and no message, or several.
pub(super) fn describe(contracts: &Contracts, name: &str) -> Result<String, UnresolvedName> {
    match contracts.message(name) {
        Ok(message) => Ok(messages(message)),
        Err(error @ UnresolvedName::Ambiguous { .. }) => Err(error),
        Err(_) => {
            let method = contracts.method(name)?;
            Ok(format!("{}\n\n{}", signature(&method), messages(method.input())))
        }
    }
}

fn signature(method: &MethodDescriptor) -> String {
    let stream = |streams: bool| if streams { "stream " } else { "" };
    format!(
        "rpc {}({}{}) returns ({}{});",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().full_name(),
        stream(method.is_server_streaming()),
        method.output().full_name(),
    )
}

/// Writes `first`, then every Tidings message and enum reachable from it, each once.
fn messages(first: MessageDescriptor) -> String {
    let mut text = String::new();
    let mut seen = BTreeSet::from([first.full_name().to_owned()]);
    let mut queue = VecDeque::from([Kind::Message(first)]);
    while let Some(kind) = queue.pop_front() {
        match kind {
            Kind::Message(message) => {
                write_message(&mut text, &message);
                for field in message.fields() {
                    let (kind, name) = field_type(&field);
                    if name.starts_with("tidings.") && seen.insert(name) {
                        queue.push_back(kind);
                    }
                }
            }
            Kind::Enum(values) => write_enum(&mut text, &values),
            _ => {}
        }
    }
    text
}

/// Returns the type of a field (for a map: of its values) and the type's full name, empty for
/// scalars.
fn field_type(field: &FieldDescriptor) -> (Kind, String) {
    let kind = match field.kind() {
        Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    let name = match &kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        _ => String::new(),
    };
    (kind, name)
}

fn write_message(text: &mut String, message: &MessageDescriptor) {
    let _ = writeln!(text, "message {} {{", message.full_name());
    let mut open = None;
    for field in message.fields() {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()).map(|oneof| oneof.name().to_owned());
        if oneof != open {
            if open.is_some() {
                text.push_str("  }\n");
            }
            if let Some(name) = &oneof {
                let _ = writeln!(text, "  oneof {name} {{");
            }
        }
        let indent = if oneof.is_some() { "    " } else { "  " };
        let _ = writeln!(text, "{indent}{} {} = {};", type_name(&field), field.name(), field.number());
        open = oneof;
    }
    if open.is_some() {
        text.push_str("  }\n");
    }
    text.push_str("}\n\n");
}

fn write_enum(text: &mut String, values: &EnumDescriptor) {
    let _ = writeln!(text, "enum {} {{", values.full_name());
    for value in values.values() {
        let _ = writeln!(text, "  {} = {};", value.name(), value.number());
    }
    text.push_str("}\n\n");
}

/// Returns the type of a field in .proto syntax.
fn type_name(field: &FieldDescriptor) -> String {
    let name = |kind: &Kind| match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    match field.kind() {
        Kind::Message(entry) if entry.is_map_entry() => {
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            format!("map<{}, {}>", name(&key), name(&value))
        }
        kind if field.is_list() => format!("repeated {}", name(&kind)),
        kind if field.field_descriptor_proto().proto3_optional() => format!("optional {}", name(&kind)),
        kind => name(&kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str) -> String {
        describe(&Contracts::compiled_in(), name).unwrap()
    }

    #[test]
    fn a_method_is_described_with_its_request() {
        let text = described("AppendMessage");

        assert!(text.starts_with(
            "rpc AppendMessage(tidings.history.v1.AppendMessageRequest) returns \
             (tidings.history.v1.AppendMessageResponse);\n\nmessage tidings.history.v1.AppendMessageRequest {\n"
        ));
        assert!(text.contains("\n  map<string, string> attributes = 6;\n"), "{text}");
    }

    #[test]
    fn a_message_is_described_with_the_messages_of_its_fields() {
        let text = described("AppendMessageRequest");

        assert!(text.contains(
            "message tidings.history.v1.Body {\n  oneof content {\n    string text = 1;\n    \
             tidings.history.v1.Binary binary = 2;\n  }\n}\n"
        ));
        assert!(text.contains("message tidings.history.v1.Binary {\n  bytes data = 1;"), "{text}");
    }

    #[test]
    fn optional_and_repeated_fields_are_marked() {
        assert!(described("tidings.user.v1.User").contains("\n  optional int32 age = 4;\n"));
        assert!(described("BatchGetUsersRequest").contains("\n  repeated string ids = 1;\n"));
    }

    #[test]
    fn an_enum_is_described_with_its_values() {
        assert!(described("GetUser").contains("enum tidings.user.v1.Consistency {\n  CONSISTENCY_UNSPECIFIED = 0;"));
    }
}
