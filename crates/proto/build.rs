//! Compiles `proto/` with protox, so that no protoc is needed, into messages, clients, servers and a descriptor set.

use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

fn main() -> Result<(), Box<dyn Error>> {
    // Asked when it runs: a target directory that clones share may hold a script that another clone compiled.
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());

    let mut files = Vec::new();
    collect(&root.join("tidings"), &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut served = descriptors.clone();
    for file in &mut served.file {
        // Comments are two thirds of the set; no reflection client shows them.
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), served.encode_to_vec())?;

    let encoded = out.join("encoded");
    fs::create_dir_all(&encoded)?;
    generate(broadcast_of_encoded_messages(&descriptors), &encoded)?;
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

/// The contract of broadcast, with `Messages.messages` as bytes: the same on the wire, and what is already encoded for one
/// subscriber need not be encoded again for the next.
fn broadcast_of_encoded_messages(descriptors: &FileDescriptorSet) -> FileDescriptorSet {
    let mut set = descriptors.clone();
    set.file.retain(|file| !file.package().starts_with("tidings.") || file.package() == "tidings.broadcast.v1");
    let messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
    for field in messages.filter(|message| message.name() == "Messages").flat_map(|message| &mut message.field) {
        field.set_type(Type::Bytes);
        field.type_name = None;
    }
    set
}

/// Adds every contract below `folder`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
