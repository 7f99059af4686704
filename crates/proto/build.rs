//! Compiles `proto/` into messages, clients, servers and a descriptor set. Uses protox: no protoc
//! needed.

use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

/// Packages whose servers forward encoded messages, and the fields that hold them.
const ENCODED: &[(&str, &[(&str, &str)])] = &[
    (
        "tidings.user.v1",
        &[("GetUserResponse", "user"), ("GetUserByHandleResponse", "user"), ("BatchGetUsersResult", "user")],
    ),
    ("tidings.broadcast.v1", &[("Messages", "messages")]),
];

fn main() -> Result<(), Box<dyn Error>> {
    // Read at run time: clones that share a target directory may run a script that another one
    // compiled.
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());

    let mut files = Vec::new();
    collect(&root.join("tidings"), &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut served = descriptors.clone();
    for file in served.file.iter_mut().filter(|file| !file.package().starts_with("tidings.")) {
        file.source_code_info = None; // comments of imports, which are documented elsewhere
    }
    fs::write(out.join("descriptors.bin"), served.encode_to_vec())?;

    let encoded = out.join("encoded");
    fs::create_dir_all(&encoded)?;
    for (package, fields) in ENCODED {
        generate(of_encoded(&descriptors, package, fields), &encoded)?;
    }
    generate(descriptors, &out)
}

fn generate(descriptors: FileDescriptorSet, out: &Path) -> Result<(), Box<dyn Error>> {
    tonic_prost_build::configure()
        .out_dir(out)
        .codec_path("crate::Codec")
        .bytes(".")
        .btree_map(".") // so that equal messages have equal bytes
        .generate_default_stubs(false)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Returns a package in which the given message fields have the type bytes.
///
/// The wire format is the same, so a server can forward an encoded message without decoding it or
/// encoding it once per receiver.
fn of_encoded(descriptors: &FileDescriptorSet, package: &str, fields: &[(&str, &str)]) -> FileDescriptorSet {
    let mut set = descriptors.clone();
    set.file.retain(|file| !file.package().starts_with("tidings.") || file.package() == package);
    for message in set.file.iter_mut().flat_map(|file| &mut file.message_type) {
        let message_name = message.name().to_owned();
        for field in &mut message.field {
            if fields.contains(&(message_name.as_str(), field.name())) {
                field.set_type(Type::Bytes);
                field.type_name = None;
            }
        }
    }
    set
}

/// Adds every contract below `folder` to `files`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
